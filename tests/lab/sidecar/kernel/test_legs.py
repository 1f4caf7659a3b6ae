"""The fence on every interface of the Pod: Linux answers ARP for an address on each that hears the question."""

from __future__ import annotations

import contextlib
import select
import socket
import subprocess
import time

import pytest

from sidecar.errors import KernelRefused
from sidecar.kernel.frames import arp_request
from tests.lab.sidecar.kernel.cable import (
    ADDRESS,
    PEER,
    POD,
    S,
    Tap,
    echo_request,
    inside,
    live_until,
    mac,
    who_has,
)

IPV6 = "2001:db8::10"
ON_ALL = pytest.mark.parametrize("on_all", [True, False], ids=["on all interfaces", "on each, before Linux 6.18"])


class Leg:
    """A second interface of the Pod, and what is heard behind it."""

    def __init__(self, cable, name):
        self.pod, self.peer = cable
        self.name = name
        self.pod.veth(name, PEER, name)
        self.pod.up(name)
        self.peer.up(name)
        self.pod.address(name, "10.9.1.1/24")
        self.peer.address(name, "10.9.1.2/24")
        self.tap = Tap(name)
        self.macs = mac(self.pod, name), mac(self.peer, name)

    def live_until(self, end_ns, wire):
        return live_until(end_ns, self.tap, wire, *self.macs, at=(self.name, "10.9.1.2"))


@pytest.fixture
def second(cable):
    """eth1 of the Pod, 10.9.1.1."""
    leg = Leg(cable, "eth1")
    yield leg
    leg.tap.socket.close()


def indexes():
    with inside(POD):
        return {name: index for index, name in socket.if_nameindex() if name != "lo"}


@ON_ALL
def test_past_the_deadline_every_interface_is_silent(  # noqa: PLR0917 - fixtures
    cable, second, fence, tap, wire, on_all
):
    pod, peer = cable
    pod.address("eth0", f"{ADDRESS}/32")
    fence._on_all = on_all
    fence.cover(indexes())
    deadline_ns = time.time_ns() + 300_000_000
    fence.until({ADDRESS: "eth0"}, deadline_ns)
    at_second = second.live_until(deadline_ns - 100_000_000, wire)
    assert not at_second["ARP answer"], "before it, only the interface that the address is on answers"
    assert min(map(len, (at_second["echo reply"], at_second["announcement"]))) > 10, "all else is let through"
    at_first = live_until(deadline_ns, tap, wire, mac(pod), mac(peer))
    assert min(map(len, at_first.values())) > 5
    select.select([], [], [], max(0.0, (deadline_ns - time.time_ns()) / S) + 0.005)  # the deadline is a time
    for each in (tap, second.tap):
        each.frames()
        each.heard.clear()
    second.live_until(time.time_ns() + 50_000_000, wire)
    live_until(time.time_ns() + 50_000_000, tap, wire, mac(pod), mac(peer))
    about = [frame.hex() for each in (tap, second.tap) for frame in each.heard if socket.inet_aton(ADDRESS) in frame]
    assert about == []


@ON_ALL
def test_an_interface_that_comes_later_is_silent_too(cable, fence, wire, on_all):
    cable[0].address("eth0", f"{ADDRESS}/32")
    fence._on_all = on_all
    fence.cover(indexes())
    fence.until({ADDRESS: "eth0"}, time.time_ns() - 1)
    later = Leg(cable, "eth1")
    seen = later.live_until(time.time_ns() + 50_000_000, wire)
    assert seen["echo reply"] == seen["ARP answer"] == []
    assert on_all == (not seen["announcement"]), "before Linux 6.18, AF_PACKET is cut once the agent has seen it come"
    fence.cover(indexes())
    later.tap.frames()
    assert not any(later.live_until(time.time_ns() + 50_000_000, wire).values())
    later.tap.socket.close()


