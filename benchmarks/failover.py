"""How long is an address without an answer when its holder fails? keepalived and holdfast, one switch, one client.

    holdfast lab run -- python benchmarks/failover.py [--rounds 3] [--json FILE]

Each round of each row: a client pings the address once a millisecond, the holder is struck, and the longest time
without an answer counts. Who has the address is said by the kernels (`lab.witness`). A dead node's cables are out, its
processes killed, its kernel gone. A stopped agent (SIGSTOP, SIGCONT later) is away; its kernel and its addresses stay.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import random
import shutil
import signal
import statistics
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import psutil
from common import heading, world

from lab import wiring
from lab.chaos.faults import named
from lab.chaos.scene import NETWORK, Scene
from lab.chaos.trial import try_fault
from lab.program import Program
from lab.wiring import Links
from lab.witness.capture import CONTROL
from lab.witness.ledger import Ledger
from lab.witness.witness import register
from lab.world.networks import SWITCH

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from lab.witness import judge
    from lab.world.world import World

VIRTUAL: Final = "192.0.2.200"
STOPPED_S: Final = 6.0
STEADY_S: Final = 1.5
TAKEN_S: Final = 15.0


@dataclass(frozen=True, slots=True)
class Row:
    """One event with one tool: the client's gaps and the time with two holders, one value per round, in seconds."""

    tool: str
    event: str
    gaps_s: tuple[float, ...]
    two_s: tuple[float, ...]

    def markdown(self) -> str:
        """As a row of a table."""
        gaps = f"{statistics.median(self.gaps_s):.3f} | {max(self.gaps_s):.3f}"
        return f"| {self.event} | {self.tool} | {gaps} | {max(self.two_s):.3f} | {len(self.gaps_s)} |"


def main() -> None:
    """Print the table; write the JSON document."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path, help="where the rows are written as JSON")
    chosen = parser.parse_args()
    missing = shutil.which("keepalived") is None
    with world() as made:
        rows = [] if missing else list(_keepalived_rows(made, chosen.rounds))
        rows += _holdfast_rows(made, chosen.rounds)
    print(heading("Failover"))
    if missing:
        print("keepalived is not installed, so its rows are missing: `apt-get install keepalived`.\n")
    print("| event | tool | gap, median (s) | gap, most (s) | two holders, most (s) | n |\n|---|---|---|---|---|---|")
    for row in rows:
        print(row.markdown())
    if chosen.json:
        chosen.json.write_text(json.dumps([asdict(row) for row in rows], indent=2) + "\n")


# holdfast ------------------------------------------------------------------------------------------------------

_HOLDFAST: Final = (
    ("planned handover", "planned", 2),
    ("holder's sidecar killed", "agent killed, started again", 2),
    ("holder's sidecar stopped, long", "agent stopped past its deadline", 2),
    ("holder's node dead", "node dead", 1),
    ("holder's node dead", "node dead", 2),
    ("holder's node dead", "node dead", 10),
)


def _holdfast_rows(made: World, rounds: int) -> Iterator[Row]:
    ledger, numbers = Ledger(made.api), itertools.count(11)
    for name, event, lease_s in _HOLDFAST:
        trials = []
        for _ in range(rounds):
            with Scene(made, ledger, number=next(numbers), lease_s=lease_s) as scene:
                trials.append(try_fault(scene, named(name)))
        two = [_longest(trial.overlaps, trial.settled_s) for trial in trials]
        yield Row(f"holdfast, lease {lease_s} s", event, tuple(trial.gap_s for trial in trials), tuple(two))


# keepalived ----------------------------------------------------------------------------------------------------


class Router:
    """One host with keepalived on it."""

    def __init__(self, made: World, name: str, host: int, priority: int, advert: str) -> None:
        self.netns = name
        self._made = made
        number = made.networks.number(NETWORK)
        made.networks.host(name, name, number, host)
        register(made.state / CONTROL, name)
        folder = made.state / "keepalived"
        folder.mkdir(exist_ok=True)
        file = folder / f"{name}.conf"
        file.write_text(_CONFIGURATION.format(name=name, priority=priority, advert=advert, address=VIRTUAL))
        argv = ["keepalived", "-n", "-l", "-P", "-G", "-f", str(file)]
        argv += ["-p", str(folder / f"{name}.pid"), "-r", str(folder / f"{name}.vrrp.pid")]
        self.program = Program(name, argv, folder / f"{name}.log", name)
        self.program.start()

    def has(self) -> bool:
        """Whether its kernel has the address."""
        with Links(self.netns) as there:
            return f"{VIRTUAL}/32" in there.addresses("eth0")

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to keepalived and its children."""
        parent = psutil.Process(self.program.pid)
        for each in (*parent.children(recursive=True), parent):
            with contextlib.suppress(psutil.NoSuchProcess):
                each.send_signal(number)

    def crash(self) -> None:
        """As a node that loses its power."""
        with Links(SWITCH) as switch:
            switch.detach(self.netns)
        self.signal(signal.SIGKILL)
        self.program.kill()
        wiring.delete(self.netns)

    def end(self) -> None:
        """Remove what is left of it."""
        if self.program.running:
            self.signal(signal.SIGKILL)
            self.program.kill()
        wiring.delete(self.netns)
        with Links(SWITCH) as switch:
            switch.remove(self.netns)


