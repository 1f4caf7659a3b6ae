"""Every fault of the catalogue on the real thing, judged by kernels, wire and client; then all at once, at random."""

from __future__ import annotations

import itertools

import pytest

from lab.chaos.faults import FAULTS
from lab.chaos.scene import Scene
from lab.chaos.storm import storm
from lab.chaos.trial import try_fault
from lab.witness.ledger import Ledger

SLACK_S = 1.5
"""What a machine of two busy cores may add to a bound; `make chaos` shows the figures without it."""
LEASE_S = 2
_numbers = itertools.count(71)


@pytest.fixture(scope="module")
def ledger(world):
    return Ledger(world.api)


@pytest.fixture(scope="module")
def lasting(world, ledger):
    with Scene(world, ledger, number=70, lease_s=LEASE_S) as made:
        yield made


@pytest.fixture
def fresh(world, ledger):
    with Scene(world, ledger, number=next(_numbers), lease_s=LEASE_S) as made:
        yield made


@pytest.mark.parametrize("fault", FAULTS, ids=[fault.name.replace(" ", "-") for fault in FAULTS])
def test_a_fault_makes_no_second_holder_and_keeps_its_bound(request, fault):
    scene = request.getfixturevalue("fresh" if fault.fresh else "lasting")
    trial = try_fault(scene, fault)
    assert trial.overlaps == ()
    assert len(trial.false) <= fault.forged, trial.false
    assert trial.trouble == ""
    assert trial.neighbour
    assert trial.vacant_s <= fault.vacant_s(LEASE_S, trial.lasted_s) + SLACK_S
    assert trial.gap_s <= fault.gap_bound_s(LEASE_S, trial.lasted_s) + SLACK_S


def test_all_at_once_at_random(fresh):
    trial, told = storm(fresh, seed=20261124, length_s=40)
    assert len(told) > 10
    assert trial.overlaps == (), told
    assert trial.false == (), told
    assert trial.trouble == "", told
    assert trial.neighbour, told
