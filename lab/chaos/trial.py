"""One fault on a scene: strike, wait, heal, wait until all is settled again; and what was seen meanwhile.

    with Scene(world, Ledger(world.api), number=1, lease_s=2) as scene:
        trial = try_fault(scene, named("holder's sidecar killed"))

Judged are kernels and wire alone (`lab.witness`, `lab.witness.judge`, the client's own answers and neighbour table).
Not here: what a trial may cost at most (`lab.chaos.faults`).
"""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from lab.chaos.proxy import Proxy
from lab.chaos.scene import NETWORK, READY_S
from lab.errors import LabError
from lab.witness import judge
from lab.witness.ledger import LEASES

if TYPE_CHECKING:
    from collections.abc import Callable

    from lab.chaos.faults import Fault
    from lab.chaos.scene import Scene
    from lab.witness.client import Gap, Probe
    from lab.witness.frames import Frame
    from lab.witness.judge import Overlap, Tenure

SETTLED_S: Final = 40.0
"""How long a trial waits, after the fault was healed, until all is as before it."""


@dataclass(frozen=True, slots=True)
class Trial:
    """What one fault did.

    Attributes:
        struck_s: when the fault began; `healed_s`: when it was healed; `settled_s`: when all was as before it.
        vacant_s: the longest time that the address was on nobody, by the kernels.
        gap_s: the longest time for which the client got no answer, with what it overslept meanwhile.
        overlaps: times at which two had it; `false`: frames of one that had it no more.
        neighbour: whether the client's neighbour table named the holder in the end.
        tenures: who had it and when; `gaps`: of the client; `frames`: that claimed it on the switch.
        versions: (when, holder's name, owner's name) of each version of the Lease.
        trouble: why it was never settled again, or ``""``.
    """

    fault: str
    lease_s: int
    struck_s: float
    healed_s: float
    settled_s: float
    vacant_s: float
    gap_s: float
    overlaps: tuple[Overlap, ...]
    false: tuple[Frame, ...]
    neighbour: bool
    tenures: tuple[Tenure, ...]
    gaps: tuple[Gap, ...]
    frames: tuple[Frame, ...]
    versions: tuple[tuple[float, str, str], ...]
    trouble: str

    @property
    def lasted_s(self) -> float:
        """How long the fault lasted."""
        return self.healed_s - self.struck_s


def try_fault(scene: Scene, fault: Fault) -> Trial:
    """Strike, wait, heal, wait until all is settled; and say what was seen.

    Raises:
        LabError: the scene was not settled before, or cannot be struck. That it never was again is no error, but the
            trial's `trouble`.
    """
    with contextlib.ExitStack() as around:
        proxy = around.enter_context(Proxy(scene.world.state / "proxy")) if fault.proxied else None
        if proxy is not None:
            scene.wait_renewed(3)  # what was cut by the proxy's coming is there again

        def strike() -> None:
            heal = fault.strike(scene, proxy)
            try:
                time.sleep(fault.lasts_s(scene.lease_s))  # the fault's own duration; nothing is waited for
            finally:
                heal()

        return watched(scene, fault.name, strike, SETTLED_S)


def watched(scene: Scene, name: str, strike: Callable[[], None], settled_s: float) -> Trial:
    """Let something be done to a settled scene, wait until it is settled again, and say what was seen.

    Args:
        scene: where.
        name: the trial's `fault`.
        strike: does it, and heals it.
        settled_s: how long settling may take.

    Raises:
        LabError: as `try_fault`.
    """
    with scene.world.client(NETWORK).watch(scene.address) as probe:
        scene.settle(READY_S)
        struck_s = time.time()
        strike()
        scene.world.control_plane.wait_ready().close()
        healed_s = time.time()
        trouble = ""
        try:
            scene.settle(settled_s)
        except LabError as error:
            trouble = str(error)
        return _judged(scene, probe, fault=name, struck_s=struck_s, healed_s=healed_s, trouble=trouble)


def _judged(scene: Scene, probe: Probe, *, fault: str, struck_s: float, healed_s: float, trouble: str) -> Trial:
    neighbour = scene.neighbour_right()
    gaps = tuple(gap for gap in probe.stop() if gap.start_s + gap.most_s >= struck_s)
    settled_s = time.time()
    witness = scene.world.witness
    tenures = judge.tenures(witness.events(), scene.address, until_s=settled_s)
    vacant = judge.vacancies(tenures, struck_s, settled_s)
    frames = [each for each in witness.frames(struck_s) if each.sender_ip == scene.address]
    return Trial(
        fault=fault,
        lease_s=scene.lease_s,
        struck_s=struck_s,
        healed_s=healed_s,
        settled_s=settled_s,
        vacant_s=max((end_s - start_s for start_s, end_s in vacant), default=0.0),
        gap_s=max((gap.most_s for gap in gaps), default=0.0),
        overlaps=tuple(each for each in witness.two_holders(struck_s) if each.address == scene.address),
        false=tuple(each for each in witness.false_speakers(struck_s) if each.sender_ip == scene.address),
        neighbour=neighbour,
        tenures=tuple(each for each in tenures if each.end_s is None or each.end_s >= struck_s),
        gaps=gaps,
        frames=tuple(each for each in frames if each.kind != "echo-reply"),
        versions=tuple(_versions(scene, struck_s)),
        trouble=trouble,
    )


def _versions(scene: Scene, since_s: float) -> list[tuple[float, str, str]]:
    names = scene.names
    found: list[tuple[float, str, str]] = []
    for seen in scene.ledger.since(since_s):
        if seen.kind != LEASES or seen.name != scene.lease_name:
            continue
        holder = str(seen.body["spec"].get("holderIdentity") or "")
        owner = str(seen.body["metadata"].get("annotations", {}).get("holdfast.dev/owner", ""))
        version = names.get(holder, ""), names.get(owner, "")
        if not found or found[-1][1:] != version:
            found.append((seen.at_s, *version))
    return found
