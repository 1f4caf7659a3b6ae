"""Real Multus on two real nodes: what it says of a Pod's interfaces is where the addresses go."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from contract.names import NETWORK_STATUS
from lab.real import configuration
from lab.real.images import APP
from tests.cluster.injected import LONG_S, inject
from tests.lab.steps import BLUE, bare, neighbour, steps_in

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lab.real.world import RealWorld
    from tests.lab.steps import Steps

pytestmark = pytest.mark.lab

GROUP = "k8s.cni.cncf.io"
PLURAL = "network-attachment-definitions"
DEFINITION: dict[str, Any] = {
    "apiVersion": "apiextensions.k8s.io/v1",
    "kind": "CustomResourceDefinition",
    "metadata": {"name": f"{PLURAL}.{GROUP}"},
    "spec": {
        "group": GROUP,
        "scope": "Namespaced",
        "names": {"plural": PLURAL, "singular": PLURAL[:-1], "kind": "NetworkAttachmentDefinition"},
        "versions": [
            {
                "name": "v1",
                "served": True,
                "storage": True,
                "schema": {
                    "openAPIV3Schema": {
                        "type": "object",
                        "properties": {"spec": {"type": "object", "properties": {"config": {"type": "string"}}}},
                    }
                },
            }
        ],
    },
}
"""As the Network Plumbing Working Group's specification has it (multi-net-spec v1.3, section 3)."""


@pytest.fixture(scope="module")
def cni() -> str:
    return configuration.MULTUS


@pytest.fixture
def steps(world: RealWorld) -> Iterator[Steps]:
    space = "multus"
    world.kubectl("apply", "-f", "-", stdin=json.dumps(DEFINITION))
    world.kubectl("wait", "crd", DEFINITION["metadata"]["name"], "--for=condition=Established", "--timeout=30s")
    world.create_namespace(space)
    world.api.create(
        f"/apis/{GROUP}/v1/namespaces/{space}/{PLURAL}",
        {"apiVersion": f"{GROUP}/v1", "kind": "NetworkAttachmentDefinition", "metadata": {"name": BLUE}},
    )
    with steps_in(world, space) as steps:
        steps.ifname = "net1"
        yield steps
    world.api.delete(f"/api/v1/namespaces/{space}")


def create(steps: Steps, name: str, node: str) -> None:
    steps.tick()
    spec = inject({"nodeName": node, "terminationGracePeriodSeconds": 5, "containers": [{"name": "app", "image": APP}]})
    notes = {"k8s.v1.cni.cncf.io/networks": BLUE}
    steps.api.create(
        steps.at("pods"), {"metadata": {"name": name, "labels": {"app": "web"}, "annotations": notes}, "spec": spec}
    )


def test_an_address_goes_where_multus_has_attached_the_routes_network(steps):
    address = bare(steps.addresses[0])
    steps.gateway()
    steps.route()
    create(steps, "a", "node-1")
    a = steps.held_by("a", within_s=LONG_S)
    said = json.loads(steps.pod_named("a")["metadata"]["annotations"][NETWORK_STATUS])
    assert {each["name"]: each["interface"] for each in said} == {"lab": "eth0", f"{steps.space}/{BLUE}": "net1"}
    assert steps.addresses[0] in a.addresses("net1")
    with steps.world.client(BLUE).watch(address) as probe:
        create(steps, "b", "node-2")
        b = steps.held_by("b", within_s=LONG_S)
        assert neighbour(f"client-{BLUE}", address) in b.macs
        gaps = probe.stop()
    assert all(gap.ended for gap in gaps), gaps
    assert steps.addresses[0] not in a.addresses("net1")
