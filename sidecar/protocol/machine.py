"""The holder's machine: one route, one Lease, one Pod. Pure: what happens is an event, what is to be done an action.

The theory, in the order in which the rows below rest on it:

*Who does hold.* The Lease's holder holds; nobody configures an address without being it. Becoming holder takes a
write by compare-and-swap: `take` of a free Lease by its owner, or the old holder's `hand_over`.

*The base.* A holder's time runs from when its own last successful write was **sent**. Nobody else can have counted
from an earlier moment, so ``base + duration`` comes before the controller may call the Lease expired. An older base is
always safe, a younger one never. For a Pod that was handed the Lease the base is its `prepare`, if the answer
showed another holder. Once a handover or a release has been sent the base is void, whatever becomes of the write:
only a renewal, which makes the write's version an old one, gives a new base.

*The kernel keeps the deadline.* `Configure` carries the deadline as an absolute time; fence first, address second.
So it does not matter when, after which pause, an action is carried out.

*Which addresses.* Those that the entry and the Lease both name, and no other: the Lease says what its holder may have,
and two Leases never name one address. An entry alone, which may be old, gives no right.

*What others may know.* The report names every address that stands or may stand soon, and the duration that the deadline
in the kernel was counted with; a Lease that says nothing may stand for anything that it names.

*One thing at a time.* At most one action is in flight, kernel call or Lease write; its result is the only event
that lets the next one start. An event that answers nothing in flight is `IllegalEvent` and changes nothing.

*A write without an answer* may be applied at any time: the Lease is read before anything else is written.

`step` notes the event (`sidecar.protocol.noting`) in the state (`sidecar.protocol.state`), then does the first row of
`TABLE[phase]` whose condition holds. Deterministic, no clock: `now` and all times are seconds of CLOCK_BOOTTIME. Not
here: Overlap, nonlocal-bind and the sources without a Lease, which get rows and phases of their own; an entry that asks
for Overlap is held exclusively.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import msgspec

from contract.assignment import RouteEntry
from contract.report import report_of
from sidecar.protocol.events import Action, Announce, Configure, Event, InFlight, Kind, Read, Remove, Write
from sidecar.protocol.noting import ANNOUNCE_APART_S, note
from sidecar.protocol.state import Phase, State, lapsed, observed, phase

if TYPE_CHECKING:
    from collections.abc import Callable

RENEW_FRACTION: Final = 3
"""A holder renews at a third of the duration: two more chances before the deadline."""
ANNOUNCE_EVERY_S: Final = 60.0
"""Switches forget a MAC address after 300 s (IEEE 802.1D), routers an ARP entry after 1200 s."""
ASK_AGAIN_S: Final = 1.0
"""Who waits for a handover and hears nothing asks: a connection that something between has forgotten says nothing."""
ASK_AGAIN_LOST_S: Final = 10.0
"""The same, of a lost Pod, for which nothing is under way."""
MOST_DOUBLINGS: Final = 10
REPORT_APART_S: Final = 0.2
"""A report that changes again and again is written no more often than this; the first one is written at once."""

replace = msgspec.structs.replace

# The table ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Row:
    """One row: in its phase, when the condition holds, this is done. `what` is for the diagram."""

    what: str
    when: Callable[[State, float], bool]
    then: Callable[[State, float], InFlight]


def _write(kind: Kind) -> Callable[[State, float], InFlight]:
    def act(s: State, _now: float) -> InFlight:
        assert s.lease is not None  # noqa: S101 - every phase that writes has a Lease
        successor = s.successor if kind is Kind.HAND_OVER else ""
        report = s.report if kind in (Kind.RENEW, Kind.EXPLAIN) else ""
        return Write(kind, s.lease, _timeout_s(s), successor, report)

    return act


def _timeout_s(s: State) -> float:
    return (s.lease.duration_s if s.lease else 3) / RENEW_FRACTION


def _free_to_write(s: State, now: float) -> bool:
    return now >= s.write_at_s and not s.reread


def _free_to_give(s: State, now: float) -> bool:
    # a removal that failed waits for its next try, and the Lease waits for that
    return not s.present and _free_to_write(s, now)


def _take_due(s: State, now: float) -> bool:
    lease = s.lease
    free = lease is not None and not lease.holder and lease.owner == s.me
    return free and s.prepared and s.drain_until_s is None and _free_to_write(s, now)


def _explain_due(s: State, now: float) -> bool:
    lease = s.lease
    free = lease is not None and not lease.holder and lease.owner == s.me
    # while another holds, a Pod that cannot take over simply does not say that it is prepared
    return free and not s.prepared and bool(s.reports) and s.report != observed(s) and _free_to_write(s, now)


def _prepare_due(s: State, now: float) -> bool:
    lease = s.lease
    if lease is None or not s.prepared or s.drain_until_s is not None or not _free_to_write(s, now):
        return False
    known = lease.prepared == s.me and s.base_s is not None
    if lease.owner == s.me:
        return bool(lease.holder) and not known
    # a lost Pod is back: it says so once, when no handover is under way and no other lost Pod is saying the same
    settled = lease.owner in ("", lease.holder) or not lease.holder
    return s.me in lease.lost and settled and lease.prepared != s.me and lease.prepared not in lease.lost


def _withdraw_due(s: State, now: float) -> bool:
    cannot = not s.prepared and bool(s.reports)  # without a reason it is only not ready yet, as after a restart
    unfit = s.drain_until_s is not None or s.entry is None or cannot
    return unfit and s.lease is not None and s.lease.prepared == s.me and _free_to_write(s, now)


def _renew_due(s: State, now: float) -> bool:
    return now >= _renew_at(s) and _free_to_write(s, now)


def _renew_at(s: State) -> float:
    return float("-inf") if s.base_s is None else s.base_s + s.duration_s / RENEW_FRACTION


def _report_due(s: State, now: float) -> bool:
    changed = bool(s.reports) and s.report != observed(s)
    return changed and now >= _report_at(s) and _free_to_write(s, now)


def _report_at(s: State) -> float:
    return s.reported_s + REPORT_APART_S if observed(s) else float("-inf")


def _configure_due(s: State, now: float) -> bool:
    if lapsed(s, now):
        return False
    moved = s.fenced_s != s.deadline_s
    missing = s.present != s.wanted and now >= s.configure_at_s
    return (moved and bool(s.present)) or ((moved or missing) and _shown(s))


def _shown(s: State) -> bool:
    """Whether the Lease's report names what is to be added; one that says nothing stands for anything."""
    if s.lease is None or not s.lease.observed or s.wanted <= s.present:
        return True
    report = report_of(s.lease)
    return report is not None and s.wanted - s.present <= {each.address for each in report.addresses}


