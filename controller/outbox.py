"""Writes on their way: per object one at a time, and what was refused waits for its time or for another version.

The decision loop alone uses it, and decides again what a write touched when its answer or its time has come. Not here:
what is written, and who sends it (`cluster.writer`).
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from controller.choice.impact import Impact
from controller.errors import Conflict

if TYPE_CHECKING:
    from controller.cluster.writer import Ident, Job, Writers

BACKOFF_FIRST_S: Final = 0.1
BACKOFF_MAX_S: Final = 10.0
STALE_S: Final = 1.0
"""After a conflict the watch brings the newer version within milliseconds; where it does not, try again after this."""
_NEVER: Final = float("inf")


@dataclass(slots=True)
class _Held:
    """A write that is not repeated before its time, or before its object has another version."""

    until_s: float
    version: str
    failures: int
    touched: Impact


@dataclass(slots=True)
class Outbox:
    """What is under way and what waits; all times are seconds of the clock that the caller reads."""

    writers: Writers
    _busy: dict[Ident, Impact] = field(default_factory=dict)
    _held: dict[Ident, _Held] = field(default_factory=dict)
    _urgent: set[Ident] = field(default_factory=set)

    @property
    def urgent(self) -> bool:
        """Whether a write is under way that an address waits for."""
        return bool(self._urgent)

    def send(self, job: Job, touched: Impact, now: float, *, hot: bool = True) -> bool:
        """Hand a write to the writers, unless one about the same object is under way or must wait."""
        held = self._held.get(job.ident)
        waits = held is not None and held.version == job.version and now < held.until_s < _NEVER
        if job.ident in self._busy or waits:
            return False
        self._busy[job.ident] = touched
        if hot:
            self._urgent.add(job.ident)
        (self.writers.hot if hot else self.writers.cold)(job)
        return True

    def answered(self, job: Job) -> Impact:
        """Note that a write is over; give what it touched."""
        self._urgent.discard(job.ident)
        return self._busy.pop(job.ident, None) or Impact()

    def succeeded(self, job: Job) -> None:
        """Forget its failures."""
        self._held.pop(job.ident, None)

    def failed(self, job: Job, error: Exception, touched: Impact, now: float) -> None:
        """Let the next such write wait."""
        held = self._held.get(job.ident)
        failures = held.failures + 1 if held is not None else 1
        pause_s = STALE_S
        if not isinstance(error, Conflict):
            pause_s = min(BACKOFF_MAX_S, BACKOFF_FIRST_S * 2 ** min(failures, 10))
            pause_s *= random.uniform(0.5, 1.0)  # noqa: S311 - jitter
        self._held[job.ident] = _Held(now + pause_s, job.version, failures, touched)

    def next_s(self) -> float | None:
        """When the next waiting write may be tried again; None: none waits."""
        return min((held.until_s for held in self._held.values() if held.until_s < _NEVER), default=None)

    def wake(self, now: float) -> Impact:
        """Give what must be decided again, because the time of a waiting write has come."""
        due = Impact()
        for held in self._held.values():
            if now >= held.until_s:
                held.until_s = _NEVER
                held.version = ""
                due.add(held.touched)
        return due

    def forget_failures(self) -> None:
        """Let everything be tried at once."""
        self._held.clear()
