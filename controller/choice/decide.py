"""What is to be written: a function of the snapshot, and of nothing else. No clock, no I/O, no client.

`plan_route` decides one route: its Lease, its entries on Pods, its status. `decide` is no more than that for all
routes, with what several of them share: a Pod's annotation, a namespace's Role, a Gateway's status. Applying the
writes and deciding again gives no further writes; nothing here depends on having seen an event.

An entry appears on the new owner's Pod together with the Lease's `owner`, and leaves the old one only when the Lease
shows that it is neither owner nor holder any more: a write that loses a race takes nothing away.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from contract.assignment import AddressEntry, Assignment, RouteEntry, encode_assignment
from contract.names import ASSIGNMENT, lease_name
from controller.choice.accept import Acceptor
from controller.choice.acceptance import Acceptance, Mode
from controller.choice.conditions import Scene, differs, route_status
from controller.choice.elect import Candidate, Verdict, judge, winner
from controller.choice.gateways import class_status, gateway_status
from controller.choice.leases import LeaseWrite, lease_write, let_go, lost_now
from controller.choice.reading import entry_on

if TYPE_CHECKING:
    from collections.abc import Iterable

    from contract.lease import LeaseView
    from controller.choice.objects import Key, Pod, Route
    from controller.choice.snapshot import Snapshot


@dataclass(frozen=True, slots=True)
class Access:
    """What a namespace's sidecars must reach, by name."""

    leases: tuple[str, ...] = ()
    pods: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.leases or self.pods)


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
        access: by namespace, what its sidecars must reach; nothing: the Role goes.
    """

    plans: dict[Key, RoutePlan]
    assignments: dict[Key, str | None]
    gateways: dict[Key, dict[str, Any]]
    classes: dict[str, dict[str, Any]]
    access: dict[str, Access]

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
    spaces = sorted({key[0] for key in (*snap.routes, *snap.leases, *snap.watching)})
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


def access(snap: Snapshot, namespace: str, plans: dict[Key, RoutePlan]) -> Access:
    """Name what a namespace's sidecars must reach.

    The Leases of routes to be held, and those still there; and the Pods that read their own assignment by a watch, also
    those that no route selects yet: what is refused can only ask again, and is late when its first entry comes.
    """
    wanted = {
        lease_name(key[1])
        for key in snap.routes_in.get(namespace, ())
        if (plan := plans.get(key)) is not None and plan.acceptance is not None and plan.acceptance.rightful
    }
    there = {key[1] for key in snap.leases_in.get(namespace, ()) if route_of(snap, key) is not None}
    pods = snap.watching & snap.pods_in.get(namespace, set())
    return Access(tuple(sorted(wanted | there)), tuple(sorted(name for _, name in pods)))


# one route ------------------------------------------------------------------------------------------------------


def plan_route(snap: Snapshot, key: Key, acceptor: Acceptor | None = None) -> RoutePlan:
    """Decide one route, there or gone; `acceptor` spares judging others twice."""
    route, view = snap.routes.get(key), snap.lease_of(key)
    if route is None:
        return RoutePlan(key, lease=let_go(key, view, snap, "the route was deleted"))
    acceptance = (acceptor or Acceptor(snap)).judge(key)
    if not acceptance.granted:
        candidates: list[Candidate] = []
        status = _status(Scene(snap, route, acceptance, candidates, None, view))
        # the Lease outlives what the status remembers of it: so a Lease made anew is not taken for one that vanished
        settled = not route.status.addresses or acceptance.mode is not Mode.OWN
        lease = let_go(key, view, snap, f"the route is not Accepted ({acceptance.reason})", settled=settled)
        return RoutePlan(key, acceptance, lease=lease, status=status)
    lost = lost_now(snap, view)
    present, holder = (view.owner, view.holder) if view is not None else ("", "")
    candidates = _candidates(snap, route, acceptance, lost, holder)
    chosen = winner(candidates, present, holder=holder, sticky=acceptance.wishes.sticky)
    owner = chosen.uid if chosen is not None else ""
    lease = lease_write(snap, route, acceptance, owner, lost)
    entries = _entries(snap, route, acceptance, candidates, owner)
    status = _status(Scene(snap, route, acceptance, candidates, chosen, view))
    return RoutePlan(key, acceptance, owner, lease, entries, status)


def _status(scene: Scene) -> dict[str, Any] | None:
    desired = route_status(scene)
    return desired if desired is not None and differs(desired, scene.route) else None


def _candidates(
    snap: Snapshot, route: Route, acceptance: Acceptance, lost: tuple[str, ...], holder: str
) -> list[Candidate]:
    if acceptance.mode is Mode.OWN:
        return [judge(pod, route, lost, holder) for pod in snap.candidates(route.key)]
    # GKE has judged labels, readiness and network; what it cannot know is who was lost
    chosen = snap.pods.get((route.key[0], route.status.pods[0])) if route.status.pods else None
    if chosen is None:
        return []
    found = judge(chosen, route, lost, holder)
    if found.verdict in (Verdict.NOT_READY, Verdict.NO_NODE):
        verdict = Verdict.LOST if found.uid in lost else Verdict.ELIGIBLE
        found = Candidate(chosen, verdict, "", found.interface)
    return [found]


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
        # one that is found keeps its entry until the Lease says so too, or it would take back that it is prepared
        found = {each.uid for each in candidates if each.eligible}.intersection(view.lost)
        lost = (each.uid for each in candidates if each.verdict is Verdict.LOST or each.uid in found)
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
    if owner or view.owner or (known is not None and (known.eligible or known.keeps)):
        yield view.holder


def _entry(candidate: Candidate, route: Route, acceptance: Acceptance) -> RouteEntry:
    pod_ip = candidate.pod.status.pod_ip or None if candidate.interface is None else None
    addresses = tuple(AddressEntry(each, candidate.interface, pod_ip) for each in acceptance.granted)
    return RouteEntry(route.name, lease_name(route.name), acceptance.wishes.handover, addresses)
