"""The decision loop: takes in what the reflectors see, decides what that touches, hands the writes to the writers.

One thread changes the snapshot and decides; nothing on the way from an event to a write sleeps or waits for a tick.
An answer to an own write is taken in like an event, so that the next decision does not wait for the watch. Per object
one write is under way at a time; what is refused waits for the watch or for its time, and everything else goes on.
Nothing is decided before every watch has been listed once, and nothing is written but as leader.
"""

from __future__ import annotations

import datetime as dt
import queue
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from contract.errors import ContractError
from contract.lease import LeaseView
from contract.names import ASSIGNMENT
from controller import outgoing
from controller.choice.accept import Acceptor
from controller.choice.decide import Access, RoutePlan, access, assignment, plan_route, route_of
from controller.choice.events import events_for
from controller.choice.gateways import class_status, gateway_status, plain
from controller.choice.impact import Impact, everything, impact
from controller.choice.intake import Intake, key_of
from controller.choice.leases import LeaseAct
from controller.choice.objects import Gateway, GatewayClass, Key, Pod, Route, Selector
from controller.cluster.reflector import PATHS, Listed, Seen, Trouble, decoded
from controller.cluster.writer import Done, Ident, Job, monotonic
from controller.errors import Conflict, Forbidden, NotFound, ThreadEnded, Unreachable

if TYPE_CHECKING:
    from collections.abc import Callable

    from controller.choice.snapshot import Snapshot
    from controller.journal import Journal
    from controller.outbox import Outbox

PEOPLE_S: Final = 0.2
"""What is for people (status, Events) waits while an urgent write or a handover is under way; no longer than this."""
_NEVER: Final = float("inf")

_SORTS: Final[dict[str, type[Any]]] = {
    "lease": LeaseView,
    "pod": Pod,
    "status": Route,
    "gateway": Gateway,
    "class": GatewayClass,
}


@dataclass(frozen=True, slots=True)
class Leading:
    """Whether this replica leads now."""

    now: bool


@dataclass(frozen=True, slots=True)
class Stop:
    """End the loop."""


Space = tuple[dict[str, str], tuple[Selector, ...]]
"""A namespace as injection needs it: its labels, and what its GKEIPRoutes select."""


@dataclass(frozen=True, slots=True)
class Ask:
    """A question of another thread about a namespace; the answer is None until every watch has been listed once."""

    space: str
    answer: Callable[[Space | None], None]


@dataclass(frozen=True, slots=True)
class Ended:
    """A thread that is to run for ever has ended."""

    thread: str
    error: BaseException | None


