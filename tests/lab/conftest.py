"""One world for all tests of a run; each test has a namespace of its own in it."""

from __future__ import annotations

import itertools
import re
from typing import TYPE_CHECKING

import pytest

from lab.binaries import Binaries, find
from lab.world.world import World

if TYPE_CHECKING:
    from collections.abc import Iterator

NETWORKS = ("default", "blue-network", "red-network")
_numbers = itertools.count(1)
_api_servers: dict[World, int] = {}
"""The process id of each world's API server when its clients were last started."""


@pytest.fixture(scope="session")
def binaries() -> Binaries:
    return find()


@pytest.fixture(scope="session")
def world(binaries: Binaries, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    state = tmp_path_factory.mktemp("world")
    with World(nodes=2, networks=NETWORKS, binaries=binaries, state=state) as world:
        _api_servers[world] = world.control_plane.api_server.pid
        yield world
        del _api_servers[world]


@pytest.fixture(scope="module", autouse=True)
def _eager_control_plane() -> Iterator[None]:
    """A module that killed the API server leaves no hesitant controller manager to the next one."""
    yield
    for world, known in list(_api_servers.items()):
        if (pid := world.control_plane.api_server.pid) != known:
            world.control_plane.renew_clients()
            _api_servers[world] = pid


@pytest.fixture
def kube_namespace(world: World, request: pytest.FixtureRequest) -> Iterator[str]:
    """A namespace in which Pods can be made; it is deleted afterwards, without waiting for its end."""
    short = re.sub(r"[^a-z0-9]+", "-", request.node.name.lower())[:40].strip("-")
    name = f"{short}-{next(_numbers)}"
    world.create_namespace(name)
    yield name
    world.api.delete(f"/api/v1/namespaces/{name}")
