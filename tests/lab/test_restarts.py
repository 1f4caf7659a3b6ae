"""What dies, hangs or is cut off on the whole way, and comes back: sidecars, controllers, the API server, watches.

Judged by what kernels and the switch say (`lab.witness`), never by a log.
"""

from __future__ import annotations

import contextlib
import http.client
import threading
import time
from typing import TYPE_CHECKING

import pytest

from contract.lease import decode_lease
from contract.names import (
    CONTAINER,
    ELECTION_LEASE,
    GUARD_DEADLINE_S,
    SOURCE,
    SYSTEM_NAMESPACE,
    UNTAKEN_S,
    Source,
)
from lab.chaos.proxy import Proxy
from lab.errors import ApiError, LabError
from lab.program import Program
from lab.wiring import Links
from lab.witness.kernel_events import FenceEvent
from lab.witness.ledger import LEASES
from tests.lab.steps import SOON_S, Steps, bare, is_ready, steps_in

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lab.world.pods import PodHandle
    from lab.world.world import World

pytestmark = pytest.mark.lab

LEASE_S = {"holdfast.dev/lease-seconds": "2"}
LONG = {"holdfast.dev/lease-seconds": "60"}
DEAF_S = 20.0
"""docs/ownership.md: 14 s for what a watch tells alone, and what the test itself does."""
ASKS_S = 4.0
"""Every second."""


@pytest.fixture
def steps(world: World, kube_namespace: str) -> Iterator[Steps]:
    with steps_in(world, kube_namespace) as steps:
        yield steps


# Sidecars --------------------------------------------------------------------------------------------------------


def test_a_sidecar_that_is_killed_leaves_the_address_and_its_next_self_goes_on(steps):
    address = steps.addresses[0]
    steps.gateway()
    steps.route()
    steps.pod("a")
    a = steps.held_by("a")
    first, epoch, mark = a.sidecar_pid, steps.lease().transitions, steps.world.witness.mark()
    a.kill_sidecar()
    last = renew_time(steps)
    restarted(a, first)
    steps.until_lease("the next self to renew", lambda view: view.renew_time > last)
    steps.announced_again(a, address, time.time())
    steps.held_by("a")
    assert steps.removals(address, mark) == []
    assert steps.lease().transitions == epoch
    # and it hands over as its former self would have
    steps.pod("b")
    steps.held_by("b")
    assert a.addresses("eth1") & set(steps.addresses) == set()


def test_a_sidecar_that_restarts_alone_does_not_move_the_address(steps):
    """Killed a second time it is away for the back-off of 10 s: its Pod is not Ready, and another, older one is."""
    address = steps.addresses[0]
    steps.gateway()
    steps.route(notes=LONG)
    steps.pod("a")
    steps.pod("b")
    b = steps.held_by("b")
    steps.ready("a", "b")
    epoch, mark, began_s = steps.lease().transitions, steps.world.witness.mark(), time.time()
    first = b.sidecar_pid
    b.kill_sidecar()
    restarted(b, first)
    steps.ready("b")
    b.kill_sidecar()
    steps.until("b not to be Ready", lambda: not is_ready(steps.pod_named("b")))
    last = renew_time(steps)
    steps.until_lease("the next self to renew", lambda view: view.renew_time > last)
    steps.ready("b")
    assert steps.removals(address, mark) == []
    assert steps.lease().transitions == epoch
    lease = f"{steps.space}/holdfast-r"
    owners = {
        decode_lease(seen.body).owner
        for seen in steps.ledger.since(began_s)
        if (seen.kind, seen.name) == (LEASES, lease)
    }
    assert owners == {b.uid}, "another was named, if only for a moment"


def renew_time(steps: Steps) -> str:
    """The last sign of life until now; one that is later comes from who lives now."""
    return decode_lease(steps.api.get(steps.at("leases", "holdfast-r"))).renew_time


def restarted(handle: PodHandle, killed: int) -> None:
    """Wait until the node has started a Pod's sidecar again.

    Its record is a file and has no event to wait on: so this looks again and again, with a deadline.
    """
    deadline, pause = time.monotonic() + SOON_S, threading.Event()
    while time.monotonic() < deadline:
        with contextlib.suppress(LabError):
            if handle.sidecar_pid != killed:
                return
        pause.wait(0.02)
    pytest.fail(f"{handle.node} has not started the sidecar of {handle.name} again")


def owner_is_named(steps: Steps) -> bool:
    return steps.lease().owner == steps.uid("b")


def owner_is_prepared(steps: Steps) -> bool:
    return steps.uid("b") in (steps.lease().prepared, steps.lease().holder)


