"""The whole way: real controllers, real sidecars on the lab's nodes, a real API server.

Judged by what kernels and the switch say (`lab.witness`), never by a log. Faults on the wire have files of their own.
"""

from __future__ import annotations

import json
import os
import signal
from typing import TYPE_CHECKING

import pytest

from contract.names import INJECT, INTERFACES, SOURCE
from contract.report import decode_report
from lab.witness.kernel_events import FenceEvent
from lab.witness.ledger import LEASES, PODS
from tests.lab import steps as lib
from tests.lab.steps import BLUE, FAST, SOON_S, Steps, bare, is_ready, neighbour, steps_in

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lab.world.world import World

pytestmark = pytest.mark.lab


@pytest.fixture
def steps(world: World, kube_namespace: str) -> Iterator[Steps]:
    with steps_in(world, kube_namespace) as steps:
        yield steps


# A holder, and the next ------------------------------------------------------------------------------------------


def test_the_newest_gets_the_addresses_on_its_interface_and_both_forms_tell_the_network(steps):
    steps.gateway()
    steps.route("r", *steps.addresses[:2])
    steps.pod("a")
    a = steps.held_by("a", *steps.addresses[:2])
    assert not a.addresses("eth0") & set(steps.addresses)
    for address in steps.addresses[:2]:
        steps.announced(a, address, steps.mark)
    mark = steps.world.witness.mark()
    steps.pod("b")
    b = steps.held_by("b", *steps.addresses[:2])
    for address in steps.addresses[:2]:
        steps.announced(b, address, mark)
    steps.until("a's entry to be gone", lambda: not steps.entry("a"))
    assert steps.condition("Ready", "ProgrammingComplete", part="Pod b has")
    assert {each["epoch"] for each in steps.status()["addresses"]} == {2}


def test_an_address_of_the_pods_own_network_is_where_its_ip_is_whoever_has_the_default_route(steps):
    steps.ifname, steps.plain = "eth0", ""
    steps.gateway()
    steps.pod("a", notes={INTERFACES: json.dumps([{"interfaceName": "eth1", "network": BLUE}])})
    steps.ready("a")
    a = steps.handle(steps.uid("a"))
    a.run(["ip", "route", "replace", "default", "dev", "eth1"])
    steps.route(network="default")
    steps.held_by("a")
    a.run(["ip", "tuntap", "add", "dev", "tun0", "mode", "tun"])
    a.run(["ip", "link", "set", "tun0", "up"])
    a.run(["ip", "route", "replace", "default", "dev", "tun0"])
    steps.pod("b", notes={INTERFACES: "[]"})
    steps.held_by("b")
    mark = steps.world.witness.mark()
    steps.delete("pods", "b")
    steps.held_by("a")
    steps.announced_again(a, steps.addresses[0], mark)


def test_a_clients_neighbour_table_follows(steps):
    address = bare(steps.addresses[0])
    steps.gateway()
    steps.route()
    steps.pod("a")
    steps.held_by("a")
    with steps.world.client("blue-network").watch(address) as probe:
        mark = steps.world.witness.mark()
        steps.pod("b")
        macs = steps.held_by("b").macs
        steps.world.witness.wait_frame(
            lambda f: f.kind == "echo-reply" and f.sender_ip == address and f.sender_mac in macs, SOON_S, mark
        )
        assert neighbour("client-blue-network", address) in macs
        gaps = probe.stop()
    assert all(gap.ended for gap in gaps), gaps


def test_a_rollout_of_four_moves_to_the_newest_by_way_of_ready_pods_only(steps):
    steps.gateway()
    steps.route()
    steps.deployment(4)
    steps.until("four Ready Pods", lambda: len(steps.pods()) == 4 and all(map(is_ready, steps.pods())))
    steps.held_by(newest(steps))
    old = {pod["metadata"]["uid"] for pod in steps.pods()}
    steps.tick()
    note = {"kubectl.kubernetes.io/restartedAt": "now"}
    steps.api.patch(steps.at("deployments", "web"), {"spec": {"template": {"metadata": {"annotations": note}}}})

    def rolled_out() -> bool:
        pods = steps.pods()
        return len(pods) == 4 and all(map(is_ready, pods)) and not old & {pod["metadata"]["uid"] for pod in pods}

    steps.until("the rollout to end", rolled_out, 2 * SOON_S)
    steps.held_by(newest(steps))
    for holder, version in holders(steps):
        assert min(ready_versions(steps, holder), default=version) < version, f"{holder} held and was never Ready"


