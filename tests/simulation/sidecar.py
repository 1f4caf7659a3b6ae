"""One Pod's sidecar: the real machine of each of its routes, and around it what agent, route and placement do.

The order of the sub-steps is theirs (sidecar/route.py, sidecar/cluster/lease.py, sidecar/kernel/placement.py), and
between any two of them the process may be stopped or die.
"""

from __future__ import annotations

import datetime as dt
import math

from contract import lease as writes
from contract.names import ASSIGNMENT
from contract.report import AddressReport, AddressState, Fence
from sidecar.protocol import machine
from sidecar.protocol.events import (
    Announce,
    Assigned,
    ClockStepped,
    Configure,
    Configured,
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
    Unprepared,
    Write,
    Written,
)
from sidecar.protocol.state import Phase, State, phase

from .loop import Process
from .server import Line, read_assignment

GIVE_UP_S = 5.0
LIFT_AFTER_S = 0.2
ROUNDING_S = 0.05
_EPOCH = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)


class Sidecar(Process):
    """The program in one Pod, from start to end, several times."""

    def __init__(self, world, pod, kernel, clock, rng):
        super().__init__(world.loop, pod, world.log)
        self.world = world
        self.server = world.server
        self.kernel = kernel
        self.clock = clock
        self.rng = rng
        self.line = Line(world.server, self, rng)
        self.me = ""
        self.key = ("ns", pod)
        self.fence = Fence.DEADLINE
        self.fit = True
        self.refused = {"add": 0, "remove": 0}
        self.routes = {}
        self._stop = None
        self._exit = None
        kernel.changed = self._kernel_changed

    # life ------------------------------------------------------------------------------------------------------

    def begin(self):
        """The container is started."""
        super().start()
        self.log(self.name, "started")
        self.routes = {}
        self._stop = None
        self.line.watch("pod", self.key, self._pod_seen)

    def die(self):
        super().die()
        self.line.hang_up()
        for route in self.routes.values():
            route.gone = True
        self.routes = {}

    def terminate(self, drain_s, exited):
        """SIGTERM."""
        self._exit = exited
        if not self.running:
            return
        self.deliver(self._asked_to_stop, drain_s)

    def _asked_to_stop(self, drain_s):
        until = self.clock.boot() + drain_s
        self._stop = Stop(until, until + GIVE_UP_S)
        self.log(self.name, "SIGTERM")
        for route in list(self.routes.values()):
            route.feed(self._stop)
        self.changed()

    def stepped(self):
        """The wall clock was set, and the alarm for it rang."""
        for route in list(self.routes.values()):
            route.feed(ClockStepped())

    def links_changed(self):
        """An interface came, went or came back."""
        for route in list(self.routes.values()):
            route.feed(Reannounce())
            route.prepare()

    def _kernel_changed(self):
        self.post(0.001, self._look_again)

    def _look_again(self):
        for route in list(self.routes.values()):
            route.kernel_changed()

    # assignment ------------------------------------------------------------------------------------------------

    def _pod_seen(self, kind, new):
        if kind == "LIST":
            new = new[1][0] if new[1] else None
        if kind == "GONE" or new is None or new.metadata.uid != self.me:
            return
        text = new.metadata.annotations.get(ASSIGNMENT)
        entries = {entry.lease: entry for entry in read_assignment(text, "").routes} if text else {}
        for lease, route in list(self.routes.items()):
            if lease not in entries:
                route.assign(None)
        for lease, entry in entries.items():
            if lease in self.routes:
                self.routes[lease].assign(entry)
            else:
                self._begin_route(lease, entry)
        self._remove_strays()

    def _begin_route(self, lease, entry):
        route = self.routes[lease] = Route(self, lease, entry)
        route.begin()
        if self._stop is not None:
            route.feed(self._stop)

    def _remove_strays(self):
        known = set()
        for route in self.routes.values():
            known |= route.state.present | route.state.named
        for address in set(self.kernel.ends) - known:
            self.step(self.kernel.delete, address)

    def changed(self):
        for lease, route in list(self.routes.items()):
            if route.over:
                route.close()
                del self.routes[lease]
        if self._stop is None:
            return
        now = self.clock.boot()
        if all(machine.finished(route.state, now) for route in self.routes.values()):
            self.step(self._leave)

    def _leave(self):
        if self._stop is None:
            return
        for address in list(self.kernel.ends):
            self.kernel.delete(address)
        self.log(self.name, "exits")
        self.die()
        self._exit()


