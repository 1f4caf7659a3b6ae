"""A client on the switch that pings an address once a millisecond and says for how long it got no answer.

    probe = Client("client-1", state, logs).watch("34.123.10.1")
    ...
    for gap in probe.stop(): print(gap.start_s, gap.length_ms)

A process of its own for each probe (`python -m lab.witness.client`), with a raw ICMP socket and its kernel's neighbour
table, as any other host has. Times of answers are the kernel's. What the process itself overslept is told as its stalls
and is left out of the gaps. `gaps_of` is pure. Not promised: gaps shorter than the interval.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import os
import select
import socket
import struct
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self

from lab.errors import CommandError, ProgramError
from lab.program import Program
from lab.wiring import Links

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

INTERVAL_S: Final = 0.001
LATE_S: Final = 0.005
"""An answer that comes later than this after its request counts as none: the request had waited in a queue."""
_STALL_S: Final = 0.002
_SO_TIMESTAMPNS = 35
_ECHO_REQUEST, _ECHO_REPLY = 8, 0
_ANSWER_S: Final = 10.0


@dataclass(frozen=True, slots=True)
class Gap:
    """A time without answers.

    Attributes:
        start_s: when the last answered request was sent (CLOCK_REALTIME); of a gap at the beginning, the first request.
        length_ms: from there to the next answered request, without the interval and what the client overslept.
        requests: how many got no answer.
        stalled_ms: how long the client overslept meanwhile: the gap was at most that much longer.
        ended: False: there was no answer until the end.
    """

    start_s: float
    length_ms: float
    requests: int
    stalled_ms: float
    ended: bool

    @property
    def most_s(self) -> float:
        """How long it was at most, in seconds: what the client overslept may have been without answers too."""
        return (self.length_ms + self.stalled_ms) / 1000


@dataclass(frozen=True, slots=True)
class Stall:
    """A time in which the client itself did not run."""

    start_s: float
    length_ms: float


@dataclass(frozen=True, slots=True)
class Request:
    """One request: when it was sent, and when it was answered, if it was."""

    sent_s: float
    answered_s: float | None = None

    @property
    def good(self) -> bool:
        """Whether it was answered in time."""
        return self.answered_s is not None and self.answered_s - self.sent_s <= LATE_S


def stalls_of(requests: Sequence[Request]) -> list[Stall]:
    """Times in which the client sent nothing although it should have."""
    pairs = itertools.pairwise(requests)
    return [
        Stall(one.sent_s, (next_.sent_s - one.sent_s - INTERVAL_S) * 1000)
        for one, next_ in pairs
        if next_.sent_s - one.sent_s > _STALL_S
    ]


def gaps_of(requests: Sequence[Request]) -> list[Gap]:
    """Times without answers; a request without one at the end counts only if it could have been answered by then."""
    found = []
    last: int | None = None
    for at, request in enumerate(requests):
        if not request.good:
            continue
        first = 0 if last is None else last
        if at - first > (1 if last is not None else 0):
            found.append(_gap(requests[first : at + 1], unanswered=at - first - (last is not None), ended=True))
        last = at
    tail = requests[last:] if last is not None else requests
    unanswered = len(tail) - (last is not None)
    if unanswered > 0:
        found.append(_gap(tail, unanswered=unanswered, ended=False))
    return found


def _gap(part: Sequence[Request], *, unanswered: int, ended: bool) -> Gap:
    stalled_ms = sum(stall.length_ms for stall in stalls_of(part))
    whole_ms = (part[-1].sent_s - part[0].sent_s) * 1000
    interval_ms = INTERVAL_S * 1000 if part[0].good and ended else 0.0
    return Gap(part[0].sent_s, max(whole_ms - interval_ms - stalled_ms, 0.0), unanswered, stalled_ms, ended)


# for who asks --------------------------------------------------------------------------------------------------


class Client:
    """A host on the switch from which addresses can be watched."""

    def __init__(self, netns: str, folder: Path) -> None:
        """Nothing is started before `watch`.

        Args:
            netns: the client's network namespace; its link is `eth0`.
            folder: where its logs and sockets go.
        """
        self._netns = netns
        self._folder = folder
        self._numbers = itertools.count(1)
        self._routed: set[str] = set()

    def watch(self, address: str) -> Probe:
        """Ping an address from now on.

        Raises:
            ProgramError: the process did not start.
        """
        self._reach(address)
        name = f"{self._netns}-{next(self._numbers)}"
        self._folder.mkdir(parents=True, exist_ok=True)
        return Probe(name, self._netns, address, self._folder)

    def run(self, address: str, argv: Sequence[str], timeout_s: float) -> str:
        """Run a program that talks to an address as any other host on the network does.

        Args:
            address: without prefix length.
            argv: the program and its arguments.
            timeout_s: how long it may take.

        Returns:
            Its standard output.

        Raises:
            CommandError: it failed; carries what it said.
            subprocess.TimeoutExpired: it took longer.
        """
        self._reach(address)
        command = ["nsenter", f"--net=/run/netns/{self._netns}", *argv]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=timeout_s)
        if done.returncode != 0:
            raise CommandError(f"`{argv[0]}` on {self._netns} ended with {done.returncode}: {done.stderr.strip()}")
        return done.stdout

    def _reach(self, address: str) -> None:
        if address in self._routed:
            return
        with Links(self._netns) as links:  # of no network here: it is to be asked for on the client's own link
            links.route(f"{address}/32", "eth0")
        self._routed.add(address)


class Probe:
    """Pings one address until it is stopped; as a context manager it is stopped at the end."""

    def __init__(self, name: str, netns: str, address: str, folder: Path) -> None:
        """Start it; it pings when this returns."""
        self.stalls: list[Stall] = []
        self.requests = 0
        self._gaps: list[Gap] | None = None
        control = folder / f"{name}.sock"
        argv = [sys.executable, "-m", "lab.witness.client", "--address", address, "--control", str(control)]
        self._program = Program(name, argv, folder / f"{name}.log", netns)
        with socket.socket(socket.AF_UNIX) as door:
            door.bind(str(control))
            door.listen(1)
            door.settimeout(_ANSWER_S)
            self._program.start()
            try:
                self._connection, _ = door.accept()
            except TimeoutError as error:
                self._program.kill()
                raise ProgramError(
                    f"{name} did not start; its log: {self._program.log}\n{self._program.tail()}"
                ) from error
        self._connection.settimeout(_ANSWER_S)
        self._answers = self._connection.makefile("rb")
        self._answer()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> list[Gap]:
        """End it; asked again it gives the same.

        Raises:
            ProgramError: its process is gone, and with it what it saw.
        """
        if self._gaps is None:
            with self._connection, self._answers, contextlib.suppress(BrokenPipeError):
                self._connection.sendall(b"stop\n")
                said = self._answer()
            self._program.kill()
            self._gaps = [Gap(**each) for each in said["gaps"]]
            self.stalls = [Stall(**each) for each in said["stalls"]]
            self.requests = said["requests"]
        return self._gaps

    def _answer(self) -> dict[str, Any]:
        line = self._answers.readline()
        if not line:
            raise ProgramError(f"{self._program.name} is gone; its log: {self._program.log}\n{self._program.tail()}")
        answer: dict[str, Any] = json.loads(line)
        return answer


# the process ---------------------------------------------------------------------------------------------------


class _Pinger:
    def __init__(self, address: str) -> None:
        self._address = (address, 0)
        self._identity = os.getpid() & 0xFFFF
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
        self._socket.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        self._socket.settimeout(0)
        self._sent: list[float] = []
        self._answered: dict[int, float] = {}

    def run(self, until: socket.socket) -> list[Request]:
        """Ping until something can be read."""
        next_s = time.monotonic()
        while True:
            left_s = next_s - time.monotonic()
            if left_s <= 0:
                self._send()
                next_s = max(next_s + INTERVAL_S, time.monotonic() - INTERVAL_S)  # no bursts to catch up
                left_s = max(next_s - time.monotonic(), 0)
            ready = select.select([self._socket, until], [], [], left_s)[0]
            if self._socket in ready:
                self._receive()
            if until in ready:
                break
        self._last_answers()
        return [Request(sent, self._answered.get(number)) for number, sent in enumerate(self._sent)]

    def _last_answers(self) -> None:
        deadline = time.monotonic() + LATE_S
        while len(self._sent) - 1 not in self._answered and (left_s := deadline - time.monotonic()) > 0:
            if select.select([self._socket], [], [], left_s)[0]:
                self._receive()

    def _send(self) -> None:
        number = len(self._sent)
        body = struct.pack("!BBHHHQ", _ECHO_REQUEST, 0, 0, self._identity, number & 0xFFFF, number)
        packet = body[:2] + struct.pack("!H", _checksum(body)) + body[4:]
        with contextlib.suppress(OSError):  # no route to it, no link, no buffer: no answer
            self._socket.sendto(packet, self._address)
        self._sent.append(time.time())

    def _receive(self) -> None:
        for data, at_s in _ready(self._socket):
            header = (data[0] & 0x0F) * 4
            if len(data) < header + 16:
                continue
            kind, _, _, identity, _, number = struct.unpack_from("!BBHHHQ", data, header)
            if (kind, identity) == (_ECHO_REPLY, self._identity):
                self._answered.setdefault(number, at_s)


def _ready(packets: socket.socket) -> Iterator[tuple[bytes, float]]:
    while True:
        try:
            data, ancillary, _, _ = packets.recvmsg(256, 64)
        except OSError:  # nothing more, or an error that the network reported for one of them
            return
        seconds, nanoseconds = struct.unpack("@qq", ancillary[0][2])
        yield data, seconds + nanoseconds / 1e9


def _checksum(data: bytes) -> int:
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    total = (total & 0xFFFF) + (total >> 16)
    return int(~(total + (total >> 16)) & 0xFFFF)


def main() -> None:
    """Ping until told to stop."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--address", required=True)
    parser.add_argument("--control", type=Path, required=True)
    arguments = parser.parse_args()
    with socket.socket(socket.AF_UNIX) as control:
        control.connect(str(arguments.control))
        pinger = _Pinger(arguments.address)
        control.sendall(b"{}\n")
        requests = pinger.run(control)
        said = {
            "requests": len(requests),
            "gaps": [asdict(gap) for gap in gaps_of(requests)],
            "stalls": [asdict(stall) for stall in stalls_of(requests)],
        }
        control.sendall(json.dumps(said).encode() + b"\n")


if __name__ == "__main__":
    main()
