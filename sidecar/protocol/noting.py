"""What an event changes in what is known of a route. Pure: nothing is done here, and nothing is wanted.

Every event is noted in every phase; only one that answers an action must find that action in flight.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

from contract.report import Fence
from sidecar.protocol.events import (
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
from sidecar.protocol.state import State, older

if TYPE_CHECKING:
    from contract.lease import LeaseView

ANNOUNCE_APART_S: Final = 1.1
"""Linux neighbours may ignore a change within their locktime of 1 s (net/ipv4/arp.c)."""
RETRY_FIRST_S: Final = 0.02
RETRY_MAX_S: Final = 0.5
CONFIGURE_RETRY_S: Final = 1.0

replace = msgspec.structs.replace


def note(s: State, event: Event, now: float) -> State:
    """Say what is known after an event.

    An entry that goes counts once the Lease names this Pod no longer as owner, as the controller writes it first: where
    the assignment lags, what went may be an older absence, before the entry by which this Pod was made owner.

    Raises:
        IllegalEvent: it answers an action that is not in flight.
    """
    s = _note(s, event, now)
    if isinstance(event, LeaseSeen | ReadDone | Written):
        s = replace(s, heard_s=now)
    if s.unassigned and not s.owner:
        s = replace(s, entry=None, unassigned=False, prepared=False, configure_at_s=now)
    return s


def _note(s: State, event: Event, now: float) -> State:  # noqa: C901, PLR0911 - one case per event
    match event:
        case Written() | Refused() | Unanswered() | ReadDone() | Configured() | Removed():
            return _note_result(s, event, now)
        case Assigned(None):
            return replace(s, unassigned=True)
        case Assigned(entry):
            prepared = s.prepared and entry == s.entry
            return replace(s, entry=entry, unassigned=False, prepared=prepared, configure_at_s=now)
        case LeaseSeen(view):
            return _note_lease(s, view)
        case Prepared(fence):
            reports = s.reports if s.present else ()
            return replace(s, prepared=True, fence=fence, reports=reports, configure_at_s=now)
        case Unprepared(reports):
            return replace(s, prepared=False, reports=reports)
        case KernelSeen(present):
            return replace(s, present=present)
        case Reannounce():
            at_s = max(now, s.announced_s + ANNOUNCE_APART_S)
            return replace(s, announce_at_s=at_s, announcements=0, configure_at_s=now)
        case ClockStepped():
            return replace(s, fenced_s=None, stepped=isinstance(s.flight, Configure))
        case Unfenced():
            fence = Fence.LIFETIME if s.present else s.fence
            return replace(s, fence=fence, fenced_s=None, stepped=isinstance(s.flight, Configure))
        case Stop(drain_until_s, give_up_s):
            return replace(s, drain_until_s=drain_until_s, give_up_s=give_up_s)
        case Tick():
            return s


def _note_result(
    s: State, event: Written | Refused | Unanswered | ReadDone | Configured | Removed, now: float
) -> State:
    flight = s.flight
    done = replace(s, flight=None)
    match event, flight:
        case Written(view, sent_s), Write(kind):
            return _note_written(done, view, sent_s, kind)
        case ((Refused(why) | Unanswered(why)), Write()):
            return _note_failure(replace(done, reread=True), why, now)
        case Unanswered(why), Read():
            return _note_failure(done, why, now)
        case ReadDone(view), Read():
            return _note_lease(replace(done, reread=False), view)
        case Configured(), Configure():
            return _note_configured(done, event, flight, now)
        case Removed(present), Remove():
            retry_s = now + RETRY_FIRST_S if present else now
            return replace(done, present=present, remove_at_s=retry_s, reports=(), fenced_s=None)
    raise IllegalEvent(f"{type(event).__name__} answers nothing: in flight is {flight!r}")


def _note_lease(s: State, view: LeaseView | None) -> State:
    if view is None:
        return replace(s, lease=None)
    if s.lease is not None and older(view, s.lease):
        return s
    reread = s.reread and (s.lease is None or not older(s.lease, view))
    same = s.lease is not None and s.lease.addresses == view.addresses
    configure_at_s = s.configure_at_s if same else 0.0
    duration_s = min(s.duration_s, view.duration_s)
    return replace(s, lease=view, reread=reread, duration_s=duration_s, configure_at_s=configure_at_s)


def _note_written(s: State, view: LeaseView, sent_s: float, kind: Kind) -> State:
    s = replace(_note_lease(s, view), failures=0, write_at_s=0.0, trouble="")
    if kind is Kind.RENEW:
        s = replace(s, reported_s=sent_s)
    counts = view.holder == s.me if kind in (Kind.TAKE, Kind.RENEW) else kind is Kind.PREPARE and view.holder != s.me
    if not counts:
        return s
    # the watch may have shown a newer version before this answer came
    newest_s = s.lease.duration_s if s.lease else view.duration_s
    return replace(s, base_s=sent_s, duration_s=float(min(view.duration_s, newest_s)))


def _note_failure(s: State, why: str, now: float) -> State:
    pause_s = min(RETRY_MAX_S, RETRY_FIRST_S * 2 ** min(s.failures, 10)) if s.failures else 0.0
    return replace(s, failures=s.failures + 1, write_at_s=now + pause_s, trouble=why)


def _note_configured(s: State, event: Configured, flight: Configure, now: float) -> State:
    added = bool(event.present - s.present)
    fenced_s = None if s.stepped else flight.deadline_s
    s = replace(s, present=event.present, reports=event.reports, fence=event.fence, fenced_s=fenced_s, stepped=False)
    if event.present != s.wanted:
        s = replace(s, configure_at_s=now + CONFIGURE_RETRY_S)
    if added:
        s = replace(s, announced_s=now, announce_at_s=now + ANNOUNCE_APART_S, announcements=1)
    return s
