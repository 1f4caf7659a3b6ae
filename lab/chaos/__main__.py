"""`make chaos`: every fault of the catalogue, then all at once for minutes, on one page.

    holdfast lab run -- python -m lab.chaos --out docs/chaos.html --minutes 6

Exit codes: 0 the promise was kept (no second holder, no false frame, all settled); 1 it was not. A bound that was
exceeded is shown, and is no failure: on a busy machine it says more of the machine.
"""

from __future__ import annotations

import argparse
import datetime as dt
import itertools
import os
import platform
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

from lab.binaries import find
from lab.chaos.faults import FAULTS
from lab.chaos.page import Case, page
from lab.chaos.scene import Scene
from lab.chaos.storm import storm
from lab.chaos.trial import try_fault
from lab.witness.ledger import Ledger
from lab.world.world import World

if TYPE_CHECKING:
    from collections.abc import Iterator

STORM_S: Final = 120.0
_FIRST_NUMBER: Final = 11


def main() -> None:
    """Run it all and write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="path of the HTML page to write")
    parser.add_argument("--minutes", type=float, default=6.0, help="total length of the storms")
    parser.add_argument("--lease-s", type=int, default=2, help="Lease duration in seconds")
    parser.add_argument("--seed", type=int, default=1, help="random seed of the first storm; each later storm adds one")
    parser.add_argument("--only", default="", help="run only the faults whose name contains this text, and no storms")
    chosen = parser.parse_args()
    began_s = time.time()
    with (
        tempfile.TemporaryDirectory(prefix="holdfast-chaos-") as state,
        World(binaries=find(), state=Path(state)) as world,
    ):
        cases: list[Case] = []
        for case in _cases(world, chosen):
            cases.append(case)
            print(_line(case), flush=True)
    chosen.out.write_text(page(cases, machine(began_s)))
    print(f"{len(cases)} cases, {sum(bool(case.broken) for case in cases)} broken; written to {chosen.out}")
    sys.exit(any(case.broken for case in cases))


def _cases(world: World, chosen: argparse.Namespace) -> Iterator[Case]:
    ledger, numbers = Ledger(world.api), itertools.count(_FIRST_NUMBER)
    with Scene(world, ledger, number=next(numbers), lease_s=chosen.lease_s) as lasting:
        for fault in FAULTS:
            if chosen.only not in fault.name:
                continue
            if not fault.fresh:
                yield Case(try_fault(lasting, fault), fault)
                continue
            with Scene(world, ledger, number=next(numbers), lease_s=chosen.lease_s) as fresh:
                yield Case(try_fault(fresh, fault), fault)
    storms = 0 if chosen.only else round(chosen.minutes * 60 / STORM_S)
    for seed in range(chosen.seed, chosen.seed + storms):
        with Scene(world, ledger, number=next(numbers), lease_s=chosen.lease_s) as fresh:
            trial, told = storm(fresh, seed, STORM_S)
            yield Case(trial, None, tuple(told))


def machine(at_s: float) -> str:
    """The date, and what this ran on."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    date = dt.datetime.fromtimestamp(at_s, dt.UTC)
    load = os.getloadavg()[2]
    return (
        f"{date:%Y-%m-%d %H:%M} UTC; {os.cpu_count()} cores, {memory:.0f} GiB, Linux {platform.release()}, "
        f"Python {platform.python_version()}, Kubernetes 1.34.4; load over the last 15 minutes {load:.1f}"
    )


def _line(case: Case) -> str:
    trial = case.trial
    return (
        f"{trial.fault}: lasted {trial.lasted_s:.2f} s, on nobody {trial.vacant_s:.3f} s of {case.vacant_bound_s:.2f}, "
        f"gap {trial.gap_s:.3f} s of {case.gap_bound_s:.2f}; {case.bad or 'kept'}"
    )


if __name__ == "__main__":
    main()
