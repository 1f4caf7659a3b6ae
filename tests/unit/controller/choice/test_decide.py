"""What is written, case by case: Leases, assignments, access; whom holdfast follows and whom it leaves alone."""

from __future__ import annotations

import msgspec
import pytest

from contract.assignment import AddressEntry, decode_assignment
from contract.names import CONTAINER, GKE_CONTROLLER_NAME, lease_name
from controller.choice.acceptance import Mode
from controller.choice.decide import Access, decide, plan_route
from controller.choice.expiry import life_sign, vacancy_sign
from controller.choice.leases import LeaseAct
from tests.unit.controller.kube_objects import (
    A1,
    A2,
    FAST,
    applied,
    gateway,
    gateway_class,
    lease,
    network,
    pod,
    report,
    route,
    world,
)

KEY = ("default", "r")
A, B = pod("a", 1), pod("b", 2)
A_UNREADY, A_DELETING = pod("a", 1, ready=False), pod("a", 1, deleting=True)
A_ENDED = pod("a", 1, deleting=True, ready=False, phase="Succeeded")
HELD_BY_A = {"owner": "uid-a", "holder": "uid-a", "observed": report(A1), "transitions": 1}


def write(snap, key=KEY):
    found = plan_route(snap, key).lease
    if found is None:
        return None
    notes = found.body.get("metadata", {}).get("annotations", {})
    return found.act, notes.get("holdfast.dev/owner")


def carriers(snap, key=KEY):
    return {snap.pod_by_uid[uid].name for uid in plan_route(snap, key).entries}


LEASES = [
    pytest.param([A], None, (LeaseAct.CREATE, "uid-a"), id="create"),
    pytest.param([], None, (LeaseAct.CREATE, ""), id="create-for-nobody"),
    pytest.param([A], lease(owner="uid-a"), None, id="named-already"),
    pytest.param([A, B], lease(**HELD_BY_A), (LeaseAct.NAME_OWNER, "uid-b"), id="a-newer-one-wins"),
    pytest.param([A, pod("b", 2, ready=False)], lease(**HELD_BY_A), None, id="a-newer-one-that-is-not-ready"),
    pytest.param([A_UNREADY], lease(**HELD_BY_A), (LeaseAct.NAME_OWNER, ""), id="nobody-is-left"),
    pytest.param([A_DELETING, B], lease(**HELD_BY_A), (LeaseAct.NAME_OWNER, "uid-b"), id="holder-is-being-deleted"),
    pytest.param([A], lease(**HELD_BY_A, duration_s=2), (LeaseAct.NAME_OWNER, "uid-a"), id="duration"),
    pytest.param(
        [A],
        lease(**HELD_BY_A, lost=("gone",)),
        (LeaseAct.NAME_OWNER, "uid-a"),
        id="a-lost-Pod-that-is-gone-is-forgotten",
    ),
    pytest.param([A], lease(lost=("uid-a",)), None, id="a-lost-Pod-is-not-chosen"),
    pytest.param(
        [A], lease(lost=("uid-a",), prepared="uid-a"), (LeaseAct.NAME_OWNER, "uid-a"), id="a-lost-Pod-that-is-back"
    ),
    pytest.param([pod("a", 1, uid="x")], lease(**HELD_BY_A), (LeaseAct.NAME_OWNER, "x"), id="same-name-other-Pod"),
]


@pytest.mark.parametrize(("pods", "view", "expected"), LEASES)
def test_the_lease(pods, view, expected):
    assert write(world(route(), *pods, *([view] if view else []))) == expected


def test_an_expired_lease_is_freed_and_given_in_one_write():
    view = lease(**HELD_BY_A, prepared="uid-b", lost=("gone",))
    snap = world(route(), A, B, view)
    snap.expired = frozenset({life_sign(view)})
    found = plan_route(snap, KEY).lease
    assert found.act is LeaseAct.FREE
    assert found.body["spec"]["holderIdentity"] == ""
    assert found.body["metadata"]["resourceVersion"] == view.version
    assert found.body["metadata"]["annotations"]["holdfast.dev/owner"] == "uid-b"
    assert found.body["metadata"]["annotations"]["holdfast.dev/lost"] == "uid-a"
    assert "Pod a did not renew the Lease within" in found.why


