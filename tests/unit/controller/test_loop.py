"""What the decision loop makes of the answers to its writes."""

import io

import pytest

from contract.lease import LeaseView
from contract.names import GUARD_DEADLINE_S
from controller.choice.expiry import life_sign
from controller.choice.impact import Impact
from controller.choice.leases import LeaseAct
from controller.cluster.writer import Done, Job, Writers
from controller.errors import Conflict, NotFound, Unreachable
from controller.journal import Journal
from controller.loop import PEOPLE_S, Ask, Loop
from controller.outbox import Outbox
from tests.unit.controller.kube_objects import A1, lease, namespace, pod, report, route, world

KEY = ("default", "holdfast-r")


def loop():
    made = Loop(
        Outbox(Writers(None, bool, print)), Journal(io.StringIO()), "c0", lambda _view: None, lambda _view: False
    )
    made.intake.snap = world(route(), pod("a"), lease(owner="uid-a", version="10"))
    return made


def failed(made, error, version):
    job = Job(("lease", *KEY), (), version=version, context=LeaseAct.NAME_OWNER)
    made._done(Done(job, None, error("PATCH", 404 if error is NotFound else 409, "said the server")))


GONE = [
    pytest.param(NotFound, "10", True, id="the version that was to be written"),
    pytest.param(NotFound, "9", False, id="a newer one has been seen since"),
    pytest.param(Conflict, "10", False, id="it is there, in another version"),
]


@pytest.mark.parametrize(("error", "version", "gone"), GONE)
def test_a_lease_that_is_not_there_is_forgotten_and_may_have_been_held(error, version, gone):
    made = loop()
    failed(made, error, version)
    assert (KEY not in made.snap.leases) is gone
    assert (KEY in made.snap.vanished) is gone
    assert not gone or not made.snap.vanished[KEY].final


OTHER = ("default", "holdfast-other")


def test_who_waits_for_an_address_is_decided_again_when_a_lease_that_vanished_has_run_out(monkeypatch):
    now = [100.0]
    monkeypatch.setattr("controller.loop.monotonic", lambda: now[0])
    made = loop()
    made.intake.newer(LeaseView, lease("other", holder="uid-x", observed=report(A1)), now[0])
    made.intake.gone(LeaseView, OTHER, now[0], final=True)
    made._waiting.add(("default", "r"))
    made._dirty = Impact()
    made._count()
    assert not made._dirty
    now[0] += 10.0 + GUARD_DEADLINE_S
    made._count()
    assert ("default", "r") in made._dirty.routes
    assert made.snap.others_with(A1, ("default", "r")) == []


SENT = [
    pytest.param(Conflict, False, id="refused"),
    pytest.param(NotFound, False, id="gone"),
    pytest.param(Unreachable, True, id="unknown"),
]


@pytest.mark.parametrize(("error", "counts"), SENT)
def test_a_write_that_may_be_applied_yet_counts_for_what_it_names(error, counts):
    made = loop()
    made.intake.newer(LeaseView, lease("other", holder="uid-x", observed=report(), addresses=(), version="5"), 1.0)
    made.snap.note_sent(OTHER, "5", (A1,))
    job = Job(("lease", *OTHER), (), version="5", context=LeaseAct.NAME_OWNER)
    made._done(Done(job, None, error("PATCH", 0, "said the server")))
    assert (made.snap.others_with(A1, ("default", "r")) == [OTHER]) is counts


def telling(monkeypatch, **view):
    """A loop that has a status to tell of a route whose Lease is like this, its clock, and the writes for people."""
    made, now = loop(), [100.0]
    monkeypatch.setattr("controller.loop.monotonic", lambda: now[0])
    made.snap.put(lease(version="11", **view))
    made._leading, made.intake.unlisted = True, set()
    made._dirty.routes.add(("default", "r"))
    made._decide()
    made.outbox._urgent.clear()  # as if all of it had been answered
    return made, now, made.outbox.writers._cold


def test_what_is_for_people_waits_for_a_hand_over_but_not_for_long(monkeypatch):
    made, now, told = telling(monkeypatch, owner="uid-a", holder="uid-b", observed=report(A1))
    made._tell_people()
    assert told.empty()
    now[0] += PEOPLE_S
    made._tell_people()
    assert not told.empty()


def test_what_is_for_people_is_told_at_once_when_the_owner_holds(monkeypatch):
    made, _, told = telling(monkeypatch, owner="uid-a", holder="uid-a", observed=report(A1))
    made._tell_people()
    assert not told.empty()


def test_what_is_asked_of_a_namespace_is_answered_once_every_watch_has_been_listed():
    made, answers = loop(), []
    made.intake.snap = world(route(), route("b", "other"), namespace("default", team="net"))
    made._take(Ask("default", answers.append))
    made.intake.unlisted.clear()
    for space in ("default", "nowhere"):
        made._take(Ask(space, answers.append))
    selector = route().spec.pod_selector
    assert answers == [None, ({"team": "net"}, (selector,)), ({}, ())]


def test_a_standby_that_leads_goes_by_what_it_has_counted_all_along(monkeypatch):
    now = [100.0]
    monkeypatch.setattr("controller.loop.monotonic", lambda: now[0])
    made, view = loop(), lease(owner="uid-a", holder="uid-x", observed=report(A1), version="11")
    made.intake.newer(LeaseView, view, now[0])
    now[0] += 10.0
    made._lead(now=True)
    assert made.snap.expired == frozenset()
    now[0] += GUARD_DEADLINE_S
    made._count()
    assert made.snap.expired == {life_sign(view)}
