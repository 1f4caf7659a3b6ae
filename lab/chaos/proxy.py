"""A proxy in front of the API server that makes it slow, or lets requests through and holds the answers back.

    with Proxy(folder) as proxy:                  # from now on all that comes over the network passes it
        proxy.set(delay_s=1.0)                    # every request reaches the API server a second later
        proxy.set(hold=True, only=("10.200.1.10",))   # this one's requests arrive, its answers do not
        proxy.set()                               # as if it were not there; what was held arrives, late
        proxy.set(forget=True)                    # connections that are open carry nothing any more; new ones do

It passes TLS on as it is, handshakes without delay. Connections that exist when it comes or goes are cut. What this
process asks by its own cable never passes it. A process of its own (`python -m lab.chaos.proxy`) in `cp`; the kernel
sends it what is meant for the API server (`lab.chaos.redirect`). Not promised: that each request is late by the same,
where several are in one chunk.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import socket
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self

from lab.errors import CommandError, ProgramError
from lab.program import Program
from lab.world.control_plane import ADDRESS, NETNS
from lab.world.control_plane import PORT as API_PORT

if TYPE_CHECKING:
    from collections.abc import Iterator

PORT: Final = 6444
_ANSWER_S: Final = 10.0
_CHUNK: Final = 1 << 16
_HELLO, _CHANGE_CIPHER = 0x16, 0x14
_FINISHED_BYTES: Final = 150
"""What ends a client's handshake is shorter; a request, or both together, is longer."""