def test_expired_and_nobody_else_it_is_freed_for_nobody_and_the_lost_one_keeps_its_entry():
    view = lease(**HELD_BY_A)
    snap = world(route(), A, view)
    snap.expired = frozenset({life_sign(view)})
    assert write(snap) == (LeaseAct.FREE, "")
    snap.put(lease(lost=("uid-a",), transitions=1))
    assert write(snap) is None
    assert carriers(snap) == {"a"}


def test_an_owner_that_leaves_a_free_lease_alone_is_lost():
    view = lease(owner="uid-b")
    snap = world(route(), A, B, view)
    snap.untaken = frozenset({vacancy_sign(view)})
    found = plan_route(snap, KEY).lease
    assert (found.act, found.body["metadata"]["annotations"]["holdfast.dev/lost"]) == (LeaseAct.NAME_OWNER, "uid-b")
    assert write(snap) == (LeaseAct.NAME_OWNER, "uid-a")


def test_facts_about_another_version_mean_nothing():
    view = lease(**HELD_BY_A)
    snap = world(route(), A, view)
    snap.expired = frozenset({life_sign(msgspec.structs.replace(view, renew_time="before"))})
    assert write(snap) is None


DURATIONS = [
    pytest.param(route(), gateway(), 10, id="default"),
    pytest.param(route(), gateway(gatewayClassName=FAST), 2, id="fast-class"),
    pytest.param(route(notes={"holdfast.dev/lease-seconds": "7"}), gateway(gatewayClassName=FAST), 7, id="asked-for"),
    pytest.param(route(notes={"holdfast.dev/lease-seconds": "0"}), gateway(), 10, id="too-short-is-ignored"),
    pytest.param(route(notes={"holdfast.dev/lease-seconds": "1e1"}), gateway(), 10, id="no-number-is-ignored"),
]


@pytest.mark.parametrize(("asked", "found", "seconds"), DURATIONS)
def test_duration(asked, found, seconds):
    snap = world(asked, found, gateway_class(), gateway_class(FAST), A)
    assert plan_route(snap, KEY).lease.body["spec"]["leaseDurationSeconds"] == seconds


def test_a_duration_is_not_shortened_under_a_holder_that_has_not_said_which_it_counts_with():
    asked = route(notes={"holdfast.dev/lease-seconds": "1"})
    assert write(world(asked, A, lease(owner="uid-a", holder="uid-a"))) is None
    assert write(world(asked, A, lease(**HELD_BY_A))) == (LeaseAct.NAME_OWNER, "uid-a")


def test_what_a_holder_may_have_is_what_its_lease_names_and_its_report_shows():
    where = ("default", "holdfast-r")
    assert world(lease(holder="uid-a")).may_be_on(where) == {A1}
    assert world(lease(holder="uid-a", observed=report(A2))).may_be_on(where) == {A1, A2}
    # the owner of a free Lease says why it does not take it: it has nothing
    assert world(lease(owner="uid-a", observed=report(A2), addresses=())).may_be_on(where) == frozenset()


# A Lease that vanished ------------------------------------------------------------------------------------------

KNOWN = {"addresses": [{"address": A1, "pod": "a", "epoch": 4}]}


def test_a_held_lease_that_vanished_is_made_again_as_held():
    snap = world(route(), A, B, lease(**HELD_BY_A | {"transitions": 7}))
    snap.note_vanished(snap.leases["default", "holdfast-r"], final=True)
    snap.drop(type(lease()), ("default", "holdfast-r"))
    spec = plan_route(snap, KEY).lease.body["spec"]
    assert (spec["holderIdentity"], spec["leaseTransitions"]) == ("uid-a", 8)
    snap.put(lease(owner="uid-b", holder="uid-a", transitions=8))
    assert write(snap) is None


def vanished(*, final, **fields):
    snap = world(route(), A, B, lease(**HELD_BY_A | fields))
    snap.note_vanished(snap.leases["default", "holdfast-r"], final=final)
    snap.drop(type(lease()), ("default", "holdfast-r"))
    return snap


def test_who_was_seen_before_something_was_missed_is_not_named_again():
    assert plan_route(vanished(final=False), KEY).lease.body["spec"]["holderIdentity"] == "vanished"