def _crash(master: Router, backup: Router) -> None:
    master.crash()
    _has(backup)


def _stop_cleanly(master: Router, backup: Router) -> None:
    master.program.stop()
    _has(backup)


def _pause(master: Router, backup: Router) -> None:
    master.signal(signal.SIGSTOP)
    _has(backup)
    time.sleep(STOPPED_S)  # the event's own duration
    master.signal(signal.SIGCONT)


_KEEPALIVED: Final = (
    ("node dead", _crash, "1", "keepalived, adverts 1 s"),
    ("node dead", _crash, "0.1", "keepalived, adverts 100 ms"),
    ("planned", _stop_cleanly, "1", "keepalived, adverts 1 s"),
    ("agent stopped past its deadline", _pause, "1", "keepalived, adverts 1 s"),
)


def _keepalived_rows(made: World, rounds: int) -> Iterator[Row]:
    numbers = itertools.count(1)
    for event, strike, advert, tool in _KEEPALIVED:
        measured = [_round(made, next(numbers), strike, advert) for _ in range(rounds)]
        yield Row(tool, event, tuple(gap for gap, _ in measured), tuple(two for _, two in measured))


def _round(made: World, number: int, strike: Callable[[Router, Router], None], advert: str) -> tuple[float, float]:
    master = Router(made, f"ka-{number}a", 150 + number % 25 * 2, 150, advert)
    _has(master)
    backup = Router(made, f"ka-{number}b", 151 + number % 25 * 2, 100, advert)
    probe = made.client(NETWORK).watch(VIRTUAL)
    # the backup has heard the master, the client knows its neighbour; and not always the same time after an advert
    time.sleep(STEADY_S + random.Random(number).uniform(0, float(advert)))  # noqa: S311
    mark = made.witness.mark()
    strike(master, backup)
    time.sleep(STEADY_S)  # what comes after the take-over counts too
    gaps = [gap for gap in probe.stop() if gap.start_s + gap.most_s >= mark]
    overlaps = [each for each in made.witness.two_holders(mark) if each.address == VIRTUAL]
    for router in (master, backup):
        router.end()
    return max((gap.most_s for gap in gaps), default=0.0), _longest(overlaps, time.time())


def _longest(overlaps: list[judge.Overlap] | tuple[judge.Overlap, ...], until_s: float) -> float:
    return max(((until_s if each.end_s is None else each.end_s) - each.start_s for each in overlaps), default=0.0)


def _has(router: Router) -> None:
    deadline = time.monotonic() + TAKEN_S
    while not router.has():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{router.netns}: no {VIRTUAL} within {TAKEN_S:g} s:\n{router.program.tail(20)}")
        time.sleep(0.02)


_CONFIGURATION = """
global_defs {{
  router_id {name}
  vrrp_version 3
}}
vrrp_instance address {{
  state BACKUP
  interface eth0
  virtual_router_id 51
  priority {priority}
  advert_int {advert}
  virtual_ipaddress {{ {address}/32 }}
}}
"""

if __name__ == "__main__":
    main()
