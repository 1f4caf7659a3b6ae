"""Virtual time: the heap of what happens next, clocks that disagree, and processes that stop, die and come back."""

from __future__ import annotations

import heapq


class Loop:
    """One true time for the whole world, in seconds; nobody in it can read it."""

    def __init__(self):
        self.now = 0.0
        self.events = 0
        self._heap = []
        self._count = 0
        self.stopped = False

    def at(self, when, call, *args):
        self._count += 1
        heapq.heappush(self._heap, (when, self._count, call, args))

    def after(self, delay, call, *args):
        self._count += 1
        heapq.heappush(self._heap, (self.now + delay, self._count, call, args))

    def run(self, until):
        heap = self._heap
        while heap and not self.stopped and heap[0][0] <= until:
            self.now, _, call, args = heapq.heappop(heap)
            self.events += 1
            call(*args)
        if not self.stopped:
            self.now = max(self.now, until)


class Clock:
    """A machine's clocks: `boot` runs at its own rate from its own zero, `wall` beside it and is sometimes set."""

    def __init__(self, loop, rate, offset, wall):
        self._loop = loop
        self._rate = 1.0 + rate
        self._offset = offset
        self.ahead = wall

    def boot(self):
        return self._loop.now * self._rate + self._offset

    def wall(self):
        return self._loop.now * self._rate + self._offset + self.ahead

    def true(self, boot):
        """When, in true time, the boot clock shows this."""
        return (boot - self._offset) / self._rate


class Process:
    """Something that runs callbacks one after the other, may be stopped for a while at any point, and may die.

    `step` is a point between two instructions that a fault may be aimed at: `traps` count them down.
    """

    def __init__(self, loop, name, log):
        self.loop = loop
        self.name = name
        self.log = log
        self.life = 0
        self.running = False
        self.stopped_until = 0.0
        self.shielded_until = 0.0
        self.traps = []
        self._backlog = []

    def start(self):
        self.life += 1
        self.running = True
        self._backlog = []

    def die(self):
        self.life += 1
        self.running = False
        self.stopped_until = 0.0
        self._backlog = []

    def post(self, delay, call, *args):
        """Run this later, here, unless the process has died meanwhile."""
        self.loop.after(delay, self._run, self.life, call, args)

    def step(self, call, *args):
        """Go on to the next instruction, or fall into what a fault has put there."""
        life = self.life
        if self.traps:
            self._trap()
        self.loop.after(0.0001, self._run, life, call, args)

    def deliver(self, call, *args):
        """Run this now, or when the process goes on."""
        self._run(self.life, call, args)

    def stop(self, length):
        """SIGSTOP, and SIGCONT after `length`."""
        if not self.running:
            return
        if self.loop.now < self.shielded_until:
            self.loop.at(self.shielded_until, self.stop, length)
            return
        self.log(self.name, f"stopped for {length:.2f} s")
        self.stopped_until = max(self.stopped_until, self.loop.now + length)
        self.loop.at(self.stopped_until, self.resume, self.life)

    def resume(self, life):
        if life != self.life or self.loop.now < self.stopped_until:
            return
        backlog, self._backlog = self._backlog, []
        if backlog:
            self.log(self.name, "goes on")
        for call, args in backlog:
            if life == self.life:
                self._run(life, call, args)

    def _run(self, life, call, args):
        if life != self.life:
            return
        if self.loop.now < self.stopped_until:
            self._backlog.append((call, args))
            return
        call(*args)

    def _trap(self):
        if self.loop.now < self.shielded_until:
            return
        for trap in self.traps:
            trap[0] -= 1
        for trap in [each for each in self.traps if each[0] <= 0]:
            self.traps.remove(trap)
            trap[1](*trap[2])
