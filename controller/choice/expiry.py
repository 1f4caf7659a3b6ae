"""Which Leases have run out, by one clock and by what was seen since this process began to count.

A holder gives a sign of life by changing holder, renewTime or leaseTransitions; nothing else counts, so that an
annotation written by anybody else keeps no dead holder alive. Times are seconds of a monotonic clock and are passed
in. Nothing is decided here: `expired` and `untaken` are facts for the snapshot, each bound to the very state it was
counted for. Not promised: to be early. Counting begins when a version is *seen*, later than it was written: so a
standby's count is as good as the leader's, and goes on when it leads.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass
from typing import TYPE_CHECKING

from contract.names import GUARD_DEADLINE_S, GUARD_LIFETIME_S, UNTAKEN_S
from contract.report import Fence, report_of

if TYPE_CHECKING:
    from contract.lease import LeaseView
    from controller.choice.objects import Key

Sign = tuple[str, str, str, str, str, int]
"""Namespace, name, UID, who is waited for, renewTime, epoch: what must stay the same for time to count."""


def life_sign(view: LeaseView) -> Sign:
    """What changes whenever the holder gives a sign of life."""
    return view.namespace, view.name, view.uid, view.holder, view.renew_time, view.transitions


def vacancy_sign(view: LeaseView) -> Sign:
    """What changes when a free Lease is taken, or given to another owner."""
    return view.namespace, view.name, view.uid, view.owner, view.renew_time, view.transitions


def patience_s(view: LeaseView) -> float:
    """How long a holder may be silent: the longer of the durations it may count with, and the guard of its fence."""
    report = report_of(view)
    if report is None:
        return view.duration_s + GUARD_LIFETIME_S
    guard_s = GUARD_DEADLINE_S if report.fence is Fence.DEADLINE else GUARD_LIFETIME_S
    return max(view.duration_s, report.duration_s) + guard_s


@dataclass(frozen=True, slots=True)
class _Count:
    sign: Sign
    since_s: float
    patience_s: float
    held: bool

    @property
    def due_s(self) -> float:
        return self.since_s + self.patience_s


class Expiry:
    """The clock of all Leases; what it is asked costs what has run out, not what there is. Time never goes back."""

    def __init__(self) -> None:
        self._counts: dict[Key, _Count] = {}
        # due times, some of them of counts that have been replaced meanwhile
        self._heap: list[tuple[float, Key]] = []
        self._over: set[Key] = set()

    def observe(self, view: LeaseView, now: float) -> None:
        """Note a version; time goes on counting where it is no sign of life."""
        key = (view.namespace, view.name)
        held = bool(view.holder)
        waited = held or (bool(view.owner) and view.owner not in view.lost)
        if not waited:
            self.forget(key)
            return
        sign = life_sign(view) if held else vacancy_sign(view)
        known = self._counts.get(key)
        same = known is not None and known.sign == sign and known.held == held
        since_s = known.since_s if same and known is not None else now
        self._set(key, _Count(sign, since_s, patience_s(view) if held else UNTAKEN_S, held))

    def vanish(self, view: LeaseView, now: float) -> None:
        """The Lease is no more, held perhaps until just now, and renewed unseen: its time counts from now."""
        key = (view.namespace, view.name)
        self._set(key, _Count(life_sign(view), now, patience_s(view), held=True), anew=True)

    def forget(self, key: Key) -> None:
        """The Lease is no more."""
        self._counts.pop(key, None)
        self._over.discard(key)

    def expired(self, now: float) -> frozenset[Sign]:
        """The life signs of holders that have been silent for too long."""
        return frozenset(self._counts[key].sign for key in self._run_out(now) if self._counts[key].held)

    def untaken(self, now: float) -> frozenset[Sign]:
        """The vacancy signs of owners that have left a free Lease alone for too long."""
        return frozenset(self._counts[key].sign for key in self._run_out(now) if not self._counts[key].held)

    def next_at(self, now: float) -> float | None:
        """When something is due next that is not due yet; None: never."""
        self._run_out(now)
        while self._heap and not self._current(*self._heap[0]):
            heapq.heappop(self._heap)
        return self._heap[0][0] if self._heap else None

    def due(self, now: float) -> list[Key]:
        """The Leases of which something is due."""
        return list(self._run_out(now))

    def _run_out(self, now: float) -> set[Key]:
        while self._heap and self._heap[0][0] <= now:
            due_s, key = heapq.heappop(self._heap)
            if self._current(due_s, key):
                self._over.add(key)
        return self._over

    def _current(self, due_s: float, key: Key) -> bool:
        count = self._counts.get(key)
        return count is not None and count.due_s == due_s

    def _set(self, key: Key, count: _Count, *, anew: bool = False) -> None:
        known = self._counts.get(key)
        self._counts[key] = count
        if anew or known is None or known.due_s != count.due_s:
            self._over.discard(key)
            heapq.heappush(self._heap, (count.due_s, key))
