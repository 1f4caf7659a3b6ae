"""Two network namespaces and a cable between them, and the frames that are seen on it."""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import select
import socket
import struct
import subprocess
import time
from typing import TYPE_CHECKING, ClassVar

from pyroute2.netlink.marshal import Marshal
from pyroute2.netlink.nfnetlink.nftsocket import (
    NFT_MSG_DELTABLE,
    NFT_MSG_GETRULE,
    NFT_MSG_NEWRULE,
    nft_rule_msg,
    nft_table_msg,
)

from sidecar.errors import KernelRefused
from sidecar.kernel.frames import arp_request
from sidecar.kernel.netlink import NetlinkSocket, encode
from sidecar.kernel.nftables import Nftables, transaction

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lab.wiring import Links
    from sidecar.kernel.links import Wire


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


class Tap:
    """Everything that comes in on one of the peer's interfaces, with the kernel's own time of each frame."""

    def __init__(self, interface: str = "eth0") -> None:
        with inside(PEER):
            self.socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ETH_P_ALL))
            self.socket.bind((interface, _ETH_P_ALL))
        self.socket.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
        self.socket.settimeout(0)
        self.heard: list[bytes] = []

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
                self.heard.append(data)
        return found

    def send(self, frame: bytes) -> None:
        with contextlib.suppress(BlockingIOError):
            self.socket.send(frame)


def mac(end: Links, interface: str = "eth0") -> bytes:
    return bytes.fromhex(end.mac(interface).replace(":", ""))


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
        answer = "ARP answer" if frame[20:22] == b"\0\2" else "question"
        return "announcement" if frame[38:42] == socket.inet_aton(ADDRESS) else answer
    echo = frame[12:14] == b"\x08\x00" and frame[26:30] == socket.inet_aton(ADDRESS) and frame[34] == 0
    return "echo reply" if echo else ""


def live_until(
    end_ns: int, tap: Tap, wire: Wire, pod_mac: bytes, peer_mac: bytes, *, at: tuple[str, str] = ("eth0", "10.9.0.2")
) -> dict[str, list[int]]:
    """Ask by ping and by ARP, and announce by AF_PACKET, every 2 ms; say when each was seen on the wire.

    Args:
        at: the Pod's interface, and who asks behind it.
    """
    seen: dict[str, list[int]] = {"echo reply": [], "ARP answer": [], "announcement": []}
    interface, asking = at
    ask = (echo_request(peer_mac, pod_mac, asking, ADDRESS), who_has(peer_mac, asking, ADDRESS))
    while time.time_ns() < end_ns:
        for frame in ask:
            tap.send(frame)
        with contextlib.suppress(KernelRefused):  # ENOBUFS, when the fence has cut it
            wire.send(interface, [arp_request(pod_mac, ADDRESS)])
        for at_ns, frame in tap.frames(0.002):
            if (sign := kind(frame, pod_mac)) in seen:
                seen[sign].append(at_ns)
    return seen


def flush_chain(family: int, chain: str) -> None:
    """What `nft flush chain FAMILY holdfast CHAIN` sends."""
    with inside(POD):
        netlink = NetlinkSocket(12)
    netlink.transact(transaction([Nftables("holdfast", family).delete_rules(chain)]), "flush chain")
    netlink.close()


def rule_count(netns: str = POD) -> int:
    """How many rules with a deadline stand: eight for each IPv4 address."""
    return sum(chain.startswith("at-") for _, chain in all_rules(netns))


def all_rules(netns: str = POD) -> list[tuple[int, str]]:
    """The chain of each rule that stands, as (family, name)."""
    with inside(netns):
        netlink = NetlinkSocket(12, _RuleMarshal())
    wanted = nft_rule_msg()
    wanted["nfgen_family"] = 0
    rules = netlink.dump(wanted, 10 << 8 | NFT_MSG_GETRULE, "list of rules")
    netlink.close()
    return sorted((rule["nfgen_family"], rule.get_attr("NFTA_RULE_CHAIN")) for rule in rules)


class _RuleMarshal(Marshal):
    msg_map: ClassVar = {10 << 8 | NFT_MSG_NEWRULE: nft_rule_msg}


def flush_ruleset(netns: str = POD) -> None:
    """What `nft flush ruleset` sends: every table of every family goes."""
    everything = nft_table_msg()
    everything["nfgen_family"] = 0
    with inside(netns):
        netlink = NetlinkSocket(12)
    netlink.transact(transaction([encode(everything, 10 << 8 | NFT_MSG_DELTABLE)]), "flush ruleset")
    netlink.close()


def ip(*arguments: str) -> str:
    return subprocess.run(["ip", "-n", POD, *arguments], check=True, capture_output=True, timeout=10, text=True).stdout


def shown(address: str = ADDRESS):
    infos = [info for link in json.loads(ip("-j", "addr", "show", "dev", "eth0")) for info in link["addr_info"]]
    return next((info for info in infos if info.get("local") == address), None)
