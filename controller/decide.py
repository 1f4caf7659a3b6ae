"""What is to be written: a function of the snapshot, and of nothing else. No clock, no I/O, no client.

`plan_route` decides one route: its Lease, its entries on Pods, its status. `decide` is no more than that for all
routes, with what several of them share: a Pod's annotation, a namespace's Role, a Gateway's status. Applying the
writes and deciding again gives no further writes; nothing here depends on having seen an event.

An entry appears on the new owner's Pod together with the Lease's `owner`, and leaves the old one only when the Lease
shows that it is neither owner nor holder any more: a write that loses a race takes nothing away.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any

import msgspec

from contract import lease as writes
from contract.assignment import AddressEntry, Assignment, RouteEntry, encode_assignment
from contract.names import ASSIGNMENT, lease_name
from controller.accept import Acceptance, Acceptor, Mode
from controller.conditions import Scene, differs, route_status
from controller.elect import Candidate, Verdict, judge, winner
from controller.expiry import life_sign, vacancy_sign
from controller.gateways import class_status, gateway_status
from controller.snapshot import Snapshot, entry_on, lease_key, named, report_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    from contract.lease import LeaseView, Patch
    from controller.objects import Key, Pod, Route

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


@dataclass(frozen=True, slots=True)
class RoutePlan:
    """What one route needs.

    Attributes:
        owner: UID of the Pod that shall hold it, ``""`` for nobody.
        entries: by Pod UID, the entry that each is to carry.
        status: what its status is to say; None: nothing to write.
    """

    key: Key
    acceptance: Acceptance | None = None
    owner: str = ""
    lease: LeaseWrite | None = None
    entries: dict[str, RouteEntry] = field(default_factory=dict)
    status: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Decision:
    """All that is to be written, and only what differs from what is there.

    Attributes:
        assignments: by Pod, the annotation's text; None: it goes.
        access: by namespace, the Leases that its sidecars may write; none: the Role goes.
    """

    plans: dict[Key, RoutePlan]
    assignments: dict[Key, str | None]
    gateways: dict[Key, dict[str, Any]]
    classes: dict[str, dict[str, Any]]
    access: dict[str, tuple[str, ...]]

    @property
    def leases(self) -> list[LeaseWrite]:
        """The writes to Leases."""
        return [plan.lease for plan in self.plans.values() if plan.lease is not None]

    @property
    def statuses(self) -> dict[Key, dict[str, Any]]:
        """The statuses of routes."""
        return {key: plan.status for key, plan in self.plans.items() if plan.status is not None}


def decide(snap: Snapshot) -> Decision:
    """Decide everything."""
    acceptor = Acceptor(snap)
    plans = {key: plan_route(snap, key, acceptor) for key in sorted({*snap.routes, *stray_routes(snap)})}
    touched = {snap.pod_by_uid[uid].key for plan in plans.values() for uid in plan.entries} | snap.annotated
    assignments = {}
    for key in sorted(touched):
        pod = snap.pods[key]
        if (text := assignment(snap, pod, plans)) != pod.metadata.annotations.get(ASSIGNMENT):
            assignments[key] = text
    gateways = {key: gateway_status(snap, gateway) for key, gateway in sorted(snap.gateways.items())}
    classes = {name: class_status(each) for name, each in sorted(snap.classes.items())}
    spaces = sorted({key[0] for key in snap.routes} | {key[0] for key in snap.leases})
    return Decision(
        plans,
        assignments,
        {key: status for key, status in gateways.items() if status is not None},
        {name: status for name, status in classes.items() if status is not None},
        {space: access(snap, space, plans) for space in spaces},
    )


def stray_routes(snap: Snapshot) -> set[Key]:
    """The routes that are no more and whose Leases are still there."""
    return {route for key in snap.leases if (route := route_of(snap, key)) is not None and route not in snap.routes}


def route_of(snap: Snapshot, lease: Key) -> Key | None:
    """The route a Lease is of, there or gone; None: the Lease is nobody's that is known here."""
    if lease in snap.route_of_lease:
        return snap.route_of_lease[lease]
    view = snap.leases.get(lease)
    if view is None or not view.route or lease_name(view.route) != view.name:
        return None
    return view.namespace, view.route


