"""One world for all tests of a run; each test has a namespace of its own in it."""

from __future__ import annotations

import itertools
import re
from typing import TYPE_CHECKING

import pytest

from lab.binaries import Binaries, find
from lab.world import World

if TYPE_CHECKING:
    from collections.abc import Iterator

NETWORKS = ("default", "blue-network", "red-network")
_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def binaries() -> Binaries:
    return find()


@pytest.fixture(scope="session")
def world(binaries: Binaries, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    state = tmp_path_factory.mktemp("world")
    with World(nodes=2, networks=NETWORKS, binaries=binaries, state=state) as world:
        yield world


@pytest.fixture
def kube_namespace(world: World, request: pytest.FixtureRequest) -> Iterator[str]:
    """A namespace in which Pods can be made; it is deleted afterwards, without waiting for its end."""
    short = re.sub(r"[^a-z0-9]+", "-", request.node.name.lower())[:40].strip("-")
    name = f"{short}-{next(_numbers)}"
    world.create_namespace(name)
    yield name
    world.api.delete(f"/api/v1/namespaces/{name}")
