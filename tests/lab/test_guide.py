"""The guide's manifests, word for word, and what each comes to: by itself, and all applied together."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from contract.names import INTERFACES
from lab.witness.ledger import LEASES, PODS
from tests.lab.steps import SOON_S, Steps, is_ready, ledger_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lab.world.world import World

pytestmark = pytest.mark.lab

SEED = Path(__file__).resolve().parents[2] / "examples" / "seed"
ADDRESSES = ("34.123.10.1/32", "34.123.10.2/32")
SPACES = ("proxy-ss-ns", "proxy-deploy-ns", "default")
STATEFULSET, DEPLOYMENT = "my-pod-ips-statefulset.yaml", "my-pod-ips-deployment.yaml"
MULTI_NIC, SINGLE = "my-pod-ips-deployment-multi-nic.yaml", "my-ip-route.yaml"


@pytest.fixture
def guide(world: World) -> Iterator[World]:
    """The namespaces, the Network and the Gateway; afterwards all is gone but these namespaces and the Network."""
    for controller in world.controllers:
        controller.start()
    for name in ("00-namespaces.yaml", "01-network.yaml", "allowed-pod-ips.yaml"):
        world.apply(SEED / name)
    for space in SPACES:
        world.wait_service_account(space)
    began = in_space(world, "default")
    yield world
    for name in (STATEFULSET, DEPLOYMENT, SINGLE, "allowed-pod-ips.yaml"):
        world.kubectl("delete", "-f", str(SEED / name), "--ignore-not-found", "--wait=false")
    world.kubectl("delete", "pods", "-n", "default", "-l", "component=proxy", "--ignore-not-found", "--wait=false")
    ledger = began.ledger
    began.until("all to be gone", lambda: not any(ledger.all(k, s) for k in (LEASES, PODS) for s in SPACES), 2 * SOON_S)
    began.nowhere()
    began.one_holder()


def in_space(world: World, space: str) -> Steps:
    return Steps(world, ledger_of(world), space, ADDRESSES)


def test_the_statefulset(guide):
    steps = in_space(guide, "proxy-ss-ns")
    guide.apply(SEED / STATEFULSET)
    first = steps.held_by("proxy-ss-1", *ADDRESSES, route="my-pod-ips")
    assert not first.addresses("eth0") & set(ADDRESSES)
    for address in ADDRESSES:
        steps.announced(first, address, steps.mark)
    assert "Pod proxy-ss-1 has" in steps.condition("Ready", "ProgrammingComplete", "my-pod-ips")
    assert steps.status("my-pod-ips")["pods"] == ["proxy-ss-1"]


def test_the_statefulsets_pod_replaced_under_the_same_name(guide):
    steps = in_space(guide, "proxy-ss-ns")
    guide.apply(SEED / STATEFULSET)
    first = steps.held_by("proxy-ss-1", *ADDRESSES, route="my-pod-ips")
    mark = guide.witness.mark()
    steps.delete("pods", "proxy-ss-1")
    second = steps.held_by(
        lambda pod: pod["metadata"]["uid"] != first.uid, *ADDRESSES, route="my-pod-ips", within_s=2 * SOON_S
    )
    assert second.name == "proxy-ss-1"
    for address in ADDRESSES:
        steps.announced(second, address, mark)
        assert steps.removals(address, mark)[0].time_s < steps.first_on(second, address, mark)
    steps.condition("Ready", "ProgrammingComplete", "my-pod-ips")


def test_the_route_on_the_pods_own_network(guide):
    steps = in_space(guide, "default")
    steps.ifname = "eth0"
    guide.apply(SEED / SINGLE)
    steps.condition("Ready", "NoPodsFound", "my-ip-route", part="no Pod in namespace default matches spec.podSelector")
    steps.pod("proxy", labels={"component": "proxy"})
    proxy = steps.held_by("proxy", ADDRESSES[0], route="my-ip-route")
    steps.announced(proxy, ADDRESSES[0], steps.mark)
    assert not proxy.addresses("eth1") & set(ADDRESSES)
    steps.condition("Ready", "ProgrammingComplete", "my-ip-route")
    steps.nowhere(ADDRESSES[1])


def test_the_deployment_as_printed_and_with_the_lines_uncommented(guide):
    steps = in_space(guide, "proxy-deploy-ns")
    guide.apply(SEED / DEPLOYMENT)
    steps.until("four Ready Pods", lambda: len(steps.pods()) == 4 and all(map(is_ready, steps.pods())))
    why = steps.condition("Ready", "NoPodsFound", "my-pod-ips", part="4 Pods match, none is on network blue-network: ")
    assert f"add an interface on that network to the annotation {INTERFACES} in the Pod's template" in why
    steps.nowhere()
    guide.apply(SEED / MULTI_NIC)
    steps.until("four Ready Pods on both networks", lambda: len(steps.pods()) == 4 and all(map(_right, steps.pods())))

    def newest(pod: dict) -> bool:
        return pod["metadata"]["creationTimestamp"] == max(p["metadata"]["creationTimestamp"] for p in steps.pods())

    holder = steps.held_by(newest, *ADDRESSES, route="my-pod-ips")
    assert not holder.addresses("eth0") & set(ADDRESSES)
    steps.condition("Ready", "ProgrammingComplete", "my-pod-ips")


def _right(pod: dict) -> bool:
    return is_ready(pod) and INTERFACES in pod["metadata"].get("annotations", {})


def test_all_three_at_once_the_oldest_has_the_addresses(guide):
    stateful, single, deploy = (in_space(guide, space) for space in ("proxy-ss-ns", "default", "proxy-deploy-ns"))
    guide.apply(SEED / STATEFULSET)
    stateful.held_by("proxy-ss-1", *ADDRESSES, route="my-pod-ips")
    stateful.tick()
    guide.apply(SEED / SINGLE)
    guide.apply(SEED / MULTI_NIC)
    for steps, route in ((single, "my-ip-route"), (deploy, "my-pod-ips")):
        said = steps.condition(
            "Accepted", "AddressConflict", route, part="34.123.10.1/32 belongs to the older GKEIPRoute"
        )
        assert "proxy-ss-ns/my-pod-ips" in said
        steps.condition("Ready", "AddressConflict", route)
    deploy.until("four Ready Pods", lambda: len(deploy.pods()) == 4 and all(map(is_ready, deploy.pods())), 2 * SOON_S)
    stateful.held_by("proxy-ss-1", *ADDRESSES, route="my-pod-ips")

    stateful.delete("gkeiproutes", "my-pod-ips")
    single.condition("Ready", "NoPodsFound", "my-ip-route")
    deploy.condition("Accepted", "AddressConflict", "my-pod-ips", part="default/my-ip-route")
    single.delete("gkeiproutes", "my-ip-route")
    deploy.held_by(is_ready, *ADDRESSES, route="my-pod-ips")
    deploy.condition("Ready", "ProgrammingComplete", "my-pod-ips")
