"""What the decision loop makes of the answers to its writes."""

import io

import pytest
from kube_objects import A1, lease, pod, report, route, world

from contract.lease import LeaseView
from contract.names import GUARD_DEADLINE_S
from controller.errors import Conflict, NotFound, Unreachable
from controller.leases import LeaseAct
from controller.log import Journal
from controller.reconcile import PEOPLE_S, Loop
from controller.writer import Done, Job, Writers

KEY = ("default", "holdfast-r")


def loop():
    made = Loop(Writers(None, bool, print), Journal(io.StringIO()), "c0", lambda _view: None, lambda _view: False)
    made.snap = world(route(), pod("a"), lease(owner="uid-a", version="10"))
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


def vanishing(holder, *, final=True):
    """A Lease with its route gone is deleted by somebody, as with its namespace; another route claims its address."""
    made = loop()
    made._leading, made._unsynced = True, set()
    view = lease("other", holder=holder, observed=report(A1) if holder else "", duration_s=2)
    made._newer(LeaseView, view)
    made._gone(LeaseView, OTHER, final=final)
    return made


@pytest.mark.parametrize("final", [True, False], ids=["seen", "found-gone"])
def test_a_lease_that_vanished_with_its_route_stands_for_its_addresses_until_it_has_run_out(monkeypatch, final):
    now = [100.0]
    monkeypatch.setattr("controller.reconcile.monotonic", lambda: now[0])
    made = vanishing("uid-x", final=final)
    assert made.snap.others_with(A1, ("default", "r")) == [OTHER]
    now[0] += 10.0 + GUARD_DEADLINE_S - 0.01
    made._count()
    assert made.snap.others_with(A1, ("default", "r")) == [OTHER]
    now[0] += 0.02
    made._waiting.add(("default", "r"))
    made._count()
    assert made.snap.others_with(A1, ("default", "r")) == []
    assert made.expiry.due(now[0] + 100) == []
    assert ("default", "r") in made._dirty.routes


def test_one_that_was_free_stands_for_nothing():
    assert vanishing("").snap.vanished == {}


SENT = [
    pytest.param(Conflict, False, id="refused"),
    pytest.param(NotFound, False, id="gone"),
    pytest.param(Unreachable, True, id="unknown"),
]


@pytest.mark.parametrize(("error", "counts"), SENT)
def test_a_write_that_may_be_applied_yet_counts_for_what_it_names(error, counts):
    made = loop()
    made._newer(LeaseView, lease("other", holder="uid-x", observed=report(), addresses=(), version="5"))
    made.snap.note_sent(OTHER, "5", (A1,))
    job = Job(("lease", *OTHER), (), version="5", context=LeaseAct.NAME_OWNER)
    made._done(Done(job, None, error("PATCH", 0, "said the server")))
    assert (made.snap.others_with(A1, ("default", "r")) == [OTHER]) is counts


def telling(monkeypatch, **view):
    """A loop that has a status to tell of a route whose Lease is like this, its clock, and the writes for people."""
    made, now = loop(), [100.0]
    monkeypatch.setattr("controller.reconcile.monotonic", lambda: now[0])
    made.snap.put(lease(version="11", **view))
    made._leading, made._unsynced = True, set()
    made._dirty.routes.add(("default", "r"))
    made._decide()
    made._urgent.clear()  # as if all of it had been answered
    return made, now, made.writers._cold


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