def owner_holds(steps: Steps) -> bool:
    return steps.lease().holder == steps.uid("b")


@pytest.mark.parametrize("step", [owner_is_named, owner_is_prepared, owner_holds])
@pytest.mark.parametrize("whose", ["a", "b"])
def test_a_sidecar_killed_at_any_step_of_a_hand_over_ends_in_the_same_state(steps, whose, step):
    steps.gateway()
    steps.route()
    steps.pod("a")
    a = steps.held_by("a")
    steps.pod("b")
    steps.until(step.__name__, lambda: steps.uid("b") and step(steps))
    handle = steps.world.pod(steps.space, whose)
    killed = handle.sidecar_pid
    handle.kill_sidecar()
    last = renew_time(steps)
    restarted(handle, killed)
    steps.until_lease("a renewal", lambda view: view.renew_time > last)
    steps.held_by("b")
    steps.until("a's entry to be gone", lambda: not steps.entry("a"))
    steps.condition("Ready", "ProgrammingComplete", part="Pod b has")
    assert not a.addresses("eth1") & set(steps.addresses)
    assert steps.lease().lost == ()


def test_a_sidecar_paused_beyond_its_lease_is_cut_off_in_time_and_found_again(steps):
    address = steps.addresses[0]
    steps.gateway()
    steps.route(notes=LEASE_S)
    steps.pod("b", node="node-2")
    steps.ready("b")
    steps.pod("a", node="node-1")
    a = steps.held_by("a")
    paused_s = time.time()
    a.pause_sidecar()
    try:
        b = steps.held_by("b")
        began_s = steps.first_on(b, address, paused_s)
        assert began_s - paused_s <= 2 + GUARD_DEADLINE_S + 1, "the next Pod came too late"
        assert last_deadline(steps, a, began_s) < began_s
        assert a.uid in steps.lease().lost
        late = [f for f in steps.world.witness.frames(last_deadline(steps, a, began_s)) if f.sender_ip == bare(address)]
        assert not {f.sender_mac for f in late if f.claims} & a.macs
    finally:
        a.resume_sidecar()
    steps.until_lease("a to be found again", lambda view: a.uid not in view.lost)
    steps.held_by("a")  # it is the newest


def doomed_holder(steps: Steps) -> tuple[Steps, PodHandle]:
    """Pod a, in a namespace that is to be deleted, holds what Pod b's route in the other one waits for."""
    world, parent = steps.world, {"parentRefs": [{"name": "gw", "namespace": steps.space}]}
    doomed = Steps(world, steps.ledger, f"{steps.space}-doomed", steps.addresses)
    world.create_namespace(doomed.space)
    everywhere = {"name": "l", "port": 443, "protocol": "none", "allowedRoutes": {"namespaces": {"from": "All"}}}
    steps.gateway(listeners=[everywhere])
    doomed.route(**parent)
    doomed.pod("a", grace_s=30)
    a = doomed.held_by("a")
    doomed.tick()
    steps.route()
    steps.pod("b")
    steps.ready("b")
    steps.condition("Accepted", "AddressConflict", part=doomed.space)
    return doomed, a


def test_a_namespace_that_is_deleted_takes_its_lease_along_but_not_its_stopped_holder(steps):
    doomed, a = doomed_holder(steps)
    a.pause_sidecar()
    doomed.delete("gkeiproutes", "r")  # first, since then nothing is there that would make the Lease again
    doomed.until("nobody to be wanted any more", lambda: not doomed.lease().owner)
    steps.api.delete(f"/api/v1/namespaces/{doomed.space}")
    deleted(doomed, "leases", "holdfast-r")  # as Kubernetes before 1.33 does, in no order
    doomed.until("its Lease to be gone", lambda: doomed.lease() is None)
    # the teardown sees that no instant had two holders: a's kernel had the address for some seconds more
    steps.held_by("b")


def test_a_controller_that_starts_after_that_keeps_the_address_back_by_the_pods_entry(steps):
    doomed, a = doomed_holder(steps)
    address, controller = steps.addresses[0], steps.world.controllers[0]
    controller.kill()
    try:
        a.pause_sidecar()
        steps.api.delete(f"/api/v1/namespaces/{doomed.space}")
        doomed.delete("gkeiproutes", "r")
        deleted(doomed, "leases", "holdfast-r")
        doomed.until("its Lease to be gone", lambda: doomed.lease() is None)
    finally:
        controller.start()
    doomed.until("the new controller to take a's entry away", lambda: not doomed.entry("a"))
    steps.condition("Accepted", "AddressConflict", part=f"Lease {doomed.space}/holdfast-r")
    assert steps.places(address) == {(a.netns, "eth1")}, "its kernel's deadline is not over yet"
    steps.until("its lifetime to end it", lambda: not steps.places(address, silent=True), 2 * SOON_S)
    assert steps.lease() is None or steps.lease().addresses == ()