def test_one_that_is_not_to_be_held_any_more_is_made_again_too_and_keeps_its_addresses_from_others():
    snap = vanished(final=True)
    snap.put(route(podSelector={}))
    assert snap.may_be_on(("default", "holdfast-r")) == {A1}
    assert write(snap) == (LeaseAct.CREATE, "")
    assert plan_route(snap, KEY).lease.body["spec"]["holderIdentity"] == "uid-a"


def test_a_vanished_lease_is_made_again_for_as_long_as_its_holder_counts():
    assert plan_route(vanished(final=True, duration_s=40), KEY).lease.body["spec"]["leaseDurationSeconds"] == 40


@pytest.mark.parametrize(
    ("status", "pods", "holder", "epoch"),
    [
        pytest.param({}, [A], None, 0, id="never-was"),
        pytest.param(KNOWN, [A], "vanished", 5, id="known-from-status-which-may-be-behind"),
        pytest.param(KNOWN, [B], "vanished", 5, id="known-from-status-and-its-Pod-is-gone"),
    ],
)
def test_what_was_before_is_known_from_the_status(status, pods, holder, epoch):
    spec = plan_route(world(route(status=status), *pods), KEY).lease.body["spec"]
    assert (spec.get("holderIdentity"), spec["leaseTransitions"]) == (holder, epoch)


def test_what_was_before_is_known_from_an_entry_and_the_entry_stays():
    text = decide(world(route(), A, lease(owner="uid-a"))).assignments["default", "a"]
    snap = world(route(), pod("a", 1, assigned=text))
    assert plan_route(snap, KEY).lease.body["spec"]["holderIdentity"] == "vanished"
    assert carriers(snap) == {"a"}


def test_no_entry_before_the_lease():
    assert carriers(world(route(), A)) == set()


# Routes that go -------------------------------------------------------------------------------------------------

GOING = [
    pytest.param(lease(**HELD_BY_A), (LeaseAct.NAME_OWNER, ""), id="held-and-owned"),
    pytest.param(lease(holder="uid-a"), None, id="held-wait-for-its-holder"),
    pytest.param(lease(owner="uid-a"), (LeaseAct.DELETE, None), id="free"),
]


@pytest.mark.parametrize(("view", "expected"), GOING)
def test_a_route_that_is_gone(view, expected):
    snap = world(A, view)
    assert write(snap) == expected
    assert carriers(snap) == set()


def test_a_route_that_is_not_accepted_any_more_lets_go_and_its_lease_goes_after_its_status():
    bad = {"podSelector": {"matchLabels": {}}}
    held = world(route(**bad), A, lease(holder="uid-a"))
    assert (write(held), carriers(held)) == (None, set())
    reported = plan_route(world(route(**bad), A, lease(holder="uid-a", observed=report(A1))), KEY).lease
    assert (reported.act, reported.addresses) == (LeaseAct.NAME_OWNER, ())
    assert write(world(route(status=KNOWN, **bad), A, lease())) == (LeaseAct.NAME_OWNER, "")
    free = lease(addresses=())
    assert write(world(route(status=KNOWN, **bad), A, free)) is None
    assert write(world(route(**bad), A, free)) == (LeaseAct.DELETE, None)


def test_a_deletion_is_for_one_version_only():
    body = plan_route(world(A, lease()), KEY).lease.body
    assert body == {"preconditions": {"uid": "lease-default-r", "resourceVersion": "10"}}


def test_leases_of_nobody_known_are_left_alone():
    assert decide(world(lease("r", route="another"))).leases == []


# Entries --------------------------------------------------------------------------------------------------------

