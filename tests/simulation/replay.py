"""`python -m tests.simulation.replay SEED`: play one schedule again, shrink it if it violates, and draw it."""

from __future__ import annotations

import argparse
import sys

from .schedule import generate
from .shrink import shrink
from .timeline import draw
from .world import play


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("seed", type=int)
    parser.add_argument("--whole", action="store_true", help="leave no faults out")
    options = parser.parse_args()
    schedule = generate(options.seed)
    found = play(schedule).violations
    if found and not options.whole:
        before = len(schedule.faults)
        schedule = shrink(schedule, found[0][1])
        print(f"{len(schedule.faults)} of {before} faults are enough")  # noqa: T201 - a command
    print("\n".join(draw(play(schedule, drawing=True))))  # noqa: T201 - a command
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
