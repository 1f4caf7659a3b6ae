"""`python -m tests.simulation.mutants`: break one rule at a time, and see that the simulation finds each.

A mutant is a few replacements of text in a copy of the sources; one whose text no longer occurs exactly once fails
loudly.

Some rules are there twice, and only both together can be missed: that each Lease write carries its version makes up for
a `prepared` that counts when it should not; a void base makes up for an old version that is believed, and the reverse.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
COPIED = ("contract", "controller", "sidecar", "tests/simulation")
LIMIT = 8000
SELF = "tests.simulation.mutants"


@dataclass(frozen=True)
class Mutant:
    """One broken rule; `changes` are (file, text, other text)."""

    name: str
    changes: tuple[tuple[str, str, str], ...]


def one(name, file, text, other):
    return Mutant(name, ((file, text, other),))


STATE, NOTING, MACHINE = "sidecar/protocol/state.py", "sidecar/protocol/noting.py", "sidecar/protocol/machine.py"
LEASE, EXPIRY, NAMES = "contract/lease.py", "controller/choice/expiry.py", "contract/names.py"
LEASES, SNAPSHOT, INTAKE = "controller/choice/leases.py", "controller/choice/snapshot.py", "controller/choice/intake.py"
READING = "controller/choice/reading.py"
HOST = "tests/simulation/sidecar.py"
FREE = 'spec={"holderIdentity": "", "leaseDurationSeconds": duration_s}, notes=notes)'
RENEW = 'return _patch(view, spec={"renewTime": micro_time(now)}, notes={OBSERVED: observed})'

MUTANTS = (
    one(
        "the address before its deadline rule",
        HOST,
        "        self.sidecar.step(self._set_fence, action, wall_s)\n",
        "        addresses = [each.address for each in action.entry.addresses]\n"
        "        self.sidecar.step(self._add, action, addresses)\n"
        "        for address in addresses:\n"
        "            self.sidecar.post(0.002, self.sidecar.kernel.fence, address, wall_s)\n",
    ),
    one(
        "no deadline in the kernel at all",
        HOST,
        "            self.sidecar.kernel.fence(address, wall_s)\n",
        "            pass\n",
    ),
    one(
        "the deadline on the interface that the address is on alone",
        HOST,
        "            self.sidecar.kernel.fence(address, wall_s)\n",
        '            self.sidecar.kernel.fence(address, wall_s, {"eth1"})\n',
    ),
    one(
        "the deadline on the interfaces that there are, and not on those that come",
        HOST,
        "            self.sidecar.kernel.fence(address, wall_s)\n",
        "            self.sidecar.kernel.fence(address, wall_s, set(self.sidecar.kernel.legs))\n",
    ),
    one(
        "a lifetime for a fence, and no guard time for it",
        NAMES,
        "GUARD_LIFETIME_S: Final = 1.3",
        "GUARD_LIFETIME_S: Final = 0.0",
    ),
    one("a guard time too short", NAMES, "GUARD_DEADLINE_S: Final = 0.1", "GUARD_DEADLINE_S: Final = -0.2"),
    one(
        "handed over to an unprepared Pod",
        STATE,
        'if self.lease is None or self.lease.owner in ("", self.me) or self.lease.prepared != self.lease.owner:',
        'if self.lease is None or self.lease.owner in ("", self.me):',
    ),
    one("freed without a version", LEASE, f"return _patch(view, {FREE}", f"return _unversioned(_patch(view, {FREE})"),
    one(
        "the deadline counted from a watch event",
        NOTING,
        "            return _note_lease(s, view)\n        case Prepared",
        "            s = _note_lease(s, view)\n"
        "            return replace(s, base_s=now, duration_s=float(view.duration_s)) if s.mine and view else s\n"
        "        case Prepared",
    ),
    one(
        "the deadline counted from the answer",
        NOTING,
        "return _note_written(done, view, sent_s, kind)",
        "return _note_written(done, view, now, kind)",
    ),
    Mutant(
        "the deadline counted from a repeated prepared",
        (
            (NOTING, "else kind is Kind.PREPARE and view.holder != s.me", "else kind is Kind.PREPARE"),
            (
                LEASE,
                "return _patch(view, notes={PREPARED: me})",
                "return _unversioned(_patch(view, notes={PREPARED: me}))",
            ),
        ),
    ),
    one(
        "a second action while one is under way",
        MACHINE,
        "    if s.flight is None and (row",
        "    if not isinstance(s.flight, Write) and (row",
    ),
    one(
        "a new leader counts from before its start",
        EXPIRY,
        "since_s = known.since_s if same and known is not None else now",
        "since_s = known.since_s if same and known is not None else 0.0 if known is None else now",
    ),
    one(
        "whoever is prepared takes a free Lease",
        MACHINE,
        "    free = lease is not None and not lease.holder and lease.owner == s.me\n    return free and s.prepared",
        "    free = lease is not None and not lease.holder\n    return free and s.prepared",
    ),
    Mutant(
        "the base kept after a handover was sent, and old versions believed",
        (
            (MACHINE, "(Kind.HAND_OVER, Kind.RELEASE, Kind.WITHDRAW)", "()"),
            (NOTING, "if s.lease is not None and older(view, s.lease):", "if s.lease is view:"),
        ),
    ),
    Mutant(
        "nothing read after an unknown outcome, and renewed without a version",
        (
            (NOTING, "_note_failure(replace(done, reread=True), why, now)", "_note_failure(done, why, now)"),
            (LEASE, RENEW, RENEW.replace("_patch(", "_unversioned(_patch(", 1) + ")"),
        ),
    ),
    Mutant(
        "removed after the handover",
        (
            (MACHINE, "        _REMOVE,\n        _READ,\n        Row(\n", "        _READ,\n        Row(\n"),
            (MACHINE, "return not s.present and _free_to_write(s, now)", "return _free_to_write(s, now)"),
        ),
    ),
    one(
        "given although a removal has failed",
        MACHINE,
        "return not s.present and _free_to_write(s, now)",
        "return _free_to_write(s, now)",
    ),
    one(
        "a renewal counts only if the report changes",
        EXPIRY,
        "view.uid, view.holder, view.renew_time, view.transitions",
        "view.uid, view.holder, view.observed, view.transitions",
    ),
    one(
        "a changed annotation is a sign of life",
        EXPIRY,
        "view.uid, view.holder, view.renew_time, view.transitions",
        "view.uid, view.holder, view.renew_time + view.prepared, view.transitions",
    ),
    one("a new owner counts as prepared", LEASE, "PREPARED: prepared, LOST", "PREPARED: owner, LOST"),
    one(
        "a shorter duration does not count",
        NOTING,
        "duration_s = min(s.duration_s, view.duration_s)",
        "duration_s = s.duration_s",
    ),
    one(
        "the duration that the holder counts with is not asked",
        EXPIRY,
        "return max(view.duration_s, report.duration_s) + guard_s",
        "return view.duration_s + guard_s",
    ),
    one(
        "an earlier self's deadline is forgotten",
        STATE,
        "max(self.lease.duration_s, before.duration_s if before else 0)",
        "self.lease.duration_s",
    ),
    one(
        "who is lost is never found",
        LEASES,
        "if uid != view.prepared and uid in snap.pod_by_uid]",
        "if uid in snap.pod_by_uid]",
    ),
    one(
        "a set wall clock is not noticed",
        NOTING,
        "            return replace(s, fenced_s=None, stepped=isinstance(s.flight, Configure))\n",
        "            return s\n",
    ),
    one(
        "an entry alone gives the right to an address",
        STATE,
        "return self.named & frozenset(self.lease.addresses) if self.lease else frozenset()",
        "return self.named",
    ),
    one(
        "what a free Lease names is given to another route",
        SNAPSHOT,
        "found = named(view) if view is not None else frozenset[str]()",
        "found = named(view) if view is not None and view.holder else frozenset[str]()",
    ),
    one(
        "what a report still shows is given to another route",
        READING,
        "return frozenset(view.addresses).union(each.address for each in (report.addresses if report else ()))",
        "return frozenset(view.addresses)",
    ),
    one(
        "an address is taken from a Lease whose holder has not reported",
        LEASES,
        "    if not view.holder or report_of(view) is not None:\n        return granted",
        "    if True:\n        return granted",
    ),
    one(
        "what a write under way names is given to another route",
        SNAPSHOT,
        "return found if sent is None else found | sent.addresses",
        "return found",
    ),
    one(
        "a Lease that vanished counts from when it was last seen",
        EXPIRY,
        "self._set(key, _Count(life_sign(view), now, patience_s(view), held=True), anew=True)",
        "self.observe(view, now)",
    ),
    one(
        "a Lease that was free when last seen stands for nothing",
        SNAPSHOT,
        "return bool(self.view.holder) or not self.final",
        "return bool(self.view.holder)",
    ),
    one(
        "a controller that starts believes that a Lease that is not there never was",
        INTAKE,
        "            if not self.unlisted:\n",
        "            if False:\n",
    ),
    one(
        "a late answer's duration counts, though a newer version was seen",
        NOTING,
        "float(min(view.duration_s, newest_s))",
        "float(view.duration_s)",
    ),
    one("an entry that goes counts at once", NOTING, "if s.unassigned and not s.owner:", "if s.unassigned:"),
    one("an owner that takes nothing is never lost", EXPIRY, "if not self._counts[key].held)", "if False)"),
)

UNVERSIONED = """

