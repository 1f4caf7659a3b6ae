"""A netlink socket that sends pyroute2's messages in batches and reads the answers.

The library builds and reads every message (`pyroute2.netlink`). Ours is what it lacks: its own sockets run an event
loop and so cannot be used inside one; a batch whose first refusal is told; and messages that are encoded once, ahead
of time, and sent as bytes. Calls here are synchronous: the kernel answers a request before `send` returns, so there is
nothing to wait for.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from typing import TYPE_CHECKING, Any, Final

from pyroute2.netlink import NLM_F_ACK, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, NLMSG_DONE, NLMSG_ERROR
from pyroute2.netlink.marshal import Marshal

from sidecar.errors import KernelRefused, NotPermitted

if TYPE_CHECKING:
    from collections.abc import Sequence

# struct nlmsghdr: length u32, type u16, flags u16, sequence number u32, port u32 (include/uapi/linux/netlink.h)
_FLAGS, _FLAGS_AT = struct.Struct("=H"), 6
_SEQUENCE, _SEQUENCE_AT = struct.Struct("=I"), 8
_BUFFER_BYTES: Final = 1 << 17
_LISTS: Final = 8
_TRIES: Final = 3
"""So often a batch is sent whose answer the kernel had no room for."""


def encode(message: Any, kind: int, flags: int = 0) -> bytes:
    """Encode a message of pyroute2 as a request, its sequence number not yet put in.

    Args:
        message: an `nlmsg` with its fields and attributes.
        kind: the message's type, such as ``RTM_NEWADDR``.
        flags: besides NLM_F_REQUEST.
    """
    message["header"]["type"] = kind
    message["header"]["flags"] = NLM_F_REQUEST | flags
    message.encode()
    return bytes(message.data)


class _Overrun(Exception):  # noqa: N818 - what happened, and nobody outside hears of it
    """The kernel had no room for an answer: some of them are lost."""


class NetlinkSocket:
    """One netlink socket for requests of one family, used by one thread."""

    def __init__(self, family: int, marshal: Marshal | None = None) -> None:
        """Open it.

        Args:
            family: such as ``NETLINK_ROUTE``.
            marshal: reads what comes; without one only answers to transactions can be read.
        """
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, family)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER_BYTES)
        # the kernel answers at once: this only turns a fault in our batch into an error instead of a hang
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("@ll", 2, 0))
        self._marshal = Marshal() if marshal is None else marshal
        self._sequence = 0

    def close(self) -> None:
        """Close the socket; what was set in the kernel stays."""
        self._socket.close()

    @property
    def port(self) -> int:
        """The number by which the kernel knows this socket, and names it as the doer of what it does."""
        if not self._socket.getsockname()[0]:
            self._socket.bind((0, 0))
        return int(self._socket.getsockname()[0])

    def transact(self, batch: Sequence[bytes], what: str) -> None:
        """Send encoded messages in one datagram and read the answers of those that ask for one.

        Where the kernel had no room for an answer (ENOBUFS) nobody knows what came of the batch: it is sent again. So a
        batch must be one that may be carried out twice; what the second time refuses (EEXIST, ENOENT) is the caller's.

        Raises:
            NotPermitted: a capability is missing.
            KernelRefused: the first error that the kernel gave.
        """
        for left in reversed(range(_TRIES)):
            try:
                self._transact_once(batch, what)
            except _Overrun as error:
                self._drain()
                if not left:
                    raise refusal(what, errno.ENOBUFS) from error
            else:
                return

    def _transact_once(self, batch: Sequence[bytes], what: str) -> None:
        first = self._sequence + 1
        awaited = {sequence for sequence, message in enumerate(batch, start=first) if _asks(message)}
        self._sequence += len(batch)
        self._send(_numbered(batch, first), what)
        failed = 0
        while awaited:
            for answer in self._marshal.parse(self._receive(what)):
                sequence = answer["header"]["sequence_number"]
                if answer["header"]["type"] != NLMSG_ERROR or sequence < first:
                    continue
                error = abs(answer["error"])
                failed = failed or error
                # a message's failure is told whether it asked or not, and a whole batch's once, at its first message
                awaited = set() if error and sequence not in awaited else awaited - {sequence}
        if failed:
            self._drain()
            raise refusal(what, failed)

    def dump(self, request: Any, kind: int, what: str) -> list[Any]:
        """Ask for all objects of a kind.

        A list that the kernel calls interrupted (NLM_F_DUMP_INTR: it changed while it was read) may lack what stands;
        it is asked for again, and so is one that the kernel had no room for (ENOBUFS). Where that never ends, the lists
        are given one after the other: what stood all the time is in one of them, and what was removed meanwhile may be
        too.

        Returns:
            The kernel's messages, read by the library.
        """
        every: list[Any] = []
        for _ in range(_LISTS):
            found: list[Any] = []
            try:
                if self._dump_once(request, kind, what, found):
                    return found
            except _Overrun:
                self._drain()
            every += found
        return every

    def _dump_once(self, request: Any, kind: int, what: str, found: list[Any]) -> bool:
        """Read one list into `found`; say whether the kernel could read it in peace."""
        self._sequence += 1
        self._send(_numbered([encode(request, kind, NLM_F_DUMP)], self._sequence), what)
        interrupted = 0
        while True:
            for message in self._marshal.parse(self._receive(what)):
                header = message["header"]
                if header["sequence_number"] != self._sequence:
                    continue
                interrupted |= header["flags"] & NLM_F_DUMP_INTR
                if header["type"] == NLMSG_DONE:
                    return not interrupted
                if header["type"] == NLMSG_ERROR:
                    raise refusal(what, abs(message["error"]))
                found.append(message)

    def _send(self, datagram: bytes, what: str) -> None:
        try:
            self._socket.send(datagram)
        except OSError as error:
            raise refusal(what, error.errno or errno.EIO) from error

    def _receive(self, what: str) -> bytes:
        try:
            return self._socket.recv(_BUFFER_BYTES)
        except OSError as error:
            if error.errno == errno.ENOBUFS:
                raise _Overrun from error
            raise refusal(what, error.errno or errno.ETIMEDOUT) from error

    def _drain(self) -> None:
        while True:
            try:
                self._socket.recv(_BUFFER_BYTES, socket.MSG_DONTWAIT)
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise


def _numbered(batch: Sequence[bytes], first: int) -> bytes:
    """Join encoded messages to one datagram and put in their sequence numbers, counted from `first`."""
    datagram = bytearray(b"".join(batch))
    at = 0
    for sequence, message in enumerate(batch, start=first):
        _SEQUENCE.pack_into(datagram, at + _SEQUENCE_AT, sequence)
        at += len(message)
    return bytes(datagram)


def answered(message: bytes) -> bytes:
    """Let an encoded message ask for an answer."""
    asking = bytearray(message)
    _FLAGS.pack_into(asking, _FLAGS_AT, _FLAGS.unpack_from(message, _FLAGS_AT)[0] | NLM_F_ACK)
    return bytes(asking)


def _asks(message: bytes) -> bool:
    return bool(_FLAGS.unpack_from(message, _FLAGS_AT)[0] & NLM_F_ACK)


def refusal(what: str, number: int, capability: str = "NET_ADMIN") -> KernelRefused:
    """Make the error for an errno."""
    if number in (errno.EPERM, errno.EACCES):
        advice = f"the container needs the capability {capability}: add it to its securityContext"
        if os.geteuid() != 0:  # the runtime gives another user none of them that count
            advice = (
                f"the container runs as UID {os.geteuid()}, for which its capabilities do not count: set runAsUser: 0"
            )
        return NotPermitted(f"{what}: {os.strerror(number)}; {advice}", number)
    return KernelRefused(f"{what}: {os.strerror(number)}", number)
