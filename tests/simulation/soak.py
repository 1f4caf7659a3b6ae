"""`python -m tests.simulation.soak --schedules N`: play many schedules on all cores and count what is violated."""

from __future__ import annotations

import argparse
import multiprocessing
import os
import sys
import time
from dataclasses import dataclass, field

from sidecar.protocol.machine import PASSAGES

from .coverage import Coverage
from .schedule import generate
from .world import play

BATCH = 50


@dataclass
class Result:
    """What came of many schedules; `violations` are (seed, time, kind, what)."""

    schedules: int = 0
    violations: list = field(default_factory=list)
    coverage: Coverage = field(default_factory=Coverage)
    events: int = 0
    simulated_s: float = 0.0

    def merge(self, other):
        self.schedules += other.schedules
        self.violations += other.violations
        self.coverage.merge(other.coverage)
        self.events += other.events
        self.simulated_s += other.simulated_s

    @property
    def line(self):
        """The last line of a run."""
        return f"{self.schedules} schedules, {len(self.violations)} violations"


def batch(seeds):
    """Play these seeds."""
    result = Result()
    for seed in seeds:
        outcome = play(generate(seed), result.coverage)
        result.schedules += 1
        result.events += outcome.events
        result.simulated_s += outcome.end
        result.violations += [(seed, *each) for each in outcome.violations]
    return result


def soak(schedules, first=0, *, stop_at=None, workers=None, seen=lambda _result, _total: None):
    """Play `schedules` seeds from `first` on.

    With `stop_at`, no more batches after so many violations. `seen` is called with each batch's result and with
    the total so far: a run of hours says at once what it finds.
    """
    seeds = range(first, first + schedules)
    batches = [seeds[i : i + BATCH] for i in range(0, schedules, BATCH)]
    total = Result()
    with multiprocessing.get_context("fork").Pool(workers or os.cpu_count()) as pool:
        for result in pool.imap(batch, batches):
            total.merge(result)
            seen(result, total)
            if stop_at is not None and len(total.violations) >= stop_at:
                pool.terminate()
                break
    return total


def tell(result, total):
    """Print the violations of a batch, and how far the run is, each 10,000 schedules."""
    for seed, at, kind, what in result.violations:
        print(f"seed {seed} at {at:.3f} s: {kind}: {what}", flush=True)  # noqa: T201 - a command
        print(f"    again: python -m tests.simulation.replay {seed}", flush=True)  # noqa: T201 - a command
    if total.schedules % 10_000 == 0:
        print(f"so far: {total.line}", flush=True)  # noqa: T201 - a command


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--schedules", type=int, default=20_000)
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--workers", type=int, default=None)
    options = parser.parse_args()
    begun = time.monotonic()
    result = soak(options.schedules, options.first, workers=options.workers, seen=tell)
    took_s = time.monotonic() - begun
    print("\n".join(result.coverage.lines()))  # noqa: T201 - a command
    print(f"{result.simulated_s:.0f} s simulated with {result.events} events in {took_s:.1f} s")  # noqa: T201 - a command
    named = {(str(before), str(after)) for before, after in PASSAGES}
    unnamed = sorted(result.coverage.transitions - named)
    if unnamed:
        print(f"not in sidecar.protocol.machine.PASSAGES: {unnamed}")  # noqa: T201 - a command
    print(result.line)  # noqa: T201 - a command
    return 1 if result.violations or unnamed else 0


if __name__ == "__main__":
    sys.exit(main())
