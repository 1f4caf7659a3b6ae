"""Netlink messages by `struct`, and a socket that sends a batch of them and reads the answers.

Only what addresses, fence, announcing rule and change monitor need. Calls here are
synchronous: the kernel answers a netlink request before `send` returns, so there is nothing to wait for.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from sidecar.errors import KernelRefused, NotPermitted

if TYPE_CHECKING:
    from collections.abc import Iterator

REQUEST: Final = 0x001
ACK: Final = 0x004
DUMP: Final = 0x300
CREATE: Final = 0x400
REPLACE: Final = 0x100
EXCLUSIVE: Final = 0x200

_ERROR: Final = 2
_DONE: Final = 3
_NESTED: Final = 0x8000
_TYPE_MASK: Final = 0x3FFF
_HEADER = struct.Struct("=IHHII")
_ATTRIBUTE = struct.Struct("=HH")
_BUFFER_BYTES: Final = 1 << 17


@dataclass(frozen=True, slots=True)
class Message:
    """One netlink message without its header's sequence number."""

    kind: int
    flags: int
    body: bytes


def attribute(kind: int, value: bytes) -> bytes:
    """Write one attribute, padded to four bytes."""
    return _ATTRIBUTE.pack(_ATTRIBUTE.size + len(value), kind) + value + bytes(-len(value) % 4)


def nested(kind: int, *attributes: bytes) -> bytes:
    """Write an attribute made of attributes."""
    return attribute(kind | _NESTED, b"".join(attributes))


def text(kind: int, value: str) -> bytes:
    """Write a zero-terminated string."""
    return attribute(kind, value.encode() + b"\0")


def number(kind: int, value: int) -> bytes:
    """Write a 32-bit number in network order, as nftables wants all of them."""
    return attribute(kind, struct.pack("!I", value))


def attributes(data: bytes) -> dict[int, bytes]:
    """Read a row of attributes; of a kind that comes twice the last one counts."""
    found: dict[int, bytes] = {}
    at = 0
    while at + _ATTRIBUTE.size <= len(data):
        length, kind = _ATTRIBUTE.unpack_from(data, at)
        if length < _ATTRIBUTE.size:
            break
        found[kind & _TYPE_MASK] = data[at + _ATTRIBUTE.size : at + length]
        at += length + (-length % 4)
    return found


def messages(data: bytes) -> Iterator[tuple[int, int, bytes]]:
    """Read (type, sequence number, body) of each message in one datagram."""
    at = 0
    while at + _HEADER.size <= len(data):
        length, kind, _, sequence, _ = _HEADER.unpack_from(data, at)
        if length < _HEADER.size:
            break
        yield kind, sequence, data[at + _HEADER.size : at + length]
        at += length + (-length % 4)


class NetlinkSocket:
    """One netlink socket for requests of one family, used by one thread."""

    def __init__(self, family: int) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, family)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER_BYTES)
        # the kernel answers at once: this only turns a fault in our batch into an error instead of a hang
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("@ll", 2, 0))
        self._sequence = 0

    def close(self) -> None:
        """Close the socket; what was set in the kernel stays."""
        self._socket.close()

    def transact(self, batch: list[Message], what: str) -> None:
        """Send the messages in one datagram and read the answers of those that ask for one.

        Raises:
            NotPermitted: a capability is missing.
            KernelRefused: the first error that the kernel gave.
        """
        first = self._sequence + 1
        datagram = b""
        awaited = set()
        for message in batch:
            self._sequence += 1
            header = _HEADER.pack(_HEADER.size + len(message.body), message.kind, message.flags, self._sequence, 0)
            datagram += header + message.body
            if message.flags & ACK:
                awaited.add(self._sequence)
        self._send(datagram, what)
        failed = 0
        while awaited:
            for kind, sequence, body in messages(self._receive(what)):
                if kind != _ERROR or sequence < first:
                    continue
                failed = failed or -struct.unpack_from("=i", body)[0]
                # a batch that is refused as a whole is answered once, at its first message
                awaited = set() if failed and sequence not in awaited else awaited - {sequence}
        if failed:
            self._drain()
            raise refusal(what, failed)

    def dump(self, kind: int, body: bytes, what: str) -> list[bytes]:
        """Ask for all objects of a kind and give their bodies."""
        self._sequence += 1
        header = _HEADER.pack(_HEADER.size + len(body), kind, REQUEST | DUMP, self._sequence, 0)
        self._send(header + body, what)
        found: list[bytes] = []
        while True:
            for kind_, sequence, answer in messages(self._receive(what)):
                if sequence != self._sequence:
                    continue
                if kind_ == _DONE:
                    return found
                if kind_ == _ERROR:
                    raise refusal(what, -struct.unpack_from("=i", answer)[0])
                found.append(answer)

    def _send(self, datagram: bytes, what: str) -> None:
        try:
            self._socket.send(datagram)
        except OSError as error:
            raise refusal(what, error.errno or errno.EIO) from error

    def _receive(self, what: str) -> bytes:
        try:
            return self._socket.recv(_BUFFER_BYTES)
        except OSError as error:
            raise refusal(what, error.errno or errno.ETIMEDOUT) from error

    def _drain(self) -> None:
        try:
            while self._socket.recv(_BUFFER_BYTES, socket.MSG_DONTWAIT):
                pass
        except BlockingIOError:
            return


def refusal(what: str, number: int, capability: str = "NET_ADMIN") -> KernelRefused:
    """Make the error for an errno."""
    if number in (errno.EPERM, errno.EACCES):
        return NotPermitted(f"{what}: {os.strerror(number)}; the container needs the capability {capability}", number)
    return KernelRefused(f"{what}: {os.strerror(number)}", number)