def assignment(snap: Snapshot, pod: Pod, plans: dict[Key, RoutePlan]) -> str | None:
    """Give the annotation's text for a Pod, from the plans of its namespace's routes; None: it is to have none."""
    spaces = sorted(snap.routes_in.get(pod.metadata.namespace, ()))
    entries = (plans[key].entries.get(pod.metadata.uid) for key in spaces if key in plans)
    found = tuple(each for each in entries if each is not None)
    return encode_assignment(Assignment(found)) if found else None


def access(snap: Snapshot, namespace: str, plans: dict[Key, RoutePlan]) -> tuple[str, ...]:
    """Name the Leases that a namespace's sidecars must reach: those of routes to be held, and those still there."""
    wanted = {
        lease_name(key[1])
        for key in snap.routes_in.get(namespace, ())
        if (plan := plans.get(key)) is not None and plan.acceptance is not None and plan.acceptance.rightful
    }
    there = {key[1] for key in snap.leases_in.get(namespace, ()) if route_of(snap, key) is not None}
    return tuple(sorted(wanted | there))


# one route ------------------------------------------------------------------------------------------------------


def plan_route(snap: Snapshot, key: Key, acceptor: Acceptor | None = None) -> RoutePlan:
    """Decide one route, there or gone; `acceptor` spares judging others twice."""
    route, view = snap.routes.get(key), snap.lease_of(key)
    if route is None:
        return RoutePlan(key, lease=_let_go(key, view, snap, "the route is gone"))
    acceptance = (acceptor or Acceptor(snap)).judge(key)
    if not acceptance.granted:
        candidates: list[Candidate] = []
        status = _status(Scene(snap, route, acceptance, candidates, None, view))
        # the Lease outlives what the status remembers of it: so a Lease made anew is not taken for one that vanished
        settled = not route.status.addresses or acceptance.mode is not Mode.OWN
        lease = _let_go(key, view, snap, f"the route is not Accepted ({acceptance.reason})", settled=settled)
        return RoutePlan(key, acceptance, lease=lease, status=status)
    lost = _lost(snap, view)
    candidates = _candidates(snap, route, acceptance, lost)
    present, holder = (view.owner, view.holder) if view is not None else ("", "")
    chosen = winner(candidates, present, holder=holder, sticky=acceptance.wishes.sticky)
    owner = chosen.uid if chosen is not None else ""
    lease = _lease_write(snap, route, acceptance, owner, lost)
    entries = _entries(snap, route, acceptance, candidates, owner)
    status = _status(Scene(snap, route, acceptance, candidates, chosen, view))
    return RoutePlan(key, acceptance, owner, lease, entries, status)


def _status(scene: Scene) -> dict[str, Any] | None:
    desired = route_status(scene)
    return desired if desired is not None and differs(desired, scene.route) else None


def _candidates(snap: Snapshot, route: Route, acceptance: Acceptance, lost: tuple[str, ...]) -> list[Candidate]:
    if acceptance.mode is Mode.OWN:
        return [judge(pod, route, lost) for pod in snap.candidates(route.key)]
    # GKE has judged labels, readiness and network; what it cannot know is who was lost
    chosen = snap.pods.get((route.key[0], route.status.pods[0])) if route.status.pods else None
    if chosen is None:
        return []
    found = judge(chosen, route, lost)
    if found.verdict in (Verdict.NOT_READY, Verdict.NO_NODE):
        verdict = Verdict.LOST if found.uid in lost else Verdict.ELIGIBLE
        found = Candidate(chosen, verdict, "", found.interface)
    return [found]


def _lost(snap: Snapshot, view: LeaseView | None) -> tuple[str, ...]:
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


# the Lease ------------------------------------------------------------------------------------------------------


