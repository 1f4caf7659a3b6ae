"""The witness against real kernels: what it says of addresses, fences, links and frames, in order and in time."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from lab import wiring
from lab.errors import ProgramError, WaitTimeout
from lab.wiring import Links
from lab.witness import witness
from lab.witness.capture import CONTROL
from lab.witness.client import Client
from lab.witness.kernel_events import FenceEvent, SpaceGone
from lab.witness.witness import Witness

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.lab

A = "34.123.10.1"
_FENCE = "import sys,sidecar.kernel.fence as f; f.Fence().until({sys.argv[1]: 'eth0'}, int(sys.argv[2]))"
_numbers = itertools.count(1)


class Lan:
    """A switch of its own with a witness, and hosts on it."""

    def __init__(self, state: Path) -> None:
        self.switch = f"wsw-{next(_numbers)}"
        wiring.create(self.switch)
        with Links(self.switch) as switch:
            switch.bridge("sw0")
        self.state = state
        self.witness = Witness(state, state / "witness.log", self.switch)
        self.witness.start()
        self.hosts: list[str] = []

    def host(self, name: str | None = None) -> str:
        name = name or f"wh-{next(_numbers)}"
        wiring.create(name)
        witness.register(self.state / CONTROL, name)
        with Links(self.switch) as switch:
            switch.veth(f"p-{name}"[:15], name, "eth0")
            switch.attach(f"p-{name}"[:15], "sw0")
        with Links(name) as host:
            host.up("eth0")
            host.address("eth0", f"10.201.9.{next(_numbers)}/16")
        self.hosts.append(name)
        return name

    def end(self, name: str) -> None:
        self.hosts.remove(name)
        with Links(self.switch) as switch:
            switch.remove(f"p-{name}"[:15])
        wiring.delete(name)

    def close(self) -> None:
        self.witness.stop()
        for name in list(self.hosts):
            self.end(name)
        wiring.delete(self.switch)


@pytest.fixture
def lan(tmp_path: Path) -> Iterator[Lan]:
    lan = Lan(tmp_path)
    yield lan
    lan.close()


def ip(netns: str, *arguments: str) -> None:
    subprocess.run(["ip", "-n", netns, *arguments], check=True)


def inside(netns: str, *argv: str) -> str:
    command = ["nsenter", f"--net=/run/netns/{netns}", "--", *argv]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def fence(netns: str, deadline_s: float) -> None:
    inside(netns, sys.executable, "-c", _FENCE, A, str(int(deadline_s * 1e9)))


@contextmanager
def between() -> Iterator[list[float]]:
    span = [time.time()]
    yield span
    span.append(time.time())


def test_addresses_come_in_order_with_their_namespace_and_time(lan):
    one, two = lan.host(), lan.host()
    with between() as span:
        ip(one, "address", "add", f"{A}/32", "dev", "eth0")
        ip(one, "address", "del", f"{A}/32", "dev", "eth0")
        ip(two, "address", "add", f"{A}/32", "dev", "eth0")
    seen = [each for each in lan.witness.kernel(span[0]) if each.address == A]
    assert [(e.netns, e.interface, e.added) for e in seen] == [
        *((one, "eth0", True), (one, "eth0", False), (two, "eth0", True))
    ]
    assert all(span[0] <= e.time_s <= time.time() for e in seen)
    assert lan.witness.two_holders() == []


def test_two_holders_are_seen(lan):
    one, two = lan.host(), lan.host()
    ip(one, "address", "add", f"{A}/32", "dev", "eth0")
    mark = lan.witness.mark()
    ip(two, "address", "add", f"{A}/32", "dev", "eth0")
    ip(one, "address", "del", f"{A}/32", "dev", "eth0")
    (overlap,) = lan.witness.two_holders(mark)
    assert (overlap.address, overlap.holders) == (A, tuple(sorted((one, two))))
    assert overlap.end_s is not None
    assert overlap.end_s > overlap.start_s > mark


def test_a_lifetime_that_ends_is_a_removal(lan):
    one = lan.host()
    ip(one, *f"address add {A}/32 dev eth0 valid_lft 1 preferred_lft 1".split())
    deadline = time.monotonic() + 5
    while not [e for e in lan.witness.kernel() if e.address == A and not e.added]:
        assert time.monotonic() < deadline, "the lifetime did not end"
        os.sched_yield()


def test_a_fence_of_the_sidecar_is_understood_and_ends_a_holding(lan):
    one, two = lan.host(), lan.host()
    deadline_s = time.time() + 0.5
    fence(one, deadline_s)
    ip(one, "address", "add", f"{A}/32", "dev", "eth0")
    fences = [e for e in lan.witness.events() if isinstance(e, FenceEvent)]
    assert [(e.netns, e.address) for e in fences] == [(one, A)]
    assert fences[0].deadline_s == pytest.approx(deadline_s, abs=1e-5)
    time.sleep(max(deadline_s - time.time(), 0) + 0.01)
    ip(two, "address", "add", f"{A}/32", "dev", "eth0")
    assert lan.witness.two_holders() == []
    fence(one, time.time() + 60)
    (overlap,) = lan.witness.two_holders()
    assert overlap.holders == tuple(sorted((one, two)))


def test_a_namespace_that_ends_holds_nothing_and_its_successor_of_that_name_is_another(lan):
    one = lan.host("wh-again")
    ip(one, "address", "add", f"{A}/32", "dev", "eth0")
    lan.end(one)
    again = lan.host("wh-again")
    ip(again, "address", "add", f"{A}/32", "dev", "eth0")
    seen = [e for e in lan.witness.kernel() if e.address == A]
    assert [e.added for e in seen] == [True, False, True]
    assert seen[0].space != seen[2].space
    assert lan.witness.two_holders() == []


def test_a_namespace_that_ends_with_its_address_is_gone(lan):
    one = lan.host()
    ip(one, "address", "add", f"{A}/32", "dev", "eth0")
    wiring.delete(one)
    lan.hosts.remove(one)
    deadline = time.monotonic() + 5
    while not [e for e in lan.witness.events() if isinstance(e, SpaceGone) and e.netns == one]:
        assert time.monotonic() < deadline, "nobody said that the namespace is gone"
        os.sched_yield()


def test_frames_who_asked_who_answered(lan):
    one, two = lan.host(), lan.host()
    ip(two, "address", "add", f"{A}/32", "dev", "eth0")
    ip(one, "route", "add", f"{A}/32", "dev", "eth0")
    with between() as span:
        inside(one, sys.executable, "-m", "lab.world.ping", A)
    seen = lan.witness.frames(span[0])
    with Links(two) as host:
        mac = host.mac("eth0")
    ours = [f for f in seen if A in (f.sender_ip, f.target_ip)]
    assert [f.kind for f in ours][:2] == ["arp-request", "arp-reply"]
    assert {f.sender_mac for f in ours if f.sender_ip == A} == {mac}
    assert "echo-reply" in {f.kind for f in ours}
    assert all(span[0] <= f.time_s <= span[1] for f in ours)
    assert lan.witness.false_speakers() == []


def test_a_frame_that_claims_anothers_address_is_a_false_speaker(lan):
    one, two = lan.host(), lan.host()
    ip(two, "address", "add", f"{A}/32", "dev", "eth0")
    code = (
        "import socket; s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW); s.bind(('eth0', 0))\n"
        "from sidecar.kernel.frames import *; m = s.getsockname()[4]\n"
        f"s.send(b'\\xff' * 6 + m + bytes.fromhex('08060001080006040001') + m + socket.inet_aton('{A}')"
        f" + bytes(6) + socket.inet_aton('{A}'))"
    )
    mark = lan.witness.mark()
    inside(one, sys.executable, "-c", code)
    frame = lan.witness.wait_frame(lambda f: f.gratuitous and f.sender_ip == A, 5, since_s=mark)
    with Links(one) as host:
        assert frame.sender_mac == host.mac("eth0")
    assert lan.witness.false_speakers(mark) == [frame]


def test_who_leaves_with_much_unread_takes_nobody_along(lan):
    one = lan.host()
    send = (
        "import socket; s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)\n"
        "s.bind(('eth0', 0)); m = s.getsockname()[4]\n"
        "for n in range(200): s.send(b'\\xff' * 6 + m + bytes.fromhex('08060001080006040001') + m"
        f" + socket.inet_aton('{A}') + bytes(6) + socket.inet_aton('{A}'))"
    )
    for _ in range(5):
        mark = lan.witness.mark()
        with lan.witness._connection() as follow:
            witness._ask(follow, {"do": "follow"})
            inside(one, sys.executable, "-c", send)
            assert len([f for f in lan.witness.frames(mark) if f.sender_ip == A]) == 200


def test_waiting_in_vain_says_so(lan):
    with pytest.raises(WaitTimeout):
        lan.witness.wait_frame(lambda f: f.sender_ip == "192.0.2.9", 0.05)


def test_a_namespace_that_is_not_there_is_refused(lan):
    with pytest.raises(ProgramError, match="No such file"):
        witness.register(lan.state / CONTROL, "nobody")


# the client ----------------------------------------------------------------------------------------------------


def test_a_client_that_is_always_answered_sees_no_gap(lan, tmp_path):
    one, client = lan.host(), lan.host()
    ip(one, "address", "add", f"{A}/32", "dev", "eth0")
    with Client(client, tmp_path / "client").watch(A) as probe:
        lan.witness.wait_frame(_answer(100), 10)
    assert probe.requests >= 100
    assert sum(gap.length_ms for gap in probe.stop()) < 5, (probe.stop(), probe.stalls)


def test_a_client_sees_a_gap_as_long_as_it_was(lan, tmp_path):
    one, client = lan.host(), lan.host()
    ip(one, "address", "add", f"{A}/32", "dev", "eth0")
    probe = Client(client, tmp_path / "client").watch(A)
    lan.witness.wait_frame(_answer(100), 10)
    ip(one, "address", "del", f"{A}/32", "dev", "eth0")
    time.sleep(0.1)  # what is measured
    ip(one, "address", "add", f"{A}/32", "dev", "eth0")
    lan.witness.wait_frame(_answer(100), 10)
    longest = max(probe.stop(), key=lambda gap: gap.length_ms)
    removed, added = (e.time_s for e in lan.witness.kernel() if e.address == A and e.time_s >= longest.start_s - 0.02)
    off_ms = (added - removed) * 1000
    assert abs(longest.length_ms + longest.stalled_ms - off_ms) < 15, (longest, off_ms)
    assert longest.ended


def test_a_client_that_is_never_answered_says_so(lan, tmp_path):
    probe = Client(lan.host(), tmp_path / "client").watch(A)
    lan.witness.wait_frame(lambda f: f.kind == "arp-request" and f.target_ip == A, 5, since_s=0)
    (gap,) = probe.stop()
    assert not gap.ended
    assert gap.requests == probe.requests


def _answer(nth: int):
    """Whether a frame is the nth answer."""
    count = itertools.count(1)
    return lambda f: f.kind == "echo-reply" and f.sender_ip == A and next(count) >= nth