class Route:
    """The runner of one route's machine."""

    def __init__(self, sidecar, lease, entry):
        self.sidecar = sidecar
        self._first = entry
        self.state = State(sidecar.me)
        self.gone = False
        self._lease = ("ns", lease)
        self._known = False
        self._result = None
        self._preparing = 0
        self._ticking = None
        self._phase = Phase.ABSENT

    def begin(self):
        self._watch = self.sidecar.line.watch("lease", self._lease, self._lease_seen)
        self.assign(self._first)
        if standing := self._standing():
            self.feed(KernelSeen(standing))

    def close(self):
        self.gone = True
        self._watch.close()
        self.sidecar.line.watches.remove(self._watch)

    def assign(self, entry):
        if entry != self.state.entry or self.state.unassigned:
            self.feed(Assigned(entry))

    def prepare(self):
        self._preparing += 1
        if self.state.entry is not None:
            self.sidecar.post(0.002 + self.sidecar.rng.random() * 0.02, self._ready, self._preparing)

    def _ready(self, attempt):
        if attempt != self._preparing or self.state.entry is None or self.gone:
            return
        if self.sidecar.fit:
            self._result = Prepared(self.sidecar.fence)
        else:
            failed = AddressState.FAILED
            self._result = Unprepared(
                tuple(AddressReport(each.address, "eth1", failed, "no eth1") for each in self.state.entry.addresses)
            )
        if self._known:
            self.feed(self._result)
            self._result = None

    def _lease_seen(self, kind, new):
        if self.gone:
            return
        view = (new[1][0] if new[1] else None) if kind == "LIST" else None if kind == "GONE" else new
        first = not self._known
        self._known = True
        self.feed(LeaseSeen(view))
        if first and self._result is not None:
            result, self._result = self._result, None
            self.feed(result)

    def kernel_changed(self):
        busy = isinstance(self.state.flight, (Configure, Remove))
        if not busy and (standing := self._standing()) != self.state.present:
            self.feed(KernelSeen(standing))

    def _standing(self):
        return (self.state.named | self.state.present) & self.sidecar.kernel.ends.keys()

    @property
    def over(self):
        s = self.state
        busy = s.present or s.flight is not None or s.mine or s.reread
        return s.entry is None and not busy and (s.lease is None or s.lease.prepared != s.me)

    # the machine -----------------------------------------------------------------------------------------------

    def feed(self, event):
        if self.gone:
            return
        sidecar = self.sidecar
        now = sidecar.clock.boot()
        before = self.state
        try:
            self.state, actions = machine.step(self.state, event, now)
        except (IllegalEvent, AssertionError, AttributeError) as error:
            sidecar.world.violated("machine", f"{sidecar.name}: {type(error).__name__} {error} on {event}")
            return
        self._note_phase(now)
        for action in actions:
            self._start(action)
        if self.state.entry is not before.entry:
            if self.state.entry is None and self.state.owner:
                sidecar.world.violated("choice", f"{sidecar.name} is to let go what it shall hold")
            self.prepare()
        self._set_timer(now)
        sidecar.changed()

    def _note_phase(self, now):
        at = phase(self.state, now)
        if at is not self._phase:
            self.sidecar.world.coverage.transitions.add((self._phase, at))
            self._phase = at

    def _set_timer(self, now):
        at = machine.wake_at(self.state, now)
        if at == self._ticking:
            return
        self._ticking = at
        if at is not None:
            late = 0.0001 + self.sidecar.rng.random() * 0.001
            self.sidecar.post(self.sidecar.clock.true(at) - self.sidecar.loop.now + late, self._tick, at)

    def _tick(self, at):
        if at == self._ticking:
            self._ticking = None
            self.feed(Tick())

    def _start(self, action):
        sidecar = self.sidecar
        match action:
            case Announce():
                pass
            case Write(kind):
                if kind in (Kind.TAKE, Kind.PREPARE) and not self.state.prepared:
                    sidecar.world.violated("unprepared", f"{sidecar.name} is to {kind} without being prepared")
                sidecar.step(self._write, action)
            case Read():
                sidecar.line.call(action.timeout_s, self._read, sidecar.server.read_lease, self._lease)
            case Configure():
                sidecar.step(self._fence_first, action)
            case Remove(addresses):
                sidecar.step(self._take_away, sorted(addresses), self._removed, addresses)

    # writes ----------------------------------------------------------------------------------------------------

    def _write(self, action):
        sidecar = self.sidecar
        view = action.view
        now = _EPOCH + dt.timedelta(seconds=sidecar.clock.wall())
        match action.kind:
            case Kind.TAKE:
                patch = writes.take(view, sidecar.me, now)
            case Kind.RENEW:
                patch = writes.renew(view, action.observed, now)
            case Kind.PREPARE:
                patch = writes.prepare(view, sidecar.me)
            case Kind.WITHDRAW:
                patch = writes.prepare(view, "")
            case Kind.HAND_OVER:
                patch = writes.hand_over(view, action.successor, now)
            case Kind.RELEASE:
                patch = writes.release(view, now)
            case Kind.EXPLAIN:
                patch = writes.explain(view, action.observed)
        sent = sidecar.clock.boot()
        sidecar.step(self._send, action, patch, sent)

    def _send(self, action, patch, sent):
        sidecar = self.sidecar
        if sidecar.world.drawing:
            sidecar.log(sidecar.name, f"sends {action.kind} (version {action.view.version})")

        def answered(result):
            how, what = result
            if how == "ok":
                self.feed(Written(what, sent))
            else:
                self.feed(Refused(what) if how == "refused" else Unanswered(what))

        sidecar.line.call(action.timeout_s, answered, sidecar.server.patch_lease, self._lease, patch, sidecar.me)

    def _read(self, result):
        how, what = result
        self.feed(ReadDone(what) if how == "ok" else Unanswered(what))

    # kernel calls ----------------------------------------------------------------------------------------------

    def _fence_first(self, action):
        """The deadline's rule is written with the wall clock of this instant, and set an instant later."""
        if self.sidecar.fence is Fence.LIFETIME:
            self._add(action, [each.address for each in action.entry.addresses])
            return
        clock = self.sidecar.clock
        wall_s = clock.wall() + action.deadline_s - clock.boot()
        self.sidecar.step(self._set_fence, action, wall_s)

    def _set_fence(self, action, wall_s):
        addresses = [each.address for each in action.entry.addresses]
        for address in addresses:
            self.sidecar.kernel.fence(address, wall_s)
        self.sidecar.step(self._add, action, addresses)

    def _add(self, action, addresses):
        """Add one address, or prolong it; then the next, then remove what the entry no longer names."""
        sidecar = self.sidecar
        if not addresses:
            rest = sorted(self.state.present - {each.address for each in action.entry.addresses})
            self._take_away(rest, self._configured, action)
            return
        address = addresses[0]
        left_s = action.deadline_s - sidecar.clock.boot()
        only = sidecar.fence is Fence.LIFETIME
        valid_s = max(0, math.floor(left_s + ROUNDING_S)) if only else max(1, math.ceil(left_s))
        after = (self._add, action, addresses[1:])
        if valid_s == 0:
            sidecar.kernel.delete(address)
        if left_s <= 0 or valid_s == 0 or (address not in sidecar.kernel.ends and self._refused("add")):
            sidecar.step(*after)
        elif only:
            # a pause between these two is what a kernel without deadlines leaves (docs/ownership.md)
            sidecar.kernel.put(address, valid_s)
            sidecar.step(*after)
        else:
            sidecar.step(self._put, address, valid_s, after)

    def _put(self, address, valid_s, after):
        self.sidecar.kernel.put(address, valid_s)
        self.sidecar.step(*after)

    def _configured(self, action):
        ends, sidecar = self.sidecar.kernel.ends, self.sidecar
        states = {True: AddressState.ANNOUNCED, False: AddressState.FAILED}
        addresses = [each.address for each in action.entry.addresses]
        reports = tuple(AddressReport(each, "eth1", states[each in ends]) for each in addresses)
        self.feed(Configured(frozenset(self.state.present | set(addresses)) & ends.keys(), reports, sidecar.fence))
        if not self.gone and self.state.present and self.state.announce_at_s is None:
            self.feed(Reannounce())

    def _take_away(self, addresses, then, *args):
        if not addresses:
            self.sidecar.step(then, *args)
            return
        if not self._refused("remove"):
            self.sidecar.kernel.delete(addresses[0])
        self.sidecar.step(self._take_away, addresses[1:], then, *args)

    def _removed(self, addresses):
        self.feed(Removed(frozenset(addresses) & self.sidecar.kernel.ends.keys()))
        self.sidecar.post(LIFT_AFTER_S, self._lift, addresses)

    def _lift(self, addresses):
        if not any(isinstance(each.state.flight, Configure) for each in self.sidecar.routes.values()):
            for address in addresses:
                self.sidecar.kernel.lift(address)

    def _refused(self, what):
        if self.sidecar.refused[what] > 0:
            self.sidecar.refused[what] -= 1
            return True
        return False
