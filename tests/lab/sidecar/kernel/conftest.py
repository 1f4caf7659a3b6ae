"""The cable, and what stands at its ends."""

from __future__ import annotations

import pytest

from lab import wiring
from lab.wiring import Links
from sidecar.kernel.fence import Fence as KernelFence
from sidecar.kernel.links import Wire
from tests.lab.sidecar.kernel.cable import ADDRESS, PEER, POD, Tap, inside


@pytest.fixture
def cable():
    """eth0 of the Pod, 10.9.0.1, and eth0 of its peer, 10.9.0.2, which reaches ADDRESS directly."""
    wiring.create(POD)
    wiring.create(PEER)
    with Links(POD) as pod, Links(PEER) as peer:
        pod.veth("eth0", PEER, "eth0")
        pod.up("eth0")
        peer.up("eth0")
        pod.address("eth0", "10.9.0.1/24")
        peer.address("eth0", "10.9.0.2/24")
        peer.route(f"{ADDRESS}/32", "eth0")
        yield pod, peer
    wiring.delete(POD)
    wiring.delete(PEER)


@pytest.fixture
def fence(cable):  # noqa: ARG001 - the namespace is its ground
    with inside(POD):
        fence = KernelFence()
    yield fence
    fence.close()


@pytest.fixture
def tap(cable):  # noqa: ARG001
    tap = Tap()
    yield tap
    tap.socket.close()


@pytest.fixture
def wire(cable):  # noqa: ARG001
    with inside(POD):
        wire = Wire()
    yield wire
    wire.close()
