"""Addresses on interfaces, and what interfaces there are, by rtnetlink.

Every address put here carries our mark (`IFA_PROTO`, kernel 5.18) and a finite lifetime; nothing without the mark is
ever changed or removed. Not here: the fence, `arp_announce` and the monitor.
"""

from __future__ import annotations

import errno
import functools
import ipaddress
import math
import socket
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from pyroute2.netlink import NETLINK_ROUTE, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE, nlmsg
from pyroute2.netlink.rtnl import (
    RTM_DELADDR,
    RTM_DELLINK,
    RTM_GETADDR,
    RTM_GETLINK,
    RTM_GETROUTE,
    RTM_NEWADDR,
    RTM_NEWLINK,
    rt_type,
)
from pyroute2.netlink.rtnl.ifaddrmsg import IFA_F_NOPREFIXROUTE, ifaddrmsg
from pyroute2.netlink.rtnl.ifinfmsg import IFF_LOOPBACK, IFF_NOARP, IFF_POINTOPOINT, IFF_RUNNING, IFF_UP, ifinfbase
from pyroute2.netlink.rtnl.marshal import MarshalRtnl
from pyroute2.netlink.rtnl.rtmsg import rtmsg

from sidecar.errors import KernelRefused
from sidecar.kernel.netlink import NetlinkSocket, answered, encode
from sidecar.kernel.own_network import Hop, own_interface

if TYPE_CHECKING:
    from sidecar.kernel.whereabouts import Stored

MARK: Final = 0x68
"""IFA_PROTO of our addresses: 'h'; the kernel itself uses 1 to 3, 0 is unspecified."""

_STORED: Final = ("IFLA_ADDRESS", "IFLA_LINK", "IFLA_LINK_NETNSID", "IFLA_PHYS_PORT_ID", "IFLA_MASTER")
_ROUNDING_S: Final = 0.05
_MAIN_TABLE: Final = 254
_MAC_BYTES: Final = 6
_ARPHRD_ETHER: Final = 1
_RTNH_DOWN: Final = 0x01 | 0x10
"""RTNH_F_DEAD, RTNH_F_LINKDOWN."""
_LIFETIME_HERE: Final = 0xF1F2F3F4
_KEPT: Final = 256
"""So many addresses' messages are kept encoded, more than a Pod has."""


@dataclass(frozen=True, slots=True)
class Link:
    """One interface as the kernel shows it."""

    index: int
    name: str
    mac: bytes
    """Empty where the interface has none, as a tunnel."""
    up: bool
    loopback: bool
    unfit: str = ""
    """Why no address can be announced there, as the end of a sentence; empty: one can."""
    stored: Stored = ()
    """What neighbours and switches store of it."""


def lifetime_s(left_s: float, *, only_fence: bool) -> int:
    """Round the time left to the whole seconds that the kernel takes for `valid_lft`; 0: no lifetime will do.

    Where a rule in the kernel keeps the deadline, the lifetime comes after it, rounded up. Where the lifetime is the
    only fence it is rounded down, so that its lateness (1.12 s at most, measured) stays within the guard of 1.3 s.
    """
    if only_fence:
        return max(0, math.floor(left_s + _ROUNDING_S))
    return max(1, math.ceil(left_s))


class LinkMessage(ifinfbase, nlmsg):  # type: ignore[misc] # the library is not typed
    """What is read of an interface; its hardware address as it is, of which the library takes six bytes always.

    Not a subclass of `ifinfmsg`: once that one was used, its subclasses would have its attributes.
    """

    nla_map = (
        (1, "IFLA_ADDRESS", "cdata"),
        (3, "IFLA_IFNAME", "asciiz"),
        (5, "IFLA_LINK", "uint32"),
        (10, "IFLA_MASTER", "uint32"),
        (34, "IFLA_PHYS_PORT_ID", "cdata"),
        (37, "IFLA_LINK_NETNSID", "int32"),
        (44, "IFLA_EVENT", "uint32"),
    )


class RouteMarshal(MarshalRtnl):  # type: ignore[misc]
    """Reads what the kernel says of interfaces, addresses and routes."""

    msg_map: Final = {**MarshalRtnl.msg_map, RTM_NEWLINK: LinkMessage, RTM_DELLINK: LinkMessage}


