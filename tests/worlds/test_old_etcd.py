"""The whole way over an etcd without progress requests (Debian 12's, 3.4.23): no watch of either program needs them."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from lab import etcd
from lab.binaries import find
from lab.world.world import World
from tests.lab.steps import CIDR, Steps, bare, steps_in

if TYPE_CHECKING:
    from collections.abc import Iterator


HANDOVER_MS = 5000.0
"""Of a Lease of 10 s that ran out it would be twice as much; an old etcd on a busy disk takes its time."""
RENEWALS = 3


@pytest.fixture
def steps(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Steps]:
    with World(binaries=replace(find(), etcd=etcd.old()), state=tmp_path_factory.mktemp("world")) as world:
        world.create_namespace("old-etcd")
        with steps_in(world, "old-etcd") as steps:
            yield steps


def test_addresses_are_placed_handed_over_and_kept_through_restarts(steps: Steps) -> None:
    said = steps.api.get("/api/v1/pods", watch="1", allowWatchBookmarks="true", timeoutSeconds="10")
    assert "RequestWatchProgress is disabled" in said["object"]["message"], "this etcd has what it is here to lack"

    # every kind that the controller watches has a part in an address that a Pod gets
    address = steps.addresses[0]
    steps.gateway()
    steps.route()
    steps.pod("a")
    a = steps.held_by("a")
    steps.condition("Ready", "ProgrammingComplete", part="Pod a has")
    steps.announced(a, address, steps.mark)

    with steps.world.client("blue-network").watch(bare(address)) as probe:
        steps.pod("b")
        b = steps.held_by("b")
    assert max((gap.length_ms for gap in probe.stop()), default=0) < HANDOVER_MS, "it was not a planned handover"
    assert a.addresses("eth1") & set(steps.addresses) == set()

    mark = steps.world.witness.mark()
    (controller,) = steps.world.controllers
    controller.kill()
    controller.start()
    b.kill_sidecar()
    steps.renewed(times=RENEWALS)
    assert steps.removals(address, mark) == []

    # the watches of the new controller and of the new sidecar go on: of routes, of Pods, and of Leases
    steps.change(addresses=[{"type": CIDR, "value": each} for each in steps.addresses[:2]])
    steps.held_by("b", *steps.addresses[:2])
    steps.pod("c")
    steps.held_by("c", *steps.addresses[:2])
    steps.condition("Ready", "ProgrammingComplete", part="Pod c has")
    steps.delete("gkeiproutes", "r")
    steps.let_go()
