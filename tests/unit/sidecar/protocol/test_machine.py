"""The holder's machine, one named row per rule: a situation, an event, and what is wanted next."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import msgspec
import pytest

from contract.assignment import AddressEntry, RouteEntry
from contract.lease import LeaseView
from contract.names import Handover
from contract.report import AddressReport, AddressState, Fence, Report, decode_report, encode_report
from sidecar.protocol.events import (
    Action,
    Announce,
    Assigned,
    ClockStepped,
    Configure,
    Configured,
    Event,
    IllegalEvent,
    KernelSeen,
    Kind,
    LeaseSeen,
    Prepared,
    Read,
    ReadDone,
    Reannounce,
    Refused,
    Remove,
    Removed,
    Stop,
    Tick,
    Unanswered,
    Unfenced,
    Unprepared,
    Write,
    Written,
)
from sidecar.protocol.machine import ANNOUNCE_EVERY_S, TABLE, finished, step, wake_at
from sidecar.protocol.noting import ANNOUNCE_APART_S, RETRY_MAX_S
from sidecar.protocol.state import State, older

replace = msgspec.structs.replace
ME, OTHER, THIRD = "me", "other", "third"
IP, IP2 = "10.0.0.1/32", "10.0.0.2/32"
ENTRY = RouteEntry("r", "holdfast-r", Handover.EXCLUSIVE, (AddressEntry(IP, "eth1"),))
WIDER = RouteEntry("r", "holdfast-r", Handover.EXCLUSIVE, (AddressEntry(IP, "eth1"), AddressEntry(IP2, "eth1")))
NARROW = RouteEntry("r", "holdfast-r", Handover.EXCLUSIVE, (AddressEntry(IP2, "eth1"),))
SHOWN = (AddressReport(IP, "eth1", AddressState.ANNOUNCED),)
SHOWN2 = (*SHOWN, AddressReport(IP2, "eth1", AddressState.FAILED, "not configured yet"))
FAILED = (AddressReport(IP, "eth1", AddressState.FAILED, "no interface eth1"),)
REPORT = encode_report(Report(Fence.DEADLINE, SHOWN, 10))
NOW = 100.0


def lease(version: int = 5, **fields: object) -> LeaseView:
    """The route's Lease, free and ours to take, and for all addresses, unless `fields` say otherwise."""
    return LeaseView("ns", "holdfast-r", "u", str(version), **{"owner": ME, "addresses": (IP, IP2), **fields})


def held(version: int = 5, **fields: object) -> LeaseView:
    return lease(version, **{"holder": ME, "observed": REPORT, **fields})


WAITING = State(ME, entry=ENTRY, prepared=True, fence=Fence.DEADLINE, heard_s=NOW)
HOLDER = replace(
    WAITING,
    lease=held(),
    base_s=99.0,
    duration_s=10.0,
    present=frozenset({IP}),
    fenced_s=109.0,
    reports=SHOWN,
    reported_s=99.0,
)
LEAVING = replace(HOLDER, lease=held(owner=OTHER, prepared=OTHER))
EMPTY = replace(LEAVING, present=frozenset(), reports=(), fenced_s=None)


@dataclass(frozen=True)
class Case:
    """`state` and `event` at `now`; `then` is the kind of write, the type of action, or None for nothing."""

    name: str
    state: State
    event: Event
    then: Kind | type[Action] | None
    now: float = NOW


def wanted(actions: tuple[Action, ...]) -> Kind | type[Action] | None:
    answered = [each for each in actions if not isinstance(each, Announce)]
    assert len(answered) <= 1, "one thing at a time"
    if not answered:
        return None
    (action,) = answered
    return action.kind if isinstance(action, Write) else type(action)


AWAY = lease(owner=OTHER, holder=OTHER, lost=(ME,))
LAPSED = replace(HOLDER, base_s=80.0, fenced_s=90.0)
SILENT = replace(WAITING, lease=lease(4, holder=OTHER, prepared=ME), base_s=99.0)
LOST_OF_TWO = lease(owner=OTHER, holder=OTHER, lost=(ME, THIRD), prepared=THIRD)
UNSURE = replace(WAITING, lease=lease(holder=OTHER), reread=True)