def _show_due(s: State, now: float) -> bool:
    return not lapsed(s, now) and not _shown(s) and _free_to_write(s, now)


def _configure(s: State, _now: float) -> InFlight:
    assert s.entry is not None  # noqa: S101 - without an entry the phase is LEAVING
    assert s.deadline_s is not None  # noqa: S101 - the row's condition
    entry = s.entry
    if s.wanted != s.named:
        allowed = tuple(each for each in entry.addresses if each.address in s.wanted)
        entry = RouteEntry(entry.route, entry.lease, entry.handover, allowed)
    return Configure(entry, s.deadline_s)


def _ask_at(s: State) -> float:
    if s.drain_until_s is not None:
        return float("inf")
    lost = s.lease is not None and s.me in s.lease.lost
    return s.heard_s + (ASK_AGAIN_LOST_S if lost else ASK_AGAIN_S)


_READ = Row(
    "read: the outcome of a write is not known",
    lambda s, now: s.reread and now >= s.write_at_s,
    lambda s, _now: Read(_timeout_s(s)),
)
_REMOVE = Row(
    "remove the addresses",
    lambda s, now: bool(s.present) and now >= s.remove_at_s,
    lambda s, _now: Remove(s.present),
)
_WITHDRAW = Row("withdraw: no longer fit to take over", _withdraw_due, _write(Kind.WITHDRAW))

TABLE: Final[dict[Phase, tuple[Row, ...]]] = {
    Phase.ABSENT: (_READ, _WITHDRAW),
    Phase.BLIND: (_READ,),
    Phase.WAITING: (
        _READ,
        _WITHDRAW,
        Row("take: free, and ours to hold", _take_due, _write(Kind.TAKE)),
        Row("explain why a free Lease is not taken", _explain_due, _write(Kind.EXPLAIN)),
        Row("prepare: say that this Pod can take over", _prepare_due, _write(Kind.PREPARE)),
        Row(
            "read: it waits, and has heard nothing for a while",
            lambda s, now: now >= max(_ask_at(s), s.write_at_s),
            lambda s, _now: Read(min(ASK_AGAIN_S, _timeout_s(s))),
        ),
    ),
    Phase.HOLDING: (
        Row("configure until the deadline", _configure_due, _configure),
        _READ,
        Row("renew: the report must name an address before it is added", _show_due, _write(Kind.RENEW)),
        Row("renew: no sign of life counts, or a third of the duration is over", _renew_due, _write(Kind.RENEW)),
        Row("renew: the report has changed", _report_due, _write(Kind.RENEW)),
    ),
    Phase.LEAVING: (
        _REMOVE,
        _READ,
        Row(
            "hand over to the prepared owner",
            lambda s, now: bool(s.successor) and _free_to_give(s, now),
            _write(Kind.HAND_OVER),
        ),
        Row("release", _free_to_give, _write(Kind.RELEASE)),
    ),
    Phase.OUSTED: (_REMOVE,),
}


def _row_due(s: State, now: float) -> Row | None:
    return next((row for row in TABLE[phase(s, now)] if row.when(s, now)), None)