class Proxy:
    """Starts the process and tells it what to do; as a context manager it is in the way and out of it again."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._control = folder / "proxy.sock"
        argv = [sys.executable, "-m", "lab.chaos.proxy", "--control", str(self._control)]
        self._program = Program("proxy", argv, folder / "proxy.log", NETNS)

    def __enter__(self) -> Self:
        """Put it in the way.

        Raises:
            CommandError: the redirection was refused.
            ProgramError: its process did not start.
        """
        self._control.unlink(missing_ok=True)
        with socket.socket(socket.AF_UNIX) as door:
            door.bind(str(self._control))
            door.listen(1)
            door.settimeout(_ANSWER_S)
            self._program.start()
            try:
                self._connection, _ = door.accept()
            except TimeoutError as error:
                self._program.kill()
                raise ProgramError(f"the proxy did not start:\n{self._program.tail()}") from error
        self._connection.settimeout(_ANSWER_S)
        self._answers = self._connection.makefile("rb")
        self.set()
        _redirect("add", "eth0", ADDRESS, str(API_PORT), str(PORT))
        # who has a connection past the proxy is told at once, not when it is next used
        _in_cp("ss", "-K", "state", "established", "sport", "=", f":{API_PORT}")
        return self

    def __exit__(self, *_: object) -> None:
        self._answers.close()
        self._connection.close()
        # first: what ends a connection must still be translated on its way to the client
        self._program.kill()
        _redirect("remove")

    def set(
        self, *, delay_s: float = 0.0, hold: bool = False, forget: bool = False, only: tuple[str, ...] = ()
    ) -> None:
        """Say what it does from now on.

        Args:
            delay_s: by how much what clients send is late.
            hold: whether the API server's answers are held back; they arrive when they no longer are.
            forget: whether the connections that are open now carry nothing from now on, as behind a load balancer that
                has forgotten them and acknowledges what comes.
            only: addresses of the clients that this is for; none: all.

        Raises:
            ProgramError: it does not answer.
        """
        request = {"delay_s": delay_s, "hold": hold, "forget": forget, "only": only}
        try:
            self._connection.sendall(json.dumps(request).encode() + b"\n")
            answered = self._answers.readline()
        except OSError as error:
            raise ProgramError(f"the proxy does not answer {request}: {error}") from error
        if not answered:
            raise ProgramError(f"the proxy is gone:\n{self._program.tail()}")


def _in_cp(*argv: str) -> subprocess.CompletedProcess[str]:
    command = ["nsenter", f"--net=/run/netns/{NETNS}", "--", *argv]
    return subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)


def _redirect(*what: str) -> None:
    done = _in_cp(sys.executable, "-m", "lab.chaos.redirect", *what)
    if done.returncode != 0:
        raise CommandError(f"cannot redirect traffic to the proxy: {done.stderr.strip()}")


# the process ---------------------------------------------------------------------------------------------------


class _Line:
    """One direction of one connection: what is read is written later, in order."""

    def __init__(self, rule: _Rule, peer: str, forgotten: asyncio.Event, *, answers: bool) -> None:
        self._rule = rule
        self._peer = peer
        self._forgotten = forgotten
        self._answers = answers
        self._waiting: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(maxsize=1024)

    async def carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async with asyncio.TaskGroup() as both:
            both.create_task(self._read(reader))
            both.create_task(self._write(writer))

    async def _read(self, reader: asyncio.StreamReader) -> None:
        clock = asyncio.get_running_loop()
        while data := await reader.read(_CHUNK):
            await self._waiting.put((clock.time() + self._delay_s(data), data))
        await self._waiting.put((0.0, b""))

    async def _write(self, writer: asyncio.StreamWriter) -> None:
        clock = asyncio.get_running_loop()
        while True:
            due_s, data = await self._waiting.get()
            if (left_s := due_s - clock.time()) > 0:
                await asyncio.sleep(left_s)
            if self._answers:
                await self._rule.let_through(self._peer)
            if self._forgotten.is_set():
                continue
            if not data:
                raise ConnectionResetError("the other side has closed it")
            writer.write(data)
            await writer.drain()

    def _delay_s(self, data: bytes) -> float:
        shakes_hands = data[0] == _HELLO or (data[0] == _CHANGE_CIPHER and len(data) < _FINISHED_BYTES)
        return 0.0 if self._answers or shakes_hands else self._rule.delay_of(self._peer)


class _Rule:
    """What is to be done now."""

    def __init__(self) -> None:
        self._now: dict[str, Any] = {"delay_s": 0.0, "hold": False, "only": []}
        self._changed = asyncio.Condition()
        self._open: list[tuple[str, asyncio.Event]] = []

    async def set(self, now: dict[str, Any]) -> None:
        async with self._changed:
            self._now = now
            self._changed.notify_all()
        if now["forget"]:
            for peer, forgotten in self._open:
                if self._concerns(peer):
                    forgotten.set()

    @contextlib.contextmanager
    def opened(self, peer: str) -> Iterator[asyncio.Event]:
        """Know of a connection while it is open; gives what is set when it is to be forgotten."""
        known = (peer, asyncio.Event())
        self._open.append(known)
        try:
            yield known[1]
        finally:
            self._open.remove(known)

    def delay_of(self, peer: str) -> float:
        return float(self._now["delay_s"]) if self._concerns(peer) else 0.0

    async def let_through(self, peer: str) -> None:
        if self._now["hold"]:
            async with self._changed:
                await self._changed.wait_for(lambda: not (self._now["hold"] and self._concerns(peer)))

    def _concerns(self, peer: str) -> bool:
        return not self._now["only"] or peer in self._now["only"]


async def _pass_on(rule: _Rule, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    peer = str(writer.get_extra_info("peername")[0])
    ends = [writer]
    try:
        up_reader, up_writer = await asyncio.open_connection(ADDRESS, API_PORT)
        ends.append(up_writer)
        with rule.opened(peer) as forgotten:
            async with asyncio.TaskGroup() as both:
                both.create_task(_Line(rule, peer, forgotten, answers=False).carry(reader, up_writer))
                both.create_task(_Line(rule, peer, forgotten, answers=True).carry(up_reader, writer))
    except (OSError, ExceptionGroup):  # either side has closed it, or there is no API server: so for the other side
        pass
    finally:
        for each in ends:
            each.transport.abort()


async def _serve(control: Path) -> None:
    rule = _Rule()
    await asyncio.start_server(lambda reader, writer: _pass_on(rule, reader, writer), "0.0.0.0", PORT)
    requests, answers = await asyncio.open_unix_connection(control)
    while line := await requests.readline():
        await rule.set(json.loads(line))
        answers.write(b"{}\n")


def main() -> None:
    """Pass on until whoever started it has gone."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--control", type=Path, required=True)
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(_serve(parser.parse_args().control))


if __name__ == "__main__":
    main()
