"""`holdfast inject`: what goes in comes out with additions only; who gets it; what is refused, with which exit code."""

from __future__ import annotations

import copy
import difflib
import json
import textwrap
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st

from cli.main import main
from cli.manifest import with_agents, workloads
from contract.names import INJECT
from controller.injection.pod import inject
from controller.injection.release import SIDECAR_IMAGE
from controller.injection.sidecar import Settings
from tests.unit.controller.injection.pods import SETTINGS, Object, any_pods

SEED = sorted((Path(__file__).parents[3] / "examples" / "seed").glob("*.yaml"))
TEMPLATES = {"my-pod-ips-deployment-multi-nic.yaml", "my-pod-ips-deployment.yaml", "my-pod-ips-statefulset.yaml"}

POD = """\
apiVersion: v1
kind: Pod
metadata: {name: p}
spec:
  # the app
  containers:
    - name: app   # of ours
      image: 'app:1'
"""


def ran(*arguments: str, stdin: str = "") -> Result:
    return CliRunner().invoke(main, ["inject", *arguments], input=stdin)


def injected(text: str, *arguments: str) -> str:
    result = ran("-f", "-", *arguments, stdin=text)
    assert result.exit_code == 0, result.stderr
    return result.stdout


def only_added(before: str, after: str) -> bool:
    """Whether every line that was there is there, in order."""
    lines = difflib.ndiff(before.splitlines(keepends=True), after.splitlines(keepends=True))
    return not [each for each in lines if each.startswith("-")]


def comments(text: str) -> list[str]:
    return [line.partition("#")[2] for line in text.splitlines() if "#" in line]


# What comes out -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("file", SEED, ids=lambda each: each.name)
def test_the_guides_manifests_come_out_with_additions_only(file: Path) -> None:
    before = file.read_text()
    after = injected(before)
    assert only_added(before, after)
    assert (after != before) == (file.name in TEMPLATES)
    for old, new in zip(yaml.safe_load_all(before), yaml.safe_load_all(after), strict=True):
        if old["kind"] in ("Deployment", "StatefulSet"):
            template = old["spec"]["template"]
            old["spec"]["template"] = inject(template, Settings(SIDECAR_IMAGE)).pod
        assert new == old


@pytest.mark.parametrize("file", SEED, ids=lambda each: each.name)
def test_a_second_time_changes_nothing(file: Path) -> None:
    once = injected(file.read_text())
    assert injected(once) == once


KINDS = {
    "Pod": ("v1", "{spec}"),
    "PodTemplate": ("v1", None),
    "ReplicationController": ("v1", "{template}"),
    "Deployment": ("apps/v1", "{template}"),
    "DaemonSet": ("apps/v1", "{template}"),
    "ReplicaSet": ("apps/v1", "{template}"),
    "StatefulSet": ("apps/v1", "{template}"),
    "Job": ("batch/v1", "{template}"),
    "CronJob": ("batch/v1", "{cron}"),
}
_SPEC = {"containers": [{"name": "app", "image": "app:1"}]}
_SPECS: dict[str | None, Any] = {
    "{spec}": {"spec": _SPEC},
    None: {"template": {"spec": _SPEC}},
    "{template}": {"spec": {"template": {"spec": _SPEC}}},
    "{cron}": {"spec": {"jobTemplate": {"spec": {"template": {"spec": _SPEC}}}}},
}


def of_kind(kind: str) -> Object:
    version, where = KINDS[kind]
    return copy.deepcopy({"apiVersion": version, "kind": kind, "metadata": {"name": "x"}, **_SPECS[where]})


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("written", [yaml.safe_dump, json.dumps, lambda each: json.dumps(each, indent=4)])
def test_each_kind_in_yaml_and_json(kind: str, written: Any) -> None:
    text = written(of_kind(kind))
    after = yaml.safe_load(injected(text))
    assert json.dumps(after).count('"name": "holdfast", "image"') == 1
    assert only_added(text, injected(text)) or written is not yaml.safe_dump
    (workload,) = workloads(text, "x")
    assert workloads(injected(text), "x")[0].pod == inject(workload.pod, Settings(SIDECAR_IMAGE)).pod


