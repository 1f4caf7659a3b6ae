"""What is seen, and what is missed: versions, lists, and Leases that are gone."""

from __future__ import annotations

import pytest

from contract.assignment import AddressEntry, Assignment, RouteEntry, encode_assignment
from contract.lease import LeaseView
from contract.names import GUARD_DEADLINE_S, GUARD_LIFETIME_S, MOST_DURATION_S, Handover
from controller.choice.accept import Acceptor
from controller.choice.decide import plan_route
from controller.choice.intake import Intake
from controller.choice.objects import Pod, Route
from controller.choice.snapshot import Snapshot
from tests.unit.controller.kube_objects import A1, gateway, gateway_class, lease, pod, report, route

R, OTHER = ("default", "r"), ("default", "holdfast-other")
HELD = {"holder": "uid-x", "owner": "uid-x", "observed": report(A1)}


def intake(*objects):
    return Intake(lambda _kind, _key: None, set(), Snapshot.of(*objects))


def blocked(made):
    return made.snap.others_with(A1, R) == [OTHER]


GONE = [
    pytest.param(HELD, True, 10.0 + GUARD_DEADLINE_S, id="held"),
    pytest.param(HELD, False, 10.0 + GUARD_DEADLINE_S, id="held-when-last-seen"),
    pytest.param({"owner": "uid-x"}, True, 0.0, id="free"),
    pytest.param({"owner": "uid-x"}, False, 10.0 + GUARD_LIFETIME_S, id="free-when-last-seen-and-perhaps-taken-since"),
]


@pytest.mark.parametrize("with_route", [False, True], ids=["its-route-gone", "its-route-there"])
@pytest.mark.parametrize(("fields", "final", "seconds"), GONE)
def test_a_lease_that_is_gone_stands_for_its_addresses_until_its_holder_must_have_let_go(
    fields, final, seconds, with_route
):
    """Counted from when it is found gone: its holder may have renewed it unseen until then."""
    made = intake(route("other")) if with_route else intake()
    made.newer(LeaseView, lease("other", version="5", **fields), 100.0)
    if final:
        made.ended(LeaseView, lease("other", version="5", **fields), 200.0)
    else:
        made.listed(LeaseView, [], 9, 200.0)
    if seconds:
        made.count(200.0 + seconds - 0.01)
        assert blocked(made)
    _, over = made.count(200.0 + seconds + 0.01)
    assert over is bool(seconds)
    assert not blocked(made)
    assert made.expiry.due(1000.0) == []


def test_a_lease_of_a_route_that_conflicts_does_not_hold_its_address_back_for_ever():
    """The younger route had the address; it is the older one's now, and the younger one's Lease is not made again."""
    older, younger = route("r", created=1), route("other", created=2)
    made = intake(older, younger)
    made.newer(LeaseView, lease("other", version="5", **HELD), 100.0)
    made.listed(LeaseView, [], 9, 200.0)
    assert plan_route(made.snap, ("default", "other"), Acceptor(made.snap)).lease is None
    made.count(220.0)
    assert not blocked(made)


def begun(*objects):
    """A controller that starts and is shown these."""
    made = Intake(lambda _kind, _key: None, {LeaseView, Pod, Route})
    for kind in (Pod, Route, LeaseView):
        made.listed(kind, [each for each in objects if isinstance(each, kind)], 20, 100.0)
    return made


ENTRY = RouteEntry("other", "holdfast-other", Handover.EXCLUSIVE, (AddressEntry(A1, "eth1"),))
CARRIER = pod("x", assigned=encode_assignment(Assignment((ENTRY,))))


def test_at_the_start_an_entry_stands_for_a_lease_that_is_not_there_for_as_long_as_any_may_last():
    made = begun(route("r"), CARRIER)
    assert blocked(made)
    made.newer(Pod, pod("x", version="30"), 101.0)
    made.count(100.0 + MOST_DURATION_S + GUARD_LIFETIME_S - 0.01)
    assert blocked(made)
    made.count(100.0 + MOST_DURATION_S + GUARD_LIFETIME_S)
    assert not blocked(made)


NOT_LEFT = [
    pytest.param([CARRIER, lease("other", version="5", addresses=())], id="its-Lease-is-there-and-names-nothing"),
    pytest.param([pod("x")], id="no-entry"),
    pytest.param([pod("x", assigned="{")], id="an-entry-that-cannot-be-read"),
]


@pytest.mark.parametrize("objects", NOT_LEFT)
def test_at_the_start_nothing_else_stands_for_anything(objects):
    assert not blocked(begun(route("r"), *objects))


def test_later_an_entry_without_its_lease_is_no_such_sign():
    made = begun(route("r"))
    made.newer(Pod, CARRIER, 101.0)
    made.listed(Pod, [CARRIER], 40, 102.0)
    assert not blocked(made)


def test_a_lease_that_comes_after_its_entry_was_seen_counts_for_itself():
    made = begun(route("r"), CARRIER)
    made.newer(LeaseView, lease("other", version="25", addresses=()), 101.0)
    assert not blocked(made)


def test_what_was_left_behind_says_nothing_of_who_held_or_for_how_long():
    """Its route is there and is to have a Lease: made again in nobody's name, for the route's own duration."""
    made = begun(route("other"), CARRIER)
    for each in (gateway_class(), gateway()):
        made.newer(type(each), each, 100.0)
    spec = plan_route(made.snap, ("default", "other"), Acceptor(made.snap)).lease.body["spec"]
    assert (spec["holderIdentity"], spec["leaseDurationSeconds"]) == ("vanished", 10)


def test_older_versions_change_nothing_and_another_object_of_that_name_does():
    made = intake()
    made.newer(Pod, pod("a", version="7"), 0.0)
    made.newer(Pod, pod("a", version="6", node="n2"), 0.0)
    assert made.snap.pods["default", "a"].spec.node_name == "n1"
    made.newer(Pod, pod("a", version="3", uid="again", node="n3"), 0.0)
    assert made.snap.pods["default", "a"].spec.node_name == "n3"


def test_a_list_older_than_what_was_seen_takes_nothing_away():
    made = intake()
    made.newer(Pod, pod("a", version="7"), 0.0)
    made.listed(Pod, [], 6, 0.0)
    assert ("default", "a") in made.snap.pods
    made.listed(Pod, [], 7, 0.0)
    assert made.snap.pods == {}


def test_the_end_of_an_earlier_object_is_not_the_end_of_its_namesake():
    made = intake()
    made.newer(Pod, pod("a", uid="again"), 0.0)
    made.ended(Pod, pod("a", uid="earlier"), 0.0)
    assert ("default", "a") in made.snap.pods


def test_before_and_after_each_change_it_says_what_changes():
    told = []
    made = Intake(lambda kind, key: told.append((kind, key, key in made.snap.pods)), set())
    made.newer(Pod, pod("a"), 0.0)
    made.ended(Pod, pod("a"), 0.0)
    key = ("default", "a")
    assert told == [(Pod, key, False), (Pod, key, True), (Pod, key, True), (Pod, key, False)]


def test_leases_of_other_programs_are_left_out():
    made = intake()
    made.newer(LeaseView, lease(name="kube-scheduler"), 0.0)
    assert made.snap.leases == {}
