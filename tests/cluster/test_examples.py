"""The directories of examples/, applied as they are, on real nodes: their apps answer at the persistent addresses.

A client on the network talks to them before and after a handover; the witness judges.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest

from lab.api_client import is_ready
from lab.witness.ledger import LEASES, PODS
from tests.cluster.injected import LONG_S, example
from tests.lab.steps import BLUE, Steps, bare, ledger_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lab.real.world import RealWorld
    from lab.world.pods import PodHandle
    from tests.lab.steps import Body

pytestmark = pytest.mark.lab

HTTP = """
import sys, time, urllib.request
deadline = time.monotonic() + 30
while True:
    try:
        said = urllib.request.urlopen(f"http://{sys.argv[1]}:8080/", timeout=1).read().decode()
        if sys.argv[2] in said or time.monotonic() > deadline:
            break
    except OSError:
        if time.monotonic() > deadline:
            raise
    time.sleep(0.05)
print(said)
"""
"""Until the app listens: a Pod without a probe is Ready, and may hold the address, before its app has started."""
UDP = """
import json, socket, sys, time
deadline = time.monotonic() + 30
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
    client.settimeout(0.5)
    while True:
        client.sendto(b"ping", (sys.argv[1], 9000))
        try:
            data, source = client.recvfrom(2048)
        except TimeoutError:
            if time.monotonic() > deadline:
                raise
        else:
            print(json.dumps([data.decode(), source]))
            break
"""


@dataclass
class Example:
    """One directory of examples/, applied."""

    world: RealWorld
    name: str
    used: list[Steps] = field(default_factory=list)

    @property
    def space(self) -> str:
        return f"example-{self.name}"

    def steps(self, *numbers: int, ifname: str = "eth1", plain: str = "eth0") -> Steps:
        addresses = tuple(f"203.0.113.{number}/32" for number in numbers)
        self.used.append(Steps(self.world, ledger_of(self.world), self.space, addresses, ifname=ifname, plain=plain))
        return self.used[-1]

    def ask(self, address: str, script: str = HTTP, network: str = BLUE, until: str = "") -> str:
        argv = [sys.executable, "-c", script, bare(address), until]
        return self.world.client(network).run(bare(address), argv, LONG_S).strip()


@pytest.fixture
def applied(world: RealWorld, request: pytest.FixtureRequest) -> Iterator[Example]:
    """Afterwards the namespace is deleted, as the READMEs say, and no Pod, no Lease and no address is left."""
    it = Example(world, request.param)
    began = it.steps()
    world.apply(example(it.name))
    yield it
    world.kubectl("delete", "namespace", it.space)
    left = began.ledger.all
    began.until("all to be gone", lambda: not any(left(kind, it.space) for kind in (LEASES, PODS)), LONG_S)
    for steps in it.used:
        steps.nowhere()
        steps.one_holder()


def directory(name: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("applied", [name], indirect=True)


def settled(steps: Steps, route: str, replicas: int = 2) -> PodHandle:
    """Wait until all Pods are Ready and the newest holds: from then on nothing moves by itself."""
    wanted = frozenset(steps.addresses)
    steps.until("all to be Ready", lambda: len(steps.pods()) == replicas and all(map(is_ready, steps.pods())), LONG_S)
    return steps.held_by(lambda pod: born(pod) == max(map(born, steps.pods())), *wanted, route=route, within_s=LONG_S)


def born(pod: Body) -> str:
    return str(pod["metadata"]["creationTimestamp"])


def handed_over(steps: Steps, route: str, holder: PodHandle, replicas: int = 2) -> PodHandle:
    """Delete the holder, and wait for the last one that gets its addresses."""
    mark = steps.world.witness.mark()
    steps.delete("pods", holder.name)
    steps.until("it to be gone", lambda: all(pod["metadata"]["uid"] != holder.uid for pod in steps.pods()), LONG_S)
    successor = settled(steps, route, replicas)
    assert successor.uid != holder.uid
    for address in steps.addresses:
        assert steps.removals(address, mark)
        steps.announced(successor, address, mark)
    return successor


@directory("deployment")
def test_deployment(applied):
    steps = applied.steps(11, 12)
    holder = settled(steps, "newest", 4)
    assert {applied.ask(each) for each in steps.addresses} == {f"Hello from {holder.name}"}
    successor = handed_over(steps, "newest", holder, 4)
    assert {applied.ask(each) for each in steps.addresses} == {f"Hello from {successor.name}"}


@directory("statefulset")
def test_statefulset(applied):
    """Only web-1 may have them, and the next Pod of that name has them again."""
    steps = applied.steps(21, 22)
    first = steps.held_by("web-1", *steps.addresses, route="second", within_s=LONG_S)
    assert {applied.ask(each) for each in steps.addresses} == {"Hello from web-1"}
    steps.delete("pods", "web-1")
    another = lambda pod: pod["metadata"]["uid"] != first.uid  # noqa: E731
    assert steps.held_by(another, *steps.addresses, route="second", within_s=LONG_S).name == "web-1"
    assert {applied.ask(each) for each in steps.addresses} == {"Hello from web-1"}


@directory("two-networks")
def test_two_networks(applied):
    """One Pod has an address on each; each is reached over its own network."""
    default = applied.steps(31, ifname="eth0", plain="")
    blue = applied.steps(32, plain="")
    holder = settled(blue, "on-blue")
    assert settled(default, "on-default").uid == holder.uid
    assert on_both(applied) == [f"Hello from {holder.name}"] * 2
    successor = handed_over(blue, "on-blue", holder)
    assert settled(default, "on-default").uid == successor.uid
    assert on_both(applied) == [f"Hello from {successor.name}"] * 2


def on_both(applied: Example) -> list[str]:
    return [applied.ask("203.0.113.31", network="default"), applied.ask("203.0.113.32")]


@directory("udp-server")
def test_udp_server(applied):
    """What is answered comes from the persistent address, before and after a handover."""
    steps = applied.steps(41)
    source = ["203.0.113.41", 9000]
    holder = settled(steps, "udp")
    assert json.loads(applied.ask(steps.addresses[0], UDP)) == [f"{holder.name} got ping", source]
    successor = handed_over(steps, "udp", holder)
    assert json.loads(applied.ask(steps.addresses[0], UDP)) == [f"{successor.name} got ping", source]


@directory("tcp-server")
def test_tcp_server(applied):
    """Every Pod waits for the address, and serves when it has it."""
    steps = applied.steps(51)
    holder = settled(steps, "tcp")
    assert applied.ask(steps.addresses[0]) == f"Hello from {holder.name}"
    successor = handed_over(steps, "tcp", holder)
    assert applied.ask(steps.addresses[0]) == f"Hello from {successor.name}"


@directory("downward")
def test_downward(applied):
    """The app knows what its Pod is to hold, and one that is to hold nothing knows that."""
    steps = applied.steps(61)
    holder = settled(steps, "mine")
    for _ in range(2):
        assert applied.ask(steps.addresses[0], until="203") == f"{holder.name}: 203.0.113.61/32"
        (other,) = (pod for pod in steps.pods() if pod["metadata"]["uid"] != holder.uid)
        own = applied.ask(other["status"]["podIP"], network="default", until="no address")
        assert own == f"{other['metadata']['name']}: no address"
        holder = handed_over(steps, "mine", holder)