def test_lists_and_many_documents_and_other_kinds() -> None:
    text = f"""\
# first
apiVersion: v1
kind: List
items:
- {json.dumps(of_kind("Deployment"))}
- apiVersion: v1
  kind: ConfigMap
  data: {{spec: x}}
---
---
apiVersion: example.com/v1
kind: Deployment
spec: {{template: {{spec: {{containers: [{{name: a}}]}}}}}}
---
kind: PodList
apiVersion: v1
items:
- metadata: {{name: bare}}
  spec:
    containers:
    - name: app
"""
    after = injected(text)
    documents = list(yaml.safe_load_all(after))
    assert documents[0]["items"][0]["spec"]["template"]["spec"]["initContainers"][0]["name"] == "holdfast"
    assert documents[0]["items"][1] == {"apiVersion": "v1", "kind": "ConfigMap", "data": {"spec": "x"}}
    assert documents[1] is None
    assert "initContainers" not in documents[2]["spec"]["template"]["spec"]
    assert documents[3]["items"][0]["spec"]["initContainers"][0]["name"] == "holdfast"


def test_comments_quotes_and_columns_stay_and_a_comment_stays_with_its_key() -> None:
    after = injected(POD)
    assert only_added(POD, after)
    assert "  # the app\n  containers:\n    - name: app   # of ours\n      image: 'app:1'\n" in after


LISTS = {
    "a list": "initContainers:\n  # sets up\n  - name: setup\n    image: s\n",
    "a list without indentation": "initContainers:\n- name: setup\n  image: s\n",
    "empty": "initContainers: []\n",
    "null": "initContainers:\n",
    "null, written": "initContainers: ~\n",
    "null, with a comment": "initContainers: # none\n",
    "in JSON": 'initContainers: [{"name": "setup"}]\n',
    "after a text that looks like a comment": "hostname: |\n  x\n  # no comment\n",
}


@pytest.mark.parametrize("lines", LISTS.values(), ids=LISTS)
@pytest.mark.parametrize("last", [False, True])
def test_what_is_in_the_list_already_comes_after(lines: str, last: bool) -> None:  # noqa: FBT001
    own = textwrap.indent(lines, "  ")
    text = POD + own if last else POD.replace("  # the app\n", own + "  # the app\n")
    (workload,) = workloads(text, "x")
    after = injected(text)
    assert yaml.safe_load(after)["spec"] == inject(workload.pod, Settings(SIDECAR_IMAGE)).pod["spec"]
    assert comments(after) == comments(text)


def test_line_ends_stay_as_they_are(tmp_path: Path) -> None:
    file = tmp_path / "crlf.yaml"
    file.write_bytes(POD.replace("\n", "\r\n").encode())
    result = ran("-f", str(file))
    assert result.exit_code == 0
    assert b"holdfast" in result.stdout_bytes
    assert result.stdout_bytes.count(b"\n") == result.stdout_bytes.count(b"\r\n")


def test_several_files_become_one_stream(tmp_path: Path) -> None:
    names = []
    for name, text in (("a", POD.rstrip()), ("b", "---\n" + POD), ("c", json.dumps(of_kind("Job")))):
        (tmp_path / name).write_text(text)
        names += ["-f", str(tmp_path / name)]
    result = ran(*names)
    assert result.exit_code == 0
    pods = [each.pod["spec"]["initContainers"][0]["name"] for each in workloads(result.stdout, "x")]
    assert pods == ["holdfast"] * 3
    assert result.stderr.splitlines()[2] == f"Job x gets the sidecar {SIDECAR_IMAGE}"


def test_the_options_are_the_settings() -> None:
    after = injected(POD, "--image", "i:2", "--source", "watch", "--pull-policy", "Never")
    first = yaml.safe_load(after)["spec"]["initContainers"][0]
    assert (first["image"], first["imagePullPolicy"]) == ("i:2", "Never")
    assert {"name": "HOLDFAST_SOURCE", "value": "watch"} in first["env"]


