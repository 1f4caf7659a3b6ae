"""Manifests of examples/ as injection leaves them, with the sidecar in every template; and steps with the guide's."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from contract.names import Source
from controller.injection import pod
from controller.injection.release import SIDECAR_IMAGE
from controller.injection.sidecar import Settings
from lab.api_client import is_ready
from tests.lab.steps import SOON_S, Steps, ledger_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from lab.world.pods import PodHandle
    from lab.world.world import World

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
SEED = EXAMPLES / "seed"
ADDRESSES = ("34.123.10.1/32", "34.123.10.2/32")
STATEFULSET, DEPLOYMENT = "my-pod-ips-statefulset.yaml", "my-pod-ips-deployment-multi-nic.yaml"
ROUTE = "my-pod-ips"
SPACES = ("proxy-ss-ns", "proxy-deploy-ns")
LONG_S = 2 * SOON_S

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


def in_space(world: World, space: str) -> Steps:
    """Steps in one of the guide's namespaces."""
    return Steps(world, ledger_of(world), space, ADDRESSES)


def held(steps: Steps, who: str | Callable[[Body], object]) -> PodHandle:
    """Wait until the right Pod holds both of the guide's addresses."""
    return steps.held_by(who, *ADDRESSES, route=ROUTE, within_s=LONG_S)


def four_ready(steps: Steps) -> None:
    steps.until("four Ready Pods", lambda: len(steps.pods()) == 4 and all(map(is_ready, steps.pods())), LONG_S)
