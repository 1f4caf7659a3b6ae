"""One schedule, played: everything is made, the faults happen, then they stop, and then all must come right.

`play` gives an outcome with the violations. What is checked, and when:
- at each change of a kernel or a clock: at most one Pod has an address (kernel.Judge);
- at each write: the admission policy's rules, never given to an unprepared Pod, freed neither early nor late;
- at each request: no storm;
- after the last fault, within a bound: the right Pod holds, has the addresses, and nobody else does.
"""

# ruff: noqa: FBT003 - what is passed on is called later, by position
from __future__ import annotations

import random
from dataclasses import dataclass, field

import msgspec

from contract.names import AGENT_CONTAINER, CONTROLLER_NAME, LEASE_SECONDS, SELECTION, lease_name
from contract.report import Fence
from controller.choice.expiry import patience_s
from controller.choice.objects import (
    Address,
    ClassSpec,
    Condition,
    Container,
    Gateway,
    GatewayClass,
    GatewaySpec,
    Listener,
    Meta,
    ParentRef,
    Pod,
    PodSpec,
    PodStatus,
    Route,
    RouteSpec,
    Selector,
)

from . import coverage as rows
from . import memory
from .controller import Controller
from .faults import Faults
from .kernel import Judge, Kernel
from .loop import Clock, Loop
from .server import Server
from .sidecar import Sidecar

ADDRESSES = ("34.123.10.1/32", "34.123.10.2/32")
SETTLED_S = 1.0
LOOK_EVERY_S = 0.25
LATE_S = 1.0
"""A free that comes this much later than it might, with a controller steadily at work, counts as late."""
MAX_RATE = 200e-6

replace = msgspec.structs.replace


@dataclass
class Outcome:
    """What came of a schedule."""

    schedule: object
    violations: list = field(default_factory=list)
    log: list = field(default_factory=list)
    spans: list = field(default_factory=list)
    events: int = 0
    end: float = 0.0
    calm: float = 0.0