def _lease_write(
    snap: Snapshot, route: Route, acceptance: Acceptance, owner: str, lost: tuple[str, ...]
) -> LeaseWrite | None:
    view = snap.lease_of(route.key)
    if view is None:
        return _create(snap, route, owner, acceptance.duration_s, acceptance.granted)
    duration_s = acceptance.duration_s
    if view.holder and report_of(view) is None:
        # until the holder says which duration it counts with, it may be the present one
        duration_s = max(duration_s, view.duration_s)
    key, name = lease_key(route.key), _pod(snap, owner)
    if view.holder and life_sign(view) in snap.expired:
        why = (
            f"{_pod(snap, view.holder)} gave no sign of life for {view.duration_s} s and the guard time; next is {name}"
        )
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
        said.append(f"it is for {', '.join(new.addresses) or 'no address'}, after {', '.join(old.addresses) or 'none'}")
    if new.owner != old.owner:
        said.append(f"{_pod(snap, new.owner)} is to hold it, after {_pod(snap, old.owner)}")
    if new.duration_s != old.duration_s:
        said.append(f"it lasts {new.duration_s} s instead of {old.duration_s} s")
    said += [f"{_pod(snap, uid)} is lost: it left the Lease alone" for uid in new.lost if uid not in old.lost]
    said += [f"{_pod(snap, uid)} is no longer lost" for uid in old.lost if uid not in new.lost]
    return "; ".join(said) or "written once more, since what became of an earlier write is not known"


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
            f"its Lease vanished: made again as held by {_pod(snap, holder)}, so that it runs out first; next is {name}"
        )
    else:
        why = f"{name} is to hold it"
    body = writes.create(
        route.name, key[0], owner, duration_s, addresses=addresses, holder=holder, transitions=transitions
    )
    return LeaseWrite(LeaseAct.CREATE, key, None, body, why, addresses)


def _before(snap: Snapshot, route: Route) -> tuple[str, int]:
    key = lease_key(route.key)
    gone = snap.vanished.get(key)
    if gone is not None:
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
    if gone is None:
        return 0
    report = report_of(gone.view)
    return max(gone.view.duration_s, report.duration_s if report is not None else 0)


def _let_go(key: Key, view: LeaseView | None, snap: Snapshot, why: str, *, settled: bool = True) -> LeaseWrite | None:
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
        return LeaseWrite(LeaseAct.DELETE, where, view, body, f"{why} and nobody holds it")
    lost = _lost(snap, view)
    if view.holder and life_sign(view) in snap.expired:
        body = writes.free(view, "", duration_s=view.duration_s, lost=lost, addresses=())
        return LeaseWrite(LeaseAct.FREE, where, view, body, f"{_pod(snap, view.holder)} gave no sign of life; {why}")
    addresses = _named(view, ())
    if not view.owner and addresses == view.addresses and where not in snap.under_way:
        return None
    body = writes.name_owner(view, "", duration_s=view.duration_s, lost=lost, addresses=addresses)
    return LeaseWrite(LeaseAct.NAME_OWNER, where, view, body, f"nobody is to hold it: {why}", addresses)


def _pod(snap: Snapshot, uid: str) -> str:
    if not uid:
        return "nobody"
    pod = snap.pod_by_uid.get(uid)
    return f"Pod {pod.name}" if pod is not None else f"a Pod that is gone ({uid})"


# entries --------------------------------------------------------------------------------------------------------


def _entries(
    snap: Snapshot, route: Route, acceptance: Acceptance, candidates: list[Candidate], owner: str
) -> dict[str, RouteEntry]:
    view = snap.lease_of(route.key)
    by_uid = {each.uid: each for each in candidates}
    if view is None:
        # the Lease first: an entry without one is the sign of a Lease that has vanished
        wanted = {pod.metadata.uid for pod in snap.candidates(route.key) if entry_on(pod, lease_name(route.name))}
    else:
        lost = (each.uid for each in candidates if each.verdict is Verdict.LOST)
        wanted = {owner, view.owner, *_holding(view, owner, by_uid), *lost}
    made = {}
    for uid in sorted(wanted):
        pod = snap.pod_by_uid.get(uid)
        if pod is not None and pod.metadata.namespace == route.metadata.namespace:
            made[uid] = _entry(by_uid.get(uid) or judge(pod, route, ()), route, acceptance)
    return made


def _holding(view: LeaseView, owner: str, candidates: dict[str, Candidate]) -> Iterable[str]:
    """The present holder, as long as it is to keep what it has."""
    known = candidates.get(view.holder)
    if owner or view.owner or (known is not None and known.eligible):
        yield view.holder


def _entry(candidate: Candidate, route: Route, acceptance: Acceptance) -> RouteEntry:
    addresses = tuple(AddressEntry(each, candidate.interface) for each in acceptance.granted)
    return RouteEntry(route.name, lease_name(route.name), acceptance.wishes.handover, addresses)
