"""The catalogue of faults: a strike is whole or none, for what is struck by half is healed by nobody."""

from __future__ import annotations

import os
import signal
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from lab.chaos.faults import named
from lab.errors import LabError


@dataclass(frozen=True)
class OnePod:
    """A Pod whose sidecar is a process, or waits to be started again."""

    process: subprocess.Popen[bytes] | None

    @property
    def sidecar_pid(self) -> int:
        if self.process is None:
            raise LabError("no sidecar is running")
        return self.process.pid


@dataclass(frozen=True)
class TwoPods:
    """What the fault asks a scene for."""

    pods: tuple[OnePod, OnePod]


@pytest.fixture
def process():
    with subprocess.Popen(["sleep", "60"]) as started:
        yield started
        started.kill()


def stopped(process: subprocess.Popen[bytes]) -> bool:
    return Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"


def test_where_one_of_two_cannot_be_stopped_the_other_is_not(process):
    with pytest.raises(LabError, match="no sidecar"):
        named("both sidecars stopped").strike(TwoPods((OnePod(process), OnePod(None))), None)
    assert not stopped(process)


def test_both_are_stopped_and_healed(process):
    with subprocess.Popen(["sleep", "60"]) as other:
        heal = named("both sidecars stopped").strike(TwoPods((OnePod(process), OnePod(other))), None)
        # a stop is told to the parent, and is in force when it is
        for each in (process, other):
            assert waited(each) == signal.SIGSTOP
            assert stopped(each)
        heal()
        assert not stopped(process)
        assert not stopped(other)
        other.kill()


def waited(process: subprocess.Popen[bytes]) -> int:
    return os.WSTOPSIG(os.waitpid(process.pid, os.WUNTRACED)[1])