@given(st.lists(any_pods(), min_size=1, max_size=3), st.sampled_from([None, 0, 2]), st.booleans())
def test_any_pods_written_in_any_way_become_what_the_pure_function_says(
    pods: list[Object],
    indent: int | None,
    flow: bool,  # noqa: FBT001
) -> None:
    bodies = [{"apiVersion": "v1", "kind": "Pod", **each} for each in pods]
    text = yaml.safe_dump_all(bodies, default_flow_style=flow, indent=indent, sort_keys=False)
    made = [inject(each.pod, SETTINGS) for each in workloads(text, "x")]
    meant = [(each, one.pod) for each, one in zip(workloads(text, "x"), made, strict=True) if one.changed]
    after = with_agents(text, "x", meant)
    assert list(yaml.safe_load_all(after)) == [each.pod for each in made]
    assert flow or only_added(text, after) or "[]" in text or "null" in text


# Who gets none ------------------------------------------------------------------------------------------------------

ALONE = {
    "the label false": (POD.replace("{name: p}", f'{{name: p, labels: {{{INJECT}: "false"}}}}'), "is false"),
    "one of the user's own": (POD + "  initContainers: [{name: holdfast}]\n", "'holdfast' already"),
    "kube-system": (POD.replace("{name: p}", "{name: p, namespace: kube-system}"), "no Pod of namespace kube-system"),
    "another kind": ("kind: ConfigMap\napiVersion: v1\ndata: {a: b}\n", "no Pod and no Pod template"),
    "a date is a text": ("kind: ConfigMap\ndata: {a: 2026-01-01}\n", "no Pod and no Pod template"),
    "nothing": ("", "no Pod and no Pod template"),
    "no object": ("- 1\n- 2\n", "no Pod and no Pod template"),
}


@pytest.mark.parametrize(("text", "why"), ALONE.values(), ids=ALONE)
def test_what_gets_none_comes_out_as_it_is_and_the_reason_is_told(text: str, why: str) -> None:
    result = ran("-f", "-", stdin=text)
    assert (result.exit_code, result.stdout) == (0, text)
    assert why in result.stderr


# What is refused ----------------------------------------------------------------------------------------------------

REFUSED = {
    "hostNetwork": (POD + "  hostNetwork: true\n", "Pod p: spec.hostNetwork is true"),
    "no spec": ("kind: Pod\napiVersion: v1\nmetadata: {name: p}\n", "Pod p: spec.containers is empty"),
    "not a template": ("kind: Job\nmetadata: {name: j}\nspec: {template: 3}\n", "Job j: spec.template.spec.containers"),
    "label not quoted": (POD.replace("{name: p}", f"{{name: p, labels: {{{INJECT}: true}}}}"), "quote its values"),
    "not YAML": ("a: [", "standard input is not valid YAML"),
    "merged": (POD.replace("spec:\n", "x: &x {containers: [{name: a}]}\nspec:\n  <<: *x\nold:\n"), "write it out"),
}


@pytest.mark.parametrize(("text", "why"), REFUSED.values(), ids=REFUSED)
def test_what_is_refused_writes_nothing_and_ends_with_1(text: str, why: str) -> None:
    result = ran("-f", "-", stdin=text)
    assert (result.exit_code, result.stdout) == (1, "")
    assert why in result.stderr


def test_all_refusals_of_a_file_are_told() -> None:
    bad = POD + "  hostNetwork: true\n"
    result = ran("-f", "-", stdin=f"{bad}---\n{bad.replace('name: p', 'name: q')}")
    assert ["Pod p" in result.stderr, "Pod q" in result.stderr, result.exit_code] == [True, True, 1]


def test_a_file_that_is_not_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"\xff\xfe")
    result = ran("-f", str(tmp_path / "x"))
    assert result.exit_code == 1
    assert "is not UTF-8" in result.stderr


@pytest.mark.parametrize("arguments", [(), ("-f", "/does/not/exist"), ("-f", "-", "--source", "files")])
def test_wrong_usage_ends_with_2(arguments: tuple[str, ...]) -> None:
    assert ran(*arguments).exit_code == 2