ENTRIES = [
    pytest.param(
        [A, B],
        lease(owner="uid-b", holder="uid-b", observed=report(A1), lost=("uid-a",), prepared="uid-a"),
        {"a", "b"},
        id="one-that-is-found-until-the-Lease-says-so",
    ),
    pytest.param([A, B], lease(**HELD_BY_A), {"a", "b"}, id="the-new-one-first"),
    pytest.param([A, B], lease(owner="uid-b", holder="uid-a"), {"a", "b"}, id="until-handed-over"),
    pytest.param([A, B], lease(owner="uid-b", holder="uid-b"), {"b"}, id="handed-over"),
    pytest.param([A_DELETING, B], lease(owner="uid-b", holder="uid-a"), {"a", "b"}, id="a-terminating-holder-keeps-it"),
    pytest.param([A_DELETING], lease(holder="uid-a"), {"a"}, id="nobody-follows-so-it-keeps"),
    pytest.param([A_DELETING], lease(), set(), id="who-holds-nothing-keeps-nothing"),
    pytest.param([A_ENDED], lease(holder="uid-a"), set(), id="it-has-ended-so-let-go"),
    pytest.param([A_UNREADY], lease(**HELD_BY_A), {"a"}, id="not-before-the-owner-is-away"),
    pytest.param([A_UNREADY], lease(holder="uid-a"), set(), id="not-ready-and-nobody-else"),
    pytest.param([A, B], lease(owner="uid-b", lost=("uid-a",)), {"a", "b"}, id="a-lost-Pod-keeps-its-entry"),
    pytest.param([A_UNREADY, B], lease(owner="uid-b", lost=("uid-a",)), {"b"}, id="lost-and-not-otherwise-eligible"),
    pytest.param(
        [A, B, pod("c", 3)],
        lease(owner="uid-b", holder="uid-a"),
        {"a", "b", "c"},
        id="an-owner-replaced-keeps-it-until-the-Lease-says-so",
    ),
    pytest.param([pod("a", 1, namespace="other")], lease(**HELD_BY_A), set(), id="Pods-of-other-namespaces-never"),
]


@pytest.mark.parametrize(("pods", "view", "names"), ENTRIES)
def test_who_carries_an_entry(pods, view, names):
    assert carriers(world(route(), *pods, view)) == names


def test_one_annotation_for_all_routes_of_a_pod():
    blue = {"network": "blue-network"}
    on_both = pod("a", interfaces={"eth0": "default", "eth1": "blue-network"})
    routes = [route("x", "default", A1, **blue), route("y", "default", A2)]
    leases = [lease("x", owner="uid-a"), lease("y", owner="uid-a", addresses=(A2,))]
    snap = world(*routes, *leases, on_both, network())
    found = decode_assignment(decide(snap).assignments["default", "a"], "test").routes
    assert [(each.route, each.lease, each.addresses) for each in found] == [
        ("x", "holdfast-x", (AddressEntry(A1, "eth1"),)),
        ("y", "holdfast-y", (AddressEntry(A2, "eth0"),)),
    ]


STATED = {"interfaces": {"eth0": "default", "eth1": "blue-network"}}
WHERES = [
    pytest.param({"pod_ip": "10.1.1.2"}, {}, (None, "10.1.1.2"), id="not-stated"),
    pytest.param({"pod_ip": ""}, {}, (None, None), id="no-IP-yet"),
    pytest.param({"pod_ip": "10.1.1.2", **STATED}, {}, ("eth0", None), id="stated"),
    pytest.param({"pod_ip": "10.1.1.2", **STATED}, {"network": "blue-network"}, ("eth1", None), id="another-network"),
]


@pytest.mark.parametrize(("how", "spec", "where"), WHERES)
def test_an_entry_says_where_its_addresses_go(how, spec, where):
    plan = plan_route(world(route(**spec), network(), pod("a", 1, **how), lease(owner="uid-a")), KEY)
    (said,) = plan.entries["uid-a"].addresses
    assert (said.interface, said.pod_ip) == where


@pytest.mark.parametrize("text", ["", "{", '{"v":1,"routes":[]}', '{"v":7}'])
def test_a_damaged_annotation_is_restored(text):
    good = decide(world(route(), A, lease(owner="uid-a"))).assignments["default", "a"]
    assert decide(world(route(), pod("a", 1, assigned=text), lease(owner="uid-a"))).assignments == {
        ("default", "a"): good
    }
    assert decide(world(route(), pod("a", 1, assigned=good), lease(owner="uid-a"))).assignments == {}
    assert decide(world(pod("a", 1, assigned=text))).assignments == {("default", "a"): None}


# Between routes -------------------------------------------------------------------------------------------------