def deleted(steps: Steps, sort: str, name: str) -> None:
    """Delete something as soon as admission knows that its namespace is going away, which has no event."""
    deadline, pause = time.monotonic() + SOON_S, threading.Event()
    while True:
        try:
            return steps.delete(sort, name)
        except ApiError as error:
            if error.code != 403 or time.monotonic() > deadline:
                raise
        pause.wait(0.02)


def last_deadline(steps: Steps, handle: PodHandle, before_s: float) -> float:
    """The deadline that a Pod's kernel had for the first address, before it was cleared."""
    return max(
        e.deadline_s
        for e in steps.world.witness.events()
        if isinstance(e, FenceEvent)
        and (e.netns, e.address) == (handle.netns, bare(steps.addresses[0]))
        and e.deadline_s is not None
        and e.time_s < before_s
    )


NO_AGENT_IN_TRUTH = {CONTAINER: "app"}
"""Of a Pod: its app is called its agent, and does nothing for the address."""


def test_a_pod_whose_agent_does_nothing_is_named_then_lost_and_the_next_one_gets_it(steps):
    steps.gateway()
    steps.pod("b", node="node-2")
    steps.ready("b")
    steps.pod("none", node="node-1", notes=NO_AGENT_IN_TRUTH)
    steps.ready("none")
    began_s = time.time()
    steps.route()
    said = steps.condition("DPV2Ready", "NotReported", part="Pod none is the owner and has not taken the Lease yet")
    assert "read the log of its container app" in said
    steps.nowhere()
    steps.held_by("b", within_s=UNTAKEN_S + SOON_S)
    assert time.time() - began_s >= UNTAKEN_S
    steps.condition("Ready", "ProgrammingComplete", part="Pod b has")


def test_a_holder_keeps_the_address_while_the_next_ones_agent_does_nothing(steps):
    steps.gateway()
    steps.route()
    steps.pod("a")
    steps.held_by("a")
    mark = steps.world.witness.mark()
    steps.pod("none", notes=NO_AGENT_IN_TRUTH)
    steps.condition("Ready", "Mutated", part="waiting for Pod none to be prepared; Pod a keeps them")
    assert steps.removals(steps.addresses[0], mark) == []
    assert steps.places(steps.addresses[0]) == {(steps.world.pod(steps.space, "a").netns, "eth1")}
    steps.delete("pods", "none")
    steps.held_by("a")
    assert steps.removals(steps.addresses[0], mark) == []


def test_a_node_that_does_not_reach_the_api_lets_go_at_the_deadline_and_its_pod_is_found_again(steps):
    """Its other network is whole, so that only the fence keeps it from speaking for the address."""
    address = steps.addresses[0]
    steps.gateway()
    steps.route(notes=LEASE_S)
    steps.pod("b", node="node-2")
    steps.ready("b")
    steps.pod("a", node="node-1")
    a = steps.held_by("a")
    cut_s = time.time()
    with steps.world.client("blue-network").watch(bare(address)):
        steps.world.node("node-1").cut("default")
        try:
            b = steps.held_by("b")
            assert last_deadline(steps, a, steps.first_on(b, address, cut_s)) < steps.first_on(b, address, cut_s)
        finally:
            steps.world.node("node-1").join("default")
        steps.held_by("a")


# Controllers -----------------------------------------------------------------------------------------------------


def wrote_owner(steps: Steps) -> bool:
    return steps.lease().owner == steps.uid("b")


def wrote_entry(steps: Steps) -> bool:
    return steps.entry("b")


def saw_holder(steps: Steps) -> bool:
    return steps.lease().holder == steps.uid("b")


def took_entry(steps: Steps) -> bool:
    return saw_holder(steps) and not steps.entry("a")


def wrote_status(steps: Steps) -> bool:
    return steps.status().get("pods") == ["b"]