def test_what_somebody_else_asks_and_says_on_other_interfaces_is_let_through(cable, second, fence):
    """The holder's own gratuitous ARP is for everybody who hears it, and the Pod's other addresses are not touched."""
    cable[0].address("eth0", f"{ADDRESS}/32")
    fence.until({ADDRESS: "eth0"}, time.time_ns() + 60 * S)
    pod_mac, peer_mac = second.macs
    second.tap.send(who_has(peer_mac, "10.9.1.2", "10.9.1.1"))
    assert [frame for _, frame in second.tap.frames(1.0) if frame[6:12] == pod_mac], "its own address"
    fence.prepare({"34.123.10.9": "eth0"})
    subprocess.run(
        ["ip", "-n", POD, "neigh", "add", "34.123.10.9", "lladdr", "02:0:0:0:0:1", "dev", "eth1"], check=True
    )
    subprocess.run(["ip", "-n", POD, "neigh", "change", "34.123.10.9", "dev", "eth1", "nud", "stale"], check=True)
    second.tap.send(arp_request(peer_mac, "34.123.10.9"))
    until = time.monotonic() + 2
    while peer_mac.hex(":") not in neighbours():
        assert time.monotonic() < until, "a gratuitous ARP of the new holder was not taken in"


def neighbours():
    command = ["ip", "-n", POD, "neigh", "show", "dev", "eth1"]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=10).stdout


@ON_ALL
@pytest.mark.usefixtures("second")
def test_the_same_for_ipv6(cable, fence, on_all):
    for name, own, other in (
        ("eth0", f"{IPV6}/128", "2001:db8:0:1::2/64"),
        ("eth1", "2001:db8:0:2::1/64", "2001:db8:0:2::2/64"),
    ):
        for netns, address in ((POD, own), (PEER, other)):
            subprocess.run(["ip", "-n", netns, "addr", "add", address, "dev", name, "nodad"], check=True)
    fence._on_all = on_all
    fence.cover(indexes())
    fence.until({IPV6: "eth0"}, time.time_ns() + 60 * S)
    with inside(PEER):
        asking = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x86DD))
    asking.settimeout(0)

    def answers(name):
        """Advertisements of the address that come in by one interface."""
        asking.bind((name, 0x86DD))
        source = "2001:db8:0:1::2" if name == "eth0" else "2001:db8:0:2::2"
        with contextlib.suppress(BlockingIOError):
            while asking.recv(2048):
                pass
        asking.send(solicitation(mac(cable[1], name), source))
        found = []
        until = time.monotonic() + 0.1
        while (left_s := until - time.monotonic()) > 0 and select.select([asking], [], [], left_s)[0]:
            frame = asking.recv(2048)
            found += [frame] if frame[54] == 136 and frame[62:78] == packed(IPV6) else []
        return found

    subprocess.run(["ip", "-n", POD, "route", "add", "2001:db8:0:1::/64", "dev", "eth0"], check=True)
    assert answers("eth0")
    assert not answers("eth1")
    fence.until({IPV6: "eth0"}, time.time_ns() - 1)
    assert not answers("eth0")
    fence.lift([IPV6])
    assert answers("eth0")
    asking.close()


def packed(address):
    return socket.inet_pton(socket.AF_INET6, address)


def solicitation(own_mac, source):
    """Who has the address, by neighbour discovery, to its solicited-node group (RFC 4861)."""
    group = packed("ff02::1:ff00:0")[:13] + packed(IPV6)[13:]
    body = b"\x87\0\0\0\0\0\0\0" + packed(IPV6) + b"\1\1" + own_mac
    summed = packed(source) + group + len(body).to_bytes(4) + (58).to_bytes(4) + body
    total = sum(int.from_bytes(summed[at : at + 2]) for at in range(0, len(summed), 2))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    body = body[:2] + (~total & 0xFFFF).to_bytes(2) + body[4:]
    head = b"\x60\0\0\0" + len(body).to_bytes(2) + b"\x3a\xff" + packed(source) + group
    return b"\x33\x33" + group[12:] + own_mac + b"\x86\xdd" + head + body


def test_a_frame_of_af_packet_is_refused_by_whatever_interface_it_is_to_leave(cable, second, fence, wire):
    fence.until({ADDRESS: "eth0"}, time.time_ns() - 1)
    for name in ("eth0", second.name):
        with pytest.raises(KernelRefused):
            wire.send(name, [arp_request(mac(cable[0], name), ADDRESS)])
        with pytest.raises(KernelRefused):
            wire.send(name, [echo_request(mac(cable[0], name), second.macs[1], ADDRESS, "10.9.1.2")])