class World:
    """All parts of one schedule."""

    def __init__(self, schedule, coverage, *, drawing=False):
        self.schedule = schedule
        self.coverage = coverage
        self.drawing = drawing
        self.loop = Loop()
        self.outcome = Outcome(schedule)
        self.server = Server(self.loop, self.violated, self.log)
        self.server.patient = self._check_freed
        self.server.quarrel = self._two_lead
        self.judge = Judge(self.loop, self.violated, self.log)
        self.outcome.spans = self.judge.spans
        self.sidecars = {}
        self.lives = {pod.name: pod for pod in schedule.pods}
        self.controllers = {}
        self.faults = Faults(self)
        self._make()

    def log(self, who, what):
        if self.drawing:
            self.outcome.log.append((self.loop.now, who, what))

    def violated(self, kind, what):
        self.log("VIOLATION", f"{kind}: {what}")
        self.outcome.violations.append((round(self.loop.now, 6), kind, what))
        self.loop.stopped = True

    def rng(self, name):
        """Chance of its own for each participant, so that leaving out one fault disturbs the others little."""
        return random.Random(f"{self.schedule.seed} {name}")  # noqa: S311 - it is to be repeatable

    # made ------------------------------------------------------------------------------------------------------

    def _make(self):
        schedule = self.schedule
        for i in range(schedule.routes):
            key = ("ns", f"r{i}")
            self.server.put("route", key, self._route(i))
        fixed = (
            GatewayClass(Meta("class"), ClassSpec(CONTROLLER_NAME)),
            Gateway(
                Meta("gw", "ns"),
                GatewaySpec("class", (Listener("all"),), (Address("34.123.10.0/24", "gke.networking.io/cidr"),)),
            ),
        )
        for i in range(schedule.controllers):
            rng = self.rng(f"c{i}")
            clock = Clock(self.loop, rng.uniform(-MAX_RATE, MAX_RATE), rng.uniform(1, 1e5), 0.0)
            controller = self.controllers[f"c{i}"] = Controller(self, f"c{i}", clock, rng, fixed)
            self.loop.at(0.001 * i, controller.begin)
        self.loop.at(0.05, self.controllers["c0"].lead, True)
        for pod in schedule.pods:
            self.loop.at(pod.born, self._pod_made, pod)
        self.faults.arm(schedule.faults)

    def _route(self, i):
        notes = {LEASE_SECONDS: str(self.schedule.duration_s)}
        if self.schedule.sticky:
            notes[SELECTION] = "Sticky"
        meta = Meta(
            f"r{i}", "ns", f"route-{i}", generation=1, creation_timestamp=f"2026-01-01T00:00:0{i}Z", annotations=notes
        )
        wanted = ADDRESSES[: self.schedule.addresses]
        if self.schedule.routes == 2 and self.schedule.addresses == 2:
            wanted = ADDRESSES if i == 0 else ADDRESSES[1:]
        asked = tuple(Address(each, "gke.networking.io/cidr") for each in wanted)
        # two routes that choose differently: else both have the same Pod, and what moves between them never moves
        chosen = {"first": "yes"} if self.schedule.apart and i == 1 else {"app": "web"}
        return Route(meta, RouteSpec((ParentRef("gw"),), asked, pod_selector=Selector(chosen)))

    def _pod_made(self, life):
        rng = self.rng(life.name)
        clock = Clock(self.loop, rng.uniform(-MAX_RATE, MAX_RATE), rng.uniform(1, 1e5), 1e6 + rng.uniform(0, 1e4))
        kernel = Kernel(self.loop, life.name, clock, rng, self.judge)
        sidecar = self.sidecars[life.name] = Sidecar(self, life.name, kernel, clock, rng)
        sidecar.me = life.uid
        if self.schedule.lifetime:
            sidecar.fence = Fence.LIFETIME
        born = f"2026-01-01T00:01:{int(self.loop.now):02d}Z"
        labels = {"app": "web", "first": "yes" if life.name == "p0" else "no"}
        spec = PodSpec(f"node-of-{life.name}", containers=(Container(AGENT_CONTAINER),))
        meta = Meta(life.name, "ns", life.uid, creation_timestamp=born, labels=labels)
        self.server.put("pod", ("ns", life.name), Pod(meta, spec, PodStatus("Running")))
        self.loop.after(0.01, sidecar.begin)
        self.loop.after(life.ready_after, self.set_ready, life.name, True)

    def set_ready(self, name, ready, *, node=False):
        """Its containers become ready, or not; or its node is called dead, which says nothing of its containers."""
        pod = self.server.objects["pod"].get(("ns", name))
        if pod is None or (ready and name in self.faults.ended):
            return
        self.log(name, "is ready" if ready else "is not ready")
        how = {"ContainersReady": ready or node, "Ready": ready}
        said = tuple(Condition(each, "True" if true else "False") for each, true in how.items())
        self.server.put("pod", ("ns", name), replace(pod, status=PodStatus("Running", said)))

    # checked ---------------------------------------------------------------------------------------------------

    def _check_freed(self, old):
        """Freed by the controller: late is wrong as well, if one was at work all the time."""
        since = self.server.signs.get((old.namespace, old.name), 0.0)
        leaders = [each for each in self.controllers.values() if each.leads]
        steady = min((each.steady_since for each in leaders), default=self.loop.now)
        # time counts from when a version is seen, and a slow line shows everything later, conflicts too
        slow = max((each.line.lag + each.line.slow_answers for each in leaders), default=0.0)
        led = max((each.led_since for each in leaders), default=0.0)
        due = max(max(since, steady) + max(self.faults.longest_s, patience_s(old)), led)
        late = self.loop.now - due - slow
        if late > LATE_S and self.loop.now - self.faults.disturbed > LATE_S:
            self.violated("late", f"{old.name} is freed from {old.holder} {late:.2f} s later than it might be")

    def _two_lead(self):
        """Whether two lead at once: for seconds here, with the real election for no time.

        One may be behind the other, and both write what they see. That is no storm to be found; two holders would be.
        """
        return sum(each.leads for each in self.controllers.values()) > 1

    def wrong(self):
        """Say what is not as it should be in the end, or ``""``."""
        taken = set()
        for i in range(self.schedule.routes):
            key = ("ns", f"r{i}")
            route = self.server.objects["route"].get(key)
            asked = {each.value for each in route.spec.addresses} if route is not None else set()
            rightful = route is not None and not asked & taken
            if rightful:
                taken |= asked
            if problem := self._route_wrong(i, asked if rightful else set(), route):
                return problem
        had = {address for address, names in self.judge.had.items() if names}
        return f"{', '.join(sorted(had - taken))} is on a Pod and should not be" if had - taken else ""

    def _route_wrong(self, i, asked, route):
        view = self.server.objects["lease"].get(("ns", lease_name(f"r{i}")))
        pods = self._eligible(route.spec.pod_selector) if asked and route is not None else []
        if not pods:
            return f"{view.name} is held by {view.holder}, should be free" if view is not None and view.holder else ""
        best = max(pod.metadata.creation_timestamp for pod in pods)
        # a Pod without its sidecar may be owner for ever while another holds: then anybody who holds is right
        loose = self.schedule.sticky or bool(self.faults.mute)
        right = {pod.metadata.uid: pod.name for pod in pods if loose or pod.metadata.creation_timestamp == best}
        if view is None or view.holder not in right or (view.owner != view.holder and not self.faults.mute):
            who = f"{view.holder or '-'} (owner {view.owner or '-'})" if view is not None else "nobody, it is not there"
            return f"r{i} is held by {who}, should be by {' or '.join(sorted(right))}"
        kernel = self.sidecars[right[view.holder]].kernel
        missing = [address for address in sorted(asked) if not kernel.has(address)]
        return f"{right[view.holder]} holds r{i} and has not {', '.join(missing)}" if missing else ""

    def _eligible(self, selector):
        return [
            pod
            for pod in self.server.objects["pod"].values()
            if selector.matches(pod.metadata.labels)
            and pod.metadata.deletion_timestamp is None
            and any((each.type, each.status) == ("Ready", "True") for each in pod.status.conditions)
            and self.sidecars[pod.name].running
        ]

    # played ----------------------------------------------------------------------------------------------------

    def play(self):
        """Run it to its end."""
        rows.count_into(self.coverage)
        loop = self.loop
        calm = self.outcome.calm = max(self.faults.over_at(), self.schedule.window)
        loop.run(calm)
        if not loop.stopped:
            self.faults.calm()
        bound = calm + self.faults.longest_s + 20.0
        settled = None
        while not loop.stopped:
            loop.run(loop.now + LOOK_EVERY_S)
            if loop.stopped:
                break
            problem = self.wrong()
            settled = None if problem else settled or loop.now
            if settled is not None and loop.now - settled >= SETTLED_S:
                break
            if loop.now > bound:
                self.violated("not settled", f"{loop.now - calm:.1f} s after the last fault {problem}")
        self.outcome.end = loop.now
        self.outcome.events = loop.events
        return self.outcome


def play(schedule, coverage=None, *, drawing=False):
    """Play a schedule."""
    rows.install()
    memory.install()
    return World(schedule, coverage or rows.Coverage(), drawing=drawing).play()
