"""Many random schedules without a violation, each row of the machine's table in them; and those that once violated."""

from __future__ import annotations

import os

import pytest

from sidecar.protocol.machine import PASSAGES

from .coverage import all_rows
from .once import ONCE
from .schedule import generate
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
    for rare in ONCE.values():
        play(rare, result.coverage)
    assert result.coverage.transitions == {(str(before), str(after)) for before, after in PASSAGES}


def test_the_same_seed_plays_the_same_way():
    first, second = (play(generate(4711), drawing=True) for _ in range(2))
    assert first.log == second.log
    assert (first.events, first.end) == (second.events, second.end)


def test_a_violation_is_shrunk_and_drawn(monkeypatch):
    monkeypatch.setattr("tests.simulation.kernel.Kernel.fence", lambda *_: None)
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


@pytest.mark.parametrize("name", ONCE)
def test_what_once_violated_does_not_any_more(name):
    assert play(ONCE[name]).violations == []
