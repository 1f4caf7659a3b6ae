"""A world with two real nodes for the tests of each file, and the guide's namespaces in it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from lab.binaries import find
from lab.real import configuration, images, machine
from lab.real.world import RealWorld
from lab.witness.ledger import LEASES, PODS
from tests.cluster.injected import DEPLOYMENT, LONG_S, SEED, SPACES, STATEFULSET, in_space

if TYPE_CHECKING:
    from collections.abc import Iterator

NETWORKS = ("default", "blue-network")


def pytest_addoption(parser: pytest.Parser) -> None:
    kinds = (configuration.BRIDGE, configuration.MACVLAN)  # the guide's annotation means nothing to Multus
    parser.addoption("--cni", choices=kinds, default=kinds[0], help="How Pods are on their networks.")


@pytest.fixture(scope="session")
def settings_before() -> dict[Path, str]:
    """The machine's settings that a kubelet would set, from before there was one."""
    paths = (Path("/proc/sys") / name for name in machine.PRETENDED)
    return {path: path.read_text() for path in paths}


@pytest.fixture(scope="module")
def cni(pytestconfig: pytest.Config) -> str:
    return str(pytestconfig.getoption("cni"))


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, settings_before: dict[Path, str], cni: str) -> Iterator[RealWorld]:
    assert settings_before
    programs, archives = find(real=True), images.archives()
    state = tmp_path_factory.mktemp("world")
    with RealWorld(networks=NETWORKS, binaries=programs, images=archives, state=state, cni=cni) as world:
        yield world


@pytest.fixture
def cluster(world: RealWorld) -> Iterator[RealWorld]:
    """The namespaces, the Network and the Gateway; afterwards no Pod, no Lease, no address is left of a test."""
    for name in ("00-namespaces.yaml", "01-network.yaml", "allowed-pod-ips.yaml"):
        world.apply(SEED / name)
    for space in SPACES:
        world.wait_service_account(space)
    began = in_space(world, SPACES[0])
    yield world
    for name in (STATEFULSET, DEPLOYMENT, "allowed-pod-ips.yaml"):
        world.kubectl("delete", "-f", str(SEED / name), "--ignore-not-found", "--wait=false")
    ledger = began.ledger
    began.until("all to be gone", lambda: not any(ledger.all(k, s) for k in (LEASES, PODS) for s in SPACES), LONG_S)
    began.nowhere()
    began.one_holder()