def _unversioned(patch: Patch) -> Patch:
    del patch["metadata"]["resourceVersion"]
    return patch
"""


class Stale(Exception):  # noqa: N818 - it is one
    """A mutant's text does not occur exactly once: the source has changed, and so must the mutant."""


def copy(folder):
    """Copy what is simulated, and the simulation."""
    for name in COPIED:
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "tests/__init__.py", folder / "tests")


def mutate(folder, mutant):
    """Apply a mutant to a copy.

    Raises:
        Stale: see there.
    """
    for file, text, other in mutant.changes:
        path = folder / file
        source = path.read_text()
        if source.count(text) != 1:
            raise Stale(f"{mutant.name}: {text!r} occurs {source.count(text)} times in {file}")
        path.write_text(source.replace(text, other) + (UNVERSIONED if "_unversioned(" in other else ""))


def hunt(mutant, limit=LIMIT):
    """Play schedules with a mutant until one violates; tell which, or ``""``."""
    with tempfile.TemporaryDirectory(prefix="mutant-") as name:
        folder = Path(name)
        copy(folder)
        mutate(folder, mutant)
        environment = {**os.environ, "PYTHONPATH": name, "PYTHONDONTWRITEBYTECODE": "1"}
        command = [sys.executable, "-m", SELF, "--inside", "--limit", str(limit)]
        run = subprocess.run(command, cwd=name, env=environment, capture_output=True, text=True, check=False)
    if run.returncode not in (0, 1):
        return f"does not run: {run.stderr[-400:]}"
    return run.stdout.strip()


