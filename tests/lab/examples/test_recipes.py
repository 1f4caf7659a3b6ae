"""The recipes of examples/tcp-server in each language: started without the address, they serve when it comes."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from lab import go_toolchain, wiring
from lab.binaries import user_cache
from lab.program import Program
from lab.wiring import Links
from tests.lab.sidecar.kernel.cable import inside
from tests.lab.steps import SOON_S

if TYPE_CHECKING:
    from collections.abc import Iterator

CHECKOUT = Path(__file__).parents[3]
APPS = CHECKOUT / "images" / "examples"
NETNS = "recipe"
ADDRESS, THERE = "203.0.113.51", "127.0.0.1"


@pytest.fixture
def netns() -> Iterator[str]:
    wiring.create(NETNS)
    yield NETNS
    wiring.delete(NETNS)


@pytest.fixture(scope="module")
def go_server(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The recipe in Go, vetted and compiled with the standard library alone."""
    go = go_toolchain.find(user_cache(), lambda: pytest.fail("there is no Go in the lab's cache"))
    environment = {**os.environ, **go.environment, "GO111MODULE": "off", "GOPROXY": "off", "CGO_ENABLED": "0"}
    made, source = str(tmp_path_factory.mktemp("go") / "tcp_server"), str(APPS / "tcp_server.go")
    for arguments in (["vet", source], ["build", "-o", made, source]):
        done = subprocess.run([go.command, *arguments], env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    return made


def command(language: str, address: str, request: pytest.FixtureRequest) -> list[str]:
    match language:
        case "python":
            return [sys.executable, "-B", str(APPS / "tcp_server.py"), address]
        case "shell":
            server = [sys.executable, "-B", str(APPS / "hello.py"), address]
            return ["sh", str(APPS / "tcp_server.sh"), address, *server]
        case _:
            return [request.getfixturevalue("go_server"), address]


def answer(address: str) -> str:
    """Ask until it is answered."""
    deadline, pause = time.monotonic() + SOON_S, threading.Event()
    with inside(NETNS):
        while True:
            try:
                return urllib.request.urlopen(f"http://{address}:8080/", timeout=1).read().decode()
            except OSError:
                assert time.monotonic() < deadline, f"nobody serves at {address}"
                pause.wait(0.05)


@pytest.mark.parametrize("language", ["python", "shell", "go"])
def test_it_waits_for_its_address(netns, language, request, tmp_path):
    waiting, other = (
        Program(f"{language}-{address}", command(language, address, request), tmp_path / f"{address}.log", netns)
        for address in (ADDRESS, THERE)
    )
    try:
        waiting.start()
        other.start()
        assert answer(THERE) == f"Hello from {socket.gethostname()}\n"
        waiting.check()  # it was started before the other one, which serves, and so it waits
        with Links(netns) as links:
            links.address("lo", f"{ADDRESS}/32")
        assert answer(ADDRESS) == f"Hello from {socket.gethostname()}\n"
    finally:
        waiting.kill()
        other.kill()
