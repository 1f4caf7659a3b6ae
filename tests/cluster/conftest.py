"""One world with two real nodes for all tests of a run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from lab.binaries import find
from lab.real import configuration, images, machine
from lab.real.world import RealWorld

if TYPE_CHECKING:
    from collections.abc import Iterator

NETWORKS = ("default", "blue-network")


def pytest_addoption(parser: pytest.Parser) -> None:
    kinds = (configuration.BRIDGE, configuration.MACVLAN)
    parser.addoption("--cni", choices=kinds, default=kinds[0], help="How Pods are on their networks.")


@pytest.fixture(scope="session")
def settings_before() -> dict[Path, str]:
    """The machine's settings that a kubelet would set, from before there was one."""
    paths = (Path("/proc/sys") / name for name in machine.PRETENDED)
    return {path: path.read_text() for path in paths}


@pytest.fixture(scope="session")
def world(
    tmp_path_factory: pytest.TempPathFactory, settings_before: dict[Path, str], pytestconfig: pytest.Config
) -> Iterator[RealWorld]:
    assert settings_before
    cni, programs, archives = pytestconfig.getoption("cni"), find(kubelet=True), [images.archive()]
    state = tmp_path_factory.mktemp("world")
    with RealWorld(networks=NETWORKS, binaries=programs, images=archives, state=state, cni=cni) as world:
        yield world
