"""The witness's process: sockets on the switch and to all Pods' kernels, one file, one control socket.

    python -m lab.witness.capture --state DIRECTORY          (in the switch's network namespace)

It writes one JSON line per event to DIRECTORY/witness.jsonl and answers JSON lines on DIRECTORY/witness.sock:
`{"do": "register", "netns": NAME}` from the node that has just made a network namespace, `{"do": "flush"}` (what
the kernel had to say until now is in the file when the answer comes), `{"do": "follow"}` (from the answer on, every
line that is written comes this way too). It judges nothing.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import errno
import json
import os
import selectors
import socket
import struct
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec

from lab.witness import frames
from lab.witness.kernel_events import (
    NEW_NSID,
    Space,
    SpaceGone,
    attributes,
    decode_nftables,
    decode_route,
    gone_nsids,
    messages,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

    from lab.witness.frames import Frame
    from lab.witness.kernel_events import KernelEvent

FILE: Final = "witness.jsonl"
CONTROL: Final = "witness.sock"

_NETLINK_ROUTE, _NETLINK_NETFILTER, _SOL_NETLINK, _SOL_PACKET = 0, 12, 270, 263
_ADD_MEMBERSHIP, _LISTEN_ALL_NSID = 1, 8
_GROUPS: Final = {_NETLINK_ROUTE: (1, 5, 9, 28), _NETLINK_NETFILTER: (7,)}  # link, IPv4, IPv6, nsid; nftables
_GET_NSID = 90
_REQUEST_ACK = 0x5
_ETH_P_ALL = 3
_SO_TIMESTAMPNS, _SO_ATTACH_FILTER, _SO_RCVBUFFORCE, _PACKET_STATISTICS = 35, 26, 33, 6
_BUFFER_BYTES: Final = 16 << 20
_DATAGRAM_BYTES: Final = 1 << 17
_BRIDGE: Final = "sw"
# (code, if true, if false, k): what others send, and of that ARP and ICMP echo replies; the rest costs nothing
_FILTER: Final = (
    *((0x20, 0, 0, 0xFFFFF004), (0x15, 9, 0, 4)),  # packet type: not what the switch itself sends on
    *((0x28, 0, 0, 12), (0x15, 6, 0, 0x0806), (0x15, 0, 6, 0x0800)),
    *((0x30, 0, 0, 23), (0x15, 0, 4, 1)),  # ICMP
    *((0xB1, 0, 0, 14), (0x50, 0, 0, 14), (0x15, 0, 1, 0)),  # echo reply
    *((0x06, 0, 0, 0x40000), (0x06, 0, 0, 0)),
)


class Capture:
    """All that is listened to, and all that is written."""

    def __init__(self, state: Path) -> None:
        self._file = (state / FILE).open("ab", buffering=1 << 20)
        self._encoder = msgspec.json.Encoder()
        self._spaces: dict[int, Space] = {}
        self._registered = 0
        self._lost = 0
        self._last_s = 0.0
        self._frames = _packet_socket()
        self._route = _notifications(_NETLINK_ROUTE)
        self._nftables = _notifications(_NETLINK_NETFILTER)
        self._asking = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_ROUTE)
        self._followers: list[socket.socket] = []
        self._selector = selectors.DefaultSelector()
        for each in (self._frames, self._route, self._nftables):
            self._selector.register(each, selectors.EVENT_READ, self.drain)
        self._door = socket.socket(socket.AF_UNIX)
        new = state / f"{CONTROL}.new"
        self._door.bind(str(new))
        self._door.listen(64)
        new.rename(state / CONTROL)  # who sees it can connect
        self._selector.register(self._door, selectors.EVENT_READ, self._welcome)

    def run(self) -> None:
        """Listen until killed."""
        while True:
            ready = self._selector.select(0.2)
            for key, _ in ready:
                # whoever came before in this round may have ended it
                if key.fd in self._selector.get_map():
                    key.data()
            if not ready:
                self._file.flush()

    # what is heard ---------------------------------------------------------------------------------------------

    def drain(self) -> None:
        """Take in everything that the kernel has ready."""
        # nftables is read before, and understood after, what the route socket has: a fence that was lifted after its
        # address was removed is never seen lifted with the address still there
        fences = self._received(self._nftables)
        for nsid, datagram in self._received(self._route):
            self._heard_route(nsid, datagram)
        for nsid, datagram in fences:
            if space := self._spaces.get(nsid):
                self._write(decode_nftables(space, self._now(), datagram))
        self._write(self._seen())

    def _heard_route(self, nsid: int, datagram: bytes) -> None:
        now = self._now()
        if space := self._spaces.get(nsid):
            self._write(decode_route(space, now, datagram))
        if nsid == -1:
            gone = [self._spaces.pop(each, None) for each in gone_nsids(datagram)]
            self._write(SpaceGone(now, space.netns, space.number) for space in gone if space)

    def _received(self, notifications: socket.socket) -> list[tuple[int, bytes]]:
        """All datagrams that are ready, each with the number of the network namespace it came from."""
        found: list[tuple[int, bytes]] = []
        while True:
            try:
                datagram, ancillary, _, _ = notifications.recvmsg(_DATAGRAM_BYTES, 64, socket.MSG_DONTWAIT)
            except BlockingIOError:
                return found
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
                self._lost += 1
                continue
            nsids = [data for level, kind, data in ancillary if (level, kind) == (_SOL_NETLINK, _LISTEN_ALL_NSID)]
            found.append((struct.unpack("=i", nsids[0])[0] if nsids else -1, datagram))

    def _seen(self) -> Iterable[Frame]:
        while True:
            try:
                data, ancillary, _, address = self._frames.recvmsg(256, 64, socket.MSG_DONTWAIT)
            except BlockingIOError:
                return
            except OSError:  # ENETDOWN: some port went down; said once
                continue
            port = address[0]
            if not port.startswith(_BRIDGE) and (frame := frames.decode(_stamp(ancillary), port, data)):
                yield frame

    def _now(self) -> float:
        self._last_s = max(self._last_s, time.time())
        return self._last_s

    def _write(self, records: Iterable[KernelEvent | Frame]) -> None:
        for record in records:
            line = self._encoder.encode(record) + b"\n"
            self._file.write(line)
            for follower in list(self._followers):
                try:
                    follower.send(line)
                except OSError:  # gone, or too slow to follow
                    self._forget(follower)

    # what is asked ---------------------------------------------------------------------------------------------

    def _welcome(self) -> None:
        guest, _ = self._door.accept()
        reader = guest.makefile("rb")

        def answer() -> None:
            try:
                line = reader.readline()
            except OSError:  # it went with something unread
                line = b""
            if not line:
                reader.close()
                self._forget(guest)
                return
            try:
                said = self._answer(json.loads(line), guest)
            except (OSError, ValueError, KeyError) as error:
                said = {"ok": False, "error": repr(error)}
            try:
                guest.send(json.dumps(said).encode() + b"\n")
            except OSError:  # it did not wait for the answer
                self._forget(guest)

        self._selector.register(guest, selectors.EVENT_READ, answer)

    def _forget(self, guest: socket.socket) -> None:
        if guest in self._followers:
            self._followers.remove(guest)
        if guest.fileno() in self._selector.get_map():
            self._selector.unregister(guest)
        guest.close()

    def _answer(self, request: dict[str, Any], guest: socket.socket) -> dict[str, Any]:
        self.drain()
        match request["do"]:
            case "register":
                return {"ok": True, "space": self._register(request["netns"])}
            case "flush":
                self._file.flush()
                self._lost += self._dropped()
                return {"ok": True, "lost": self._lost}
            case "follow":
                self._file.flush()
                guest.settimeout(0)
                guest.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
                self._followers.append(guest)
                return {"ok": True}
            case other:
                return {"ok": False, "error": f"cannot {other!r}: register, flush and follow are known"}

    def _dropped(self) -> int:
        """How many frames the kernel had no room for since this was last asked."""
        _, dropped = struct.unpack("=II", self._frames.getsockopt(_SOL_PACKET, _PACKET_STATISTICS, 8))
        return int(dropped)

    def _register(self, netns: str) -> int:
        """Have the kernel number a network namespace: without a number its notifications do not come here."""
        fd = os.open(f"/run/netns/{netns}", os.O_RDONLY)
        try:
            by_fd = struct.pack("=HHI", 8, 3, fd)
            self._ask(NEW_NSID, by_fd + struct.pack("=HHi", 8, 1, -1))
            nsid = struct.unpack("=i", attributes(self._ask(_GET_NSID, by_fd)[4:])[1])[0]
        finally:
            os.close(fd)
        self._registered += 1
        self._spaces[nsid] = Space(netns, self._registered)
        return self._registered

    def _ask(self, kind: int, attributes_: bytes) -> bytes:
        body = bytes(4) + attributes_  # struct rtgenmsg, padded
        flags = _REQUEST_ACK if kind == NEW_NSID else 1
        self._asking.send(struct.pack("=IHHII", 16 + len(body), kind, flags, 1, 0) + body)
        kind, answer = next(messages(self._asking.recv(_DATAGRAM_BYTES)))
        if kind == 2 and (number := -struct.unpack_from("=i", answer)[0]) not in (0, errno.EEXIST):
            raise OSError(number, os.strerror(number))
        return answer


def _stamp(ancillary: list[tuple[int, int, bytes]]) -> float:
    for level, kind, data in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, _SO_TIMESTAMPNS):
            seconds, nanoseconds = struct.unpack("@qq", data)
            return float(seconds + nanoseconds / 1e9)
    return time.time()


def _packet_socket() -> socket.socket:
    """A socket that hears what enters the switch by any port, with the kernel's time."""
    packets = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ETH_P_ALL))
    program = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *each) for each in _FILTER))
    packets.setsockopt(
        socket.SOL_SOCKET, _SO_ATTACH_FILTER, struct.pack("@HP", len(_FILTER), ctypes.addressof(program))
    )
    packets.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
    _widen(packets)
    packets.settimeout(0)
    with contextlib.suppress(BlockingIOError):  # what came before the filter stood
        while packets.recv(1):
            pass
    return packets


def _notifications(family: int) -> socket.socket:
    """A socket for the notifications of one netlink family from all network namespaces that have a number here."""
    heard = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, family)
    _widen(heard)
    heard.setsockopt(_SOL_NETLINK, _LISTEN_ALL_NSID, 1)
    heard.bind((0, 0))
    for group in _GROUPS[family]:
        heard.setsockopt(_SOL_NETLINK, _ADD_MEMBERSHIP, group)
    return heard


def _widen(any_socket: socket.socket) -> None:
    try:
        any_socket.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _BUFFER_BYTES)
    except PermissionError:  # in a user namespace: as much as everybody may have
        any_socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER_BYTES)


def main() -> None:
    """Run the witness's process."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--state", type=Path, required=True)
    Capture(parser.parse_args().state).run()


if __name__ == "__main__":
    main()