def test_a_pod_without_an_agent_is_not_chosen_and_the_status_says_how_it_gets_one(steps):
    steps.gateway()
    steps.route()
    steps.pod("bare", labels={INJECT: "false"})
    steps.ready("bare")
    said = steps.condition("Ready", "NoPodsFound", part="it has no agent: bare (no container holdfast)")
    assert f'{INJECT}: "true"' in said
    steps.pod("a")
    steps.held_by("a")
    steps.pod("newer", labels={INJECT: "false"})
    steps.ready("newer")
    steps.held_by("a")
    assert not steps.entry("newer")


def test_a_pod_that_reads_by_a_watch_may_read_itself_and_no_other(steps):
    """The namespace's Role names Pods only where an agent's source is a watch; a handover between both sources."""
    steps.gateway()
    steps.route()
    steps.pod("a")
    steps.held_by("a")
    assert readable_pods(steps) == []
    steps.pod("w", notes={SOURCE: "watch"})
    steps.held_by("w")
    assert readable_pods(steps) == ["w"]
    steps.pod("b")
    steps.held_by("b")
    steps.delete("pods", "w")
    steps.api.wait(steps.role, lambda role: len(role["rules"]) == 1, SOON_S, "the Role to name no Pod")


def test_a_pod_that_reads_by_a_watch_may_do_so_before_a_route_selects_it(steps):
    """Refused, it could but ask again and again, and would be late when its first entry comes."""
    steps.gateway()
    steps.pod("w", notes={SOURCE: "watch"})
    steps.api.wait(steps.role, lambda role: role is not None and readable_pods(steps) == ["w"], SOON_S, "its Role")
    steps.ready("w")
    steps.route()
    steps.held_by("w")
    steps.delete("gkeiproutes", "r")
    steps.delete("pods", "w")
    steps.api.wait(steps.role, lambda role: role is None, SOON_S, "the Role to go")


def readable_pods(steps: Steps) -> list[str]:
    rules = steps.api.get(steps.role)["rules"]
    return [name for rule in rules if rule["resources"] == ["pods"] for name in rule["resourceNames"]]


def newest(steps: Steps):
    """Ask whether a Pod is the newest that there is, and Ready."""

    def is_newest(pod: dict) -> bool:
        created = max(each["metadata"]["creationTimestamp"] for each in steps.pods())
        return is_ready(pod) and pod["metadata"]["creationTimestamp"] == created

    return is_newest


def holders(steps: Steps) -> list[tuple[str, int]]:
    """Who held the route `r`, and since which version of the API's store."""
    found: list[tuple[str, int]] = []
    for seen in steps.ledger.since(steps.mark):
        if seen.kind == LEASES and seen.name == f"{steps.space}/holdfast-r":
            holder = seen.body["spec"].get("holderIdentity") or ""
            if holder and (not found or found[-1][0] != holder):
                found.append((holder, int(seen.body["metadata"]["resourceVersion"])))
    return found


def ready_versions(steps: Steps, uid: str) -> list[int]:
    pods = [seen.body for seen in steps.ledger.since(steps.mark) if seen.kind == PODS]
    return [int(p["metadata"]["resourceVersion"]) for p in pods if p["metadata"]["uid"] == uid and is_ready(p)]


def test_what_is_not_ready_loses_to_what_is_unless_existing_is_enough(steps):
    steps.gateway()
    steps.route("ready", steps.addresses[0])
    steps.route("exists", steps.addresses[1], reactionMode="Exists")
    steps.pod("a")
    steps.ready("a")
    steps.pod("b")
    b = steps.held_by("b", steps.addresses[0], route="ready")
    steps.held_by("b", steps.addresses[1], route="exists")
    b.fail_app()
    steps.held_by("a", steps.addresses[0], route="ready")
    steps.held_by("b", steps.addresses[1], route="exists")
    b.heal_app()
    steps.held_by("b", steps.addresses[0], route="ready")


def test_sticky_stays_where_newest_moves(steps):
    steps.gateway()
    steps.route("newest", steps.addresses[0])
    steps.route("sticky", steps.addresses[1], notes={"holdfast.dev/selection": "Sticky"})
    steps.pod("a")
    steps.held_by("a", steps.addresses[0], route="newest")
    steps.held_by("a", steps.addresses[1], route="sticky")
    steps.pod("b")
    steps.held_by("b", steps.addresses[0], route="newest")  # so b has been seen to be eligible
    steps.held_by("a", steps.addresses[1], route="sticky")
    steps.delete("pods", "a")
    steps.held_by("b", steps.addresses[1], route="sticky")


def test_a_deleted_pod_hands_over_before_it_ends(steps):
    steps.gateway()
    steps.route()
    steps.pod("a")
    steps.ready("a")
    steps.pod("b")
    steps.held_by("b")
    epoch = steps.lease().transitions
    steps.delete("pods", "b")
    steps.held_by("a")
    assert steps.lease().transitions == epoch + 1  # it was never free in between
    steps.until("b to be gone", lambda: not steps.uid("b"))