class Addresses:
    """The addresses of this network namespace. The kernel answers at once, so nothing here really waits."""

    def __init__(self) -> None:
        self._netlink = NetlinkSocket(NETLINK_ROUTE, RouteMarshal())

    def close(self) -> None:
        """Close the socket; addresses stay until their lifetime is over."""
        self._netlink.close()

    async def links(self) -> dict[str, Link]:
        """Read all interfaces, by name."""
        found = self._netlink.dump(LinkMessage(), RTM_GETLINK, "list of interfaces")
        return {link.name: link for link in map(_link, found)}

    async def default_interface(self, pod_ip: str | None = None, before: str = "") -> str:
        """Name the interface that is on the Pod's own network; `before`: what was said before.

        Raises:
            InterfaceMissing: there is none that can be used.
        """
        links = {link.index: link for link in (await self.links()).values()}
        with_it = () if pod_ip is None else self._with(pod_ip)
        found = self._netlink.dump(_of_ipv4(rtmsg()), RTM_GETROUTE, "list of routes")
        return own_interface(links, with_it, [hop for route in found for hop in _default_hops(route)], before)

    def _with(self, address: str) -> list[int]:
        """List the interfaces that have an address, of either family."""
        wanted = str(ipaddress.ip_address(address))
        found = self._netlink.dump(ifaddrmsg(), RTM_GETADDR, "list of addresses")
        # (an IPv6 address has no IFA_LOCAL, but on a point-to-point interface)
        own = [(each.get_attr("IFA_LOCAL") or each.get_attr("IFA_ADDRESS"), each["index"]) for each in found]
        return [index for local, index in own if local == wanted]

    async def marked(self) -> dict[str, int]:
        """List our addresses as {address: index of its interface}."""
        found = self._netlink.dump(_of_ipv4(ifaddrmsg()), RTM_GETADDR, "list of addresses")
        ours = [each for each in found if each.get_attr("IFA_PROTO") == MARK]
        return {each.get_attr("IFA_LOCAL"): each["index"] for each in ours}

    def prepare(self, address: str, index: int) -> None:
        """Have everything ready that puts this address on an interface, renews and removes it."""
        _forms(address, index)

    async def add(self, address: str, index: int, valid_s: int) -> None:
        """Put a new address on an interface.

        Raises:
            KernelRefused: it stands there already (EEXIST), or another reason.
        """
        try:
            self._put(_forms(address, index).add, valid_s, address)
        except KernelRefused as error:
            if error.errno != errno.EEXIST:
                raise
            why = f"{address} is on this interface already, not added by holdfast; remove it there, or from the route"
            raise KernelRefused(why, error.errno) from error

    async def renew(self, address: str, index: int, valid_s: int) -> None:
        """Set the lifetime of an address of ours."""
        self._put(_forms(address, index).renew, valid_s, address)

    async def delete(self, address: str, index: int) -> bool:
        """Remove an address of ours, and say whether it was there; one that was not is as good as removed.

        Raises:
            KernelRefused: it is still there.
        """
        try:
            self._netlink.transact([_forms(address, index).delete], f"removal of {address}")
        except KernelRefused as error:
            if error.errno not in (errno.EADDRNOTAVAIL, errno.ENODEV):
                raise
            return False
        return True

    def _put(self, form: bytes, valid_s: int, address: str) -> None:
        message = form.replace(_lifetimes(_LIFETIME_HERE), _lifetimes(valid_s))
        self._netlink.transact([message], f"cannot add {address}")


# what is sent, encoded ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Forms:
    """An address' messages; those that put it have `_LIFETIME_HERE` where its lifetime is put in."""

    add: bytes
    renew: bytes
    delete: bytes


@functools.lru_cache(_KEPT)
def _forms(address: str, index: int) -> _Forms:
    lifetimes = {"ifa_preferred": _LIFETIME_HERE, "ifa_valid": _LIFETIME_HERE}
    put = [
        ("IFA_LOCAL", address),
        ("IFA_FLAGS", IFA_F_NOPREFIXROUTE),
        ("IFA_ADDRESS", address),
        ("IFA_CACHEINFO", lifetimes),
        ("IFA_PROTO", MARK),
    ]
    return _Forms(
        add=_encode(index, put, RTM_NEWADDR, NLM_F_CREATE | NLM_F_EXCL),
        renew=_encode(index, put, RTM_NEWADDR, NLM_F_CREATE | NLM_F_REPLACE),
        delete=_encode(index, [("IFA_LOCAL", address), ("IFA_ADDRESS", address)], RTM_DELADDR, 0),
    )


def _encode(index: int, attributes: list[tuple[str, Any]], kind: int, flags: int) -> bytes:
    message = _of_ipv4(ifaddrmsg())
    message["prefixlen"], message["index"], message["attrs"] = 32, index, attributes
    return answered(encode(message, kind, flags))


def _of_ipv4(message: Any) -> Any:
    message["family"] = socket.AF_INET
    return message


def _lifetimes(seconds: int) -> bytes:
    return struct.pack("=II", seconds, seconds)


# what is read ---------------------------------------------------------------------------------------------------


def is_up(link: Any) -> bool:
    """Whether an interface, as the library has read it, is up and its cable carries."""
    return bool(link["flags"] & (IFF_UP | IFF_RUNNING) == IFF_UP | IFF_RUNNING)


def stored(link: Any) -> Stored:
    """What neighbours and switches store of an interface, as far as the library has read it."""
    return tuple(map(link.get_attr, _STORED))


def _link(message: Any) -> Link:
    mac = message.get_attr("IFLA_ADDRESS") or b""
    return Link(
        index=message["index"],
        name=message.get_attr("IFLA_IFNAME"),
        mac=mac if len(mac) == _MAC_BYTES else b"",
        up=is_up(message),
        loopback=bool(message["flags"] & IFF_LOOPBACK),
        stored=stored(message),
        unfit=_unfit(message),
    )


def _unfit(message: Any) -> str:
    flags = message["flags"]
    reasons = (
        (flags & IFF_LOOPBACK, "is the loopback interface"),
        (message["ifi_type"] != _ARPHRD_ETHER, "is no Ethernet interface"),
        (flags & IFF_POINTOPOINT, "is a point-to-point interface"),
        (flags & IFF_NOARP, "has ARP turned off"),
    )
    return next((why for holds, why in reasons if holds), "")


def _default_hops(message: Any) -> list[Hop]:
    """Read the next hops of a default route of the main table; none: it is another kind of route."""
    unicast = message["type"] == rt_type["unicast"]
    if message["dst_len"] or message["table"] != _MAIN_TABLE or not unicast:
        return []
    several = [(each["oif"], each["flags"]) for each in message.get_attr("RTA_MULTIPATH") or ()]
    hops = several or [(message.get_attr("RTA_OIF"), message["flags"])]
    metric = message.get_attr("RTA_PRIORITY") or 0
    return [Hop(metric, bool(flags & _RTNH_DOWN), i, oif) for i, (oif, flags) in enumerate(hops) if oif is not None]
