"""One replica of the controller: the real intake and `decide`, and around them what the real loop does.

It decides again whenever something changed or ran out, and has at most one write per object under way. A decision that
wrote nothing is not made again for a snapshot that differs only in versions and renewal times, which no decision reads
but to copy them; `decide` of both is compared now and then (`CHECK_ONE_IN`).
"""

from __future__ import annotations

from contract.lease import LeaseView
from controller.choice.decide import decide
from controller.choice.expiry import life_sign, vacancy_sign
from controller.choice.intake import Intake, version_of
from controller.choice.leases import LeaseAct
from controller.choice.objects import Pod, Route
from controller.choice.snapshot import Snapshot

from .loop import Process
from .server import CONFLICT, MISSING, Line

TIMEOUT_S = 3.0
RETRY_FIRST_S = 0.1
RETRY_MAX_S = 2.0
STALE_S = 1.0
CHECK_ONE_IN = 50
KINDS = {"lease": LeaseView, "pod": Pod, "route": Route}


class Controller(Process):
    """The program, from start to end, several times; whether it leads is told it."""

    def __init__(self, world, name, clock, rng, fixed):
        super().__init__(world.loop, name, world.log)
        self.world = world
        self.server = world.server
        self.clock = clock
        self.rng = rng
        self.line = Line(world.server, self, rng)
        self.leads = False
        self.steady_since = self.led_since = 0.0
        self._fixed = fixed

    def begin(self):
        super().start()
        self.log(self.name, "started")
        self.steady_since = float("inf")
        self.intake = Intake(lambda _kind, _key: None, set(KINDS.values()), Snapshot.of(*self._fixed))
        self._busy = set()
        self._held = {}
        self._failures = 0
        self._pending = False
        self._calm = None
        self._woken_for = None
        for kind in KINDS:
            self.line.watch(kind, None, lambda how, new, kind=kind: self._seen(kind, how, new))

    @property
    def remembers(self):
        """Whether it alone knows of a Lease that vanished and may count yet: a limit that docs/ownership.md names."""
        return any(gone.counts for gone in self.snap.vanished.values())

    def die(self):
        super().die()
        self.leads = False
        self.line.hang_up()

    def lead(self, leads):
        if leads == self.leads:
            return
        self.log(self.name, "leads" if leads else "leads no more")
        self.leads = leads
        if leads:
            self.led_since = self.loop.now
            self._decide_soon()

    # what is seen ----------------------------------------------------------------------------------------------

    def _seen(self, kind, how, new):
        now = self.clock.boot()
        if how == "LIST":
            version, found = new
            self.intake.listed(KINDS[kind], found, version, now)
            if not self.intake.unlisted:
                self.steady_since = max(self.steady_since if self.steady_since < float("inf") else 0.0, self.loop.now)
        elif how == "SET":
            self.intake.newer(KINDS[kind], new, now)
        else:
            self.intake.ended(KINDS[kind], new, now)
        self._decide_soon()

    @property
    def snap(self):
        return self.intake.snap

    @property
    def expiry(self):
        return self.intake.expiry

    # what is decided -------------------------------------------------------------------------------------------

    def _decide_soon(self):
        if not self._pending and self.leads and not self.intake.unlisted:
            self._pending = True
            self.post(0.0003, self._decide)

    def _decide(self):
        self._pending = False
        if not self.leads:
            return
        now = self.clock.boot()
        self.intake.count(now)
        self._wake(now)
        content = self._content()
        if content == self._calm and not self._busy and self.rng.random() * CHECK_ONE_IN > 1.0:
            return
        decision = decide(self.snap)
        nothing = not (decision.leases or decision.assignments or decision.statuses)
        if content == self._calm and not nothing:
            self.world.violated("simulator", f"{self.name} decides differently for the same content")
        self._calm = content if nothing else None
        for each in decision.leases:
            if self._write(("lease", each.key), self._lease_write(each)) and each.view is not None:
                self.snap.note_sent(each.key, each.view.version, each.addresses)
        for key, text in decision.assignments.items():
            uid = self.snap.pods[key].metadata.uid
            self._write(("pod", key), (self.server.annotate, key, uid, text))
        for key, desired in decision.statuses.items():
            self._write(("route", key), (self.server.set_status, key, desired))

    def _content(self):
        snap = self.snap
        leases = tuple(
            (v.uid, v.holder, v.owner, v.prepared, v.observed, v.lost, v.addresses, v.duration_s, v.transitions)
            for v in snap.leases.values()
        )
        due = tuple(life_sign(v) in snap.expired or vacancy_sign(v) in snap.untaken for v in snap.leases.values())
        pods = tuple(each.metadata.resource_version for each in snap.pods.values())
        routes = tuple(each.metadata.resource_version for each in snap.routes.values())
        return leases, due, pods, routes, tuple(snap.under_way), tuple(snap.vanished)

    def _wake(self, now):
        at = self.expiry.next_at(now)
        if at is not None and at != self._woken_for:
            self._woken_for = at
            self.post(self.clock.true(at) - self.loop.now + 0.0005, self._decide_soon)

    def _lease_write(self, write):
        match write.act:
            case LeaseAct.CREATE:
                return self.server.create_lease, write.body
            case LeaseAct.DELETE:
                return self.server.delete_lease, write.key, write.body["preconditions"]
        return self.server.patch_lease, write.key, write.body, ""

    # what is written -------------------------------------------------------------------------------------------

    def _write(self, target, request):
        if target in self._busy or self._held.get(target, self) == self._version_of(target):
            return False
        self._busy.add(target)
        self.step(self._send, target, request)
        return True

    def _send(self, target, request):
        version = self._version_of(target)
        self.line.call(TIMEOUT_S, lambda result: self._written(target, version, result), *request)

    def _version_of(self, target):
        known = self.intake.known(KINDS[target[0]], target[1])
        return None if known is None else version_of(known)

    def _written(self, target, version, result):
        how, what = result
        kind, key = target
        self._busy.discard(target)
        if kind == "lease" and how == "refused":
            self.snap.note_refused(key)
        now = self.clock.boot()
        if how == "ok":
            self._failures = 0
            if what is None:
                self.intake.gone(KINDS[kind], key, now, final=True)
            elif kind == "lease" or self.intake.known(KINDS[kind], key) is not None:
                self.intake.newer(KINDS[kind], what, now)
        else:
            self._failures += 1
            if result is MISSING and kind == "lease":
                self.intake.not_there(key, str(version), now)
            pause = STALE_S if result is CONFLICT else min(RETRY_MAX_S, RETRY_FIRST_S * 2 ** min(self._failures, 8))
            self._held[target] = version
            self.post(pause, self._again, target)
        self._decide_soon()

    def _again(self, target):
        self._held.pop(target, None)
        self._decide_soon()
