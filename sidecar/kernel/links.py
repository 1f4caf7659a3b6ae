"""Interfaces by raw sockets: `arp_announce`, what changes on them, and the ARP frames that go out and come in.

Nothing here decides when to announce. Frames go out at once or not at all; there is no queue.
"""

from __future__ import annotations

import ctypes
import errno
import socket
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from sidecar.errors import KernelRefused
from sidecar.kernel.frames import ETH_P_ARP, Claim, claims_filter, read_claim
from sidecar.kernel.netlink import ACK, REQUEST, Message, NetlinkSocket, attribute, messages, nested, refusal

if TYPE_CHECKING:
    from collections.abc import Iterable

_NEWLINK, _DELLINK, _DELADDR = 16, 17, 21
_LINK_GROUP, _IPV4_ADDRESS_GROUP = 0x1, 0x10
_LINK_HEADER = struct.Struct("=BxHiII")
_UP_AND_RUNNING: Final = 0x41

_IFLA_AF_SPEC, _IFLA_INET_CONF, _ARP_ANNOUNCE = 26, 1, 18
_SO_ATTACH_FILTER: Final = 26
_MAX_FRAME_BYTES: Final = 128
_MAX_DATAGRAM_BYTES: Final = 1 << 16


def set_arp_announce(index: int, level: int = 2) -> None:
    """Have the kernel's ARP requests carry an address of the interface they leave by (needs CAP_NET_ADMIN only).

    Raises:
        NotPermitted: the capability is missing.
        KernelRefused: any other reason.
    """
    conf = nested(_IFLA_INET_CONF, attribute(_ARP_ANNOUNCE, struct.pack("=I", level)))
    body = _LINK_HEADER.pack(socket.AF_UNSPEC, 0, index, 0, 0) + nested(_IFLA_AF_SPEC, nested(socket.AF_INET, conf))
    netlink = NetlinkSocket(socket.NETLINK_ROUTE)
    try:
        netlink.transact([Message(_NEWLINK, REQUEST | ACK, body)], f"arp_announce={level} on interface {index}")
    finally:
        netlink.close()


@dataclass(frozen=True, slots=True)
class Changes:
    """What the monitor read at one time.

    Attributes:
        links: (index, whether up and running), in the kernel's order.
        addresses_gone: some IPv4 address was removed: look again.
        overrun: events were lost: look at everything again.
    """

    links: tuple[tuple[int, bool], ...] = ()
    addresses_gone: bool = False
    overrun: bool = False


class Monitor:
    """The kernel's own news about links and IPv4 addresses."""

    def __init__(self) -> None:
        kind = socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
        self._socket = socket.socket(socket.AF_NETLINK, kind, socket.NETLINK_ROUTE)
        self._socket.bind((0, _LINK_GROUP | _IPV4_ADDRESS_GROUP))

    def fileno(self) -> int:
        """The descriptor to wait on."""
        return self._socket.fileno()

    def close(self) -> None:
        """Stop listening."""
        self._socket.close()

    def read(self) -> Changes:
        """Read all that has come."""
        links: list[tuple[int, bool]] = []
        gone = overrun = False
        while True:
            try:
                datagram = self._socket.recv(_MAX_DATAGRAM_BYTES)
            except BlockingIOError:
                return Changes(tuple(links), gone, overrun)
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise refusal("monitor of links and addresses", error.errno or errno.EIO) from error
                overrun = True
                continue
            for kind, _, body in messages(datagram):
                gone = gone or kind in (_DELADDR, _DELLINK)
                if kind in (_NEWLINK, _DELLINK):
                    _, _, index, flags, _ = _LINK_HEADER.unpack_from(body)
                    up = kind == _NEWLINK and flags & _UP_AND_RUNNING == _UP_AND_RUNNING
                    links.append((index, up))


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
