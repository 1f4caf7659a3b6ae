"""What holds for any cluster: a function of the objects, one owner per address, a fixed point, the same in steps."""

from __future__ import annotations

import msgspec
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from contract.assignment import decode_assignment
from contract.lease import LeaseView
from contract.names import ASSIGNMENT
from controller.choice.conditions import stamped
from controller.choice.decide import decide, plan_route
from controller.choice.expiry import life_sign, vacancy_sign
from controller.choice.gateways import gateway_status
from controller.choice.impact import Impact, impact
from controller.choice.leases import LeaseAct
from controller.choice.objects import GatewayClass, Pod, Route, RouteStatus
from controller.choice.snapshot import Snapshot
from tests.unit.controller.kube_objects import (
    A1,
    A2,
    EXTERNAL,
    applied,
    gateway,
    gateway_class,
    lease,
    namespace,
    pod,
    report,
    route,
)

SPACES = ("default", "other")
NAMES = ("x", "y")
PODS = ("a", "b", "c")
SLOW = settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))


@st.composite
def routes(draw, space, name):
    addresses = draw(st.sampled_from([(A1,), (A2,), (A1, A2), ("10.0.0.0/8",)]))
    notes = draw(st.sampled_from([{}, {"holdfast.dev/selection": "Sticky"}, {"holdfast.dev/lease-seconds": "3"}]))
    parent = draw(st.sampled_from(["gw", "gw", "gw", "nope"]))
    mode = draw(st.sampled_from(["ReadyCondition", "Exists"]))
    made = route(name, space, *addresses, created=draw(st.integers(0, 2)), notes=notes, reactionMode=mode)
    ref = msgspec.structs.replace(made.spec.parent_refs[0], name=parent)
    return msgspec.structs.replace(made, spec=msgspec.structs.replace(made.spec, parent_refs=(ref,)))


@st.composite
def pods(draw, space, name):
    return pod(
        name,
        draw(st.integers(0, 2)),
        namespace=space,
        uid=f"uid-{space}-{name}",
        ready=draw(st.booleans()),
        deleting=draw(st.sampled_from([False, False, True])),
        labels=draw(st.sampled_from([{"app": "web"}, {"app": "web"}, {}])),
        assigned=draw(st.sampled_from([None, None, "{"])),
        agent=draw(st.sampled_from(["holdfast", "holdfast", "other"])),
        source=draw(st.sampled_from(["downward", "watch", ""])),
    )


@st.composite
def leases(draw, space, name):
    uids = st.sampled_from(["", *(f"uid-{space}-{each}" for each in PODS), "uid-gone"])
    holder = draw(uids)
    return lease(
        name,
        space,
        owner=draw(uids),
        holder=holder,
        prepared=draw(uids),
        lost=tuple(draw(st.sets(uids.filter(bool), max_size=2))),
        addresses=draw(st.sampled_from([(), (A1,), (A1,), (A2,), (A1, A2)])),
        observed=draw(st.sampled_from(["", report(A1), report(A1, A2), report(A2), "{"])) if holder else "",
        transitions=draw(st.integers(0, 3)),
        duration_s=draw(st.sampled_from([2, 3, 10])),
    )


@st.composite
def clusters(draw):
    """Some objects, and how many of the Leases have run out."""
    objects = [gateway_class(), gateway(), *(namespace(each) for each in SPACES)]
    for space in SPACES:
        objects += [draw(routes(space, name)) for name in NAMES if draw(st.booleans())]
        objects += [draw(pods(space, name)) for name in PODS if draw(st.booleans())]
        objects += [draw(leases(space, name)) for name in NAMES if draw(st.booleans())]
    return objects, draw(st.booleans())


def snapshot(objects, late):
    snap = Snapshot.of(*objects)
    if late:
        snap.expired = frozenset(life_sign(each) for each in snap.leases.values())
        snap.untaken = frozenset(vacancy_sign(each) for each in snap.leases.values())
    return snap


@SLOW
@given(clusters(), st.randoms(use_true_random=False))
def test_a_function_of_the_objects_in_any_order(cluster, random):
    objects, late = cluster
    shuffled = list(objects)
    random.shuffle(shuffled)
    assert decide(snapshot(objects, late)) == decide(snapshot(shuffled, late))


