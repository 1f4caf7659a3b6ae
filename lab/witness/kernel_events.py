"""What the Pods' kernels say of their addresses, links and fences, decoded from netlink notifications.

Pure: bytes in, events out. `Decoder` keeps what is needed to understand the next notification (which rules stand in
which fence) and nothing else. Sockets are `lab.witness`'s.

A network namespace is told by its name and by a number of its own (`space`): a Pod of the same name that follows gets
another number, so that the two are never taken for one.
"""

from __future__ import annotations

import ipaddress
import struct
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import msgspec

if TYPE_CHECKING:
    from collections.abc import Iterator

FENCE_TABLE: Final = "holdfast"
"""The nftables table whose rules silence an address at a time."""

NEW_NSID, DELETED_NSID = 88, 89
_NEW_LINK, _NEW_ADDRESS, _DELETED_ADDRESS = 16, 20, 21
_NFTABLES = 10 << 8
_NEW_RULE, _DELETED_RULE, _NEW_GENERATION = _NFTABLES | 6, _NFTABLES | 8, _NFTABLES | 15
_NETLINK_HEADER = struct.Struct("=IHHII")
_ATTRIBUTE = struct.Struct("=HH")
_TYPE_MASK: Final = 0x3FFF
_UP: Final = 1
_NS: Final = 1e9


class AddressEvent(msgspec.Struct, frozen=True, tag="address"):
    """An address was added to, or removed from, an interface.

    Attributes:
        time_s: when the witness received it (CLOCK_REALTIME, seconds); the order is the kernel's.
        address: without prefix length.
        added: also said again when only its lifetime changes.
    """

    time_s: float
    netns: str
    space: int
    interface: str
    address: str
    added: bool


class FenceEvent(msgspec.Struct, frozen=True, tag="fence"):
    """From `deadline_s` on the kernel silences an address; None: nothing silences it."""

    time_s: float
    netns: str
    space: int
    address: str
    deadline_s: float | None


class LinkEvent(msgspec.Struct, frozen=True, tag="link"):
    """A link came or changed."""

    time_s: float
    netns: str
    space: int
    interface: str
    mac: str
    up: bool


class SpaceGone(msgspec.Struct, frozen=True, tag="gone"):
    """A network namespace is no more, and with it all that was in it."""

    time_s: float
    netns: str
    space: int


KernelEvent = AddressEvent | FenceEvent | LinkEvent | SpaceGone


@dataclass(slots=True)
class Space:
    """A network namespace and the rules of its fence: {(family, handle): (address, deadline)}.

    A handle is its table's, and the fence has a table in several families.
    """

    netns: str
    number: int
    rules: dict[tuple[int, int], tuple[str, float]] = field(default_factory=dict)
    said: dict[str, float] = field(default_factory=dict)

    def fence(self, time_s: float) -> Iterator[FenceEvent]:
        """What has changed since this was last asked: a transaction's outcome, not its steps."""
        now: dict[str, float] = {}
        for address, deadline_s in self.rules.values():
            now[address] = max(deadline_s, now.get(address, 0.0))  # what one rule lets pass is not cut off
        for address in sorted(now.keys() | self.said.keys()):
            if now.get(address) != self.said.get(address):
                yield FenceEvent(time_s, self.netns, self.number, address, now.get(address))
        self.said = now


def decode_route(space: Space, time_s: float, datagram: bytes) -> Iterator[KernelEvent]:
    """Decode a datagram of NETLINK_ROUTE that came from a space."""
    for kind, body in messages(datagram):
        event: KernelEvent | None = None
        if kind in (_NEW_ADDRESS, _DELETED_ADDRESS):
            event = _address(space, time_s, body, added=kind == _NEW_ADDRESS)
        elif kind == _NEW_LINK:
            event = _link(space, time_s, body)
        if event is not None:
            yield event


def decode_nftables(space: Space, time_s: float, datagram: bytes) -> Iterator[KernelEvent]:
    """Decode a datagram of the nftables group that came from a space; its fence is told once per transaction."""
    for kind, body in messages(datagram):
        if kind == _NEW_GENERATION:
            yield from space.fence(time_s)
        elif kind in (_NEW_RULE, _DELETED_RULE):
            _rule(space, body[0], body[4:], added=kind == _NEW_RULE)


def gone_nsids(datagram: bytes) -> Iterator[int]:
    """The numbers of network namespaces that a datagram of NETLINK_ROUTE says have gone."""
    for kind, body in messages(datagram):
        if kind == DELETED_NSID and (number := attributes(body[4:]).get(1)):
            yield struct.unpack("=i", number)[0]


# one notification ----------------------------------------------------------------------------------------------


def _address(space: Space, time_s: float, body: bytes, *, added: bool) -> AddressEvent | None:
    found = attributes(body[8:])
    packed = found.get(2) or found.get(1)  # IFA_LOCAL, else IFA_ADDRESS
    if packed is None:
        return None
    address = ipaddress.ip_address(packed)
    if address.is_loopback or address.is_link_local:  # every namespace has these
        return None
    return AddressEvent(time_s, space.netns, space.number, _text(found.get(3)), str(address), added)


def _link(space: Space, time_s: float, body: bytes) -> LinkEvent | None:
    flags = struct.unpack_from("=I", body, 8)[0]
    found = attributes(body[16:])
    if 1 not in found or _text(found.get(3)) == "lo":
        return None
    return LinkEvent(time_s, space.netns, space.number, _text(found.get(3)), found[1].hex(":"), up=bool(flags & _UP))


def _rule(space: Space, family: int, data: bytes, *, added: bool) -> None:
    found = attributes(data)
    if _text(found.get(1)) != FENCE_TABLE or 3 not in found:
        return
    handle = family, struct.unpack("!Q", found[3])[0]
    if not added:
        space.rules.pop(handle, None)
        return
    compared = list(_compared(found.get(4, b"")))
    addresses = [str(ipaddress.ip_address(value)) for value in compared if len(value) in (4, 16)]
    deadlines = [struct.unpack("!Q", value)[0] / _NS for value in compared if len(value) == 8]
    if len(addresses) == 1 and len(deadlines) == 1:
        space.rules[handle] = (addresses[0], deadlines[0])


def _compared(expressions: bytes) -> Iterator[bytes]:
    """The values that a rule's `cmp` expressions compare with."""
    for _, expression in _each(expressions):
        named = attributes(expression)
        if _text(named.get(1)) == "cmp":
            yield attributes(attributes(named[2])[3])[1]


# netlink -------------------------------------------------------------------------------------------------------


def messages(datagram: bytes) -> Iterator[tuple[int, bytes]]:
    """Type and body of each message of a datagram."""
    at = 0
    while at + _NETLINK_HEADER.size <= len(datagram):
        length, kind, _, _, _ = _NETLINK_HEADER.unpack_from(datagram, at)
        if length < _NETLINK_HEADER.size:
            return
        yield kind, datagram[at + _NETLINK_HEADER.size : at + length]
        at += (length + 3) & ~3


def attributes(data: bytes) -> dict[int, bytes]:
    """A row of attributes by their kind; the last of a kind counts."""
    return dict(_each(data))


def _each(data: bytes) -> Iterator[tuple[int, bytes]]:
    at = 0
    while at + _ATTRIBUTE.size <= len(data):
        length, kind = _ATTRIBUTE.unpack_from(data, at)
        if length < _ATTRIBUTE.size:
            return
        yield kind & _TYPE_MASK, data[at + _ATTRIBUTE.size : at + length]
        at += (length + 3) & ~3


def _text(value: bytes | None) -> str:
    return (value or b"").rstrip(b"\0").decode(errors="replace")
