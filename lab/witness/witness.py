"""The witness, as tests and the demo see it: every claim to an address on the switch, every kernel event of all Pods.

    mark = world.witness.mark()
    ...
    world.witness.frames(mark); world.witness.kernel(mark); world.witness.two_holders(mark)

What it says comes from the kernels and the wire alone. A process of its own (`lab.witness.capture`) listens; here is
what starts and reads it. Evidence with holes is refused: when the process could not keep up, asking raises.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import select
import socket
import sys
import time
from typing import TYPE_CHECKING, Any, Final

import msgspec

from lab.errors import ProgramError, WaitTimeout
from lab.program import Program
from lab.witness import judge
from lab.witness.capture import CONTROL, FILE
from lab.witness.frames import Frame
from lab.witness.kernel_events import AddressEvent, FenceEvent, KernelEvent, LinkEvent, SpaceGone

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

__all__ = ["AddressEvent", "FenceEvent", "Frame", "Witness", "register"]

_START_S: Final = 10.0
_ANSWER_S: Final = 10.0
_decode = msgspec.json.Decoder(Frame | AddressEvent | FenceEvent | LinkEvent | SpaceGone).decode


class Witness:
    """Starts the witness's process, and reads what it has written."""

    def __init__(self, state: Path, log: Path, netns: str = "switch") -> None:
        """Nothing is started yet.

        Args:
            state: a directory in which it may write; `witness.sock` there is where nodes register.
            log: its log file.
            netns: the switch's network namespace.
        """
        self._state = state
        argv = [sys.executable, "-m", "lab.witness.capture", "--state", str(state)]
        self.program = Program("witness", argv, log, netns)
        self._read = 0
        self._frames: list[Frame] = []
        self._kernel: list[KernelEvent] = []

    def start(self) -> None:
        """Start it; it listens when this returns.

        Raises:
            ProgramError: it did not start.
        """
        with _appearing(self._state / CONTROL) as appeared:
            self.program.start()
            if not appeared(_START_S):
                self.program.check()
                self.program.kill()
                raise ProgramError(f"the witness did not start within {_START_S:g} s; its log: {self.program.log}")
        self._flush()

    def stop(self) -> None:
        """End it; what it has written stays."""
        self.program.kill()

    def mark(self) -> float:
        """A time, for `since`: now."""
        return time.time()

    def frames(self, since_s: float = 0.0) -> list[Frame]:
        """ARP frames and echo replies that entered the switch from `since_s` until now, oldest first."""
        self._flush()
        return sorted((each for each in self._frames if each.time_s >= since_s), key=lambda each: each.time_s)

    def kernel(self, since_s: float = 0.0) -> list[AddressEvent]:
        """Addresses added and removed in all Pods from `since_s` until now, oldest first."""
        return [each for each in self.events() if isinstance(each, AddressEvent) and each.time_s >= since_s]

    def events(self) -> list[KernelEvent]:
        """Everything that the Pods' kernels have said since the start: the judge's evidence."""
        self._flush()
        return list(self._kernel)

    def two_holders(self, since_s: float = 0.0) -> list[judge.Overlap]:
        """Times since then at which an address had two holders."""
        found = judge.two_holders(self.events(), until_s=time.time())
        return [each for each in found if each.end_s is None or each.end_s >= since_s]

    def false_speakers(self, since_s: float = 0.0) -> list[Frame]:
        """Frames since then by which a Pod claimed an address that another one held."""
        return judge.false_speakers(self.frames(since_s), self.events())

    def wait_frame(self, predicate: Callable[[Frame], object], timeout_s: float, since_s: float | None = None) -> Frame:
        """Wait for a frame that is as wished.

        Args:
            predicate: asked for every frame.
            timeout_s: how long to wait.
            since_s: frames from then on count too; None: only new ones.

        Raises:
            WaitTimeout: none came.
        """
        deadline = time.monotonic() + timeout_s
        with self._connection() as follow:
            _ask(follow, {"do": "follow"})
            for frame in self.frames(since_s) if since_s is not None else []:
                if predicate(frame):
                    return frame
            for line in _lines(follow, deadline):
                record = _decode(line)
                if isinstance(record, Frame) and predicate(record):
                    return record
        raise WaitTimeout(f"timed out after {timeout_s:g} s waiting for a frame on the switch")

    def _flush(self) -> None:
        """Take in everything until now.

        Raises:
            ProgramError: it does not answer, or it has lost something.
        """
        with self._connection() as control:
            lost = _ask(control, {"do": "flush"})["lost"]
        if lost:
            raise ProgramError(f"the witness lost frames {lost} times, the machine is too busy: run it again")
        with (self._state / FILE).open("rb") as file:
            file.seek(self._read)
            data = file.read()
        complete = data[: data.rfind(b"\n") + 1]
        self._read += len(complete)
        for line in complete.splitlines():
            record = _decode(line)
            if isinstance(record, Frame):
                self._frames.append(record)
            else:
                self._kernel.append(record)

    def _connection(self) -> socket.socket:
        self.program.check()
        return _connect(self._state / CONTROL)


def register(control: Path, netns: str) -> None:
    """Tell the witness of a network namespace that has just been made, before anything is in it.

    Raises:
        ProgramError: it does not answer, or it refuses.
    """
    with _connect(control) as connection:
        _ask(connection, {"do": "register", "netns": netns})


def _connect(control: Path) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX)
    connection.settimeout(_ANSWER_S)
    try:
        connection.connect(str(control))
    except OSError as error:
        connection.close()
        raise ProgramError(f"the witness does not answer at {control}: {error}") from error
    return connection


def _ask(control: socket.socket, request: dict[str, Any]) -> dict[str, Any]:
    line = b""
    try:
        control.sendall(json.dumps(request).encode() + b"\n")
        while not line.endswith(b"\n"):  # byte by byte: what follows the answer is not ours
            if not (byte := control.recv(1)):
                break
            line += byte
        answer: dict[str, Any] = json.loads(line)
    except (OSError, ValueError) as error:
        raise ProgramError(f"the witness does not answer {request}: {error!r}") from error
    if not answer["ok"]:
        raise ProgramError(f"the witness refused {request}: {answer['error']}")
    return answer


def _lines(connection: socket.socket, deadline: float) -> Any:
    pending = b""
    while (left_s := deadline - time.monotonic()) > 0:
        if not select.select([connection], [], [], left_s)[0]:
            return
        if not (data := connection.recv(1 << 16)):
            return
        *complete, pending = (pending + data).split(b"\n")
        yield from complete


@contextlib.contextmanager
def _appearing(path: Path) -> Any:
    """Wait for a file without polling: by inotify on its directory."""
    libc = ctypes.CDLL(None, use_errno=True)
    notified = libc.inotify_init1(os.O_CLOEXEC | os.O_NONBLOCK)
    libc.inotify_add_watch(notified, str(path.parent).encode(), 0x80)  # IN_MOVED_TO

    def appeared(timeout_s: float) -> bool:
        deadline = time.monotonic() + timeout_s
        while not path.exists():
            left_s = deadline - time.monotonic()
            if left_s <= 0 or not select.select([notified], [], [], left_s)[0]:
                return False
            os.read(notified, 4096)
        return True

    try:
        yield appeared
    finally:
        os.close(notified)
