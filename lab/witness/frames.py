"""What was said on the switch: ARP frames and ICMP echo replies, decoded from bytes.

Pure. Only what says who has an IPv4 address is decoded: an ARP frame names its sender's address, an echo reply comes
from one. Not promised: VLAN tags, IPv6, fragments.
"""

from __future__ import annotations

import ipaddress
import struct
from typing import Final, Literal

import msgspec

Kind = Literal["arp-request", "arp-reply", "echo-reply"]

_ETHERNET = struct.Struct("!6s6sH")
_ARP = struct.Struct("!HHBBH6s4s6s4s")
_TYPE_IPV4, _TYPE_ARP = 0x0800, 0x0806
_ICMP, _ECHO_REPLY = 1, 0
_OPERATIONS: Final[dict[int, Kind]] = {1: "arp-request", 2: "arp-reply"}


class Frame(msgspec.Struct, frozen=True, tag="frame"):
    """One frame as it entered the switch.

    Attributes:
        time_s: when the kernel received it (CLOCK_REALTIME, seconds).
        port: the switch's port it came in by.
        sender_mac: who says so; for ARP the sender's hardware address, for an echo reply the Ethernet source.
        sender_ip: the address that the sender says it has.
        target_ip: the address that is asked for or spoken to.
        source_mac: the Ethernet source.
    """

    time_s: float
    port: str
    kind: Kind
    sender_mac: str
    sender_ip: str
    target_ip: str
    source_mac: str

    @property
    def gratuitous(self) -> bool:
        """Whether it announces the sender's own address, as request or as reply."""
        return self.kind != "echo-reply" and self.sender_ip == self.target_ip

    @property
    def claims(self) -> bool:
        """Whether it says that the sender has `sender_ip`; an ARP probe (sender 0.0.0.0) says nothing."""
        return self.sender_ip != "0.0.0.0"


def decode(time_s: float, port: str, data: bytes) -> Frame | None:
    """Decode a frame; None for what is neither ARP for IPv4 nor an echo reply, and for what is too short."""
    if len(data) < _ETHERNET.size:
        return None
    _, source, kind = _ETHERNET.unpack_from(data)
    if kind == _TYPE_ARP:
        return _arp(time_s, port, _mac(source), data[_ETHERNET.size :])
    if kind == _TYPE_IPV4:
        return _echo_reply(time_s, port, _mac(source), data[_ETHERNET.size :])
    return None


def _arp(time_s: float, port: str, source: str, data: bytes) -> Frame | None:
    if len(data) < _ARP.size:
        return None
    _, protocol, hardware_length, length, operation, sender, sender_ip, _, target_ip = _ARP.unpack_from(data)
    if (protocol, hardware_length, length) != (_TYPE_IPV4, 6, 4) or operation not in _OPERATIONS:
        return None
    return Frame(time_s, port, _OPERATIONS[operation], _mac(sender), _ip(sender_ip), _ip(target_ip), source)


def _echo_reply(time_s: float, port: str, source: str, data: bytes) -> Frame | None:
    header = (data[0] & 0x0F) * 4 if data else 0
    if len(data) <= header or header < 20 or data[9] != _ICMP or data[header] != _ECHO_REPLY:
        return None
    return Frame(time_s, port, "echo-reply", source, _ip(data[12:16]), _ip(data[16:20]), source)


def _mac(packed: bytes) -> str:
    return packed.hex(":")


def _ip(packed: bytes) -> str:
    return str(ipaddress.IPv4Address(packed))
