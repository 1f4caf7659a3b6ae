"""Makes a violating schedule smaller: leaves out faults, one by one, as long as the same kind of violation stays."""

from __future__ import annotations

from .world import play


def shrink(schedule, kind):
    """Give the smallest schedule found that still violates in this way."""
    smaller = True
    while smaller:
        smaller = False
        for i in reversed(range(len(schedule.faults))):
            candidate = schedule.without(i)
            if any(found[1] == kind for found in play(candidate).violations):
                schedule, smaller = candidate, True
    return schedule
