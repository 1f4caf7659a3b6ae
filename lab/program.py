"""One program of the lab as a process: start, stop, kill, pause, resume.

Its standard output and error go to a log file of its own. It dies with the process that started it (PR_SET_PDEATHSIG),
and in any case with the closed world.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from lab.errors import ProgramError

if TYPE_CHECKING:
    from pathlib import Path

_STOP_S = 5.0
# PR_SET_PDEATHSIG fires when the *thread* that started a process ends: so one thread, which lives as long as we do.
_starter = ThreadPoolExecutor(max_workers=1, thread_name_prefix="lab-starter")


def spawn(
    argv: list[str], log: Path, netns: str | None = None, env: dict[str, str] | None = None
) -> subprocess.Popen[bytes]:
    """Start a program in a named network namespace; its output goes to the log."""
    inside = ["nsenter", f"--net=/run/netns/{netns}"] if netns else []
    command = [*inside, "setpriv", "--pdeathsig", "KILL", *argv]
    environment = {**os.environ, **(env or {})}
    with log.open("ab") as output:

        def start() -> subprocess.Popen[bytes]:
            return subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=environment, start_new_session=True
            )

        return _starter.submit(start).result()


@dataclass(slots=True)
class Program:
    """A program that can be started again after its end; the same name, arguments and log."""

    name: str
    argv: list[str]
    log: Path
    netns: str | None = None
    env: dict[str, str] = field(default_factory=dict)
    _process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """Its process id.

        Raises:
            ProgramError: it is not running.
        """
        if self._process is None or self._process.poll() is not None:
            raise ProgramError(f"{self.name} is not running; its log: {self.log}\n{self.tail()}")
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether it has been started and has not ended."""
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Start it; nothing happens when it runs."""
        if not self.running:
            self._process = spawn(self.argv, self.log, self.netns, self.env)

    def stop(self, timeout_s: float = _STOP_S) -> None:
        """SIGTERM, and SIGKILL when that does not help in time."""
        self._signal(signal.SIGTERM)
        self._signal(signal.SIGCONT)
        if self._process is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(timeout_s)
        self.kill()

    def kill(self) -> None:
        """SIGKILL, and wait for its end."""
        self._signal(signal.SIGKILL)
        if self._process is not None:
            self._process.wait()

    def pause(self) -> None:
        """SIGSTOP."""
        os.kill(self.pid, signal.SIGSTOP)

    def resume(self) -> None:
        """SIGCONT."""
        os.kill(self.pid, signal.SIGCONT)

    def wait(self, timeout_s: float) -> int:
        """Wait for its end by itself.

        Returns:
            Its exit code.

        Raises:
            ProgramError: it goes on.
        """
        if self._process is None:
            raise ProgramError(f"{self.name} was never started")
        try:
            return self._process.wait(timeout_s)
        except subprocess.TimeoutExpired as error:
            raise ProgramError(f"{self.name} is still running after {timeout_s:g} s") from error

    def check(self) -> None:
        """Refuse to go on when it has ended.

        Raises:
            ProgramError: it has; shows the end of its log.
        """
        if self._process is None or (code := self._process.poll()) is None:
            return
        said = self.tail()
        advice = ""
        if "address already in use" in said:
            advice = "\nIts port is taken: another lab runs in this closed world; end it first"
        raise ProgramError(f"{self.name} ended with {code}; its log: {self.log}\n{said}{advice}")

    def tail(self, lines: int = 8) -> str:
        """The end of its log."""
        try:
            text = self.log.read_text(errors="replace")
        except OSError:
            return ""
        return "\n".join(line[:300] for line in text.splitlines()[-lines:])

    def _signal(self, number: signal.Signals) -> None:
        if self.running and self._process is not None:
            self._process.send_signal(number)
