"""The processes of a Pod's containers: the real sidecar, confined as its manifest has it, and stand-ins for the apps.

Sidecar: UID 0 with NET_ADMIN and NET_RAW and nothing else, no new privileges, /proc/sys read-only, a mount
namespace of its own in which its volume stands where its manifest mounts it, and an environment that holds only what
its manifest, the kubelet and the downward API give. Apps may bind low ports, no more. Root file system and PIDs are
the world's.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import sys
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

from lab.errors import ProgramError
from lab.program import spawn
from lab.world import app

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable

_SETUP: Final = """
set -e
volume=$1; shift
while [ "$1" != -- ]; do mount --bind "$volume" "$1"; shift; done
mount --bind /proc/sys /proc/sys && mount -o remount,bind,ro /proc/sys || echo 'lab: /proc/sys stays writable here'
shift
exec "$@"
"""
_PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_START_S: Final = 10.0
_ANSWER_S: Final = 5.0


@dataclass(slots=True)
class Process:
    """A container's process; `ended` is called with its exit code, in a thread of its own."""

    name: str
    _process: subprocess.Popen[bytes]
    control: socket.socket | None = None
    _ended: threading.Event = field(default_factory=threading.Event)

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def watch(self, ended: Callable[[Process, int], None]) -> None:
        """Call back when it ends; an exit by a signal is 128 and its number."""

        def wait() -> None:
            code = self._process.wait()
            self._ended.set()
            ended(self, 128 - code if code < 0 else code)

        threading.Thread(target=wait, name=f"wait-{self.name}", daemon=True).start()

    def stop(self, grace_s: float) -> None:
        """SIGTERM, and SIGKILL when that does not help in time."""
        self._signal(signal.SIGTERM)
        if not self._ended.wait(max(grace_s, 0)):
            self.kill()
        if self.control:
            self.control.close()

    def kill(self) -> None:
        """SIGKILL, and wait for its end."""
        self._signal(signal.SIGKILL)
        self._ended.wait()

    def tell(self, word: str) -> None:
        """Tell a stand-in app `fail` or `heal`; it is in force when this returns.

        Raises:
            ProgramError: it does not answer.
        """
        try:
            if self.control is None:
                raise ProgramError(f"{self.name} accepts no commands")
            self.control.sendall(f"{word}\n".encode())
            if self.control.recv(16) != b"ok\n":
                raise ProgramError(f"{self.name} is gone")
        except OSError as error:
            raise ProgramError(f"{self.name} does not answer: {error}") from error

    def _signal(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            if not self._ended.is_set():
                os.kill(self.pid, number)


def start_sidecar(
    argv: list[str], log: Path, netns: str, *, volume: Path, mounts: list[str], env: dict[str, str]
) -> Process:
    """Start the sidecar in a Pod's network namespace.

    Args:
        argv: the program.
        log: what it says.
        netns: the Pod's.
        volume: a directory with `token`, `ca.crt`, `namespace` and `annotations`.
        mounts: where it is mounted.
        env: its whole environment, but for PATH.
    """
    for each in mounts:
        Path(each).mkdir(parents=True, exist_ok=True)  # on the world's own /run
    confined = ["setpriv", "--bounding-set=-all,+net_admin,+net_raw", "--inh-caps=-all", "--no-new-privs"]
    clean = ["env", "-i", f"PATH={_PATH}", *(f"{key}={value}" for key, value in env.items())]
    setup = ["sh", "-c", _SETUP, "setup", str(volume), *mounts, "--"]
    command = ["unshare", "--mount", "--propagation", "private", "--", *setup, *confined, *clean, *argv]
    return Process("sidecar", spawn(command, log, netns))


def start_app(name: str, log: Path, netns: str, ports: list[int], *, refuses: bool, control: Path) -> Process:
    """Start the stand-in for an app; it listens when this returns.

    Raises:
        ProgramError: it did not start.
    """
    bare = ["setpriv", "--bounding-set=-all,+net_bind_service", "--inh-caps=-all", "--no-new-privs"]
    program = [sys.executable, "-I", "-S", str(app.__file__), str(control), "yes" if refuses else "no"]
    control.unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX) as door:
        door.bind(str(control))
        door.listen(1)
        process = spawn([*bare, *program, *map(str, ports)], log, netns)
        connection = _knock(door, process)
    if connection is None or connection.recv(16) != b"started\n":
        process.kill()
        process.wait()
        raise ProgramError(f"the stand-in for container {name} did not start; its log: {log}")
    return Process(name, process, connection)


def _knock(door: socket.socket, process: subprocess.Popen[bytes]) -> socket.socket | None:
    """Wait until a process connects; None when it ends before, or takes too long."""
    end = os.pidfd_open(process.pid)
    try:
        ready = select.select([door.fileno(), end], [], [], _START_S)[0]
    finally:
        os.close(end)
    if door.fileno() not in ready:
        return None
    connection, _ = door.accept()
    connection.settimeout(_ANSWER_S)
    return connection