@dataclass(slots=True)
class Loop:
    """The loop and all it remembers; everything but the snapshot can be lost without harm."""

    outbox: Outbox
    journal: Journal
    identity: str
    on_election: Callable[[LeaseView | None], None]
    is_election: Callable[[LeaseView], bool]
    inbox: queue.SimpleQueue[Any] = field(default_factory=queue.SimpleQueue)
    intake: Intake = field(init=False)
    _leading: bool = False
    _dirty: Impact = field(default_factory=Impact)
    _plans: dict[Key, RoutePlan] = field(default_factory=dict)
    _access: dict[str, Access] = field(default_factory=dict)
    _waiting: set[Key] = field(default_factory=set)
    _people: Impact = field(default_factory=Impact)
    _people_s: float = _NEVER

    def __post_init__(self) -> None:
        self.intake = Intake(self._touch, set(PATHS))

    @property
    def snap(self) -> Snapshot:
        """What is known."""
        return self.intake.snap

    def run(self) -> None:
        """Decide until stopped.

        Raises:
            ThreadEnded: one of the threads has ended, which is a bug.
        """
        while True:
            try:
                item = self.inbox.get(timeout=self._pause_s())
            except queue.Empty:
                item = None
            while item is not None:
                if isinstance(item, Stop):
                    return
                self._take(item)
                item = None if self.inbox.empty() else self.inbox.get()
            self._count()
            if self._leading and not self.intake.unlisted and self._dirty:
                self._decide()
            self._tell_people()

    # what comes in ---------------------------------------------------------------------------------------------

    def _take(self, item: Any) -> None:
        match item:
            case Seen():
                self._seen(item)
            case Done():
                self._done(item)
            case Listed():
                self._listed(item)
            case Trouble(subject, text):
                self.journal.trouble(subject, text)
            case Leading(now):
                self._lead(now=now)
            case Ask(space, answer):
                answer(None if self.intake.unlisted else self._space(space))
            case Ended(thread, error):
                raise ThreadEnded(f"thread {thread} ended: {error!r}; this is a bug, please report it") from error

    def _space(self, name: str) -> Space:
        found = self.snap.namespaces.get(name)
        routes = (self.snap.routes[key] for key in self.snap.routes_in.get(name, ()))
        selectors = tuple(route.spec.pod_selector for route in routes if not route.problem)
        return dict(found.metadata.labels) if found is not None else {}, selectors

    def _lead(self, *, now: bool) -> None:
        self._leading = now
        self.journal.tell("this replica is the leader" if now else "this replica is a standby", identity=self.identity)
        self._plans.clear()
        self.outbox.forget_failures()
        self._access.clear()
        self._dirty, self._people, self._people_s = Impact(), Impact(), _NEVER
        if now:
            self._count()
            self._dirty = everything(self.snap)
            self._dirty.spaces |= set(self.snap.namespaces)

    def _listed(self, listed: Listed) -> None:
        began = not self.intake.unlisted
        self.intake.listed(listed.kind, listed.items, int(listed.version), monotonic())
        if listed.kind is LeaseView:
            self.on_election(next((x for x in listed.items if isinstance(x, LeaseView) and self.is_election(x)), None))
        if not began and not self.intake.unlisted:
            self.journal.tell("all watches are synced", routes=len(self.snap.routes), pods=len(self.snap.pods))
            self._dirty.add(everything(self.snap))
            self._dirty.spaces |= set(self.snap.namespaces)

    def _seen(self, seen: Seen) -> None:
        item = seen.item
        if isinstance(item, LeaseView) and self.is_election(item):
            self.on_election(None if seen.gone else item)
            return
        (self.intake.ended if seen.gone else self.intake.newer)(seen.kind, item, monotonic())

    def _touch(self, kind: type[Any], key: Key) -> None:
        if kind is LeaseView:
            self._dirty.routes |= self._waiting
        self._dirty.add(impact(self.snap, kind, key))

    # what came of a write --------------------------------------------------------------------------------------

    def _done(self, done: Done) -> None:
        job = done.job
        touched = self.outbox.answered(job)
        self._dirty.add(touched)
        if job.ident[0] == "lease" and not isinstance(done.error, Unreachable) and done.answer is None:
            self.snap.note_refused(job.ident[1:])
            self._dirty.routes |= self._waiting
        if done.error is not None:
            self._failed(job, done.error, touched)
            return
        if done.answer is None:
            return
        self.outbox.succeeded(job)
        self.journal.trouble(_subject(job.ident), "")
        if job.told:
            self.journal.tell(job.told)
        sort, space, name = job.ident
        if sort == "access":
            self._access[name] = job.context
        elif job.context is LeaseAct.DELETE:
            self.intake.gone(LeaseView, (space, name), monotonic(), final=True)
        elif sort in _SORTS and done.answer:
            self._answered(_SORTS[sort], done.answer)

    def _answered(self, kind: type[Any], answer: bytes) -> None:
        try:
            item = decoded(kind, answer)
        except ContractError:
            return
        # one that is gone meanwhile does not come back by a late answer
        if kind is LeaseView or self.intake.known(kind, key_of(item)) is not None:
            self.intake.newer(kind, item, monotonic())

    def _failed(self, job: Job, error: Exception, touched: Impact) -> None:
        if isinstance(error, NotFound) and job.ident[0] == "lease":
            self.intake.not_there(job.ident[1:], job.version, monotonic())
        forbidden = isinstance(error, Forbidden)
        if not isinstance(error, Conflict) and not (forbidden and self._leaving(job)):
            advice = "; apply deploy/base/rbac.yaml and deploy/base/policies.yaml" if forbidden else ""
            self.journal.trouble(_subject(job.ident), f"{error}{advice}")
        if job.ident[0] != "event":
            self.outbox.failed(job, error, touched, monotonic())

    def _leaving(self, job: Job) -> bool:
        """Whether a write is into a namespace that is going away, where nothing may be made any more."""
        sort, space, name = job.ident
        found = self.snap.namespaces.get(name if sort == "access" else space)
        return found is None or found.metadata.deletion_timestamp is not None

    # time ------------------------------------------------------------------------------------------------------

    def _pause_s(self) -> float | None:
        now = monotonic()
        people_s = self._people_s + PEOPLE_S if self._people else None
        times = [at_s for at_s in (self.outbox.next_s(), self.intake.expiry.next_at(now), people_s) if at_s is not None]
        return max(0.0, min(times) - now) if times else None

    def _count(self) -> None:
        """Wake what waits for its time."""
        now = monotonic()
        due, over = self.intake.count(now)
        self._dirty.routes |= {route for key in due if (route := route_of(self.snap, key)) is not None}
        if over:
            self._dirty.routes |= self._waiting
        self._dirty.add(self.outbox.wake(now))

    # deciding --------------------------------------------------------------------------------------------------

    def _decide(self) -> None:
        dirty, self._dirty = self._dirty, Impact()
        acceptor = Acceptor(self.snap)
        uids: set[str] = set()
        for key in dirty.routes:
            old, new = self._plans.pop(key, None), None
            if key in self.snap.routes or self.snap.lease_of(key) is not None:
                new = self._plans[key] = plan_route(self.snap, key, acceptor)
            uids |= {uid for plan in (old, new) if plan is not None for uid in plan.entries}
            if _rightful(old) != _rightful(new):
                dirty.spaces.add(key[0])
        self._note_waiting(dirty.routes)
        self._write_leases(dirty.routes)
        pods = {pod.key for uid in uids if (pod := self.snap.pod_by_uid.get(uid)) is not None}
        self._write_pods(pods | dirty.pods)
        self._write_access(dirty.spaces)
        if not self._people:
            self._people_s = monotonic()
        self._people.add(dirty)

    def _tell_people(self) -> None:
        """Write status and Events, once what is urgent is done; what has changed twice is told once."""
        if not self._leading or not self._people:
            return
        waits = self.outbox.urgent or any(map(self._changes_hands, self._people.routes))
        if not waits or monotonic() >= self._people_s + PEOPLE_S:
            told, self._people, self._people_s = self._people, Impact(), _NEVER
            self._write_statuses(told)

    def _changes_hands(self, key: Key) -> bool:
        """Whether a route's address is on its way: the API server's time is then for the sidecars' writes."""
        view = self.snap.lease_of(key)
        return view is not None and view.owner not in ("", view.holder)

    def _note_waiting(self, routes: set[Key]) -> None:
        for key in routes:
            plan = self._plans.get(key)
            if plan is not None and plan.acceptance is not None and plan.acceptance.waiting:
                self._waiting.add(key)
            else:
                self._waiting.discard(key)

    def _write_leases(self, routes: set[Key]) -> None:
        for key in routes:
            plan = self._plans.get(key)
            if plan is None or plan.lease is None:
                continue
            write = plan.lease
            if self._send(outgoing.lease_job(write, key), Impact({key})) and write.view is not None:
                # (one that is not made yet gives nobody anything before it has been seen and entries are written)
                self.snap.note_sent(write.key, write.view.version, write.addresses)

    def _write_pods(self, keys: set[Key]) -> None:
        for key in keys:
            pod = self.snap.pods.get(key)
            if pod is None:
                continue
            text = assignment(self.snap, pod, self._plans)
            if text != pod.metadata.annotations.get(ASSIGNMENT):
                self._send(outgoing.pod_job(pod, text), Impact(pods={key}))

    def _write_access(self, spaces: set[str]) -> None:
        for space in spaces:
            wanted = access(self.snap, space, self._plans)
            if self._access.get(space) != wanted:
                self._send(outgoing.access_job(space, wanted), Impact(spaces={space}), hot=bool(wanted))

    def _write_statuses(self, dirty: Impact) -> None:
        now = dt.datetime.now(dt.UTC)
        for key in dirty.routes:
            plan, route = self._plans.get(key), self.snap.routes.get(key)
            if plan is None or route is None or plan.status is None:
                continue
            if self._send(outgoing.status_job(route, plan.status, now), Impact({key}), hot=False):
                for event in events_for(self.snap, route, plan.status):
                    self._send(outgoing.event_job(event, self.identity, now), Impact(), hot=False)
        for key in dirty.gateways:
            self._write_gateway(key, now)
        for name in dirty.classes:
            found = self.snap.classes.get(name)
            status = class_status(found) if found is not None else None
            if found is None or status is None:
                continue
            known = [plain(each) for each in found.status.conditions]
            if known != status["conditions"]:
                times = [{**plain(c), "lastTransitionTime": c.last_transition_time} for c in found.status.conditions]
                job = outgoing.class_job(name, found.metadata.resource_version, status, times, now)
                self._send(job, Impact(classes={name}), hot=False)

    def _write_gateway(self, key: Key, now: dt.datetime) -> None:
        gateway = self.snap.gateways.get(key)
        status = gateway_status(self.snap, gateway) if gateway is not None else None
        if gateway is None or status is None or outgoing.without_times(gateway.status) == status:
            return
        self._send(outgoing.gateway_job(gateway, status, now), Impact(gateways={key}), hot=False)

    def _send(self, job: Job, touched: Impact, *, hot: bool = True) -> bool:
        return self.outbox.send(job, touched, monotonic(), hot=hot)


def _rightful(plan: RoutePlan | None) -> bool:
    return plan is not None and plan.acceptance is not None and plan.acceptance.rightful


def _subject(ident: Ident) -> str:
    sort, space, name = ident
    if sort == "event":
        return f"events in {space}"
    return f"{sort} {space}/{name}" if space else f"{sort} {name}"