def test_the_only_pod_keeps_its_address_while_it_ends_until_its_app_has_ended(steps):
    steps.gateway()
    steps.route()
    steps.pod("a", grace_s=30)
    app, mark = ending(steps, "a"), steps.world.witness.mark()
    until = "Pod a keeps the addresses until another Pod can have them or its own containers have ended"
    steps.condition("Ready", "NoPodsFound", part=until)
    steps.renewed()
    assert steps.removals(steps.addresses[0], mark) == []
    os.kill(app, signal.SIGCONT)
    steps.until("a to be gone", lambda: not steps.uid("a"))
    steps.nowhere()
    assert not steps.lease().holder


def test_a_pod_that_ends_alone_hands_over_to_the_next_that_can(steps):
    steps.gateway()
    steps.route()
    steps.pod("a", grace_s=30)
    app = ending(steps, "a")
    steps.condition("Ready", "NoPodsFound", part="Pod a keeps the addresses")
    epoch = steps.lease().transitions
    steps.pod("b")
    steps.held_by("b")
    assert steps.lease().transitions == epoch + 1  # it was never free in between
    os.kill(app, signal.SIGCONT)


def ending(steps: Steps, name: str) -> int:
    """Delete the Pod that holds, whose app takes its time over its end; the app's process id."""
    handle = steps.held_by(name)
    record = steps.world.node(handle.node).pod(steps.space, name)
    assert record is not None
    (app,) = record["app_pids"]
    os.kill(app, signal.SIGSTOP)
    steps.delete("pods", name)
    return app


def test_the_only_pod_keeps_its_address_while_its_node_is_called_not_ready(steps):
    """As the node lifecycle controller does when a node was silent, also where the API server was away."""
    steps.gateway()
    steps.route()
    steps.pod("a")
    a, mark = steps.held_by("a"), steps.world.witness.mark()
    node = steps.world.node(a.node).program
    node.pause()  # or it would write the Pod's status again
    try:
        condition = {"type": "Ready", "status": "False", "reason": "NodeNotReady"}
        status = {"status": {"conditions": [condition]}}
        steps.api.patch(f"{steps.at('pods', 'a')}/status", status, "application/strategic-merge-patch+json")
        until = "Pod a keeps the addresses until another Pod can have them or its own containers are not ready"
        steps.condition("Ready", "NoPodsFound", part=until)
        steps.renewed()
    finally:
        node.resume()
    steps.condition("Ready", "ProgrammingComplete")
    assert steps.removals(steps.addresses[0], mark) == []
    a.fail_app()
    steps.until("the Lease to be free", lambda: not steps.lease().holder)
    steps.nowhere()


# What is changed while it is held --------------------------------------------------------------------------------


def test_addresses_that_come_and_go_while_they_are_held(steps):
    first, second, third = steps.addresses
    steps.gateway()
    steps.route("r", first, second)
    steps.pod("a")
    steps.held_by("a", first, second)
    mark = steps.world.witness.mark()
    steps.change(addresses=given(second, third))
    a = steps.held_by("a", second, third)
    steps.nowhere(first)
    steps.announced(a, third, mark)
    assert steps.removals(second, mark) == []
    steps.until("the status to follow", lambda: {e["address"] for e in steps.status()["addresses"]} == {second, third})


def test_a_selector_that_comes_to_mean_another_pod(steps):
    steps.gateway()
    steps.pod("a")
    steps.pod("b")
    steps.ready("a", "b")
    steps.route(podSelector={"matchLabels": {"name": "b"}})
    steps.held_by("b")
    steps.change(podSelector={"matchLabels": {"name": "a"}})
    steps.held_by("a")
    steps.change(podSelector={"matchLabels": {"name": "nobody"}})
    steps.condition("Ready", "NoPodsFound", part="name=nobody")
    steps.until("the Lease to be free", lambda: not steps.lease().holder)
    steps.nowhere()


def test_a_route_that_is_deleted_takes_its_addresses_and_its_lease_along(steps):
    steps.gateway()
    steps.route("r", *steps.addresses[:2])
    steps.pod("a")
    a = steps.held_by("a", *steps.addresses[:2])
    steps.delete("gkeiproutes", "r")
    steps.let_go()
    assert not a.addresses("eth1") & set(steps.addresses)
    steps.until("a's entry to be gone", lambda: not steps.entry("a"))


