"""What a simulated minute consists of, from a seed: Pods and their lives, routes, and a list of faults.

The list is plain data, so that a violating schedule can be shrunk by leaving faults out. Faults come in clusters around
a few hot moments, most of which are the births and deaths of Pods: one alone is survived by almost any protocol.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field, replace

DURATIONS_S = (1, 2, 2, 3, 3, 5, 10)
MAX_STOP_S = 30.0
LATEST_REQUEST_S = 20.0

# who is aimed at: a Pod's sidecar, a Pod, a node with its Pod, a controller, a route
KINDS = {
    "stall": 14,  # SIGSTOP between two instructions, the k-th from here
    "stop": 4,  # SIGSTOP now
    "crash": 8,  # SIGKILL between two instructions (or now), and a restart; what the kernel has stays
    "power": 3,  # the node loses its power: all is gone; back later, never, or ready without its sidecar (mute)
    "cut": 9,  # requests, answers or both are lost for a while
    "request": 14,  # the k-th request from here is lost, late, refused, or its answer is lost or late
    "watch": 5,  # one connection or all die silently, and a list follows, perhaps of an older state
    "unready": 5,  # its containers are not ready, or its node is not
    "unfit": 3,  # the interface goes away for a while
    "delete": 6,
    "foreign": 1,  # somebody else removes the address
    "refuse": 3,  # the kernel refuses the next removals or additions
    "relink": 1,  # one more interface comes
    "clock": 3,  # the wall clock is set
    "lead": 5,  # another controller takes over, perhaps before the old one knows
    "duration": 3,
    "reassign": 4,  # the routes' addresses are changed
    "unroute": 2,  # a route is deleted, and perhaps made again
    "vanish": 1,  # somebody deletes the Lease, which the policy allows only while it is free
}
FOLLOWED = ("clock", "duration", "request", "reassign")
REQUESTS = ("lose request", "lose answer", "late request", "late answer", "refuse")


@dataclass(frozen=True)
class Fault:
    """One thing that goes wrong, or that somebody does."""

    at: float
    kind: str
    who: str = ""
    length: float = 0.0
    step: int = 0
    detail: str = ""

    def __str__(self):
        parts = [f"{self.at:7.3f} {self.kind} {self.who}"]
        parts += [f"for {self.length:.3f} s"] if self.length else []
        parts += [f"at step {self.step}"] if self.step else []
        return " ".join([*parts, self.detail]).rstrip()


@dataclass(frozen=True)
class PodLife:
    """A Pod: when it is made and how long until it is ready."""

    name: str
    uid: str
    born: float
    ready_after: float
    grace: float
    app_ends_after: float
    drain: float


@dataclass(frozen=True)
class Schedule:
    """All of it; the same schedule always runs the same way."""

    seed: int
    duration_s: int
    lifetime: bool
    pods: tuple[PodLife, ...]
    controllers: int
    routes: int
    addresses: int
    window: float
    sticky: bool
    apart: bool = False
    faults: tuple[Fault, ...] = field(default=())

    def without(self, i):
        return replace(self, faults=self.faults[:i] + self.faults[i + 1 :])

    def lines(self):
        """Tell it to a person."""
        fence = "lifetime" if self.lifetime else "deadline"
        apart = " that choose apart" if self.apart else ""
        yield (
            f"seed {self.seed}: duration {self.duration_s} s, fence {fence}, {self.routes} route(s){apart} with "
            f"{self.addresses} address(es), {self.controllers} controller(s){', sticky' if self.sticky else ''}"
        )
        yield from (
            f"  {pod.born:7.3f} Pod {pod.name} is made, ready after {pod.ready_after:.2f} s" for pod in self.pods
        )
        yield from (f"  {fault}" for fault in self.faults)


def generate(seed):
    """Make a schedule."""
    rng = random.Random(seed)  # noqa: S311 - it is to be repeatable
    duration_s = rng.choice(DURATIONS_S)
    lifetime = duration_s > 1 and rng.random() < 0.2
    window = 3.0 + 1.6 * duration_s * rng.random() + rng.random() * 3.0
    routes = 2 if rng.random() < 0.2 else 1
    apart = routes == 2 and rng.random() < 0.6
    pods = tuple(_pod(rng, i, window) for i in range(3 if apart else rng.choice((2, 2, 2, 3))))
    schedule = Schedule(
        seed,
        duration_s,
        lifetime,
        pods,
        controllers=2 if rng.random() < 0.35 else 1,
        routes=routes,
        addresses=2 if rng.random() < 0.2 else 1,
        window=window,
        sticky=rng.random() < 0.15,
        apart=apart,
    )
    hot = [rng.uniform(0.2, window) for _ in range(2)]
    hot += [pod.born + pod.ready_after for pod in pods]
    count = min(14, int(rng.expovariate(1 / 5.0)) + 1)
    # in half of them most of it befalls one Pod: a rule is mostly there for the second misfortune
    victim = rng.choice(pods).name if rng.random() < 0.5 else ""
    faults = [_fault(rng, schedule, hot, victim) for _ in range(count)]
    faults += [_silence(rng, schedule, each) for each in faults if each.kind in FOLLOWED and rng.random() < 0.4]
    for each in [fault for fault in faults if fault.kind == "duration" and rng.random() < 0.4]:
        faults += _unaware(rng, schedule, each)
    if schedule.apart and rng.random() < 0.4:
        faults += _moved(rng, schedule)
    if schedule.routes == 2 and rng.random() < 0.1:
        faults += _ended_unseen(rng, schedule)
    return replace(schedule, faults=tuple(sorted(faults, key=lambda fault: fault.at)))


def _pod(rng, i, window):
    born = 0.0 if i == 0 or rng.random() < 0.35 else rng.uniform(0.5, window)
    ready_after = rng.uniform(0.05, 0.5) if rng.random() < 0.85 else rng.uniform(0.5, 4.0)
    grace = rng.choice((0.3, 2.0, 6.0))
    drain = rng.choice((0.0, 0.5, 3.0))
    ends_after = rng.uniform(0.01, 0.5) * (10.0 if grace > 2.0 else 1.0)
    return PodLife(f"p{i}", f"uid-{i}", born, ready_after, grace, ends_after, drain)


def _silence(rng, schedule, fault):
    """Somebody falls silent for longer than the Lease, shortly after something else went wrong."""
    who = fault.who if fault.who.startswith("p") else rng.choice(schedule.pods).name
    at = round(fault.at + 0.06 + rng.random() * schedule.duration_s * 0.5, 4)
    kind = rng.choice(("stop", "stall", "cut", "crash"))
    length = round(schedule.duration_s * (1.0 + rng.random()) + 1.0, 4)
    step = rng.randint(1, 6) if kind in ("stall", "crash") else 0
    return Fault(at, kind, who, min(length, 6.0) if kind == "crash" else length, step, "both" if kind == "cut" else "")


def _unaware(rng, schedule, fault):
    """A sidecar is away while the duration changes, and is stopped in the midst of coming back."""
    who = rng.choice(schedule.pods).name
    killed = max(0.1, fault.at - rng.random() * 0.5)
    away = rng.uniform(0.2, 1.5)
    yield Fault(round(killed, 4), "crash", who, round(away, 4))
    stopped = round(max(fault.at, killed) + 0.001, 4)
    yield Fault(stopped, "stall", who, schedule.duration_s + 2.0, rng.randint(1, 6))


def _moved(rng, schedule):
    """An address goes to another route while the holder is silent and the next Pod does not hear of it.

    The next Pod is stopped for a while in the midst of taking over.
    """
    silent, unaware = schedule.pods[-2:]
    ready = unaware.born + unaware.ready_after
    stopped = max(0.1, ready - rng.random() * 0.3)
    yield Fault(round(stopped, 4), "stop", silent.name, schedule.duration_s + 2.0)
    moved = ready + 0.05 + rng.random() * 0.5
    yield Fault(round(moved, 4), "reassign", "r0")
    yield Fault(round(moved - rng.random() * 0.05, 4), "watch", unaware.name, schedule.duration_s + 3.0, 0, "one")
    taking = stopped + schedule.duration_s - rng.random() * 0.5
    yield Fault(round(taking, 4), "stall", unaware.name, round(rng.uniform(0.2, 2.0), 4), rng.randint(1, 12))


def _ended_unseen(rng, schedule):
    """A route is deleted with its Lease, held by a silent Pod, while the controller's watch of the Leases is dead."""
    at = rng.uniform(1.0, schedule.window)
    dead, silent = rng.uniform(0.0, at), rng.random() * 0.2
    back = at + rng.random() * 0.5
    yield Fault(round(dead, 4), "watch", "c0", round(back - dead, 4), 0, "one")
    yield Fault(round(max(0.1, at - silent), 4), "stop", rng.choice(schedule.pods).name, schedule.duration_s + 2.0)
    yield Fault(round(at, 4), "vanish", "r0")
    yield Fault(round(at + rng.random() * 0.1, 4), "unroute", "r0", 0.0, 0, "gone")
    if rng.random() < 0.3:
        yield Fault(round(at - rng.random() * 0.2, 4), "crash", "c0", round(rng.uniform(0.05, 1.0), 4))


