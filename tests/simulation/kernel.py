"""One Pod's kernel: addresses with a lifetime, fences with a deadline; and the judge who looks at all of them.

An address is *had* at an instant when it stands and there is an interface on which no fence has cut it off: Linux
answers for it on each. A Pod has two from the start, and others may come. Lifetimes end as measured on Linux: up to
1.12 s late, at most 0.02 s early. A fence is an instant of the wall clock and cuts exactly.
"""

from __future__ import annotations


class Kernel:
    """The network namespace of one Pod; it outlives the processes in it."""

    def __init__(self, loop, name, clock, rng, judge):
        self.loop = loop
        self.name = name
        self.clock = clock
        self.legs = ["eth0", "eth1"]
        self.ends = {}
        self.fences = {}
        self.changed = None
        self._rng = rng
        self._judge = judge
        judge.kernels.append(self)

    def has(self, address):
        """Whether this Pod would answer for the address now."""
        if address not in self.ends:
            return False
        if address not in self.fences:
            return True
        cut, legs = self.fences[address]
        return self.clock.wall() < cut or (legs is not None and not legs.issuperset(self.legs))

    def fence(self, address, wall_s, legs=None):
        """Set a deadline on some interfaces; None: on all that there are and will be."""
        self.fences[address] = (wall_s, legs)
        self._judge.look(address)

    def plug(self):
        """One more interface."""
        self.legs.append(f"eth{len(self.legs)}")
        for address in self.ends:
            self._judge.look(address)

    def lift(self, address):
        if address not in self.ends and self.fences.pop(address, None) is not None:
            self._judge.look(address)

    def put(self, address, valid_s):
        late = self._rng.random() ** 3 * 1.14 - 0.02
        end = self.loop.now + valid_s + late
        self.ends[address] = end
        self.loop.at(end, self._expire, address, end)
        self._judge.look(address)

    def delete(self, address):
        if self.ends.pop(address, None) is not None:
            self._judge.look(address)

    def wipe(self):
        """The namespace is torn down, or the machine has lost its power."""
        gone = list(self.ends)
        self.ends.clear()
        self.fences.clear()
        for address in gone:
            self._judge.look(address)

    def set_wall(self, by_s):
        self.clock.ahead += by_s
        for address in self.ends:
            self._judge.look(address)

    def _expire(self, address, end):
        if self.ends.get(address) == end:
            del self.ends[address]
            self._judge.look(address)
            if self.changed is not None:
                self.changed()


class Judge:
    """Looks at every instant at which somebody may begin to have an address: there must never be two."""

    def __init__(self, loop, violated, log):
        self.kernels = []
        self._loop = loop
        self._violated = violated
        self._log = log
        self.had = {}
        self.spans = []

    def look(self, address):
        now = [kernel.name for kernel in self.kernels if kernel.has(address)]
        if len(now) > 1:
            self._violated("two holders", f"{address} is on {' and '.join(now)}")
        before = self.had.get(address, ())
        if now != before:
            self.had[address] = now
            self.spans.append((self._loop.now, address, tuple(now)))
            self._log("kernel", f"{address} is on {', '.join(now) or 'nobody'}")
