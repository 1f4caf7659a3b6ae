"""Fence, addresses, links and frames against the real kernel: two network namespaces and a cable between them."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import errno
import io
import json
import os
import select
import socket
import struct
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from pyroute2.netlink.nfnetlink.nftsocket import NFPROTO_NETDEV, NFT_MSG_GETRULE, nft_rule_msg

from contract.assignment import AddressEntry, RouteEntry
from contract.names import Handover
from contract.report import Fence
from lab import wiring
from lab.wiring import Links
from sidecar.clock import StepAlarm, boottime, realtime_ns
from sidecar.errors import FenceUnsupported, InterfaceMissing, KernelRefused
from sidecar.journal import Journal
from sidecar.kernel.addresses import Addresses, lifetime_s
from sidecar.kernel.fence import Fence as KernelFence
from sidecar.kernel.frames import Claim, arp_reply, arp_request
from sidecar.kernel.links import Monitor, Wire, set_arp_announce
from sidecar.kernel.netlink import NetlinkSocket
from sidecar.kernel.placement import Placement
from sidecar.protocol.events import Configure, Prepared, Unprepared

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.lab

POD, PEER = "kernel-pod", "kernel-peer"
ADDRESS = "34.123.10.1"
OTHER = "34.123.10.2"
S = 1_000_000_000
_ETH_P_ALL, _ETH_P_IP = 0x0003, 0x0800
_SO_TIMESTAMPNS = 35
_CLONE_NEWNET = 0x40000000


@contextlib.contextmanager
def inside(netns: str) -> Iterator[None]:
    """Sockets opened meanwhile belong to that namespace."""
    libc = ctypes.CDLL(None, use_errno=True)
    own = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    there = os.open(f"/run/netns/{netns}", os.O_RDONLY)
    try:
        assert libc.setns(there, _CLONE_NEWNET) == 0, os.strerror(ctypes.get_errno())
        yield
    finally:
        assert libc.setns(own, _CLONE_NEWNET) == 0
        os.close(there)
        os.close(own)


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


class Tap:
    """Everything that comes in on the peer's eth0, with the kernel's own time of each frame."""

    def __init__(self) -> None:
        with inside(PEER):
            self.socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ETH_P_ALL))
            self.socket.bind(("eth0", _ETH_P_ALL))
        self.socket.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
        self.socket.settimeout(0)

    def frames(self, wait_s: float = 0.0) -> list[tuple[int, bytes]]:
        """(nanoseconds of CLOCK_REALTIME, frame) of the ARP and IPv4 that came in; waits for the first one."""
        found: list[tuple[int, bytes]] = []
        until = time.monotonic() + wait_s
        while select.select([self.socket], [], [], 0.0 if found else max(0.0, until - time.monotonic()))[0]:
            data, extra, _, source = self.socket.recvmsg(2048, 256)
            seconds, nanoseconds = struct.unpack("@ll", extra[0][2][:16])
            # the kernel's own IPv6 chatter and what this end sends are left out
            if source[2] != socket.PACKET_OUTGOING and data[12:14] in (b"\x08\x00", b"\x08\x06"):
                found.append((seconds * S + nanoseconds, data))
        return found

    def send(self, frame: bytes) -> None:
        with contextlib.suppress(BlockingIOError):
            self.socket.send(frame)


@pytest.fixture
def tap(cable):  # noqa: ARG001
    tap = Tap()
    yield tap
    tap.socket.close()


def mac(end: Links) -> bytes:
    return bytes.fromhex(end.mac("eth0").replace(":", ""))


def checksum(data: bytes) -> int:
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    total = (total & 0xFFFF) + (total >> 16)
    return ~(total + (total >> 16)) & 0xFFFF


def echo_request(source_mac: bytes, target_mac: bytes, source: str, target: str) -> bytes:
    icmp = struct.pack("!BBHHH", 8, 0, 0, 7, 7)
    icmp = icmp[:2] + struct.pack("!H", checksum(icmp)) + icmp[4:]
    ip = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(icmp), 1, 0, 64, 1, 0)
    ip += socket.inet_aton(source) + socket.inet_aton(target)
    ip = ip[:10] + struct.pack("!H", checksum(ip)) + ip[12:]
    return target_mac + source_mac + struct.pack("!H", _ETH_P_IP) + ip + icmp


def who_has(source_mac: bytes, source: str, target: str) -> bytes:
    frame = bytearray(arp_request(source_mac, source))
    frame[38:42] = socket.inet_aton(target)
    return bytes(frame)


def kind(frame: bytes, pod_mac: bytes) -> str:
    """Which of the three signs of life a frame is."""
    if frame[6:12] != pod_mac:
        return ""
    if frame[12:14] == b"\x08\x06" and frame[28:32] == socket.inet_aton(ADDRESS):
        return "announcement" if frame[38:42] == socket.inet_aton(ADDRESS) else "ARP answer"
    echo = frame[12:14] == b"\x08\x00" and frame[26:30] == socket.inet_aton(ADDRESS) and frame[34] == 0
    return "echo reply" if echo else ""


def live_until(end_ns: int, tap: Tap, wire: Wire, pod_mac: bytes, peer_mac: bytes) -> dict[str, list[int]]:
    """Ask by ping and by ARP, and announce by AF_PACKET, every 2 ms; say when each was seen on the wire."""
    seen: dict[str, list[int]] = {"echo reply": [], "ARP answer": [], "announcement": []}
    ask = (echo_request(peer_mac, pod_mac, "10.9.0.2", ADDRESS), who_has(peer_mac, "10.9.0.2", ADDRESS))
    while time.time_ns() < end_ns:
        for frame in ask:
            tap.send(frame)
        with contextlib.suppress(KernelRefused):  # ENOBUFS, when the fence has cut it
            wire.send("eth0", [arp_request(pod_mac, ADDRESS)])
        for at_ns, frame in tap.frames(0.002):
            if sign := kind(frame, pod_mac):
                seen[sign].append(at_ns)
    return seen


@pytest.fixture
def wire(cable):  # noqa: ARG001
    with inside(POD):
        wire = Wire()
    yield wire
    wire.close()


# The fence ------------------------------------------------------------------------------------------------------


def test_at_the_deadline_arp_answers_ip_and_raw_frames_cease(cable, fence, tap, wire):
    pod, peer = cable
    pod.address("eth0", f"{ADDRESS}/32")
    deadline_ns = time.time_ns() + 300_000_000
    fence.until({ADDRESS: "eth0"}, deadline_ns)
    seen = live_until(deadline_ns + 200_000_000, tap, wire, mac(pod), mac(peer))
    for sign, times in seen.items():
        before = [at for at in times if at < deadline_ns]
        late_ms = [(at - deadline_ns) / 1e6 for at in times if at >= deadline_ns]
        assert len(before) > 20, f"{sign}: it was not alive before the deadline"
        # a frame checked just before the deadline may be stamped just after it
        assert not [ms for ms in late_ms if ms > 5], f"{sign} after the deadline: {late_ms}"


def test_what_comes_in_is_cut_as_well(cable, fence, tap):
    """A stopped app must not go on receiving either: the Pod counts what reaches its IP layer."""
    pod, peer = cable
    pod.address("eth0", f"{ADDRESS}/32")
    with inside(POD):
        heard = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
    heard.settimeout(0)
    request = echo_request(mac(peer), mac(pod), "10.9.0.2", ADDRESS)
    tap.send(request)
    assert select.select([heard], [], [], 2)[0], "before the deadline it comes in"
    heard.recv(256)
    fence.until({ADDRESS: "eth0"}, time.time_ns() - 1)
    tap.send(request)
    tap.send(echo_request(mac(peer), mac(pod), "10.9.0.2", "10.9.0.1"))
    assert select.select([heard], [], [], 2)[0], "the Pod's own address is not touched"
    assert heard.recv(256)[16:20] == socket.inet_aton("10.9.0.1")
    heard.close()


def test_a_renewed_deadline_replaces_the_old_one_without_a_gap(cable, fence, tap, wire):
    pod, peer = cable
    pod.address("eth0", f"{ADDRESS}/32")
    first_ns = time.time_ns() + 100_000_000
    fence.until({ADDRESS: "eth0"}, first_ns)
    fence.until({ADDRESS: "eth0"}, first_ns + 200_000_000)
    seen = live_until(first_ns + 150_000_000, tap, wire, mac(pod), mac(peer))
    for sign, times in seen.items():
        assert [at for at in times if at > first_ns + 100_000_000], f"{sign} ceased at the deadline that was replaced"
    assert rule_count() == 8


def rule_count() -> int:
    with inside(POD):
        netlink = NetlinkSocket(12)
    wanted = nft_rule_msg()
    wanted["nfgen_family"] = NFPROTO_NETDEV
    rules = netlink.dump(wanted, 10 << 8 | NFT_MSG_GETRULE, "list of rules")
    netlink.close()
    return len(rules)


def test_the_deadline_outlives_the_process_that_set_it(cable, tap, wire):
    pod, peer = cable
    pod.address("eth0", f"{ADDRESS}/32")
    program = "import sys, time; from sidecar.kernel.fence import Fence; "
    program += f"Fence().until({{'{ADDRESS}': 'eth0'}}, int(sys.argv[1]))"
    deadline_ns = time.time_ns() + 2 * S
    with inside(POD):
        subprocess.run([sys.executable, "-c", program, str(deadline_ns)], check=True, timeout=20)
    assert time.time_ns() < deadline_ns, "this machine is too slow for the test's deadline"
    seen = live_until(deadline_ns + 100_000_000, tap, wire, mac(pod), mac(peer))
    assert all(times and max(times) < deadline_ns + 5_000_000 for times in seen.values())


def test_an_old_deadline_set_late_is_past_already(cable, fence, tap, wire):
    pod, peer = cable
    pod.address("eth0", f"{ADDRESS}/32")
    fence.until({ADDRESS: "eth0"}, time.time_ns() - 60 * S)
    seen = live_until(time.time_ns() + 50_000_000, tap, wire, mac(pod), mac(peer))
    assert seen == {"echo reply": [], "ARP answer": [], "announcement": []}


def test_lifted_it_lets_the_pod_reach_the_new_holder(cable, fence, tap, wire):
    pod, peer = cable
    fence.until({ADDRESS: "eth0"}, time.time_ns() - 1)
    claim = who_has(mac(peer), ADDRESS, "10.9.0.1")
    tap.send(claim)
    assert not [frame for _, frame in tap.frames(0.05) if frame[38:42] == socket.inet_aton(ADDRESS)]
    fence.lift({ADDRESS: "eth0"})
    tap.send(claim)
    answers = [frame for _, frame in tap.frames(1.0) if frame[38:42] == socket.inet_aton(ADDRESS)]
    assert answers, "the Pod answers the new holder's ARP again"
    wire.send("eth0", [arp_request(mac(pod), ADDRESS)])
    assert tap.frames(1.0)


def test_preparing_does_not_touch_an_earlier_selfs_deadline(fence):
    fence.until({ADDRESS: "eth0"}, time.time_ns() + 60 * S)
    fence.prepare({ADDRESS: "eth0", OTHER: "eth0"})
    assert rule_count() == 8
    assert sorted(fence.chains()) == [
        f"{side}-{address}-eth0" for side in ("in", "out") for address in (ADDRESS, OTHER)
    ]


def test_a_restarted_agent_keeps_what_stands_and_clears_the_rest(fence):
    fence.until({ADDRESS: "eth0", OTHER: "eth0"}, time.time_ns() + 60 * S)
    with inside(POD):
        again = KernelFence()
    again.adopt([OTHER])
    assert sorted(again.chains()) == [f"in-{OTHER}-eth0", f"out-{OTHER}-eth0"]
    assert rule_count() == 8
    again.close()


def test_addresses_whose_names_begin_alike_are_told_apart(fence):
    fence.prepare({"34.123.10.1": "eth0", "34.123.10.11": "eth0"})
    fence.adopt(["34.123.10.11"])
    assert sorted(fence.chains()) == ["in-34.123.10.11-eth0", "out-34.123.10.11-eth0"]


def test_lifting_what_is_not_there_is_no_error(fence):
    fence.lift({ADDRESS: "eth0"})
    fence.remove({ADDRESS: "eth0"})
    assert fence.chains() == []


# Addresses ------------------------------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def addresses():
    with inside(POD):
        found = Addresses()
        try:
            yield found
        finally:
            found.close()


def ip(*arguments: str) -> str:
    return subprocess.run(["ip", "-n", POD, *arguments], check=True, capture_output=True, timeout=10, text=True).stdout


def shown(address: str = ADDRESS):
    infos = [info for link in json.loads(ip("-j", "addr", "show", "dev", "eth0")) for info in link["addr_info"]]
    return next((info for info in infos if info.get("local") == address), None)


def test_an_address_is_marked_mortal_and_adds_no_route(cable):  # noqa: ARG001
    async def test():
        async with addresses() as found:
            index = (await found.links())["eth0"].index
            await found.add(ADDRESS, index, 7)
            assert await found.marked() == {ADDRESS: index}
            info = shown()
            assert (info["prefixlen"], info["scope"], info["noprefixroute"]) == (32, "global", True)
            assert 6 <= info["valid_life_time"] <= 7
            assert info["preferred_life_time"] == info["valid_life_time"]
            await found.renew(ADDRESS, index, 20)
            assert 19 <= shown()["valid_life_time"] <= 20
            await found.delete(ADDRESS, index)
            assert shown() is None
            await found.delete(ADDRESS, index)  # gone is gone

    asyncio.run(test())


def test_what_others_put_there_is_not_ours(cable):
    pod, _ = cable
    pod.address("eth0", f"{ADDRESS}/32")

    async def test():
        async with addresses() as found:
            assert await found.marked() == {}
            index = (await found.links())["eth0"].index
            with pytest.raises(KernelRefused, match="stands on this interface already") as refused:
                await found.add(ADDRESS, index, 7)
            assert refused.value.errno == errno.EEXIST
            assert shown()["valid_life_time"] == 2**32 - 1

    asyncio.run(test())


def test_removal_is_fast(cable):  # noqa: ARG001
    async def test():
        async with addresses() as found:
            index = (await found.links())["eth0"].index
            took_s = []
            for _ in range(20):
                await found.add(ADDRESS, index, 60)
                began_s = time.perf_counter()
                await found.delete(ADDRESS, index)
                took_s.append(time.perf_counter() - began_s)
            assert sorted(took_s)[10] < 0.002

    asyncio.run(test())


def test_the_interface_of_the_default_route_else_the_first(cable):  # noqa: ARG001
    async def test():
        async with addresses() as found:
            assert await found.default_interface() == "eth0"
            ip("link", "add", "net1", "up", "type", "veth", "peer", "net2")
            ip("route", "add", "default", "dev", "net1")
            assert await found.default_interface() == "net1"
            ip("link", "del", "net1")
            ip("link", "del", "eth0")
            with pytest.raises(InterfaceMissing, match="no default route"):
                await found.default_interface()

    asyncio.run(test())


@pytest.mark.parametrize(
    ("left_s", "only_fence", "expected"),
    [
        (9.99, True, 10),
        (9.90, True, 9),
        (1.98, True, 2),
        (0.99, True, 1),
        (0.90, True, 0),
        (9.10, False, 10),
        (0.01, False, 1),
        (10.0, False, 10),
    ],
)
def test_lifetimes_are_rounded_to_the_safe_side(left_s, only_fence, expected):
    assert lifetime_s(left_s, only_fence=only_fence) == expected


# Links, news and frames -----------------------------------------------------------------------------------------


def test_arp_announce_by_netlink(cable):
    pod, _ = cable
    assert pod.arp_announce("eth0") == 0
    with inside(POD):
        set_arp_announce(socket.if_nametoindex("eth0"))
    assert pod.arp_announce("eth0") == 2
    with inside(POD), pytest.raises(KernelRefused, match="arp_announce=2"):
        set_arp_announce(9999)


def test_the_monitor_tells_of_links_and_removed_addresses(cable):
    pod, peer = cable
    with inside(POD):
        monitor = Monitor()
        index = socket.if_nametoindex("eth0")

    def news():
        assert select.select([monitor.fileno()], [], [], 2)[0]
        return monitor.read()

    pod.address("eth0", f"{ADDRESS}/32")
    assert not news().addresses_gone
    ip("addr", "del", f"{ADDRESS}/32", "dev", "eth0")
    assert news().addresses_gone
    peer.down("eth0")
    assert (index, False) in news().links
    peer.up("eth0")
    assert (index, True) in news().links
    monitor.close()


def test_frames_go_out_and_only_our_addresses_claims_come_in(cable, tap, wire):
    pod, peer = cable
    wire.listen_for([ADDRESS])
    frames = [arp_request(mac(pod), ADDRESS), arp_reply(mac(pod), ADDRESS)]
    wire.send("eth0", frames)
    assert [frame for _, frame in tap.frames(1.0)] == frames
    tap.send(arp_reply(mac(peer), OTHER))
    tap.send(arp_reply(mac(peer), ADDRESS))
    assert select.select([wire.fileno()], [], [], 2)[0]
    assert wire.claims() == [("eth0", Claim(ADDRESS, mac(peer)))]


def test_a_link_that_is_down_refuses_frames_and_the_socket_survives(cable, tap, wire):
    pod, peer = cable
    wire.listen_for([ADDRESS])
    pod.down("eth0")
    with pytest.raises(KernelRefused) as refused:
        wire.send("eth0", [arp_request(mac(pod), ADDRESS)])
    assert refused.value.errno == errno.ENETDOWN
    assert wire.claims() == []
    pod.up("eth0")
    tap.frames()
    tap.send(arp_reply(mac(peer), ADDRESS))
    assert select.select([wire.fileno()], [], [], 2)[0]
    assert wire.claims() == [("eth0", Claim(ADDRESS, mac(peer)))]


def test_the_two_clocks_agree_and_nobody_has_set_one():
    alarm = StepAlarm()
    left_ns = realtime_ns(boottime() + 5) - time.time_ns()
    assert 4.9 * S < left_ns <= 5 * S
    assert not alarm.rang()
    alarm.close()


def test_the_capabilities_that_are_missing_are_named(cable):  # noqa: ARG001
    program = "from sidecar.kernel.fence import Fence; Fence().prepare({'34.123.10.1': 'eth0'})"
    drop = "setpriv --bounding-set -all --inh-caps -all"
    if not Path("/usr/bin/setpriv").exists():
        pytest.skip("setpriv (util-linux) is not installed")
    command = [*drop.split(), sys.executable, "-c", program]
    with inside(POD):
        done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=20)
    assert done.returncode != 0
    assert "needs the capability NET_ADMIN" in done.stderr


# Placement: the order of things, and what the report says --------------------------------------------------------


def entry(*items: tuple[str, str | None]) -> RouteEntry:
    found = tuple(AddressEntry(f"{address}/32", interface) for address, interface in items)
    return RouteEntry("r", "holdfast-r", Handover.EXCLUSIVE, found)


def placing(test):
    """Run a test with a Placement inside the Pod."""

    async def run():
        with inside(POD):
            placement = Placement(Journal(io.StringIO()))
            try:
                await placement.adopt()
                await test(placement)
            finally:
                placement.close()

    asyncio.run(run())


def for_s(route: RouteEntry, seconds: float) -> Configure:
    return Configure(route, boottime() + seconds)


def states(event) -> list[str]:
    return [report.state for report in event.reports]


def test_configured_means_fenced_standing_and_announced(cable, tap):
    own = mac(cable[0])
    route = entry((ADDRESS, "eth0"), (OTHER, None))

    async def test(placement):
        assert await placement.prepare(route) == Prepared(Fence.DEADLINE)
        done = await placement.configure(for_s(route, 5), frozenset())
        assert done.present == {f"{ADDRESS}/32", f"{OTHER}/32"}
        assert states(done) == ["announced", "announced"]
        assert [report.interface for report in done.reports] == ["eth0", "eth0"]
        assert rule_count() == 16
        heard = [frame for _, frame in tap.frames(1.0) if frame[12:14] == b"\x08\x06"]
        assert {arp_request(own, ADDRESS), arp_reply(own, OTHER)} <= set(heard)
        again = await placement.configure(for_s(route, 5), done.present)
        assert again == done
        assert not [frame for _, frame in tap.frames(0.05) if frame[12:14] == b"\x08\x06"], "renewed, not announced"
        removed = await placement.remove(done.present)
        assert removed.present == frozenset()
        assert shown() is None
        await placement.lift()
        assert rule_count() == 0

    placing(test)


def test_an_address_of_somebody_else_is_left_alone_and_the_others_go_on(cable):
    pod, _ = cable
    pod.address("eth0", f"{ADDRESS}/32")
    route = entry((ADDRESS, "eth0"), (OTHER, "eth0"))

    async def test(placement):
        done = await placement.configure(for_s(route, 5), frozenset())
        assert done.present == {f"{OTHER}/32"}
        assert states(done) == ["failed", "announced"]
        assert "is not ours" in done.reports[0].message
        await placement.remove(frozenset({f"{ADDRESS}/32", f"{OTHER}/32"}))
        assert shown()["valid_life_time"] == 2**32 - 1

    placing(test)


def test_what_cannot_be_fenced_is_not_configured(cable, monkeypatch):  # noqa: ARG001
    route = entry((ADDRESS, "eth0"))

    def refuse(*_):
        raise KernelRefused("no memory", errno.ENOMEM)

    async def test(placement):
        await placement.prepare(route)
        monkeypatch.setattr(placement._fence, "until", refuse)
        done = await placement.configure(for_s(route, 5), frozenset())
        assert done.present == frozenset()
        assert states(done) == ["failed"]
        assert "cannot be fenced" in done.reports[0].message
        assert shown() is None

    placing(test)


def test_on_a_kernel_without_deadline_rules_the_lifetime_is_the_fence(cable, monkeypatch):  # noqa: ARG001
    route = entry((ADDRESS, "eth0"))

    def refuse(*_):
        raise FenceUnsupported("not supported", errno.EOPNOTSUPP)

    async def test(placement):
        monkeypatch.setattr(placement._fence, "prepare", refuse)
        assert await placement.prepare(route) == Prepared(Fence.LIFETIME)
        done = await placement.configure(for_s(route, 5.4), frozenset())
        assert done.fence == Fence.LIFETIME
        assert shown()["valid_life_time"] == 5, "rounded down: the guard time covers only its lateness"
        short = await placement.configure(for_s(route, 0.5), done.present)
        assert "too short" in short.reports[0].message

    placing(test)


def test_an_address_moves_when_its_interface_changes(cable):  # noqa: ARG001
    async def test(placement):
        ip("link", "add", "eth1", "up", "type", "veth", "peer", "eth2")
        ip("link", "set", "eth2", "up")
        before = await placement.configure(for_s(entry((ADDRESS, "eth0")), 5), frozenset())
        await placement.refresh()
        await placement.configure(for_s(entry((ADDRESS, "eth1")), 5), before.present)
        assert shown() is None
        await placement.refresh()
        assert placement.placed == {f"{ADDRESS}/32": placement.links["eth1"].index}

    placing(test)


def test_a_deadline_that_has_passed_configures_nothing(cable):  # noqa: ARG001
    async def test(placement):
        done = await placement.configure(for_s(entry((ADDRESS, "eth0")), -0.001), frozenset())
        assert done.present == frozenset()
        assert shown() is None

    placing(test)


def test_what_cannot_be_prepared_says_why_for_each_address(cable):  # noqa: ARG001
    async def test(placement):
        told = await placement.prepare(entry((ADDRESS, "eth7"), (OTHER, "eth0")))
        assert isinstance(told, Unprepared)
        assert states(told) == ["failed", "failed"]
        assert "no interface eth7 (it has: eth0)" in told.reports[0].message
        assert "waits: another address" in told.reports[1].message

    placing(test)