def inside(limit):
    """In the copy: play until something is violated, random schedules first."""
    from sidecar.protocol import machine  # noqa: PLC0415 - the copy's

    from .once import ONCE  # noqa: PLC0415
    from .schedule import generate  # noqa: PLC0415
    from .world import play  # noqa: PLC0415

    assert Path(machine.__file__).is_relative_to(Path.cwd()), f"{machine.__file__} is not the mutant"
    for seed in range(limit):
        if found := play(generate(seed)).violations:
            return f"seed {seed}: {found[0][1]}: {found[0][2]}"
    for name, schedule in ONCE.items():
        if found := play(schedule).violations:
            return f"{name}: {found[0][1]}: {found[0][2]}"
    return ""


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--limit", type=int, default=LIMIT, help="schedules per mutant")
    parser.add_argument("--only", default="", help="mutants with this in their name")
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.inside:
        found = inside(options.limit)
        print(found)  # noqa: T201 - a command
        return 0 if found else 1
    chosen = [each for each in MUTANTS if options.only in each.name]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        results = list(pool.map(lambda each: hunt(each, options.limit), chosen))
    for mutant, found in zip(chosen, results, strict=True):
        print(f"{mutant.name}: {found or 'NOT FOUND'}")  # noqa: T201 - a command
    caught = sum(bool(found) and not found.startswith("does not run") for found in results)
    print(f"{caught} of {len(chosen)} mutants found")  # noqa: T201 - a command
    return 0 if caught == len(chosen) else 1


if __name__ == "__main__":
    sys.exit(main())
