"""A simulated API server: versions, compare-and-swap, the admission policy's rules as assertions, watches, and lines.

Safe to assume of the real one: of two writes for one version one fails. Not assumed: that a request arrives, soon or
before its sender has given up; that an answer arrives; that a watch is quick, unbroken, or in step with another one.
"""

# ruff: noqa: FBT003 - what is passed on is called later, by position
from __future__ import annotations

from functools import lru_cache

import msgspec

from contract.assignment import decode_assignment
from contract.lease import LeaseView, listed
from contract.names import ADDRESSES, ASSIGNMENT, LOST, OBSERVED, OWNER, PREPARED, ROUTE_LABEL
from controller.choice.conditions import stamped
from controller.choice.objects import RouteStatus

replace = msgspec.structs.replace
UNANSWERED = ("unanswered", "no answer")
CONFLICT = ("refused", "409")
MISSING = ("refused", "404")
HISTORY = 6
STORM_PER_S = 45
"""More requests of one process within one second than this are a storm."""

read_assignment = lru_cache(maxsize=512)(decode_assignment)


class Server:
    """All objects, by kind and key."""

    def __init__(self, loop, violated, log):
        self.loop = loop
        self.violated = violated
        self.log = log
        self.objects = {"lease": {}, "pod": {}, "route": {}}
        self.watches = []
        self.history = {}
        self.signs = {}
        self.prepared = {}
        self.patient = lambda _view: None
        self.quarrel = lambda: False
        self.version = 0

    # storage ---------------------------------------------------------------------------------------------------

    def _store(self, kind, key, new):
        self.version += 1
        version = str(self.version)
        if kind == "lease":
            new = replace(new, version=version)
            past = self.history.setdefault(key, [])
            past.append(new)
            del past[:-HISTORY]
        else:
            new = replace(new, metadata=replace(new.metadata, resource_version=version))
        self.objects[kind][key] = new
        for watch in self.watches:
            if watch.kind == kind and watch.name in (None, key):
                watch.emit("SET", new)
        return new

    def put(self, kind, key, new):
        """Write as one who may do anything: the kubelet, a user, the world that is being made."""
        return self._store(kind, key, new)

    def remove(self, kind, key):
        old = self.objects[kind].pop(key, None)
        if old is None:
            return
        self.version += 1
        self.history.pop(key, None)
        for watch in self.watches:
            if watch.kind == kind and watch.name in (None, key):
                watch.emit("GONE", old)

    # the writes of controllers and sidecars --------------------------------------------------------------------

    def read_lease(self, key):
        return "ok", self.objects["lease"].get(key)

    def patch_lease(self, key, patch, me):
        old = self.objects["lease"].get(key)
        meta = patch["metadata"]
        if old is None or meta.get("uid", old.uid) != old.uid:
            return MISSING
        if meta.get("resourceVersion", old.version) != old.version:
            return CONFLICT
        new = patched(old, patch)
        if why := forbidden(old, new, me):
            self.violated("policy", f"{me or 'controller'} on {key[1]}: {why}")
            return "refused", why
        self._check_given(key, old, new, me)
        new = self._store("lease", key, new)
        if sign(new) != sign(old):
            self.signs[key] = self.loop.now
        return "ok", new

    def create_lease(self, body):
        meta, spec = body["metadata"], body["spec"]
        key = (meta["namespace"], meta["name"])
        if key in self.objects["lease"]:
            return CONFLICT
        self.version += 1
        view = LeaseView(
            *key,
            uid=f"lease-{self.version}",
            version="",
            holder=spec.get("holderIdentity", ""),
            owner=meta["annotations"][OWNER],
            addresses=listed(meta["annotations"][ADDRESSES]),
            duration_s=spec["leaseDurationSeconds"],
            transitions=spec["leaseTransitions"],
            route=meta["labels"][ROUTE_LABEL],
        )
        self.log("server", f"{key[1]} made, owner {view.owner or '-'}, holder {view.holder or '-'}")
        self.signs[key] = self.loop.now
        return "ok", self._store("lease", key, view)

    def delete_lease(self, key, preconditions):
        old = self.objects["lease"].get(key)
        if old is None:
            return MISSING
        if (old.uid, old.version) != (preconditions["uid"], preconditions["resourceVersion"]):
            return CONFLICT
        if old.holder:
            self.violated("policy", f"{key[1]} is deleted though {old.holder} holds it")
        self.log("server", f"{key[1]} deleted")
        self.remove("lease", key)
        return "ok", None

    def annotate(self, key, uid, text):
        pod = self.objects["pod"].get(key)
        if pod is None or pod.metadata.uid != uid:
            return MISSING
        notes = {name: value for name, value in pod.metadata.annotations.items() if name != ASSIGNMENT}
        if text is not None:
            notes[ASSIGNMENT] = text
        named = [entry.route for entry in read_assignment(text, "").routes] if text else []
        self.log("server", f"{key[1]} is assigned {', '.join(named) or 'nothing'}")
        return "ok", self._store("pod", key, replace(pod, metadata=replace(pod.metadata, annotations=notes)))

    def set_status(self, key, desired):
        route = self.objects["route"].get(key)
        if route is None:
            return MISSING
        status = msgspec.convert(stamped(desired, route, "now"), RouteStatus)
        return "ok", self._store("route", key, replace(route, status=status))

    # checks ----------------------------------------------------------------------------------------------------

    def _check_given(self, key, old, new, me):
        if new.owner != old.owner:
            self.prepared.pop(key, None)
        if new.prepared != old.prepared and me:
            self.prepared[key] = new.prepared
        if new.holder == old.holder:
            self._log_change(key, old, new, me)
            return
        if new.holder and new.holder != me and self.prepared.get(key) != new.holder:
            self.violated("unprepared", f"{key[1]} is given to {new.holder}, which has not prepared since it is owner")
        if not me:
            self.patient(old)
        self.log("server", f"{key[1]}: holder {old.holder or '-'} -> {new.holder or '-'} by {me or 'controller'}")

    def _log_change(self, key, old, new, me):
        for name in ("owner", "prepared", "lost", "addresses", "duration_s"):
            before, after = getattr(old, name), getattr(new, name)
            if before != after:
                self.log("server", f"{key[1]}: {name} {before or '-'} -> {after or '-'} by {me or 'controller'}")


