"""Many random schedules without a violation, each row of the machine's table in them; and those that once violated."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from sidecar.machine import PASSAGES

from .coverage import all_rows
from .schedule import Fault, PodLife, Schedule, generate
from .shrink import shrink
from .soak import soak
from .timeline import draw
from .world import play

SCHEDULES = int(os.environ.get("SCHEDULES", "20000"))
"""Set it to try more or fewer; what is asserted of the coverage holds from some thousands on."""


def test_no_schedule_violates_and_every_row_fires(capsys):
    result = soak(SCHEDULES)
    with capsys.disabled():
        print(f"\n{result.line}, {len(all_rows()) - len(result.coverage.missing)} of {len(all_rows())} rows fired")  # noqa: T201
    told = "\n".join(
        f"python -m tests.simulation.replay {seed}: {kind}: {what}" for seed, _, kind, what in result.violations
    )
    assert not result.violations, told
    assert result.schedules == SCHEDULES
    assert result.coverage.missing == []
    assert result.coverage.transitions == {(str(before), str(after)) for before, after in PASSAGES}


def test_the_same_seed_plays_the_same_way():
    first, second = (play(generate(4711), drawing=True) for _ in range(2))
    assert first.log == second.log
    assert (first.events, first.end) == (second.events, second.end)


def test_a_violation_is_shrunk_and_drawn(monkeypatch):
    monkeypatch.setattr("simulation.kernel.Kernel.fence", lambda *_: None)
    seed, found = next((seed, found) for seed in range(2000) if (found := play(generate(seed)).violations))
    whole = generate(seed)
    small = shrink(whole, found[0][1])
    assert len(small.faults) < len(whole.faults) or len(whole.faults) == 1
    outcome = play(small, drawing=True)
    lines = list(draw(outcome))
    assert outcome.violations[0][1] == found[0][1]
    assert any("violation at" in line for line in lines)
    assert any("#" in line for line in lines)


# Schedules that once violated -------------------------------------------------------------------------------------


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
    **dict(pinned()),
}


@pytest.mark.parametrize("name", ONCE)
def test_what_once_violated_does_not_any_more(name):
    assert play(ONCE[name]).violations == []