def test_the_guides_three_routes():
    """They claim the same addresses; created in the same second, the lesser namespace and name has them."""
    blue = {"network": "blue-network"}
    first = route("my-ip-route", "default", A1)
    second = route("my-pod-ips", "proxy-deploy-ns", A1, A2, **blue)
    third = route("my-pod-ips", "proxy-ss-ns", A1, A2, **blue)
    plans = decide(world(third, second, first, network())).plans
    assert {key: plan.acceptance.reason.value for key, plan in plans.items()} == {
        first.key: "Accepted",
        second.key: "AddressConflict",
        third.key: "AddressConflict",
    }


def test_a_route_in_conflict_takes_no_address_from_a_third():
    oldest = route("x", "default", A1, created=1)
    middle = route("y", "default", A1, A2, created=2)
    youngest = route("z", "default", A2, created=3)
    plans = decide(world(oldest, middle, youngest)).plans
    assert [plans[each.key].acceptance.rightful for each in (oldest, middle, youngest)] == [True, False, True]


def test_an_invalid_older_route_claims_nothing():
    assert (
        plan_route(world(route("x", "default", A1, parentRefs=[{"name": "nope"}]), route(created=5)), KEY).owner == ""
    )
    snap = world(route("x", "default", A1, parentRefs=[{"name": "nope"}]), route(created=5), A)
    assert plan_route(snap, KEY).owner == "uid-a"


def test_an_address_is_not_given_before_it_is_let_go_and_the_others_stay():
    mine = route("r", "default", A1, A2)
    held = lease("other", holder="uid-x", observed=report(A2), addresses=(A2,))
    snap = world(mine, A, lease(**HELD_BY_A), held)
    plan = plan_route(snap, KEY)
    assert plan.acceptance.waiting == {A2}
    assert [each.address for each in plan.entries["uid-a"].addresses] == [A1]
    # the Lease names it no more, but the report still shows it; then neither does
    snap.put(lease("other", holder="uid-x", observed=report(A2), addresses=(), version="11"))
    assert plan_route(snap, KEY).acceptance.waiting == {A2}
    snap.put(lease("other", holder="uid-x", observed=report(), addresses=(), version="12"))
    assert plan_route(snap, KEY).acceptance.waiting == frozenset()


@pytest.mark.parametrize(
    ("view", "named"),
    [
        pytest.param(lease(owner="uid-a", addresses=(A1, A2)), (A1,), id="free"),
        pytest.param(lease(**HELD_BY_A | {"addresses": (A1, A2)}), (A1,), id="reported"),
        pytest.param(lease(owner="uid-a", holder="uid-a", addresses=(A2,)), (A2, A1), id="without-a-report"),
        pytest.param(lease(owner="uid-a", holder="uid-a", addresses=(A1, A2)), None, id="none-taken-from-the-silent"),
        pytest.param(lease(**HELD_BY_A), None, id="as-it-is"),
    ],
)
def test_what_a_lease_is_to_name(view, named):
    plan = plan_route(world(route(), A, view), KEY)
    assert (plan.lease.addresses if plan.lease else None) == named
    assert plan.lease is None or applied(view, plan.lease.body, 11).addresses == named


def test_what_a_write_under_way_names_counts_until_its_outcome_is_known():
    mine = route("r", "default", A1, A2)
    other = lease("other", holder="uid-x", observed=report(), addresses=())
    snap = world(mine, A, lease(**HELD_BY_A), other)
    where = ("default", "holdfast-other")
    snap.note_sent(where, "10", (A2,))
    assert plan_route(snap, KEY).acceptance.waiting == {A2}
    snap.note_refused(where)
    assert plan_route(snap, KEY).acceptance.waiting == frozenset()
    snap.note_sent(where, "10", (A2,))
    snap.put(lease("other", holder="uid-x", observed=report(), addresses=(), version="11"))
    assert plan_route(snap, KEY).acceptance.waiting == frozenset()


def test_a_write_of_which_the_outcome_is_not_known_is_settled_by_another():
    snap = world(route(), A, lease(**HELD_BY_A))
    snap.note_sent(("default", "holdfast-r"), "10", (A1, A2))
    plan = plan_route(snap, KEY)
    assert (plan.lease.act, plan.lease.addresses) == (LeaseAct.NAME_OWNER, (A1,))
    assert "not known" in plan.lease.why


