"""Addresses on interfaces, and what interfaces there are, by rtnetlink.

Every address put here carries our mark (`IFA_PROTO`, kernel 5.18) and a finite lifetime; nothing without the mark is
ever changed or removed. Not here: the fence, `arp_announce` and the monitor, which need no library.
"""

from __future__ import annotations

import errno
import math
import socket
import struct
from dataclasses import dataclass
from typing import Final

from sidecar.errors import InterfaceMissing, KernelRefused
from sidecar.kernel.netlink import (
    ACK,
    CREATE,
    EXCLUSIVE,
    REPLACE,
    REQUEST,
    Message,
    NetlinkSocket,
    attribute,
    attributes,
)

MARK: Final = 0x68
"""IFA_PROTO of our addresses: 'h'; the kernel itself uses 1 to 3, 0 is unspecified."""
PRIMARY: Final = "eth0"
"""containerd and CRI-O give the Pod's first interface this name; used where there is no default route."""

_NO_PREFIX_ROUTE: Final = 0x200
_ROUNDING_S: Final = 0.05
_LOOPBACK: Final = 0x8
_UP_AND_RUNNING: Final = 0x41

_GETLINK, _NEWADDR, _DELADDR, _GETADDR, _GETROUTE = 18, 20, 21, 22, 26
_LINK_HEADER = struct.Struct("=BxHiII")
_ADDRESS_HEADER = struct.Struct("=BBBBi")
_ROUTE_HEADER = struct.Struct("=BBBBBBBBI")
_IFLA_ADDRESS, _IFLA_IFNAME = 1, 3
_IFA_ADDRESS, _IFA_LOCAL, _IFA_CACHEINFO, _IFA_FLAGS, _IFA_PROTO = 1, 2, 6, 8, 11
_RTA_OIF, _RTA_PRIORITY, _MAIN_TABLE, _UNICAST = 4, 6, 254, 1


@dataclass(frozen=True, slots=True)
class Link:
    """One interface as the kernel shows it."""

    index: int
    name: str
    mac: bytes
    up: bool
    loopback: bool


def lifetime_s(left_s: float, *, only_fence: bool) -> int:
    """Round the time left to the whole seconds that the kernel takes for `valid_lft`; 0: no lifetime will do.

    Where a rule in the kernel keeps the deadline, the lifetime comes after it, rounded up. Where the lifetime is the
    only fence it is rounded down, so that its lateness (1.12 s at most, measured) stays within the guard of 1.3 s.
    """
    if only_fence:
        return max(0, math.floor(left_s + _ROUNDING_S))
    return max(1, math.ceil(left_s))


class Addresses:
    """The addresses of this network namespace. The kernel answers at once, so nothing here really waits."""

    def __init__(self) -> None:
        self._netlink = NetlinkSocket(socket.NETLINK_ROUTE)

    def close(self) -> None:
        """Close the socket; addresses stay until their lifetime is over."""
        self._netlink.close()

    async def links(self) -> dict[str, Link]:
        """Read all interfaces, by name."""
        found = self._netlink.dump(_GETLINK, _LINK_HEADER.pack(socket.AF_UNSPEC, 0, 0, 0, 0), "list of interfaces")
        return {link.name: link for link in map(_link, found)}

    async def default_interface(self) -> str:
        """Name the interface of the default route, or else the Pod's first interface.

        Raises:
            InterfaceMissing: there is neither.
        """
        links = {link.index: link.name for link in (await self.links()).values()}
        wanted = _ROUTE_HEADER.pack(socket.AF_INET, *(0,) * 8)
        found = map(_default_route, self._netlink.dump(_GETROUTE, wanted, "list of routes"))
        best = min((route for route in found if route is not None and route[1] in links), default=None)
        if best is not None:
            return links[best[1]]
        if PRIMARY in links.values():
            return PRIMARY
        raise InterfaceMissing(f"there is no default route and no {PRIMARY}; name the interface in the assignment")

    async def marked(self) -> dict[str, int]:
        """List our addresses as {address: index of its interface}."""
        wanted = _ADDRESS_HEADER.pack(socket.AF_INET, 0, 0, 0, 0)
        marked: dict[str, int] = {}
        for body in self._netlink.dump(_GETADDR, wanted, "list of addresses"):
            read = attributes(body[_ADDRESS_HEADER.size :])
            if read.get(_IFA_PROTO) == bytes([MARK]):
                marked[socket.inet_ntoa(read[_IFA_LOCAL])] = _ADDRESS_HEADER.unpack_from(body)[4]
        return marked

    async def add(self, address: str, index: int, valid_s: int) -> None:
        """Put a new address on an interface.

        Raises:
            KernelRefused: it stands there already (EEXIST), or another reason.
        """
        try:
            self._put(address, index, valid_s, EXCLUSIVE)
        except KernelRefused as error:
            if error.errno != errno.EEXIST:
                raise
            why = f"{address} stands on this interface already and is not ours; remove it there, or from the route"
            raise KernelRefused(why, error.errno) from error

    async def renew(self, address: str, index: int, valid_s: int) -> None:
        """Set the lifetime of an address of ours."""
        self._put(address, index, valid_s, REPLACE)

    async def delete(self, address: str, index: int) -> None:
        """Remove an address of ours; one that is not there any more is as good as removed.

        Raises:
            KernelRefused: it is still there.
        """
        try:
            self._netlink.transact([_message(_DELADDR, 0, address, index, b"")], f"removal of {address}")
        except KernelRefused as error:
            if error.errno not in (errno.EADDRNOTAVAIL, errno.ENODEV):
                raise

    def _put(self, address: str, index: int, valid_s: int, flag: int) -> None:
        lifetimes = attribute(_IFA_CACHEINFO, struct.pack("=IIII", valid_s, valid_s, 0, 0))
        mark = attribute(_IFA_FLAGS, struct.pack("=I", _NO_PREFIX_ROUTE)) + attribute(_IFA_PROTO, bytes([MARK]))
        message = _message(_NEWADDR, CREATE | flag, address, index, lifetimes + mark)
        self._netlink.transact([message], f"{address} cannot be added")


def _message(kind: int, flags: int, address: str, index: int, more: bytes) -> Message:
    packed = socket.inet_aton(address)
    both = attribute(_IFA_LOCAL, packed) + attribute(_IFA_ADDRESS, packed)
    return Message(kind, REQUEST | ACK | flags, _ADDRESS_HEADER.pack(socket.AF_INET, 32, 0, 0, index) + both + more)


def _link(body: bytes) -> Link:
    _, _, index, flags, _ = _LINK_HEADER.unpack_from(body)
    read = attributes(body[_LINK_HEADER.size :])
    return Link(
        index=index,
        name=read[_IFLA_IFNAME].rstrip(b"\0").decode(),
        mac=read.get(_IFLA_ADDRESS, b""),
        up=flags & _UP_AND_RUNNING == _UP_AND_RUNNING,
        loopback=bool(flags & _LOOPBACK),
    )


def _default_route(body: bytes) -> tuple[int, int] | None:
    """Read (metric, interface) of a default route of the main table; None: it is another kind of route."""
    _, length, _, _, table, _, _, kind, _ = _ROUTE_HEADER.unpack_from(body)
    read = attributes(body[_ROUTE_HEADER.size :])
    if length or table != _MAIN_TABLE or kind != _UNICAST or _RTA_OIF not in read:
        return None
    metric = struct.unpack("=I", read.get(_RTA_PRIORITY, bytes(4)))[0]
    return metric, struct.unpack("=i", read[_RTA_OIF])[0]