def sign(view):
    return view.holder, view.renew_time, view.transitions, view.uid


def patched(old, patch):
    """Apply a merge patch of contract.lease to what a Lease holds."""
    spec = patch.get("spec", {})
    notes = patch["metadata"].get("annotations", {})
    changes = {}
    for field, name in _SPEC:
        if name in spec:
            changes[field] = spec[name]
    for field, name in _NOTES:
        if name in notes:
            changes[field] = notes[name]
    for field, name in (("lost", LOST), ("addresses", ADDRESSES)):
        if name in notes:
            changes[field] = listed(notes[name])
    return replace(old, **changes)


_SPEC = (
    ("holder", "holderIdentity"),
    ("transitions", "leaseTransitions"),
    ("renew_time", "renewTime"),
    ("duration_s", "leaseDurationSeconds"),
)
_NOTES = (("owner", OWNER), ("prepared", PREPARED), ("observed", OBSERVED))


def forbidden(old, new, me):  # noqa: C901, PLR0911 - one return per rule
    """Say which rule of deploy/base/policies.yaml a write breaks; ``""``: none. `me` is ``""`` for the controller."""
    moves = new.holder != old.holder
    grows = new.transitions - old.transitions
    if moves and new.observed:
        return "a change of holder clears observed"
    if not me:
        if (moves and new.holder) or grows or new.renew_time != old.renew_time:
            return "the controller makes nobody holder and gives no sign of life"
        if set(old.addresses) - set(new.addresses) and new.holder and not old.observed:
            return "what a holder without a report may have stays named"
        if new.prepared and (new.prepared != old.prepared or new.owner not in (old.owner, new.prepared)):
            return "the controller never says that a Pod is prepared"
        return "the controller writes no report" if new.observed not in ("", old.observed) else ""
    if (new.owner, new.lost, new.addresses, new.duration_s) != (old.owner, old.lost, old.addresses, old.duration_s):
        return "owner, lost, addresses and duration are the controller's"
    take = not old.holder and new.holder == me == old.owner
    give = old.holder == me and new.holder != "" and new.holder == old.owner == old.prepared
    if moves and not (take or give or (old.holder == me and not new.holder)):
        return f"holder may not go from {old.holder or '-'} to {new.holder or '-'}"
    if grows != (1 if moves and new.holder else 0):
        return "the epoch grows by one with each new holder"
    if new.renew_time != old.renew_time and not take and old.holder != me:
        return "renewTime is the holder's"
    withdrawn = new.prepared == "" and old.prepared == me
    may_prepare = new.prepared == me and (old.owner == me or me in old.lost)
    if new.prepared != old.prepared and not withdrawn and not may_prepare:
        return "prepared is for the owner or a lost Pod, for itself"
    cleared = moves and not new.observed
    may_report = not moves and (old.holder == me or (not old.holder and old.owner == me))
    if new.observed != old.observed and not cleared and not may_report:
        return "observed is the holder's, or the owner's while it is free"
    return ""