@pytest.mark.parametrize("step", [wrote_owner, wrote_entry, saw_holder, took_entry, wrote_status])
def test_a_controller_killed_at_any_step_of_a_hand_over_ends_in_the_same_state(steps, step):
    controller = steps.world.controllers[0]
    steps.gateway()
    steps.route()
    steps.pod("a")
    a = steps.held_by("a")
    steps.condition("Ready", "ProgrammingComplete", part="Pod a has")
    steps.pod("b")
    steps.until(f"{step.__name__}", lambda: steps.uid("b") and step(steps))
    controller.kill()
    controller.start()
    b = steps.held_by("b")
    steps.until("a's entry to be gone", lambda: not steps.entry("a"))
    steps.condition("Ready", "ProgrammingComplete", part="Pod b has")
    steps.until("the status to follow", lambda: steps.status()["pods"] == ["b"])
    view = steps.lease()
    assert (view.owner, view.holder, view.transitions, view.lost) == (b.uid, b.uid, 2, ())
    assert [(e["pod"], e["epoch"], e["state"]) for e in steps.status()["addresses"]] == [("b", 2, "announced")]
    assert not a.addresses("eth1") & set(steps.addresses)


def test_addresses_stay_while_no_controller_runs_and_what_was_missed_is_made_up_for(steps):
    controller = steps.world.controllers[0]
    steps.gateway()
    steps.route(notes=LEASE_S)
    steps.route("other", steps.addresses[1])
    steps.pod("a")
    steps.held_by("a")
    steps.held_by("a", steps.addresses[1], route="other")
    mark = steps.world.witness.mark()
    controller.kill()
    try:
        last = steps.lease().renew_time
        for _ in range(5):
            last = steps.until_lease("a renewal", lambda view, last=last: view.renew_time > last).renew_time
        assert steps.removals(steps.addresses[0], mark) == []
        steps.delete("gkeiproutes", "other")
        steps.pod("b")
        steps.ready("b")
    finally:
        controller.start()
    steps.held_by("b")
    steps.until("the other Lease to be gone", lambda: steps.lease("other") is None)
    steps.nowhere(steps.addresses[1])


@pytest.fixture
def second(steps: Steps) -> Iterator[Program]:
    """Another replica of the controller, which stands by."""
    first = steps.world.controllers[0]
    argv = [*first.argv[: first.argv.index("--identity") + 1], "ctl-other"]
    replica = Program("controller-other", argv, steps.world.logs / "controller-other.log", first.netns, first.env)
    leader(steps, "ctl-0")
    replica.start()
    yield replica
    replica.stop()
    first.start()


def leader(steps: Steps, identity: str) -> None:
    path = f"/apis/coordination.k8s.io/v1/namespaces/{SYSTEM_NAMESPACE}/leases/{ELECTION_LEASE}"
    steps.api.wait(
        path, lambda o: o and (o["spec"]["holderIdentity"] or "").startswith(identity), SOON_S, f"{identity} to lead"
    )


def test_of_two_controllers_the_leader_is_killed_in_the_middle_of_a_hand_over(steps, second):
    steps.gateway()
    steps.route()
    steps.pod("a")
    steps.held_by("a")
    mark = steps.world.witness.mark()
    steps.pod("b")
    steps.until("the owner to be named", lambda: steps.uid("b") and wrote_owner(steps))
    steps.world.controllers[0].kill()
    leader(steps, "ctl-other")
    steps.held_by("b", within_s=2 * SOON_S)
    steps.until("a's entry to be gone", lambda: not steps.entry("a"))
    steps.condition("Ready", "ProgrammingComplete", part="Pod b has")
    assert len(steps.removals(steps.addresses[0], mark)) == 1
    assert second.running


# The API server and watches --------------------------------------------------------------------------------------


def restart_api_server(world: World) -> None:
    world.control_plane.api_server.kill()
    world.control_plane.api_server.start()
    world.control_plane.wait_ready(2 * SOON_S).close()


def test_the_api_server_restarted_costs_no_address_and_all_watches_go_on(steps):
    steps.gateway()
    steps.route(notes=LONG)
    steps.pod("a")
    steps.held_by("a")
    mark = steps.world.witness.mark()
    restart_api_server(steps.world)
    last = steps.lease().renew_time
    assert steps.removals(steps.addresses[0], mark) == []
    steps.pod("b")
    steps.held_by("b", within_s=2 * SOON_S)
    assert steps.lease().renew_time > last
    steps.condition("Ready", "ProgrammingComplete", part="Pod b has")


