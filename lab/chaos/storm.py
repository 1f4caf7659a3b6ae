"""All faults at once, at random, from a seed: what is struck, when and for how long is the same for the same seed.

What comes of it is not: real processes run. Strikes that find nothing to strike (nobody holds just now) are left out
and told. In the end everything is healed, and the address has to come back to where it belongs.
"""

from __future__ import annotations

import contextlib
import random
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from lab.chaos.faults import FAULTS
from lab.chaos.trial import watched
from lab.errors import LabError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from lab.chaos.faults import Fault
    from lab.chaos.scene import Scene
    from lab.chaos.trial import Trial

AT_ONCE: Final = 3
SETTLED_S: Final = 150.0
"""A process that was killed many times is started again late, as by a kubelet."""


@dataclass(frozen=True, slots=True)
class Strike:
    """One fault of a storm, in seconds after its beginning."""

    fault: Fault
    at_s: float
    lasts_s: float


def schedule(seed: int, length_s: float, lease_s: float) -> Iterator[Strike]:
    """What a seed means: at most `AT_ONCE` faults at a time, and few of what is started again ever later."""
    source = random.Random(seed)  # noqa: S311 - to be repeated, not to be secret
    faults = [fault for fault in FAULTS if fault.stackable]
    ends: list[float] = []
    at_s = 0.0
    while True:
        at_s += source.uniform(0, lease_s)
        ends = [each for each in ends if each > at_s]
        if len(ends) >= AT_ONCE:
            at_s = min(ends)
            continue
        strike = Strike(source.choice(faults), at_s, source.uniform(0.05, 2 * lease_s))
        if strike.at_s + strike.lasts_s > length_s:
            return
        if strike.fault.fresh:
            faults.remove(strike.fault)
        ends.append(strike.at_s + strike.lasts_s)
        yield strike


def storm(scene: Scene, seed: int, length_s: float) -> tuple[Trial, list[str]]:
    """Let one pass over a scene.

    Returns:
        What was seen, and a line for each strike.
    """
    told: list[str] = []

    def strikes() -> None:
        _run(scene, list(schedule(seed, length_s, scene.lease_s)), told)
        for node in scene.world.nodes.values():
            node.power_on()

    trial = watched(scene, f"storm {seed}", strikes, SETTLED_S)
    return trial, told


def _run(scene: Scene, strikes: list[Strike], told: list[str]) -> None:
    began = time.monotonic()
    heals: list[tuple[float, str, Callable[[], None]]] = []
    with contextlib.ExitStack() as healed:
        while strikes or heals:
            heals.sort(key=lambda each: each[0])
            due_s = min([*(each[0] for each in heals[:1]), *(each.at_s for each in strikes[:1])])
            time.sleep(max(0.0, due_s - (time.monotonic() - began)))
            if heals and heals[0][0] <= due_s:
                heals.pop(0)[2]()
                continue
            strike = strikes.pop(0)
            line = f"{strike.at_s:.1f} s: {strike.fault.name} for {strike.lasts_s:.1f} s"
            try:
                heal = strike.fault.strike(scene, None)
            except LabError as error:
                told.append(f"{line}: left out: {error}".partition("\n")[0])
                continue
            healed.callback(heal)  # healing twice does no harm
            heals.append((strike.at_s + strike.lasts_s, strike.fault.name, heal))
            told.append(line)
