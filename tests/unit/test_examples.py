"""What the examples' READMEs and manifests say is what is there."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from lab.real.images import EXAMPLES

CHECKOUT = Path(__file__).parents[2]
SEED = "seed"
NAMES = sorted(path.name for path in (CHECKOUT / "examples").iterdir() if path.is_dir())


@pytest.mark.parametrize(
    ("kind", "file"), [("python", "tcp_server.py"), ("sh", "tcp_server.sh"), ("go", "tcp_server.go")]
)
def test_a_recipe_is_part_of_its_file(kind, file):
    readme = (CHECKOUT / "examples/tcp-server/README.md").read_text()
    recipe = readme.partition(f"```{kind}\n")[2].partition("```")[0]
    assert recipe
    assert recipe in (CHECKOUT / "images/examples" / file).read_text()


@pytest.mark.parametrize("name", NAMES)
def test_the_readme_leads_to_each_example(name):
    assert f"](examples/{name}/)" in (CHECKOUT / "README.md").read_text()
    assert (
        f"test_{name.replace('-', '_')}(" in (CHECKOUT / "tests/cluster/test_examples.py").read_text() or name == SEED
    )


@pytest.mark.parametrize("name", sorted({*NAMES} - {SEED}))
def test_an_app_runs_without_privilege_in_the_projects_image(name):
    bodies = list(yaml.safe_load_all((CHECKOUT / "examples" / name / "20-app.yaml").read_text()))
    for spec in (body["spec"]["template"]["spec"] for body in bodies):
        assert spec["securityContext"]["runAsNonRoot"]
        for container in spec["containers"]:
            assert container["image"] == EXAMPLES
            assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
            assert not container["securityContext"]["allowPrivilegeEscalation"]
            assert container["securityContext"]["readOnlyRootFilesystem"]
