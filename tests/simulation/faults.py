"""Makes a schedule's faults happen to the world, and makes them stop."""

# ruff: noqa: FBT003 - what is passed on is called later, by position
from __future__ import annotations

from functools import partial

import msgspec

from contract.names import GUARD_LIFETIME_S, LEASE_SECONDS, MOST_DURATION_S
from controller.choice.objects import Address, RouteStatus
from controller.choice.reading import entry_on, named
from sidecar.protocol.events import Read, Write

TAKEOVER_S = 1.0
"""After a controller's death or silence another one leads, much sooner than in a cluster."""
SHIELD_S = 0.05
"""A process that is stopped at the very moment when the wall clock is set is a limit that docs/ownership.md names."""

replace = msgspec.structs.replace


class Faults:
    """Everything that goes wrong, or that users and kubelets do."""

    def __init__(self, world):
        self._world = world
        self._loop = world.loop
        self.disturbed = float("-inf")
        self._untold_until = float("-inf")
        changed = [int(each.detail) for each in world.schedule.faults if each.kind == "duration"]
        # a controller that starts knows of a Lease that vanished before by an entry only, and not how long it lasted
        unknown = [MOST_DURATION_S] if self._has("vanish", "r") and self._has("crash", "c") else []
        self.longest_s = max([world.schedule.duration_s, *changed, *unknown]) + GUARD_LIFETIME_S
        self._calm = False
        self.ended = set()
        self.mute = set()

    def _has(self, kind, whose):
        return any(each.kind == kind and each.who.startswith(whose) for each in self._world.schedule.faults)

    def arm(self, faults):
        for fault in faults:
            self._loop.at(fault.at, self._happen, fault)

    def over_at(self):
        """When the last of them is over, as far as their times tell."""
        lives = [life.born + life.ready_after for life in self._world.schedule.pods]
        return max([*lives, *(each.at + abs(each.length) for each in self._world.schedule.faults)]) + 0.1

    def calm(self):
        """From now on nothing goes wrong any more."""
        world = self._world
        parts = [*world.sidecars.values(), *world.controllers.values()]
        for each in parts:
            each.traps = []
            each.line.heal()
        while (end := max(each.stopped_until for each in parts)) > self._loop.now and not self._loop.stopped:
            self._loop.run(end)
        self._calm = True
        world.outcome.calm = self._loop.now
        world.log("world", "no more faults")
        for name, each in world.sidecars.items():
            each.refused = dict.fromkeys(each.refused, 0)
            each.line.no_request_until = each.line.no_answer_until = 0.0
            if not each.fit:
                self._set_fit(name, fit=True)
        for each in world.controllers.values():
            each.line.no_request_until = each.line.no_answer_until = 0.0
            if not each.running:
                each.begin()
        self._one_leads()
        # what an old leader was to learn may still be under way
        self._loop.after(0.5, self._one_leads)

    def _one_leads(self):
        for name, each in self._world.controllers.items():
            each.lead(name == "c0")

    def _happen(self, fault):
        world = self._world
        target = world.sidecars.get(fault.who) or world.controllers.get(fault.who)
        if target is None and fault.who != "r0":
            return
        if world.drawing:
            world.log("FAULT", str(fault))
        if fault.who in world.controllers:
            self.disturbed = float("inf")
        getattr(self, f"_{fault.kind}")(fault, target)

    # processes and nodes ---------------------------------------------------------------------------------------

    def _stall(self, fault, target):
        target.traps.append([fault.step, self._stop_now, (fault, target)])

    def _stop(self, fault, target):
        self._stop_now(fault, target)

    def _stop_now(self, fault, target):
        target.stop(fault.length)
        if fault.who in self._world.controllers and fault.length > TAKEOVER_S:
            self._loop.after(TAKEOVER_S, self._take_over, target)

    def _take_over(self, old):
        """The old leader learns of it when it runs again, and may do something before."""
        others = [each for each in self._world.controllers.values() if each is not old and each.running]
        if others and not self._calm:
            old.deliver(old.post, 0.1, old.lead, False)
            others[0].deliver(others[0].lead, True)

    def _crash(self, fault, target):
        if fault.step == 0:
            self._kill(fault, target)
            return
        target.traps.append([fault.step, self._kill, (fault, target)])

    def _kill(self, fault, target):
        if not target.running:
            return
        if target.name in self._world.controllers and (target.remembers or self._loop.now < self._untold_until):
            return
        self._world.log(target.name, "killed")
        target.die()
        self._loop.after(fault.length, self._restart, target)

    def _restart(self, target):
        if target.running or target.name in self.ended:
            return
        target.begin()
        if target.name in self._world.controllers:
            self._loop.after(0.3, self._lead_if_none, target)

    def _lead_if_none(self, controller):
        if controller.running and not any(each.leads for each in self._world.controllers.values()):
            controller.lead(True)

    def _power(self, fault, target):
        target.die()
        target.kernel.wipe()
        if fault.detail == "mute":
            # all of the Pod comes back but its sidecar, and the Pod counts as ready
            self.ended.add(target.name)
            self.mute.add(target.name)
        elif fault.detail == "never":
            self.ended.add(target.name)
            gone = partial(self._world.set_ready, target.name, False, node=True)
            self._loop.after(min(fault.length, 6.0), gone)
        else:
            self._loop.after(fault.length, self._restart, target)

    # the way to the API ----------------------------------------------------------------------------------------

    def _cut(self, fault, target):
        target.line.cut(fault.length, requests=fault.detail != "answers", answers=fault.detail != "requests")

    def _request(self, fault, target):
        target.line.weather.append([fault.step, fault.detail, fault.length])

    def _watch(self, fault, target):
        dead = target.line.watches[:]
        if fault.detail == "one":
            # each watch is a connection of its own, and may be behind the others for as long as nobody notices
            dead = dead[fault.step % len(dead) :][:1] if dead else []
        for watch in dead:
            watch.interrupt(fault.length, stale=fault.detail == "stale")

    # Pods ------------------------------------------------------------------------------------------------------

    def _unready(self, fault, target):
        self._world.set_ready(target.name, False, node=fault.detail == "node")
        self._loop.after(fault.length, self._ready_again, target)

    def _ready_again(self, target):
        if target.name not in self.ended:
            self._world.set_ready(target.name, True)

    def _unfit(self, fault, target):
        self._set_fit(target.name, fit=False)
        self._loop.after(fault.length, self._fit_again, target.name)

    def _fit_again(self, name):
        if not self._world.sidecars[name].fit:
            self._set_fit(name, fit=True)

    def _set_fit(self, name, *, fit):
        sidecar = self._world.sidecars[name]
        self._world.log(name, "has its interface again" if fit else "has lost its interface")
        sidecar.fit = fit
        sidecar.deliver(sidecar.links_changed)

    def _delete(self, _fault, target):
        key, server = ("ns", target.name), self._world.server
        pod = server.objects["pod"].get(key)
        if pod is None or pod.metadata.deletion_timestamp is not None:
            return
        life = self._world.lives[target.name]
        self.ended.add(target.name)
        meta = replace(pod.metadata, deletion_timestamp="now")
        server.put("pod", key, replace(pod, metadata=meta))
        self._loop.after(life.app_ends_after, self._app_ended, target, life)
        self._loop.after(life.app_ends_after + life.grace, self._torn_down, target)

    def _app_ended(self, target, life):
        self._world.set_ready(target.name, False)
        target.terminate(life.drain, lambda: self._torn_down(target))

    def _torn_down(self, target):
        if target.running:
            target.die()
        target.kernel.wipe()
        self._world.server.remove("pod", ("ns", target.name))

    def _foreign(self, _fault, target):
        for address in list(target.kernel.ends):
            target.kernel.delete(address)
        target.kernel.changed()

    def _refuse(self, fault, target):
        target.refused[fault.detail] += fault.step

    def _relink(self, _fault, target):
        target.kernel.plug()
        target.deliver(target.links_changed)

    def _clock(self, fault, target):
        adopted = any(route.state.present and route.state.base_s is None for route in target.routes.values())
        if not target.running or adopted or (target.kernel.ends and not target.routes):
            return
        # while a write is under way the deadline waits for its end, a third of the duration at most: a limit, too
        if any(isinstance(route.state.flight, (Write, Read)) for route in target.routes.values()):
            return
        if self._loop.now < target.stopped_until:
            return
        target.shielded_until = self._loop.now + SHIELD_S
        target.kernel.set_wall(fault.length)
        target.post(0.002, target.stepped)

    # controllers and routes ------------------------------------------------------------------------------------

    def _lead(self, fault, target):
        if not target.running:
            return
        others = [each for each in self._world.controllers.values() if each is not target and each.leads]
        for each in others:
            self._loop.after(max(0.0, fault.length), each.deliver, each.lead, False)
        self._loop.after(max(0.0, -fault.length), target.deliver, target.lead, True)

    def _change_route(self, change):
        route = self._world.server.objects["route"].get(("ns", "r0"))
        if route is not None:
            meta = replace(route.metadata, generation=route.metadata.generation + 1)
            self._world.server.put("route", route.key, change(replace(route, metadata=meta)))

    def _duration(self, fault, _target):
        def change(route):
            notes = {**route.metadata.annotations, LEASE_SECONDS: fault.detail}
            return replace(route, metadata=replace(route.metadata, annotations=notes))

        self._change_route(change)

    def _reassign(self, _fault, _target):
        def change(route):
            have = [each.value for each in route.spec.addresses]
            new = [f"34.123.10.{3 if value.endswith('.1/32') else 1}/32" for value in have[:1]] + have[1:]
            asked = tuple(Address(each, "gke.networking.io/cidr") for each in new)
            return replace(route, spec=replace(route.spec, addresses=asked))

        self._change_route(change)

    def _unroute(self, fault, _target):
        server, key = self._world.server, ("ns", "r0")
        route = server.objects["route"].get(key)
        if route is None:
            return
        server.remove("route", key)
        if fault.detail == "back":
            meta = replace(route.metadata, uid=route.metadata.uid + "-again")
            again = replace(route, metadata=meta, status=RouteStatus())
            self._loop.after(fault.length, server.put, "route", key, again)

    def _vanish(self, _fault, _target):
        server, key = self._world.server, ("ns", "holdfast-r0")
        view = server.objects["lease"].get(key)
        if view is not None and view.holder and not self._told_by_an_entry(view):
            if not all(each.running for each in self._world.controllers.values()):
                return
            self._untold_until = self._loop.now + self.longest_s
        server.remove("lease", key)

    def _told_by_an_entry(self, view):
        """Whether its holder's entry names all that a Lease stands for.

        What no entry tells a controller that starts after the Lease is gone cannot know: docs/ownership.md names it.
        """
        pods = self._world.server.objects["pod"].values()
        entries = (entry_on(pod, view.name) for pod in pods if pod.metadata.uid == view.holder)
        told = {each.address for entry in entries if entry is not None for each in entry.addresses}
        return named(view) <= told
