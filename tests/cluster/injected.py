"""Manifests of examples/ as injection leaves them: with the sidecar in every Pod's template."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from contract.names import Source
from controller.injection import pod
from controller.injection.release import SIDECAR_IMAGE
from controller.injection.sidecar import Settings

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
SEED = EXAMPLES / "seed"

Body = dict[str, Any]


def inject(spec: Body, source: Source = Source.DOWNWARD) -> Body:
    """Give a Pod's spec with the sidecar."""
    outcome = pod.inject({"metadata": {}, "spec": spec}, Settings(SIDECAR_IMAGE, source))
    assert outcome.changed, outcome.reason
    return dict(outcome.pod["spec"])


def guide(name: str, source: Source = Source.DOWNWARD, **changes: Any) -> str:
    """One of the guide's manifests with the sidecar in every Pod's template.

    Args:
        name: of the file.
        source: where the agents read their assignment.
        changes: fields of the spec of its Deployment or StatefulSet that are to be other ones.
    """
    return _injected([SEED / name], source, changes)


def example(name: str) -> str:
    """All manifests of a directory of examples/, in the order in which `kubectl apply -f` takes them, injected."""
    return _injected(sorted((EXAMPLES / name).glob("*.yaml")), Source.DOWNWARD, {})


def _injected(files: list[Path], source: Source, changes: Body) -> str:
    bodies = [body for file in files for body in yaml.safe_load_all(file.read_text())]
    for body in bodies:
        if "template" in body.get("spec", {}):
            template = body["spec"]["template"]
            template["spec"] = inject(template["spec"], source)
            body["spec"] |= changes
    return yaml.safe_dump_all(bodies)