_A, _B, _W, _H, _L, _O = Phase.ABSENT, Phase.BLIND, Phase.WAITING, Phase.HOLDING, Phase.LEAVING, Phase.OUSTED
PASSAGES: Final[dict[tuple[Phase, Phase], str]] = {
    (_A, _W): "assigned",
    (_A, _B): "assigned, and the Lease is not known yet",
    (_A, _L): "seen as holder without an entry",
    (_A, _O): "what was under way is configured after all",
    (_B, _W): "the Lease is seen, and another's or free",
    (_B, _H): "the Lease is seen, and ours: an earlier self's, or made again",
    (_B, _L): "the Lease is seen: ours, and to be given away",
    (_B, _O): "the Lease is seen, and another's; or the deadline came first",
    (_B, _A): "the entry is gone",
    (_W, _H): "taken, or handed over by its holder",
    (_W, _L): "handed over, and to be given on at once",
    (_W, _B): "the Lease is deleted",
    (_W, _O): "an earlier self's addresses are found",
    (_W, _A): "the entry is gone",
    (_H, _L): "a successor is prepared, the entry is gone, or the Pod ends",
    (_H, _O): "the deadline has passed, or the Lease is another's",
    (_H, _W): "freed by the controller with nothing configured",
    (_H, _B): "the Lease is deleted",
    (_H, _A): "freed or deleted with nothing configured, and the entry is gone",
    (_L, _W): "handed over or released",
    (_L, _A): "released, and the entry is gone",
    (_L, _H): "the successor is no longer prepared, or another is to follow",
    (_L, _O): "the deadline has passed, or the Lease is another's",
    (_L, _B): "the Lease is deleted",
    (_O, _W): "removed, and the Lease is another's or free",
    (_O, _H): "removed; still the holder, by a renewal to come",
    (_O, _L): "removed; still the holder, and to give it away",
    (_O, _A): "removed, and the entry is gone",
    (_O, _B): "removed, and the Lease is not known",
}
"""From which phase to which one event may lead, and why. The simulator sees each of these, and no other."""


# Step -----------------------------------------------------------------------------------------------------------


def step(s: State, event: Event, now: float) -> tuple[State, tuple[Action, ...]]:
    """Note an event and say what to do; at most one action that is answered, and perhaps an announcement.

    Raises:
        IllegalEvent: the event answers an action that is not in flight; the state is unchanged.
    """
    s = note(s, event, now)
    actions: list[Action] = []
    if s.flight is None and (row := _row_due(s, now)) is not None:
        s, action = _start(s, row.then(s, now))
        actions.append(action)
    s, announcement = _announce(s, now)
    return s, (*actions, *announcement)


def wake_at(s: State, now: float) -> float | None:
    """Say when `Tick` is due if nothing else happens; None: never."""
    times = [s.announce_at_s, s.drain_until_s, s.give_up_s]
    if s.flight is None:
        times += [s.write_at_s, s.configure_at_s, s.remove_at_s, s.deadline_s]
        if s.mine and s.base_s is not None:
            times += [_renew_at(s), _report_at(s)]
        if phase(s, now) is Phase.WAITING:
            times.append(_ask_at(s))
    return min((at for at in times if at is not None and at > now), default=None)


def _start(s: State, action: InFlight) -> tuple[State, InFlight]:
    s = replace(s, flight=action)
    if isinstance(action, Write) and action.kind in (Kind.HAND_OVER, Kind.RELEASE, Kind.WITHDRAW):
        # from now on it may be applied at any time: what it gives away is no longer ours
        s = replace(s, base_s=None)
    return s, action


def _announce(s: State, now: float) -> tuple[State, tuple[Announce, ...]]:
    if not s.present or phase(s, now) is not Phase.HOLDING:
        return (s if s.announce_at_s is None else replace(s, announce_at_s=None, announcements=0)), ()
    if s.announce_at_s is None or now < s.announce_at_s:
        return s, ()
    announcements = s.announcements + 1
    s = replace(s, announced_s=now, announce_at_s=now + announce_pause_s(announcements), announcements=announcements)
    return s, (Announce(s.present),)


def announce_pause_s(announcements: int) -> float:
    """Say how long after so many announcements since the last change the next one follows.

    The second comes after the neighbours' locktime; then the pauses double, since a switch port that has just come up
    may forward only after 15 or 30 s (spanning tree, IEEE 802.1D: one or two times forward delay).
    """
    doublings = min(announcements - 1, MOST_DOUBLINGS)
    return float(min(ANNOUNCE_EVERY_S, ANNOUNCE_APART_S * 2**doublings))


def finished(s: State, now: float) -> bool:
    """Whether a Pod that was asked to stop has nothing left to do for this route."""
    if s.drain_until_s is None or s.present or s.flight is not None:
        return False
    if s.give_up_s is not None and now >= s.give_up_s:
        return True
    return not s.mine and not s.reread and not _row_due(s, now)
