"""What is known of one route in this Pod, and what follows from it: the machine's state and its phases.

Pure; `now` and all times are seconds of CLOCK_BOOTTIME. What an event changes is in
`sidecar.protocol.noting`, what is done in `sidecar.protocol.machine`, whose head says what rests on what.
"""

from __future__ import annotations

from enum import StrEnum

import msgspec

from contract.assignment import RouteEntry
from contract.lease import LeaseView
from contract.report import AddressReport, AddressState, Fence, Report, encode_report, report_of
from sidecar.protocol.events import InFlight


class Phase(StrEnum):
    """Where a route stands in this Pod; derived from the state, never stored."""

    ABSENT = "absent"  # not asked to hold it, and does not
    BLIND = "blind"  # the Lease is not known: what is configured stays until its deadline
    WAITING = "waiting"  # asked to hold it; another does, or nobody
    HOLDING = "holding"  # does hold it
    LEAVING = "leaving"  # does hold it, and is to let go
    OUSTED = "ousted"  # has addresses without the right to them; the fence has cut them off already


class State(msgspec.Struct, frozen=True):
    """All that is known of one route; a struct, since making a changed copy is on the way from event to frame.

    Attributes:
        me: UID of this Pod.
        unassigned: the assignment no longer names the route, and the Lease still names this Pod as owner.
        lease: the newest version seen.
        heard_s: when the Lease was last seen or read, whatever its version.
        base_s: when the last write that counts as a sign of life was sent; None: there is none that counts.
        duration_s: the least Lease duration seen since the base.
        present: the route's addresses that stand in the kernel.
        fenced_s: the deadline that the kernel has; None: none, or a step of the clock has spoilt it.
        stepped: the clock was set while the deadline was on its way to the kernel.
        prepared: interface, socket and frames are ready.
        flight: the action under way.
        reread: something was written of which the outcome is not known.
        write_at_s: not before this time may the Lease be written or read again after a failure.
        configure_at_s: not before this time are addresses added again after a failure; `remove_at_s`: removed.
        reported_s: when the report was last written.
        announcements: so many since something changed that the network must learn.
    """

    me: str
    entry: RouteEntry | None = None
    unassigned: bool = False
    lease: LeaseView | None = None
    heard_s: float = float("-inf")
    base_s: float | None = None
    duration_s: float = 0.0
    present: frozenset[str] = frozenset()
    fenced_s: float | None = None
    stepped: bool = False
    prepared: bool = False
    fence: Fence = Fence.LIFETIME
    reports: tuple[AddressReport, ...] = ()
    flight: InFlight | None = None
    reread: bool = False
    failures: int = 0
    write_at_s: float = 0.0
    configure_at_s: float = 0.0
    remove_at_s: float = 0.0
    reported_s: float = float("-inf")
    announce_at_s: float | None = None
    announced_s: float = float("-inf")
    announcements: int = 0
    drain_until_s: float | None = None
    give_up_s: float | None = None
    trouble: str = ""

    @property
    def mine(self) -> bool:
        """Whether the Lease, as far as known, names this Pod as holder."""
        return self.lease is not None and self.lease.holder == self.me

    @property
    def owner(self) -> bool:
        """Whether the Lease, as far as known, names this Pod as owner."""
        return self.lease is not None and self.lease.owner == self.me

    @property
    def deadline_s(self) -> float | None:
        """Until when this Pod may have the addresses configured; None: not at all before a renewal."""
        return None if self.base_s is None else self.base_s + self.duration_s

    @property
    def named(self) -> frozenset[str]:
        """The addresses of the entry."""
        return frozenset(a.address for a in self.entry.addresses) if self.entry else frozenset()

    @property
    def wanted(self) -> frozenset[str]:
        """Those of them that the Lease is for: what may be configured while this Pod holds it."""
        return self.named & frozenset(self.lease.addresses) if self.lease else frozenset()

    @property
    def successor(self) -> str:
        """The Pod that shall hold next and is prepared for it, or ``""``."""
        if self.lease is None or self.lease.owner in ("", self.me) or self.lease.prepared != self.lease.owner:
            return ""
        return self.lease.owner

    @property
    def report(self) -> str:
        """What the Lease is to say of the addresses: those that may stand soon, or still, are among them."""
        said = {each.address for each in self.reports}
        unsaid = self.wanted - said
        soon = tuple(
            AddressReport(each.address, each.interface or "", AddressState.FAILED, "not configured yet")
            for each in (self.entry.addresses if self.entry else ())
            if each.address in unsaid
        )
        still = tuple(
            AddressReport(address, "", AddressState.CONFIGURED, "not removed yet")
            for address in sorted(self.present - self.wanted - said)
        )
        return encode_report(Report(self.fence, self.reports + soon + still, self._counted_s))

    @property
    def _counted_s(self) -> int:
        """The duration that what stands in the kernel was counted with."""
        if self.lease is None:
            return 0
        before = report_of(self.lease) if self.present and self.fenced_s is None else None
        # an earlier self's deadline is still in the kernel, and the Lease's duration may have been shortened since
        return max(self.lease.duration_s, before.duration_s if before else 0)


def phase(s: State, now: float) -> Phase:
    """Say where the route stands."""
    if s.present and not _may_keep(s, now):
        return Phase.OUSTED
    if s.mine:
        return Phase.LEAVING if _must_leave(s, now) else Phase.HOLDING
    if s.entry is None:
        return Phase.ABSENT
    return Phase.BLIND if s.lease is None else Phase.WAITING


def _may_keep(s: State, now: float) -> bool:
    if s.lease is not None and not s.mine:
        return False
    if s.deadline_s is not None and now >= s.deadline_s:
        return False
    # without a base these are an earlier self's addresses, and that self's deadline is in the kernel
    return s.lease is not None or (s.entry is not None and not _drained(s, now))


def _must_leave(s: State, now: float) -> bool:
    if s.successor or s.entry is None:
        return True
    nobody_follows = s.drain_until_s is not None and s.lease is not None and not s.lease.owner
    return nobody_follows or _drained(s, now)


def _drained(s: State, now: float) -> bool:
    return s.drain_until_s is not None and now >= s.drain_until_s


def lapsed(s: State, now: float) -> bool:
    """Whether no time is left, or none counts."""
    return s.deadline_s is None or now >= s.deadline_s


def observed(s: State) -> str:
    """The report as it stands on the Lease, or ``""``."""
    return s.lease.observed if s.lease else ""


def older(a: LeaseView, b: LeaseView) -> bool:
    """Whether `a` is certainly an older version than `b` (versions are etcd revisions; others are taken as new)."""
    try:
        return int(a.version) < int(b.version)
    except ValueError:
        return False