@SLOW
@given(clusters())
def test_at_most_one_route_has_an_address_and_nobody_gets_what_another_may_still_have(cluster):
    snap = snapshot(*cluster)
    given_to: dict[str, tuple[str, str]] = {}
    for key, plan in decide(snap).plans.items():
        for address in plan.acceptance.granted if plan.acceptance else ():
            assert given_to.setdefault(address, key) == key
            for other, view in snap.leases.items():
                assert other == (key[0], f"holdfast-{key[1]}") or address not in snap.may_be_on(other), view


@SLOW
@given(clusters())
def test_whoever_is_named_is_eligible_and_carries_the_entry_once_the_lease_is_there(cluster):
    snap = snapshot(*cluster)
    for plan in decide(snap).plans.values():
        if not plan.owner:
            continue
        found = snap.pod_by_uid[plan.owner]
        assert found.metadata.namespace == plan.key[0]
        assert found.metadata.deletion_timestamp is None
        assert plan.owner in plan.entries or snap.lease_of(plan.key) is None


def carry_out(snap: Snapshot, version: int) -> int:
    """Apply everything that is decided, as the API server would; gives the number of writes."""
    decision, count = decide(snap), 0
    for write in decision.leases:
        count += 1
        if write.act is LeaseAct.DELETE:
            snap.drop(LeaseView, write.key)
            continue
        view = applied(write.view, write.body, version + count)
        snap.put(msgspec.structs.replace(view, namespace=write.key[0], name=write.key[1]))
    for key, text in decision.assignments.items():
        count += 1
        found = snap.pods[key]
        kept = {k: v for k, v in found.metadata.annotations.items() if k != ASSIGNMENT}
        notes = kept if text is None else {**kept, ASSIGNMENT: text}
        snap.put(msgspec.structs.replace(found, metadata=msgspec.structs.replace(found.metadata, annotations=notes)))
    for key, status in decision.statuses.items():
        count += 1
        found = msgspec.convert(stamped(status, snap.routes[key], "T"), RouteStatus)
        snap.put(msgspec.structs.replace(snap.routes[key], status=found))
    return count


@SLOW
@given(clusters())
def test_what_is_written_is_enough(cluster):
    """Applied and decided again until nothing is left: without the Pods' doing anything, a few rounds at most."""
    snap = snapshot(*cluster)
    for round_ in range(7):
        if carry_out(snap, 100 * (round_ + 1)) == 0:
            break
    assert carry_out(snap, 1000) == 0
    for found in snap.pods.values():
        if text := found.metadata.annotations.get(ASSIGNMENT):
            decode_assignment(text, "test")


@SLOW
@given(clusters(), clusters(), st.randoms(use_true_random=False))
def test_deciding_only_what_an_event_touches_gives_the_same(before, after, random):
    """From one cluster to another, event by event: plans kept up by `impact` are those of deciding everything."""
    snap = Snapshot.of(*before[0])
    plans = dict(decide(snap).plans)
    old = {(type(each), key_of(each)): each for each in before[0]}
    new = {(type(each), key_of(each)): each for each in after[0]}
    steps = [(kind, key, new.get((kind, key))) for kind, key in {**old, **new}]
    random.shuffle(steps)
    for kind, key, item in steps:
        touched = Impact()
        waiting = {each for each, plan in plans.items() if plan.acceptance and plan.acceptance.waiting}
        touched.add(impact(snap, kind, key))
        if item is None:
            snap.drop(kind, key)
        else:
            snap.put(item)
        touched.add(impact(snap, kind, key))
        if kind in (LeaseView, Pod):
            touched.routes |= waiting
        for each in touched.routes:
            plans.pop(each, None)
            if each in snap.routes or snap.lease_of(each) is not None:
                plans[each] = plan_route(snap, each)
        assert plans == decide(snap).plans, (kind, key)


def key_of(item):
    return (item.namespace, item.name) if isinstance(item, LeaseView) else item.key


def test_a_gateway_status_counts_routes_in_any_order():
    one, two = route("x"), route("y", "other")
    statuses = [
        gateway_status(Snapshot.of(gateway_class(), gateway(), *each), gateway()) for each in ((one, two), (two, one))
    ]
    assert statuses[0] == statuses[1]
    assert Snapshot.of(gateway_class(EXTERNAL)).stores()[GatewayClass].keys() == {EXTERNAL}
    assert Snapshot.of(one).stores()[Route] == {one.key: one}