def writing(kind: Kind, state: State = HOLDER, **view: object) -> State:
    """The same, with a write in flight."""
    return replace(state, flight=Write(kind, held(**view), 3.0))


CASES = [
    # waiting
    Case("a free Lease that is ours is taken", WAITING, LeaseSeen(lease()), Kind.TAKE),
    Case(
        "taken as soon as ready", replace(WAITING, prepared=False, lease=lease()), Prepared(Fence.DEADLINE), Kind.TAKE
    ),
    Case("a free Lease that is another's is left", WAITING, LeaseSeen(lease(owner=OTHER)), None),
    Case("a free Lease that is nobody's is left", WAITING, LeaseSeen(lease(owner="")), None),
    Case("nothing is taken unprepared", replace(WAITING, prepared=False), LeaseSeen(lease()), None),
    Case("nothing is taken after SIGTERM", replace(WAITING, drain_until_s=105.0), LeaseSeen(lease()), None),
    Case(
        "why it is not taken is told", replace(WAITING, prepared=False, lease=lease()), Unprepared(FAILED), Kind.EXPLAIN
    ),
    Case("another's Lease is not explained", replace(WAITING, prepared=False, lease=AWAY), Unprepared(FAILED), None),
    Case("the owner prepares while another holds", WAITING, LeaseSeen(lease(holder=OTHER)), Kind.PREPARE),
    Case("prepared once", replace(WAITING, base_s=99.0), LeaseSeen(lease(holder=OTHER, prepared=ME)), None),
    Case("an earlier self's prepared is repeated", WAITING, LeaseSeen(lease(holder=OTHER, prepared=ME)), Kind.PREPARE),
    Case("who is not owner does not prepare", WAITING, LeaseSeen(lease(holder=OTHER, owner=THIRD)), None),
    Case("unprepared, it does not say so", replace(WAITING, prepared=False), LeaseSeen(lease(holder=OTHER)), None),
    Case("a lost Pod that is back says so", WAITING, LeaseSeen(AWAY), Kind.PREPARE),
    Case("and once", WAITING, LeaseSeen(lease(owner=OTHER, holder=OTHER, lost=(ME,), prepared=ME)), None),
    Case("not while a handover is pending", WAITING, LeaseSeen(lease(owner=OTHER, holder=THIRD, lost=(ME,))), None),
    Case(
        "nor while another lost Pod says the same",
        WAITING,
        LeaseSeen(lease(owner=OTHER, holder=OTHER, lost=(ME, THIRD), prepared=THIRD)),
        None,
    ),
    Case(
        "unfit now, it withdraws",
        replace(WAITING, lease=lease(holder=OTHER, prepared=ME), base_s=99.0),
        Unprepared(FAILED),
        Kind.WITHDRAW,
    ),
    Case(
        "after SIGTERM, too",
        replace(WAITING, lease=lease(holder=OTHER, prepared=ME)),
        Stop(105.0, 110.0),
        Kind.WITHDRAW,
    ),
    Case(
        "no longer assigned, too",
        replace(WAITING, lease=lease(owner="", holder=OTHER, prepared=ME)),
        Assigned(None),
        Kind.WITHDRAW,
    ),
    Case(
        "not yet ready after a restart is no reason",
        replace(WAITING, prepared=False),
        LeaseSeen(lease(holder=OTHER, prepared=ME)),
        None,
    ),
    # silence
    Case("who waits hears nothing: it asks", replace(SILENT, heard_s=99.0), Tick(), Read),
    Case("not sooner than after a second", replace(SILENT, heard_s=99.1), Tick(), None),
    Case("not before its time", replace(SILENT, heard_s=99.0, write_at_s=100.1), Tick(), None),
    Case("not while it ends", replace(WAITING, lease=AWAY, heard_s=80.0, drain_until_s=105.0), Tick(), None),
    Case("a lost Pod asks more seldom", replace(SILENT, lease=LOST_OF_TWO, heard_s=90.1), Tick(), None),
    Case("and asks", replace(SILENT, lease=LOST_OF_TWO, heard_s=90.0), Tick(), Read),
    Case("an old event is a sound too", replace(SILENT, heard_s=99.0), LeaseSeen(lease(3, holder=OTHER)), None),
    Case("a holder does not ask: it renews", replace(HOLDER, heard_s=0.0), Tick(), None),
    # unknown outcomes
    Case("an unknown outcome is read before all else", UNSURE, Tick(), Read),
    Case("not before its time", replace(UNSURE, write_at_s=101.0), Tick(), None),
    Case("blind, too", replace(UNSURE, lease=None), Tick(), Read),
    Case("absent, too", replace(UNSURE, entry=None), Tick(), Read),
    Case("holding, too", replace(HOLDER, reread=True), Tick(), Read),
    Case("leaving, too", replace(EMPTY, reread=True), Tick(), Read),
    Case("what a watch shows is as good as a read", UNSURE, LeaseSeen(lease(6, holder=OTHER)), Kind.PREPARE),
    Case("an old event is not", UNSURE, LeaseSeen(lease(4, holder=OTHER)), Read),
    Case("after a conflict it reads at once", writing(Kind.RENEW), Refused("409"), Read),
    Case("after no answer, too", writing(Kind.RENEW), Unanswered("time-out"), Read),
    # holding
    Case(
        "handed over within the base: configured at once",
        replace(WAITING, base_s=95.0, duration_s=10.0),
        LeaseSeen(held()),
        Configure,
    ),
    Case(
        "handed over after it: renewed first",
        replace(WAITING, base_s=80.0, duration_s=10.0),
        LeaseSeen(held()),
        Kind.RENEW,
    ),
    Case("holder without a base: renewed first", WAITING, LeaseSeen(held()), Kind.RENEW),
    Case(
        "an earlier self's addresses stay meanwhile",
        replace(WAITING, present=frozenset({IP})),
        LeaseSeen(held()),
        Kind.RENEW,
    ),
    Case("a take configures", writing(Kind.TAKE, replace(WAITING, lease=lease())), Written(held(6), 99.9), Configure),
    Case("a renewal moves the deadline", writing(Kind.RENEW), Written(held(6), 99.9), Configure),
    Case("nothing due, nothing done", HOLDER, Tick(), None),
    Case("renewed at a third", HOLDER, Tick(), Kind.RENEW, now=99.0 + 10 / 3),
    Case("past the deadline it first removes", LAPSED, Tick(), Remove),
    Case("and then renews", replace(LAPSED, flight=Remove(frozenset({IP}))), Removed(frozenset()), Kind.RENEW),
    Case("a foreign hand removed it: put back", HOLDER, KernelSeen(frozenset()), Configure),
    Case("the entry grew: first the report says so", HOLDER, Assigned(WIDER), Kind.RENEW),
    Case("and not a moment before", replace(HOLDER, write_at_s=NOW + 1.0), Assigned(WIDER), None),
    Case(
        "then it is configured",
        replace(HOLDER, entry=WIDER, lease=held(observed=encode_report(Report(Fence.DEADLINE, SHOWN2, 10)))),
        Tick(),
        Configure,
    ),
    Case(
        "a clock set while the deadline was on its way: written again",
        replace(HOLDER, stepped=True, flight=Configure(ENTRY, 109.0)),
        Configured(frozenset({IP}), SHOWN, Fence.DEADLINE),
        Configure,
    ),
    Case("the clock was set: deadline written again", HOLDER, ClockStepped(), Configure),
    Case(
        "configured after all, its entry and its Lease gone meanwhile",
        State(ME, base_s=99.0, duration_s=10.0, flight=Configure(ENTRY, 109.0)),
        Configured(frozenset({IP}), SHOWN, Fence.DEADLINE),
        Remove,
    ),
    Case("a shorter duration counts at once", HOLDER, LeaseSeen(held(6, duration_s=4)), Configure),
    Case("a longer one is reported first", HOLDER, LeaseSeen(held(6, duration_s=40)), Kind.RENEW),
    Case(
        "the report is written once configured",
        replace(HOLDER, flight=Configure(ENTRY, 109.0), reports=(), lease=held(observed="")),
        Configured(frozenset({IP}), SHOWN, Fence.DEADLINE),
        Kind.RENEW,
    ),
    Case(
        "a changed report waits for the pause",
        replace(HOLDER, reported_s=99.9, flight=Configure(ENTRY, 109.0)),
        Configured(frozenset({IP}), FAILED, Fence.DEADLINE),
        None,
    ),
    Case("not owner, nobody prepared: it keeps", HOLDER, LeaseSeen(held(6, owner=OTHER)), None),
    Case("another prepared than the owner: it keeps", HOLDER, LeaseSeen(held(6, owner=OTHER, prepared=THIRD)), None),
    Case("nobody shall hold, entry still there: it keeps", HOLDER, LeaseSeen(held(6, owner="")), None),
    Case("an entry alone gives no right", replace(HOLDER, lease=held(addresses=(IP,))), Assigned(WIDER), None),
    Case("nor does the Lease alone", HOLDER, LeaseSeen(held(6, addresses=(IP, IP2))), None),
    Case("what the Lease is for no more is removed", HOLDER, LeaseSeen(held(6, addresses=())), Configure),
    Case(
        "and at once, also after a failure",
        replace(HOLDER, configure_at_s=101.0),
        LeaseSeen(held(6, addresses=(IP2,))),
        Configure,
    ),
    # leaving
    Case("the owner is prepared: addresses go first", HOLDER, LeaseSeen(held(6, owner=OTHER, prepared=OTHER)), Remove),
    Case("then the Lease", replace(LEAVING, flight=Remove(frozenset({IP}))), Removed(frozenset()), Kind.HAND_OVER),
    Case(
        "what could not be removed is tried again",
        replace(LEAVING, flight=Remove(frozenset({IP}))),
        Removed(frozenset({IP})),
        None,
    ),
    Case("and again", replace(LEAVING, remove_at_s=99.0), Tick(), Remove),
    Case(
        "an address that could not be added delays no removal",
        replace(HOLDER, configure_at_s=101.0),
        LeaseSeen(held(6, owner=OTHER, prepared=OTHER)),
        Remove,
    ),
    Case("entry gone: removed", replace(HOLDER, lease=held(owner=OTHER)), Assigned(None), Remove),
    Case("entry gone, still the owner: it keeps", HOLDER, Assigned(None), None),
    Case("until it is owner no more", replace(HOLDER, unassigned=True), LeaseSeen(held(6, owner=OTHER)), Remove),
    Case("or the Lease is no more", replace(HOLDER, unassigned=True), LeaseSeen(None), Remove),
    Case(
        "entry gone, still the owner: a free Lease is taken",
        replace(WAITING, unassigned=True),
        LeaseSeen(lease()),
        Kind.TAKE,
    ),
    Case(
        "entry gone and there again: as before",
        replace(HOLDER, unassigned=True, lease=held(owner=ME)),
        Assigned(ENTRY),
        None,
    ),
    Case("entry gone: released", replace(EMPTY, lease=held(owner="")), Assigned(None), Kind.RELEASE),
    Case("SIGTERM and a prepared owner: handed over", EMPTY, Stop(105.0, 110.0), Kind.HAND_OVER),
    Case("SIGTERM, owner not prepared: waits", replace(HOLDER, lease=held(owner=OTHER)), Stop(105.0, 110.0), None),
    Case(
        "SIGTERM, nobody shall follow: lets go now", replace(HOLDER, lease=held(owner="")), Stop(105.0, 110.0), Remove
    ),
    Case("drained: lets go", replace(HOLDER, drain_until_s=100.0), Tick(), Remove),
    Case("drained: released", replace(EMPTY, lease=held(), drain_until_s=100.0), Tick(), Kind.RELEASE),
    # ousted
    Case("another holds: removed", HOLDER, LeaseSeen(lease(6, holder=OTHER)), Remove),
    Case("free, though ours: removed before it is taken", HOLDER, LeaseSeen(lease(6)), Remove),
    Case(
        "an earlier self's addresses and another holds: removed",
        replace(WAITING, lease=AWAY),
        KernelSeen(frozenset({IP})),
        Remove,
    ),
    Case("not assigned and the Lease unknown: removed", State(ME), KernelSeen(frozenset({IP})), Remove),
    # blind
    Case("assigned and the Lease unknown: stays", replace(WAITING, present=frozenset({IP})), Tick(), None),
    Case("the Lease is gone: stays until the deadline", HOLDER, LeaseSeen(None), None),
    Case("and no longer", replace(HOLDER, lease=None), Tick(), Remove, now=109.0),
    # one thing at a time
    Case(
        "nothing else begins while an action is under way",
        writing(Kind.RENEW),
        LeaseSeen(held(6, owner=OTHER, prepared=OTHER)),
        None,
    ),
    Case(
        "an unknown read is read again, later", replace(UNSURE, flight=Read(3.0), failures=1), Unanswered("cut"), None
    ),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_what_is_wanted(case):
    _, actions = step(case.state, case.event, case.now)
    assert wanted(actions) == case.then


def test_only_what_entry_and_lease_both_name_is_configured_and_reported():
    taken = writing(Kind.TAKE, replace(WAITING, entry=WIDER, lease=lease()))
    state, (action,) = step(taken, Written(held(6, observed="", addresses=(IP2,)), 99.9), NOW)
    assert action == Configure(NARROW, 109.9)
    told = decode_report(state.report, "test")
    assert [each.address for each in told.addresses] == [IP2]


def test_every_row_of_the_table_has_a_case(monkeypatch):
    fired = set()

    def noted(at, row):
        def act(state, now):
            fired.add((at, row.what))
            return row.then(state, now)

        return dataclasses.replace(row, then=act)

    rows = {(at, row.what) for at, rows in TABLE.items() for row in rows}
    for at, old in list(TABLE.items()):
        monkeypatch.setitem(TABLE, at, tuple(noted(at, row) for row in old))
    for case in CASES:
        step(case.state, case.event, case.now)
    assert rows == fired


RESULTS = [
    Written(held(6), 99.0),
    Refused("409"),
    Unanswered("cut"),
    ReadDone(held(6)),
    Configured(frozenset(), (), Fence.DEADLINE),
    Removed(frozenset()),
]
FLIGHTS = {
    "nothing": None,
    "a write": Write(Kind.RENEW, held(), 3.0),
    "a read": Read(3.0),
    "a configuration": Configure(ENTRY, 109.0),
    "a removal": Remove(frozenset({IP})),
}
LEGAL = {
    ("a write", Written),
    ("a write", Refused),
    ("a write", Unanswered),
    ("a read", Unanswered),
    ("a read", ReadDone),
    ("a configuration", Configured),
    ("a removal", Removed),
}


@pytest.mark.parametrize("flight", FLIGHTS)
@pytest.mark.parametrize("event", RESULTS, ids=lambda event: type(event).__name__)
def test_a_result_that_answers_nothing_is_illegal_and_changes_nothing(flight, event):
    state = replace(HOLDER, flight=FLIGHTS[flight])
    before = replace(state)
    if (flight, type(event)) in LEGAL:
        step(state, event, NOW)
        return
    with pytest.raises(IllegalEvent, match=type(event).__name__):
        step(state, event, NOW)
    assert state == before


# The base and the deadline ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Base:
    """After `event` in `state` the base is `then`."""

    name: str
    state: State
    event: Event
    then: float | None


BASES = [
    Base("a take counts from when it was sent", writing(Kind.TAKE, WAITING), Written(held(6), 98.5), 98.5),
    Base("a renewal counts from when it was sent", writing(Kind.RENEW), Written(held(6), 99.5), 99.5),
    Base("a watch event never counts", HOLDER, LeaseSeen(held(6)), 99.0),
    Base("a read never counts", replace(HOLDER, reread=True, flight=Read(3.0)), ReadDone(held(6)), 99.0),
    Base("no answer never counts", writing(Kind.RENEW), Unanswered("cut"), 99.0),
    Base(
        "a prepare counts if another still held",
        writing(Kind.PREPARE, WAITING),
        Written(lease(6, holder=OTHER), 98.0),
        98.0,
    ),
    Base(
        "a prepare that is answered with us as holder does not",
        writing(Kind.PREPARE, WAITING),
        Written(held(6), 98.0),
        None,
    ),
    Base("a withdrawal does not", writing(Kind.WITHDRAW, WAITING), Written(lease(6, holder=OTHER), 98.0), None),
    Base(
        "a handover that is refused leaves none",
        replace(EMPTY, base_s=None, flight=Write(Kind.HAND_OVER, held(), 3.0)),
        Refused("409"),
        None,
    ),
    Base(
        "a release without an answer leaves none",
        replace(EMPTY, base_s=None, flight=Write(Kind.RELEASE, held(), 3.0)),
        Unanswered("cut"),
        None,
    ),
    Base("what begins a handover voids it", EMPTY, Tick(), None),
]


@pytest.mark.parametrize("case", BASES, ids=lambda case: case.name)
def test_the_base(case):
    after, _ = step(case.state, case.event, NOW)
    assert after.base_s == case.then


def test_a_withdrawn_prepare_is_no_base():
    state = replace(WAITING, base_s=99.0, lease=lease(holder=OTHER, prepared=ME))
    after, actions = step(state, Stop(105.0, 110.0), NOW)
    assert wanted(actions) is Kind.WITHDRAW
    assert after.base_s is None


def test_the_deadline_is_base_and_duration_and_goes_to_the_kernel_as_it_is():
    _, actions = step(writing(Kind.RENEW), Written(held(6, duration_s=7), 99.25), NOW)
    assert actions == (Configure(ENTRY, 106.25),)


def test_a_shorter_duration_that_was_seen_before_a_late_answer_counts():
    """Its `prepared` was answered with ten seconds, after the watch had shown the handover, with four."""
    s = replace(WAITING, lease=lease(4, holder=OTHER), base_s=None, flight=Write(Kind.PREPARE, lease(4), 1.0, "", ""))
    s, _ = step(s, LeaseSeen(lease(7, holder=ME, duration_s=4)), NOW)
    _, actions = step(s, Written(lease(5, holder=OTHER, prepared=ME, duration_s=10), 99.25), NOW)
    assert actions == (Configure(ENTRY, 103.25),)


def test_a_renewal_carries_the_report_and_the_version_it_is_for():
    _, (write,) = step(HOLDER, Tick(), 103.0)
    assert write.view == HOLDER.lease
    assert decode_report(write.observed, "test") == Report(Fence.DEADLINE, SHOWN, 10)


ADOPTED = replace(WAITING, present=frozenset({IP}))


def test_an_earlier_selfs_deadline_counts_until_it_is_replaced():
    shortened = held(duration_s=2)
    _, (write,) = step(ADOPTED, LeaseSeen(shortened), NOW)
    assert decode_report(write.observed, "test").duration_s == 10
    s = replace(ADOPTED, lease=shortened, base_s=99.9, duration_s=2.0, flight=Configure(ENTRY, 101.9))
    _, (write,) = step(s, Configured(frozenset({IP}), SHOWN, Fence.DEADLINE), NOW)
    assert decode_report(write.observed, "test").duration_s == 2


@pytest.mark.parametrize("state", [ADOPTED, WAITING], ids=["an earlier self's stands", "it ran out"])
def test_a_renewal_names_what_is_not_configured_yet(state):
    _, (write,) = step(state, LeaseSeen(held()), NOW)
    assert [each.address for each in decode_report(write.observed, "test").addresses] == [IP]


def test_what_could_not_be_removed_stays_in_the_report():
    s = replace(HOLDER, entry=NARROW, present=frozenset({IP, IP2}), reports=SHOWN2[1:], configure_at_s=NOW + 1.0)
    _, (write,) = step(s, Tick(), NOW)
    assert [each.address for each in decode_report(write.observed, "test").addresses] == [IP2, IP]


def test_a_clock_set_on_the_way_is_noted():
    after, _ = step(replace(HOLDER, flight=Configure(ENTRY, 109.0)), ClockStepped(), NOW)
    assert (after.fenced_s, after.stepped) == (None, True)


def test_a_hand_over_names_the_owner():
    _, (write,) = step(EMPTY, Tick(), NOW)
    assert (write.kind, write.successor) == (Kind.HAND_OVER, OTHER)


def test_an_older_version_changes_nothing():
    after, actions = step(HOLDER, LeaseSeen(lease(4, holder=OTHER)), NOW)
    assert (after, actions) == (replace(HOLDER, heard_s=NOW), ())


def test_a_fence_that_is_gone_is_reported_and_set_again():
    state, actions = step(HOLDER, Unfenced(), NOW)
    assert actions == (Configure(ENTRY, 109.0),)
    assert decode_report(state.report, "").fence is Fence.LIFETIME
    state, _ = step(state, Configured(frozenset({IP}), SHOWN, Fence.DEADLINE), NOW)
    assert decode_report(state.report, "").fence is Fence.DEADLINE
    waiting, _ = step(WAITING, Unfenced(), NOW)
    assert waiting.fence is Fence.DEADLINE, "nothing stands that would need it"


def test_versions_that_are_no_numbers_are_taken_as_new():
    assert not older(lease(version="a"), lease(version="b"))


# Failures, announcements, the end ---------------------------------------------------------------------------------


def test_pauses_between_failures_grow_and_are_bounded():
    state, pauses, now = replace(HOLDER, base_s=95.0, fenced_s=105.0), [], NOW
    for _ in range(9):
        state = replace(state, flight=Write(Kind.RENEW, held(), 3.0))
        state, _ = step(state, Unanswered("cut"), now)
        pauses.append(state.write_at_s - now)
    assert pauses[0] == 0.0
    assert pauses[1:4] == pytest.approx([0.04, 0.08, 0.16])
    assert pauses[-1] == pytest.approx(RETRY_MAX_S)
    state, _ = step(replace(state, flight=Write(Kind.RENEW, held(), 3.0)), Written(held(6), now), now)
    assert (state.failures, state.write_at_s) == (0, 0.0)


def announced_at(state: State, until_s: float) -> list[float]:
    """Let time pass by `wake_at` alone and note when the machine announces."""
    times, now = [], NOW
    while (due := wake_at(state, now)) is not None and due <= until_s:
        now = due
        state, actions = step(state, Tick(), now)
        times += [now for each in actions if isinstance(each, Announce)]
        for each in actions:
            if isinstance(each, Write):
                state, _ = step(state, Written(held(int(state.lease.version) + 1), now), now)
            if isinstance(state.flight, Configure):
                state, _ = step(state, Configured(frozenset({IP}), SHOWN, Fence.DEADLINE), now)
    return times


SPREAD = [1.1, 3.3, 7.7, 16.5, 34.1, 69.3, 129.3, 189.3]
"""After the first: once the neighbours' locktime is over, then after pauses that double up to a minute."""


def test_announcements_after_an_address_was_added_spread_out_to_one_each_minute():
    state = replace(HOLDER, present=frozenset(), flight=Configure(ENTRY, 109.0))
    state, _ = step(state, Configured(frozenset({IP}), SHOWN, Fence.DEADLINE), NOW)
    assert announced_at(state, NOW + 200.0) == pytest.approx([NOW + after for after in SPREAD])


def test_announcements_after_the_network_changed_begin_at_once_and_spread_out_again():
    state, actions = step(replace(HOLDER, announcements=9, announced_s=50.0), Reannounce(), NOW)
    assert actions == (Announce(frozenset({IP})),)
    assert announced_at(state, NOW + 200.0) == pytest.approx([NOW + after for after in SPREAD])


def test_a_switch_port_that_forwards_late_is_told_within_5_s():
    for silent_s in (15.0, 30.0):  # spanning tree: one forward delay, or two
        heard_s = min(after for after in SPREAD if after > silent_s)
        assert heard_s - silent_s < 5.0


def test_the_pause_between_announcements_does_not_overflow():
    state, _ = step(replace(HOLDER, announcements=100_000, announce_at_s=NOW), Tick(), NOW)
    assert state.announce_at_s == NOW + ANNOUNCE_EVERY_S


def test_announced_again_at_once_but_not_within_the_locktime():
    _, actions = step(replace(HOLDER, announced_s=50.0), Reannounce(), NOW)
    assert actions == (Announce(frozenset({IP})),)
    state, actions = step(replace(HOLDER, announced_s=99.5), Reannounce(), NOW)
    assert actions == ()
    assert state.announce_at_s == pytest.approx(99.5 + ANNOUNCE_APART_S)


def test_nothing_is_announced_while_leaving():
    state, actions = step(
        replace(HOLDER, announce_at_s=99.0, flight=Read(3.0)), LeaseSeen(held(6, owner=OTHER, prepared=OTHER)), NOW
    )
    assert actions == ()
    assert state.announce_at_s is None


@pytest.mark.parametrize(
    ("name", "state", "now", "over"),
    [
        ("not asked to stop", WAITING, NOW, False),
        ("nothing held", replace(WAITING, drain_until_s=100.0, give_up_s=105.0, lease=AWAY), NOW, True),
        ("still prepared", replace(WAITING, drain_until_s=100.0, lease=lease(holder=OTHER, prepared=ME)), NOW, False),
        ("still holding", replace(HOLDER, drain_until_s=101.0, give_up_s=105.0), NOW, False),
        ("the Lease not given yet", replace(EMPTY, drain_until_s=101.0, give_up_s=105.0), NOW, False),
        ("given up: the API is away", replace(EMPTY, drain_until_s=101.0, give_up_s=105.0), 105.0, True),
        ("given up, but addresses stand", replace(HOLDER, drain_until_s=101.0, give_up_s=105.0), 105.0, False),
        ("an action is under way", replace(EMPTY, drain_until_s=99.0, give_up_s=99.0, flight=Read(3.0)), NOW, False),
        ("an outcome is unknown", replace(UNSURE, drain_until_s=99.0, give_up_s=105.0), NOW, False),
    ],
)
def test_finished(name, state, now, over):
    assert finished(state, now) is over, name


@pytest.mark.parametrize(
    ("name", "state", "at_s"),
    [
        ("a holder wakes to renew", HOLDER, 99.0 + 10 / 3),
        ("with a write under way only for other things", writing(Kind.RENEW), None),
        ("past the renewal, at the retry", replace(HOLDER, base_s=95.0, fenced_s=105.0, write_at_s=100.5), 100.5),
        ("at the deadline", replace(HOLDER, base_s=92.0, fenced_s=102.0, reread=True), 102.0),
        ("at an announcement", replace(HOLDER, announce_at_s=100.2), 100.2),
        ("when the drain is over", replace(HOLDER, drain_until_s=101.0, give_up_s=106.0), 101.0),
        ("waiting, to ask", replace(WAITING, lease=lease(owner=OTHER, holder=OTHER), heard_s=99.5), 100.5),
        ("waiting and lost, to ask later", replace(WAITING, lease=AWAY, heard_s=99.5), 109.5),
        ("waiting and asked to end, at that", replace(WAITING, lease=AWAY, drain_until_s=105.0), 105.0),
    ],
)
def test_wake_at(name, state, at_s):
    due = wake_at(state, NOW)
    assert due == (None if at_s is None else pytest.approx(at_s)), name