def _length(rng, longest):
    """From a hundredth of a second to `longest`, each order of magnitude as likely as the next."""
    return 0.01 * (longest / 0.01) ** rng.random()


def _fault(rng, schedule, hot, victim):
    kinds = list(KINDS)
    kind = rng.choices(kinds, [KINDS[each] for each in kinds])[0]
    at = rng.choice(hot) + rng.expovariate(1 / 0.4) if rng.random() < 0.75 else rng.uniform(0.1, schedule.window)
    at = max(0.1, at)
    longest = min(MAX_STOP_S, 3.0 * schedule.duration_s + 2.0) if rng.random() < 0.95 else MAX_STOP_S
    length = _length(rng, longest)
    step = rng.randint(1, 12)
    pod = victim if victim and rng.random() < 0.8 else rng.choice(schedule.pods).name
    controller = f"c{rng.randrange(schedule.controllers)}"
    anybody = controller if rng.random() < 0.25 else pod
    return _shaped(rng, schedule, Fault(round(at, 4), kind, anybody, round(length, 4), step), pod, controller)


def _shaped(rng, schedule, fault, pod, controller):  # noqa: C901, PLR0911 - one case per kind
    """Give a fault the fields that its kind has."""
    match fault.kind:
        case "stall" | "crash":
            return replace(fault, length=fault.length if fault.kind == "stall" else min(fault.length, 6.0))
        case "stop":
            return replace(fault, step=0)
        case "watch":
            detail = rng.choice(("fresh", "stale", "one", "one"))
            return replace(fault, step=rng.randrange(3) if detail == "one" else 0, detail=detail)
        case "power":
            return replace(fault, who=pod, step=0, detail=rng.choice(("back", "back", "never", "mute")))
        case "cut":
            return replace(fault, step=0, detail=rng.choice(("requests", "answers", "both")))
        case "request":
            length = min(fault.length, LATEST_REQUEST_S)
            return replace(fault, length=length, detail=rng.choice(REQUESTS))
        case "refuse":
            return replace(
                fault, who=pod, length=0.0, step=rng.randint(1, 3), detail=rng.choice(("add", "remove", "remove"))
            )
        case "clock":
            length = round(rng.choice((-1, 1)) * _length(rng, 20.0), 4)
            return replace(fault, who=pod, step=0, length=length)
        case "lead":
            who = f"c{rng.randrange(schedule.controllers)}"
            return replace(fault, who=who, step=0, length=round(rng.choice((-1.0, 0.3, 2.0)) * rng.random(), 4))
        case "duration":
            return replace(fault, who="r0", length=0.0, step=0, detail=str(rng.choice((1, 2, 2, 4, 10))))
        case "unroute":
            return replace(fault, who="r0", step=0, detail=rng.choice(("gone", "back", "back")))
        case "reassign" | "vanish":
            return replace(fault, who="r0", length=0.0, step=0)
    detail = rng.choice(("", "node")) if fault.kind == "unready" else ""
    who = pod if fault.kind in ("unready", "unfit", "delete", "foreign", "relink") else controller
    return replace(fault, who=who, step=0, detail=detail)
