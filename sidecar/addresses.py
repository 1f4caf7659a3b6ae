"""Addresses on interfaces, and what interfaces there are: the only door to pyroute2.

Every address put here carries our mark (`IFA_PROTO`, kernel 5.18) and a finite lifetime; nothing without the mark is
ever changed or removed. Not here: the fence, `arp_announce` and the monitor, which need no library.
"""

from __future__ import annotations

import errno
import math
from dataclasses import dataclass
from socket import AF_INET
from typing import Any, Final

from pyroute2 import AsyncIPRoute, NetlinkError

from sidecar.errors import InterfaceMissing, KernelRefused
from sidecar.netlink import refusal

MARK: Final = 0x68
"""IFA_PROTO of our addresses: 'h'; the kernel itself uses 1 to 3, 0 is unspecified."""
PRIMARY: Final = "eth0"
"""containerd and CRI-O give the Pod's first interface this name; used where there is no default route."""

_NO_PREFIX_ROUTE: Final = 0x200
_ROUNDING_S: Final = 0.05
_LOOPBACK: Final = 0x8
_UP_AND_RUNNING: Final = 0x41


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
    only fence it is rounded down, so that its lateness (1.03 s at most, measured) stays within the guard of 1.1 s.
    """
    if only_fence:
        return max(0, math.floor(left_s + _ROUNDING_S))
    return max(1, math.ceil(left_s))


class Addresses:
    """The addresses of this network namespace, by one netlink socket on the running event loop."""

    def __init__(self) -> None:
        self._route = AsyncIPRoute()

    def close(self) -> None:
        """Close the socket; addresses stay until their lifetime is over."""
        self._route.close()

    async def links(self) -> dict[str, Link]:
        """Read all interfaces, by name."""
        found = [_link(message) async for message in await self._route.link("dump")]
        return {link.name: link for link in found}

    async def default_interface(self) -> str:
        """Name the interface of the default route, or else the Pod's first interface.

        Raises:
            InterfaceMissing: there is neither.
        """
        links = {link.index: link.name for link in (await self.links()).values()}
        routes = [route async for route in await self._route.get_default_routes(family=AF_INET)]
        best = min(routes, key=lambda route: route.get_attr("RTA_PRIORITY") or 0, default=None)
        if best is not None and best.get_attr("RTA_OIF") in links:
            return links[best.get_attr("RTA_OIF")]
        if PRIMARY in links.values():
            return PRIMARY
        raise InterfaceMissing(f"there is no default route and no {PRIMARY}; name the interface in the assignment")

    async def marked(self) -> dict[str, int]:
        """List our addresses as {address: index of its interface}."""
        found = [message async for message in await self._route.get_addr(family=AF_INET)]
        return {m.get_attr("IFA_LOCAL"): m["index"] for m in found if m.get_attr("IFA_PROTO") == MARK}

    async def add(self, address: str, index: int, valid_s: int) -> None:
        """Put a new address on an interface.

        Raises:
            KernelRefused: it stands there already (EEXIST), or another reason.
        """
        await self._address("add", address, index, valid_s)

    async def renew(self, address: str, index: int, valid_s: int) -> None:
        """Set the lifetime of an address of ours."""
        await self._address("replace", address, index, valid_s)

    async def delete(self, address: str, index: int) -> None:
        """Remove an address of ours; one that is not there any more is as good as removed.

        Raises:
            KernelRefused: it is still there.
        """
        try:
            await self._route.addr("del", index=index, address=address, prefixlen=32)
        except NetlinkError as error:
            if error.code not in (errno.EADDRNOTAVAIL, errno.ENODEV):
                raise refusal(f"removal of {address}", error.code) from error

    async def _address(self, command: str, address: str, index: int, valid_s: int) -> None:
        lifetimes = {"valid_lft": valid_s, "preferred_lft": valid_s}
        kind = {"prefixlen": 32, "scope": 0, "proto": MARK, "flags": _NO_PREFIX_ROUTE}
        try:
            await self._route.addr(command, index=index, address=address, **kind, **lifetimes)
        except NetlinkError as error:
            raise self._explained(address, error) from error

    def _explained(self, address: str, error: Any) -> KernelRefused:
        if error.code == errno.EEXIST:
            why = f"{address} stands on this interface already and is not ours; remove it there, or from the route"
            return KernelRefused(why, error.code)
        return refusal(f"{address} cannot be added", error.code)


def _link(message: Any) -> Link:
    flags = message["flags"]
    mac = message.get_attr("IFLA_ADDRESS") or ""
    return Link(
        index=message["index"],
        name=message.get_attr("IFLA_IFNAME"),
        mac=bytes.fromhex(mac.replace(":", "")),
        up=flags & _UP_AND_RUNNING == _UP_AND_RUNNING,
        loopback=bool(flags & _LOOPBACK),
    )