def test_what_a_controller_missed_while_its_versions_became_too_old_is_made_up_for(steps):
    """410 Gone: an API server that has just started knows no version from before its start."""
    steps.gateway()
    steps.route("r", steps.addresses[0], notes=LONG)
    steps.route("gone", steps.addresses[1], notes=LONG)
    steps.pod("b")
    steps.ready("b")
    steps.pod("a")
    a = steps.held_by("a")
    steps.held_by("a", steps.addresses[1], route="gone")
    old = steps.api.get("/api/v1/pods", limit="1")["metadata"]["resourceVersion"]
    controller = steps.world.controllers[0]
    controller.pause()
    try:
        a.fail_app()
        steps.until("a not to be Ready", lambda: not is_ready(steps.pod_named("a")))
        steps.delete("gkeiproutes", "gone")
        steps.pod("c", labels={"app": "else"})
        restart_api_server(steps.world)
        assert watched(steps, "/api/v1/pods", old) == http.client.GONE
    finally:
        controller.resume()
    steps.held_by("b", within_s=2 * SOON_S)
    steps.until("the Lease of gone to be gone", lambda: steps.lease("gone") is None, 2 * SOON_S)
    steps.nowhere(steps.addresses[1])


def test_what_a_sidecar_missed_while_its_versions_became_too_old_is_made_up_for(steps):
    steps.gateway()
    steps.route(notes=LONG)
    steps.pod("a")
    a = steps.held_by("a")
    old = steps.lease().version
    a.pause_sidecar()
    try:
        steps.pod("b")
        steps.until_lease("b to be prepared", lambda view: view.prepared == steps.uid("b"))
        restart_api_server(steps.world)
        assert watched(steps, steps.at("leases"), old) == http.client.GONE
        assert steps.places(steps.addresses[0]) == {(a.netns, "eth1")}
    finally:
        a.resume_sidecar()
    steps.held_by("b", within_s=2 * SOON_S)
    assert not a.addresses("eth1") & set(steps.addresses)


def watched(steps: Steps, path: str, version: str) -> int:
    """What the API server answers to who wants to go on from a version."""
    try:
        said = steps.api.get(path, watch="1", resourceVersion=version, timeoutSeconds="1")
    except ApiError as error:
        return error.code
    return int(said.get("object", {}).get("code", http.client.OK))


def test_a_watch_that_is_cut_for_a_while_misses_nothing(steps):
    steps.gateway()
    steps.route(notes=LONG)
    steps.pod("a")
    steps.ready("a")
    steps.pod("b")
    b = steps.held_by("b")
    with Links("ctl-0") as links:
        links.down("eth0")
        try:
            b.fail_app()
            steps.until("b not to be Ready", lambda: not is_ready(steps.pod_named("b")))
            steps.pod("c", labels={"app": "else"})
        finally:
            links.up("eth0")
    steps.held_by("a", within_s=2 * SOON_S)
    steps.condition("Ready", "ProgrammingComplete", part="Pod a has")


# What stands between a Pod and the API server has forgotten their connections, and acknowledges all that comes ------


@pytest.fixture
def proxy(world: World) -> Iterator[Proxy]:
    with Proxy(world.state / "proxy") as proxy:
        yield proxy


def forget(proxy: Proxy, steps: Steps, name: str) -> None:
    """From now on the Pod's open connections carry nothing; those that it opens from now on do."""
    addresses = steps.world.pod(steps.space, name).addresses("eth0")
    proxy.set(forget=True, only=tuple(each.partition("/")[0] for each in addresses))


@pytest.mark.parametrize("source", [Source.DOWNWARD, Source.WATCH])
def test_the_only_standby_that_is_deaf_hears_of_its_assignment_all_the_same(steps, proxy, source):
    steps.gateway()
    steps.route()
    steps.pod("a", notes={SOURCE: source.value})
    steps.ready("a")
    steps.pod("b", grace_s=10)
    steps.held_by("b")
    forget(proxy, steps, "a")
    steps.delete("pods", "b")
    steps.held_by("a", within_s=DEAF_S)


def test_an_owner_that_waits_for_a_handover_and_is_deaf_asks(steps, proxy):
    steps.gateway()
    steps.route()
    steps.pod("a")
    a = steps.held_by("a")
    a.pause_sidecar()
    steps.pod("b")
    steps.until("b to be prepared", lambda: owner_is_prepared(steps) and steps.lease().owner == steps.uid("b"))
    forget(proxy, steps, "b")
    a.resume_sidecar()
    steps.held_by("b", within_s=ASKS_S)


def test_a_holder_that_is_deaf_hears_that_it_is_to_hand_over(steps, proxy):
    steps.gateway()
    steps.route()
    steps.pod("a")
    steps.held_by("a")
    forget(proxy, steps, "a")
    steps.pod("b")
    steps.held_by("b", within_s=DEAF_S)
    assert steps.lease().transitions == 2  # handed over: its time did not run out
