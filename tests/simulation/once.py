"""Schedules that violated an earlier version, or that show what random ones hardly show: a mutant, a passage.

Most were shrunk by the shrinker and are data (once.json); a few are written down by hand.
"""

from __future__ import annotations

import json
from pathlib import Path

from .schedule import Fault, PodLife, Schedule


def pods(*born):
    return tuple(PodLife(f"p{i}", f"uid-{i}", at, 0.1, 1.0, 0.1, 0.0) for i, at in enumerate(born))


def schedule(*faults, **fields):
    known = {"seed": 1, "duration_s": 10, "lifetime": False, "pods": pods(0.0, 0.6), "controllers": 1, "routes": 1}
    rest = {"addresses": 1, "window": 8.0, "sticky": True}
    return Schedule(**{**known, **rest, **fields}, faults=faults)


def shortened(step):
    """The duration is shortened while the sidecar is away; it comes back, renews, and is stopped `step` steps later."""
    return schedule(
        Fault(3.3, "crash", "p0", 1.0, 1),
        Fault(3.32, "relink", "p0"),
        Fault(3.9, "duration", "r0", detail="2"),
        Fault(3.91, "stall", "p0", 12.0, step),
    )


def removal_refused(refusals):
    """The newer Pod is prepared while the kernel refuses to remove the address."""
    return schedule(
        Fault(0.1, "refuse", "p0", step=refusals, detail="remove"),
        Fault(1.5, "delete", "p0"),
        sticky=False,
        duration_s=5,
    )


def vanished(*faults, **fields):
    """The Lease is deleted by force after something else."""
    return schedule(*faults, Fault(2.0, "vanish", "r0"), sticky=False, **fields)


def ended_unseen(since, next_born):
    """A route is deleted with its Lease while the controller's watch of the Leases is dead, its holder stopped."""
    return schedule(
        Fault(since, "watch", "c0", 6.05 - since, 0, "one"),
        Fault(5.98, "stop", "p0", 8.0),
        Fault(6.0, "vanish", "r0"),
        Fault(6.002, "unroute", "r0", detail="gone"),
        routes=2,
        duration_s=3,
        pods=pods(0.0, next_born, 0.0),
    )


def shortened_after_prepared():
    """The duration is shortened after the next Pod has prepared, and that Pod is stopped before its first renewal."""
    return schedule(
        Fault(1.69, "stop", "p0", 0.3),
        Fault(1.8, "duration", "r0", detail="2"),
        Fault(1.9934, "stop", "p1", 12.0),
        sticky=False,
        pods=pods(0.0, 1.6),
    )


def configured_late():
    """The sidecar is stopped in the midst of configuring, its route and its Lease are deleted, and it goes on."""
    return schedule(
        Fault(0.1185, "stop", "p1", 0.5),
        Fault(0.2175, "unroute", "r0", detail="gone"),
        Fault(0.2185, "vanish", "r0"),
        duration_s=2,
        pods=pods(0.0, 0.0),
    )


def plugged_while_stopped():
    """The holder is stopped for good, and then an interface comes to its Pod, of which its agent knows nothing."""
    # with this seed the lifetime of its address ends late
    return schedule(Fault(2.0, "stop", "p0", 12.0), Fault(2.1, "relink", "p0"), duration_s=2, seed=2)


def pinned():
    """Shrunk by the shrinker from what random schedules found in earlier versions."""
    for name, plain in json.loads(Path(__file__).with_name("once.json").read_text()).items():
        plain["pods"] = tuple(PodLife(**each) for each in plain["pods"])
        plain["faults"] = tuple(Fault(**each) for each in plain["faults"])
        yield name, Schedule(**plain)


ONCE = {
    **{f"shortened-while-away-{step}": shortened(step) for step in (3, 4)},
    **{f"removal-refused-{count}": removal_refused(count) for count in (1, 2, 3)},
    "vanished-after-shortening": vanished(
        Fault(1.6, "crash", "p0", 6.0, 1), Fault(1.61, "relink", "p0"), Fault(1.9, "duration", "r0", detail="1")
    ),
    "vanished-when-its-address-had-been-moved": vanished(
        Fault(1.5, "stop", "p0", 5.0), Fault(1.9, "reassign", "r0"), routes=2, pods=pods(0.0, 0.0)
    ),
    "shortened-after-prepared": shortened_after_prepared(),
    "configured-after-all-was-gone": configured_late(),
    "plugged-while-stopped": plugged_while_stopped(),
    "renewed-and-deleted-unseen": ended_unseen(0.7, 0.0),
    "taken-and-deleted-unseen": ended_unseen(0.3, 0.6),
    **dict(pinned()),
}