def test_a_gateway_that_is_deleted_and_comes_back(steps):
    steps.gateway()
    steps.route()
    steps.pod("a")
    steps.held_by("a")
    steps.delete("gateways", "gw")
    steps.condition("Accepted", "GatewayNotFound", part="create it")
    steps.let_go()
    steps.gateway()
    steps.held_by("a")
    steps.condition("Ready", "ProgrammingComplete")


def test_a_gateway_that_loses_an_address_and_gets_it_back(steps):
    first, second, _ = steps.addresses
    steps.gateway()
    steps.route("r", first)
    steps.route("other", second)
    steps.pod("a")
    steps.held_by("a", first)
    steps.held_by("a", second, route="other")
    mark = steps.world.witness.mark()
    steps.api.patch(steps.at("gateways", "gw"), {"spec": {"addresses": given(second)}})
    steps.condition("Accepted", "InvalidAddresses", part=f"{first} is not in the addresses of Gateway")
    steps.until("the Lease to be gone", lambda: steps.lease() is None)
    steps.nowhere(first)
    steps.api.patch(steps.at("gateways", "gw"), {"spec": {"addresses": given(first, second)}})
    steps.held_by("a", first)
    assert steps.removals(second, mark) == []


def test_a_network_that_is_deleted_and_comes_back(steps):
    steps.world.apply(lib.network("red-network"))
    steps.gateway()
    steps.route(network="red-network")
    steps.pod("a", notes={INTERFACES: lib.NICS.replace(lib.BLUE, "red-network")})
    a = steps.held_by("a")
    steps.world.kubectl("delete", "network.networking.gke.io", "red-network")
    steps.condition("Accepted", "NetworkNotFound", part="Network red-network does not exist: create it")
    steps.let_go()
    assert not a.addresses("eth1") & set(steps.addresses)
    steps.world.apply(lib.network("red-network"))
    steps.held_by("a")
    steps.condition("Ready", "ProgrammingComplete")
    steps.world.kubectl("delete", "network.networking.gke.io", "red-network")


def given(*addresses: str) -> list[dict[str, str]]:
    return [{"type": lib.CIDR, "value": each} for each in addresses]


def test_an_address_moves_from_one_route_to_the_next_only_when_it_has_been_let_go(steps):
    steps.gateway()
    steps.pod("a")
    steps.pod("b")
    steps.ready("a", "b")
    steps.route("first", podSelector={"matchLabels": {"name": "a"}})
    steps.held_by("a", route="first")
    steps.tick()
    steps.route("second", podSelector={"matchLabels": {"name": "b"}})
    steps.condition("Accepted", "AddressConflict", "second", part="first")
    steps.delete("gkeiproutes", "first")
    steps.held_by("b", route="second")
    steps.condition("Ready", "ProgrammingComplete", "second")


# How long a Lease lasts ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("spec", "notes", "duration_s"),
    [
        pytest.param({}, {}, 10, id="default"),
        pytest.param({"gatewayClassName": FAST}, {}, 2, id="fast"),
        pytest.param({"gatewayClassName": FAST}, {"holdfast.dev/lease-seconds": "7"}, 7, id="asked-for"),
        pytest.param({}, {"holdfast.dev/lease-seconds": "61"}, 10, id="too-long"),
    ],
)
def test_the_lease_lasts_as_long_as_class_and_route_say(steps, spec, notes, duration_s):
    steps.gateway(**spec)
    steps.route(notes=notes)
    steps.pod("a")
    a = steps.held_by("a")
    assert steps.lease().duration_s == duration_s
    steps.until("the report to say so", lambda: reported(steps) == duration_s)
    fences = [e for e in steps.world.witness.events() if isinstance(e, FenceEvent) and e.netns == a.netns]
    mine = [e for e in fences if e.address == bare(steps.addresses[0]) and e.deadline_s is not None]
    assert all(e.deadline_s - e.time_s <= duration_s for e in mine), mine
    assert mine
    if duration_s == 10 and notes:
        assert "write a whole number from 1 to 60" in steps.condition("Accepted", "Accepted")


def reported(steps: Steps) -> int:
    view = steps.lease()
    return decode_report(view.observed, view.where).duration_s if view.observed else 0


def test_a_lease_that_is_shortened_while_it_is_held(steps):
    steps.gateway()
    steps.route()
    steps.pod("a")
    steps.held_by("a")
    mark = steps.world.witness.mark()
    steps.api.patch(steps.at("gkeiproutes", "r"), {"metadata": {"annotations": {"holdfast.dev/lease-seconds": "1"}}})
    steps.until("the holder to follow", lambda: reported(steps) == 1)
    last = steps.lease().renew_time
    for _ in range(3):
        last = steps.until_lease("another renewal", lambda view, last=last: view.renew_time > last).renew_time
    steps.held_by("a")
    assert steps.removals(steps.addresses[0], mark) == []
