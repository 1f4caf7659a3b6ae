"""What is written to a route's Lease: who is to hold which addresses, who is lost; when it is made, freed and deleted.

Pure. A Lease names the addresses that its holder may have. They grow at any time, and shrink only while it is free or
its holder has reported: one that has just been given it adds what it names without asking.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

import msgspec

from contract import lease as writes
from contract.report import report_of
from controller.choice.expiry import life_sign, vacancy_sign
from controller.choice.reading import entry_on, lease_key, named

if TYPE_CHECKING:
    from contract.lease import LeaseView, Patch
    from controller.choice.acceptance import Acceptance
    from controller.choice.objects import Key, Route
    from controller.choice.snapshot import Snapshot

_GONE = "vanished"
"""The holder of a Lease that has vanished, where it is not certain who it was.

Whoever was seen last may have handed it over since; named again, it would renew while the true holder still has the
addresses. Nobody can renew this name, so it runs out.
"""


class LeaseAct(StrEnum):
    """What is done to a Lease."""

    CREATE = "create"
    NAME_OWNER = "name owner"
    FREE = "free"
    DELETE = "delete"


@dataclass(frozen=True, slots=True)
class LeaseWrite:
    """One write to a route's Lease.

    Attributes:
        view: the version it is made for; None: there is none yet.
        why: the sentence for the log.
        addresses: what the Lease names by it.
    """

    act: LeaseAct
    key: Key
    view: LeaseView | None
    body: Patch
    why: str
    addresses: tuple[str, ...] = ()


def lost_now(snap: Snapshot, view: LeaseView | None) -> tuple[str, ...]:
    """Who is lost from now on: as noted, less who is found or gone, and who has just run out or not taken it."""
    if view is None:
        return ()
    lost = [uid for uid in view.lost if uid != view.prepared and uid in snap.pod_by_uid]
    fresh = ""
    if view.holder and life_sign(view) in snap.expired:
        fresh = view.holder
    elif not view.holder and view.owner and vacancy_sign(view) in snap.untaken:
        fresh = view.owner
    if fresh and fresh not in lost and fresh in snap.pod_by_uid:
        lost.append(fresh)
    return tuple(lost)


def lease_write(
    snap: Snapshot, route: Route, acceptance: Acceptance, owner: str, lost: tuple[str, ...]
) -> LeaseWrite | None:
    """What the Lease of a route that may hold something needs; None: it is as it should be."""
    view = snap.lease_of(route.key)
    if view is None:
        return _create(snap, route, owner, acceptance.duration_s, acceptance.granted)
    duration_s = acceptance.duration_s
    if view.holder and report_of(view) is None:
        # until the holder says which duration it counts with, it may be the present one
        duration_s = max(duration_s, view.duration_s)
    key, name = lease_key(route.key), _pod(snap, owner)
    if view.holder and life_sign(view) in snap.expired:
        silent_s = f"{view.duration_s} s and the guard time"
        why = f"{_pod(snap, view.holder)} did not renew the Lease within {silent_s}; owner: {name}"
        addresses = acceptance.granted
        body = writes.free(view, owner, duration_s=duration_s, lost=lost, addresses=addresses)
        return LeaseWrite(LeaseAct.FREE, key, view, body, why, addresses)
    addresses = _named(view, acceptance.granted)
    new = msgspec.structs.replace(view, owner=owner, duration_s=duration_s, lost=lost, addresses=addresses)
    if new == view and key not in snap.under_way:  # a write of which the outcome is not known is settled by another
        return None
    body = writes.name_owner(view, owner, duration_s=duration_s, lost=lost, addresses=addresses)
    return LeaseWrite(LeaseAct.NAME_OWNER, key, view, body, _why(snap, view, new), addresses)


def _named(view: LeaseView, granted: tuple[str, ...]) -> tuple[str, ...]:
    """What a Lease is to name: what is granted, and what a holder that has not reported yet may have added."""
    if not view.holder or report_of(view) is not None:
        return granted
    return tuple(dict.fromkeys((*view.addresses, *granted)))


def _why(snap: Snapshot, old: LeaseView, new: LeaseView) -> str:
    said = []
    if new.addresses != old.addresses:
        now, before = (", ".join(each.addresses) or "none" for each in (new, old))
        said.append(f"addresses of the Lease: {now} (before: {before})")
    if new.owner != old.owner:
        said.append(f"owner: {_pod(snap, new.owner)} (before: {_pod(snap, old.owner)})")
    if new.duration_s != old.duration_s:
        said.append(f"Lease duration: {new.duration_s} s (before: {old.duration_s} s)")
    said += [f"{_pod(snap, uid)} is lost: it did not take the Lease" for uid in new.lost if uid not in old.lost]
    said += [f"{_pod(snap, uid)} is no longer lost" for uid in old.lost if uid not in new.lost]
    return "; ".join(said) or "Lease written again: the outcome of an earlier write is not known"


def _create(snap: Snapshot, route: Route, owner: str, duration_s: int, granted: tuple[str, ...] = ()) -> LeaseWrite:
    """Make a Lease: fresh, or, where one vanished that may have been held, as held, so that it runs out first."""
    key = lease_key(route.key)
    holder, transitions = _before(snap, route)
    name = _pod(snap, owner)
    addresses = granted
    if holder:
        duration_s = max(duration_s, _counted_before(snap, key))
        addresses = tuple(dict.fromkeys((*granted, *_named_before(snap, route))))
        why = (
            f"its Lease was deleted while it may have been held: created again as held by {_pod(snap, holder)}, so "
            f"that it expires first; owner: {name}"
        )
    else:
        why = f"Lease created; owner: {name}"
    body = writes.create(
        route.name, key[0], owner, duration_s, addresses=addresses, holder=holder, transitions=transitions
    )
    return LeaseWrite(LeaseAct.CREATE, key, None, body, why, addresses)


def _before(snap: Snapshot, route: Route) -> tuple[str, int]:
    key = lease_key(route.key)
    gone = snap.vanished.get(key)
    if gone is not None and gone.known:
        return gone.view.holder if gone.final else _GONE, gone.view.transitions + 1
    known = route.status.addresses
    carriers = [pod for pod in snap.candidates(route.key) if entry_on(pod, key[1]) is not None]
    if not known and not carriers:
        return "", 0
    return _GONE, max((each.epoch for each in known), default=0) + 1


def _named_before(snap: Snapshot, route: Route) -> list[str]:
    """What the holder of a vanished Lease may have, as far as anything says so."""
    key = lease_key(route.key)
    gone = snap.vanished.get(key)
    entries = [entry_on(pod, key[1]) for pod in snap.candidates(route.key)]
    found = {address.address for entry in entries if entry is not None for address in entry.addresses}
    found.update(each.address for each in route.status.addresses)
    return sorted(found | (named(gone.view) if gone is not None else frozenset()))


def _counted_before(snap: Snapshot, key: Key) -> int:
    """The duration that the holder of a vanished Lease may count with, as far as known."""
    gone = snap.vanished.get(key)
    if gone is None or not gone.known:
        return 0
    report = report_of(gone.view)
    return max(gone.view.duration_s, report.duration_s if report is not None else 0)


def let_go(key: Key, view: LeaseView | None, snap: Snapshot, why: str, *, settled: bool = True) -> LeaseWrite | None:
    """What becomes of the Lease of a route that nobody shall hold: no owner, freed when run out, deleted when free."""
    where = lease_key(key)
    if view is None:
        gone = snap.vanished.get(where)
        if gone is None or not gone.final or not gone.view.holder:
            return None
        # nobody shall hold it, but somebody may have its addresses still
        return _create(snap, snap.routes[key], "", gone.view.duration_s) if key in snap.routes else None
    if not view.holder and settled:
        body = {"preconditions": {"uid": view.uid, "resourceVersion": view.version}}
        return LeaseWrite(LeaseAct.DELETE, where, view, body, f"{why}; no Pod holds its Lease, which is deleted")
    lost = lost_now(snap, view)
    if view.holder and life_sign(view) in snap.expired:
        body = writes.free(view, "", duration_s=view.duration_s, lost=lost, addresses=())
        silent = f"{_pod(snap, view.holder)} did not renew the Lease in time"
        return LeaseWrite(LeaseAct.FREE, where, view, body, f"{why}; {silent}, which is freed")
    addresses = _named(view, ())
    if not view.owner and addresses == view.addresses and where not in snap.under_way:
        return None
    body = writes.name_owner(view, "", duration_s=view.duration_s, lost=lost, addresses=addresses)
    return LeaseWrite(LeaseAct.NAME_OWNER, where, view, body, f"{why}; owner: no Pod", addresses)


def _pod(snap: Snapshot, uid: str) -> str:
    if not uid:
        return "no Pod"
    if uid == _GONE:
        return "an unknown Pod"
    pod = snap.pod_by_uid.get(uid)
    return f"Pod {pod.name}" if pod is not None else f"a deleted Pod (UID {uid})"
