"""Interfaces: `arp_announce`, what changes on them, and the ARP frames that go out and come in.

Nothing here decides when to announce. Frames go out at once or not at all; there is no queue.
"""

from __future__ import annotations

import ctypes
import errno
import socket
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from pyroute2.netlink import NETLINK_ROUTE, nla, nlmsg
from pyroute2.netlink.marshal import Marshal
from pyroute2.netlink.rtnl import RTM_DELADDR, RTM_DELLINK, RTM_NEWLINK, RTMGRP_IPV4_IFADDR, RTMGRP_LINK
from pyroute2.netlink.rtnl.ifaddrmsg import ifaddrmsg
from pyroute2.netlink.rtnl.ifinfmsg import ifinfbase

from sidecar.errors import KernelRefused
from sidecar.kernel.addresses import LinkMessage, is_up, stored
from sidecar.kernel.frames import ETH_P_ARP, Claim, claims_filter, read_claim
from sidecar.kernel.netlink import NetlinkSocket, answered, encode, refusal
from sidecar.kernel.whereabouts import NOTIFY, LinkNews

if TYPE_CHECKING:
    from collections.abc import Iterable

_SO_ATTACH_FILTER: Final = 26
_MAX_FRAME_BYTES: Final = 128
_MAX_DATAGRAM_BYTES: Final = 1 << 16


class _SetConf(ifinfbase, nlmsg):  # type: ignore[misc] # the library is not typed
    """A change of an interface's IPv4 settings: nested by number, where the library has the flat form of an answer.

    Source: inet_set_link_af in net/ipv4/devinet.c.
    """

    nla_map = ((26, "IFLA_AF_SPEC", "Families"),)

    class Families(nla):  # type: ignore[misc]
        """By family."""

        nla_map = ((socket.AF_INET, "AF_INET", "Inet"),)

        class Inet(nla):  # type: ignore[misc]
            """IPv4's part."""

            nla_map = ((1, "IFLA_INET_CONF", "Settings"),)

            class Settings(nla):  # type: ignore[misc]
                """By their numbers in include/uapi/linux/ip.h."""

                nla_map = ((18, "IPV4_DEVCONF_ARP_ANNOUNCE", "uint32"),)


def set_arp_announce(index: int, level: int = 2) -> None:
    """Have the kernel's ARP requests carry an address of the interface they leave by (needs CAP_NET_ADMIN only).

    Raises:
        NotPermitted: the capability is missing.
        KernelRefused: any other reason.
    """
    message = _SetConf()
    message["index"] = index
    conf = {"attrs": [("IPV4_DEVCONF_ARP_ANNOUNCE", level)]}
    message["attrs"] = [("IFLA_AF_SPEC", {"attrs": [("AF_INET", {"attrs": [("IFLA_INET_CONF", conf)]})]})]
    netlink = NetlinkSocket(NETLINK_ROUTE)
    try:
        netlink.transact([answered(encode(message, RTM_NEWLINK))], f"arp_announce={level} on interface {index}")
    finally:
        netlink.close()


@dataclass(frozen=True, slots=True)
class Changes:
    """What the monitor read at one time.

    Attributes:
        links: what was told of interfaces, in the kernel's order.
        addresses_gone: the IPv4 addresses that were removed, without prefix length, each as often as it was.
        overrun: events were lost: look at everything again.
    """

    links: tuple[LinkNews, ...] = ()
    addresses_gone: tuple[str, ...] = ()
    overrun: bool = False


class _NewsMarshal(Marshal):  # type: ignore[misc]
    """Reads of the kernel's news only what is asked of them: it stands on the path of a handover."""

    msg_map: Final = {RTM_NEWLINK: LinkMessage, RTM_DELLINK: LinkMessage, RTM_DELADDR: ifaddrmsg}


class Monitor:
    """The kernel's own news about links and IPv4 addresses."""

    def __init__(self) -> None:
        kind = socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
        self._socket = socket.socket(socket.AF_NETLINK, kind, NETLINK_ROUTE)
        self._marshal = _NewsMarshal()
        self._socket.bind((0, RTMGRP_LINK | RTMGRP_IPV4_IFADDR))

    def fileno(self) -> int:
        """The descriptor to wait on."""
        return self._socket.fileno()

    def close(self) -> None:
        """Stop listening."""
        self._socket.close()

    def read(self) -> Changes:
        """Read all that has come."""
        links: list[LinkNews] = []
        gone: list[str] = []
        overrun = False
        while True:
            try:
                datagram = self._socket.recv(_MAX_DATAGRAM_BYTES)
            except BlockingIOError:
                return Changes(tuple(links), tuple(gone), overrun)
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise refusal("monitor of links and addresses", error.errno or errno.EIO) from error
                overrun = True
                continue
            for message in self._marshal.parse(datagram):
                kind = message["header"]["type"]
                if kind == RTM_DELADDR:
                    gone.append(message.get_attr("IFA_LOCAL"))
                # what is told of a bridge's port as such is of another family
                if kind in (RTM_NEWLINK, RTM_DELLINK) and message["family"] == socket.AF_UNSPEC:
                    links.append(_link_news(message, gone=kind == RTM_DELLINK))


def _link_news(message: Any, *, gone: bool) -> LinkNews:
    up = not gone and is_up(message)
    return LinkNews(message["index"], up, stored(message), message.get_attr("IFLA_EVENT") in NOTIFY)


class Wire:
    """ARP frames out and in: an AF_PACKET socket each, opened early since that takes 13 ms."""

    def __init__(self) -> None:
        try:
            # protocol 0 receives nothing
            self._out = socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_CLOEXEC, 0)
            self._in = socket.socket(
                socket.AF_PACKET,
                socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK,
                socket.htons(ETH_P_ARP),
            )
        except PermissionError as error:
            raise refusal("AF_PACKET socket", errno.EPERM, "NET_RAW") from error
        self.listen_for(())

    def fileno(self) -> int:
        """The descriptor on which claims come in."""
        return self._in.fileno()

    def close(self) -> None:
        """Close both sockets."""
        self._out.close()
        self._in.close()

    def send(self, interface: str, frames: Iterable[bytes]) -> None:
        """Send frames on an interface now.

        Raises:
            KernelRefused: the interface is down (ENETDOWN), gone (ENODEV), or the fence has cut it (ENOBUFS).
        """
        try:
            for frame in frames:
                self._out.sendto(frame, (interface, 0))
        except OSError as error:
            raise KernelRefused(f"announcement on {interface}: {error.strerror}", error.errno or errno.EIO) from error

    def listen_for(self, addresses: Iterable[str]) -> None:
        """Let in only ARP frames whose sender says that it is one of these addresses."""
        program = b"".join(struct.pack("=HBBI", *one) for one in claims_filter(sorted(addresses)))
        buffer = ctypes.create_string_buffer(program, len(program))
        self._in.setsockopt(
            socket.SOL_SOCKET, _SO_ATTACH_FILTER, struct.pack("@HP", len(program) // 8, ctypes.addressof(buffer))
        )

    def claims(self) -> list[tuple[str, Claim]]:
        """Read the claims that have come, each with its interface."""
        found: list[tuple[str, Claim]] = []
        while True:
            try:
                frame, source = self._in.recvfrom(_MAX_FRAME_BYTES)
            except BlockingIOError:
                return found
            except OSError as error:  # the interface went down: said once, then the socket goes on
                if error.errno not in (errno.ENETDOWN, errno.ENODEV):
                    raise
                continue
            claim = read_claim(frame)
            if claim is not None:
                found.append((source[0], claim))