@pytest.mark.parametrize(
    ("view", "waits"),
    [
        pytest.param(lease("x", addresses=()), False, id="free-and-does-not-name-it"),
        pytest.param(lease("x"), True, id="free-and-its-owner-may-take-it"),
        pytest.param(lease("x", holder="uid-b", observed=report(A2), addresses=()), False, id="reports-another"),
        pytest.param(lease("x", holder="uid-b", observed=report(A2)), True, id="may-still-add-it"),
        pytest.param(lease("x", holder="uid-b", observed=report(A1), addresses=()), True, id="report-shows-it"),
        pytest.param(lease("x", holder="uid-b"), True, id="no-report"),
        pytest.param(lease("x", holder="uid-b", observed="{"), True, id="a-report-that-cannot-be-read"),
    ],
)
def test_when_another_has_let_go(view, waits):
    younger = route("x", "default", A1, created=9)
    assert bool(plan_route(world(younger, route(), A, B, view), KEY).acceptance.waiting) is waits


# Whom holdfast follows and whom it leaves alone -----------------------------------------------------------------

GKE = gateway_class(controller=GKE_CONTROLLER_NAME)


def test_follow_mode_annotates_the_pod_that_gke_chose_and_writes_no_status():
    followed = route(status={"pods": ["a"]})
    plan = plan_route(world(GKE, followed, A, B), KEY)
    assert (plan.acceptance.mode, plan.owner, plan.status) == (Mode.FOLLOW, "uid-a", None)
    snap = world(GKE, followed, A_UNREADY, B, lease(owner="uid-a"))
    assert carriers(snap) == {"a"}
    assert decide(snap).gateways == {}
    assert decide(snap).classes == {}
    assert plan_route(world(GKE, route(), A, B), KEY).owner == ""
    by_node = route(status={"pods": ["a"]}, nodeSelector={"zone": "a"})  # which GKE has looked at
    assert plan_route(world(GKE, by_node, A, B), KEY).owner == "uid-a"
    balanced = route(status={"pods": ["a"]}, loadBalancing={"healthCheckName": "hc"})
    assert plan_route(world(GKE, balanced, A, B), KEY).owner == ""
    assert plan_route(world(GKE, followed, A, lease(lost=("uid-a",))), KEY).owner == ""


def test_where_gke_selects_a_route_without_gateway_is_not_written():
    lonely = route(parentRefs=[{"name": "nope"}])
    assert plan_route(world(GKE, lonely), KEY).status is None
    assert plan_route(world(gateway_class(), lonely), KEY).status is not None


def test_without_a_class_of_holdfasts_nothing_is_written():
    plan = plan_route(world(gateway_class(controller="io.cilium/gateway-controller"), route(), A), KEY)
    assert (plan.acceptance.mode, plan.status, plan.lease) == (Mode.IGNORED, None, None)


# Access ---------------------------------------------------------------------------------------------------------


def test_access_is_for_routes_to_be_held_and_for_leases_still_there():
    refused = route("bad", "default", "10.0.0.0/8")
    assert decide(world(route(), refused)).access == {"default": Access(("holdfast-r",))}
    assert decide(world(refused)).access == {"default": Access()}
    assert decide(world(lease("old", holder="x"))).access == {"default": Access(("holdfast-old",))}
    long = "x" * 250
    assert decide(world(route(long))).access == {"default": Access((lease_name(long),))}


def test_access_names_the_pods_that_read_by_a_watch_also_where_no_route_selects_them_yet():
    """A container that a user wrote without the variable watches, as the program does by itself."""
    watching = pod("w", source="watch"), pod("u", source=""), pod("m", notes={CONTAINER: "agent"})
    unselected = pod("far", source="watch", labels={}), pod("w", namespace="n", source="")
    others = pod("d"), pod("none", agent="x"), pod("d", namespace="m")
    assert decide(world(route(), *watching, *unselected, *others)).access == {
        "default": Access(("holdfast-r",), ("far", "m", "u", "w")),
        "n": Access((), ("w",)),
    }


@pytest.mark.parametrize("name", ["x" * 253, "x" * 240])
def test_a_long_name_is_found_again_by_its_lease(name):
    snap = world(route(name), A, lease(name, name=lease_name(name), route="", owner="uid-a"))
    assert plan_route(snap, ("default", name)).lease is None