class Line:
    """A process' way to the server and back: slow, lossy and cut as the schedule wants it."""

    def __init__(self, server, process, rng):
        self.server = server
        self.process = process
        self.weather = []
        self.no_request_until = 0.0
        self.no_answer_until = 0.0
        self.watches = []
        # some are slow all the time
        self.lag = rng.random() ** 2 * 0.5 if rng.random() < 0.3 else 0.0
        self.slow_answers = self.lag if rng.random() < 0.4 else 0.0
        self._loop = server.loop
        self._rng = rng
        self._second = (-1, 0)

    def delay(self):
        at = self._rng.random()
        return 0.0003 + at * 0.002 if at < 0.97 else (at - 0.97) * 14.0

    def call(self, timeout_s, answered, do, *args):
        """Have `do(*args)` done at the server, perhaps; `answered` gets what comes back, or UNANSWERED."""
        self._count()
        kind, length = self._next_weather()
        once = [answered]
        if kind == "refuse":
            self.process.post(self.delay(), self._finish, once, ("refused", "no connection"))
            return
        up = self.delay() + (length if kind == "late request" else 0.0)
        lost = kind == "lose request"
        if self._loop.now < self.no_request_until:
            # TCP repeats what was not acknowledged: it may still arrive when the cut is over
            lost = self._rng.random() < 0.5
            up += self.no_request_until - self._loop.now
        if not lost:
            self._loop.after(up, self._arrive, once, kind, length, do, args)
        self.process.post(timeout_s, self._finish, once, UNANSWERED)

    def cut(self, length, *, requests, answers):
        end = self._loop.now + length
        if requests:
            self.no_request_until = max(self.no_request_until, end)
        if answers:
            self.no_answer_until = max(self.no_answer_until, end)

    def heal(self):
        self.weather = []
        self.slow_answers = 0.0

    def watch(self, kind, name, seen):
        made = Watch(self, kind, name, seen, self._rng)
        self.watches.append(made)
        return made

    def hang_up(self):
        for watch in self.watches:
            watch.close()
        self.watches = []

    def _arrive(self, once, kind, length, do, args):
        result = do(*args)
        if kind == "lose answer" or self._loop.now < self.no_answer_until:
            return
        down = self.delay() + self.slow_answers + (length if kind == "late answer" else 0.0)
        self.process.loop.after(down, self._answer, self.process.life, once, result)

    def _answer(self, life, once, result):
        if life == self.process.life:
            self.process.deliver(self._finish, once, result)

    def _finish(self, once, result):
        if once:
            once.pop()(result)

    def _next_weather(self):
        for each in self.weather:
            each[0] -= 1
            if each[0] <= 0:
                self.weather.remove(each)
                return each[1], each[2]
        return "", 0.0

    def _count(self):
        second = int(self._loop.now)
        count = self._second[1] + 1 if self._second[0] == second else 1
        self._second = (second, count)
        if count == STORM_PER_S and not self.server.quarrel():
            self.server.violated("storm", f"{self.process.name} made {count} requests within a second")


class Watch:
    """A list, and what happens to its objects after it; in order, late, and anew when the connection is gone."""

    def __init__(self, line, kind, name, seen, rng):
        self.kind = kind
        self.name = name
        self._line = line
        self._seen = seen
        self._rng = rng
        self._loop = line.server.loop
        self._generation = 0
        self._open = False
        self._last = 0.0
        line.server.watches.append(self)
        self._loop.after(line.delay(), self._list, 0, False)

    def close(self):
        self._generation += 1
        self._open = False
        if self in self._line.server.watches:
            self._line.server.watches.remove(self)

    def interrupt(self, length, *, stale):
        """The connection is dead from now on; after `length` that is noticed, and there is a list again."""
        self._generation += 1
        self._open = False
        self._loop.after(length, self._list, self._generation, stale)

    def emit(self, kind, new):
        if not self._open:
            return
        now = self._loop.now
        if now < self._line.no_answer_until:
            self.interrupt(self._line.no_answer_until - now, stale=False)
            return
        self._send(kind, new)

    def _send(self, kind, new):
        self._last = max(self._last + 1e-6, self._loop.now + self._line.delay() + self._line.lag * self._rng.random())
        self._loop.at(self._last, self._arrive, self._generation, kind, new)

    def _arrive(self, generation, kind, new):
        if generation == self._generation:
            self._line.process.deliver(self._seen, kind, new)

    def _list(self, generation, stale):
        if generation != self._generation:
            return
        cut = max(self._line.no_request_until, self._line.no_answer_until)
        if self._loop.now < cut:
            self._loop.at(cut + self._line.delay(), self._list, generation, stale)
            return
        self._open = True
        server = self._line.server
        found = server.objects[self.kind]
        if self.name is None:
            self._send("LIST", (server.version, list(found.values())))
            return
        new = found.get(self.name)
        past = server.history.get(self.name, ()) if stale and new is not None else ()
        if len(past) > 1:
            # a server's watch cache may be behind what was seen before; it catches up
            begin = self._rng.randrange(len(past) - 1)
            self._send("LIST", (server.version, [past[begin]]))
            for each in past[begin + 1 :]:
                self._send("SET", each)
            return
        self._send("LIST", (server.version, [] if new is None else [new]))
