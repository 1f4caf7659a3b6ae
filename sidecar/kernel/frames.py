"""ARP and neighbour-advertisement frames, built and read by `struct`: the agent is resident, each is under 90 bytes.

Bytes only: nothing here opens a socket. That the bytes are right is proved against scapy in the tests.
"""

from __future__ import annotations

import ipaddress
import struct
from dataclasses import dataclass
from typing import Final

ETH_P_ARP: Final = 0x0806
ETH_P_IPV6: Final = 0x86DD

_BROADCAST: Final = b"\xff" * 6
_NOBODY: Final = b"\0" * 6
_REQUEST: Final = 1
_REPLY: Final = 2
_ETHERNET = struct.Struct("!6s6sH")
_ARP = struct.Struct("!HHBBH6s4s6s4s")
_ARP_FRAME_BYTES: Final = _ETHERNET.size + _ARP.size
_ETHERNET_IPV4: Final = (1, 0x0800, 6, 4)

_ICMPV6: Final = 58
_ADVERTISEMENT: Final = 136
_OVERRIDE: Final = 0x2000_0000
_TARGET_LINK_ADDRESS: Final = 2
_ALL_NODES = ipaddress.IPv6Address("ff02::1").packed
_ALL_NODES_MAC: Final = b"\x33\x33\0\0\0\x01"


@dataclass(frozen=True, slots=True)
class Claim:
    """Somebody's ARP frame says that `address` is at `mac`."""

    address: str
    mac: bytes


def arp_request(mac: bytes, address: str) -> bytes:
    """Build the gratuitous request: who has `address`, asked by `address` itself (RFC 5227, announcement)."""
    return _arp(mac, _REQUEST, address, _NOBODY)


def arp_reply(mac: bytes, address: str) -> bytes:
    """Build the gratuitous reply, for neighbours that learn from replies alone."""
    return _arp(mac, _REPLY, address, mac)


def _arp(mac: bytes, operation: int, address: str, target_mac: bytes) -> bytes:
    packed = ipaddress.IPv4Address(address).packed
    body = _ARP.pack(*_ETHERNET_IPV4, operation, mac, packed, target_mac, packed)
    return _ETHERNET.pack(_BROADCAST, mac, ETH_P_ARP) + body


def advertisement(mac: bytes, address: str) -> bytes:
    """Build an unsolicited neighbour advertisement with the override flag, to all nodes (RFC 4861, 7.2.6)."""
    source = ipaddress.IPv6Address(address).packed
    option = struct.pack("!BB6s", _TARGET_LINK_ADDRESS, 1, mac)
    body = struct.pack("!I16s", _OVERRIDE, source) + option
    pseudo = source + _ALL_NODES + struct.pack("!II", len(body) + 4, _ICMPV6)
    checksum = _checksum(pseudo + struct.pack("!BBH", _ADVERTISEMENT, 0, 0) + body)
    message = struct.pack("!BBH", _ADVERTISEMENT, 0, checksum) + body
    header = struct.pack("!IHBB", 6 << 28, len(message), _ICMPV6, 255) + source + _ALL_NODES
    return _ETHERNET.pack(_ALL_NODES_MAC, mac, ETH_P_IPV6) + header + message


def _checksum(data: bytes) -> int:
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def read_claim(frame: bytes) -> Claim | None:
    """Read who an ARP frame says its sender is; None: no Ethernet/IPv4 ARP, or a probe, which claims nothing."""
    if len(frame) < _ARP_FRAME_BYTES or _ETHERNET.unpack_from(frame)[2] != ETH_P_ARP:
        return None
    *kind, operation, mac, address, _, _ = _ARP.unpack_from(frame, _ETHERNET.size)
    if tuple(kind) != _ETHERNET_IPV4 or operation not in (_REQUEST, _REPLY) or address == b"\0" * 4:
        return None
    return Claim(str(ipaddress.IPv4Address(address)), mac)


def claims_filter(addresses: list[str]) -> list[tuple[int, int, int, int]]:
    """Write the classic BPF program that passes only ARP frames whose sender address is one of these.

    So the agent is not woken by every ARP frame of a busy segment. Each instruction is (code, jt, jf, k).
    """
    load_type = (0x28, 0, 0, 12)
    load_sender = (0x20, 0, 0, _ETHERNET.size + 14)
    compares = [(0x15, 0, 1, int(ipaddress.IPv4Address(a))) for a in addresses]
    program = [load_type, (0x15, 1, 0, ETH_P_ARP), (0x06, 0, 0, 0), load_sender]
    for compare in compares:
        # equal: go on to the accepting return; else step over it to the next comparison
        program += [compare, (0x06, 0, 0, 0xFFFF)]
    return [*program, (0x06, 0, 0, 0)]
