"""The machine's alphabet: what can happen to a route in this Pod, and what the machine can want done about it.

Values only. Each action in flight is answered by one event of its own; an announcement is not answered.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from contract.assignment import RouteEntry
    from contract.lease import LeaseView
    from contract.report import AddressReport, Fence


class IllegalEvent(Exception):  # noqa: N818 - as h11 names its own
    """An event that cannot follow in this state, as the result of an action that is not in flight."""


# Events ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Assigned:
    """The Pod's assignment names this route with this entry; None: it does not, or no longer."""

    entry: RouteEntry | None


@dataclass(frozen=True, slots=True)
class LeaseSeen:
    """A watch delivered this version of the Lease; None: it is deleted, or not there yet."""

    view: LeaseView | None


@dataclass(frozen=True, slots=True)
class Prepared:
    """Interface, socket and frames for the entry are ready, and the Lease is watched."""

    fence: Fence


@dataclass(frozen=True, slots=True)
class Unprepared:
    """The entry cannot be configured here; `reports` says why, one per address."""

    reports: tuple[AddressReport, ...]


@dataclass(frozen=True, slots=True)
class KernelSeen:
    """The entry's addresses that stand in the kernel with our mark, after a change or at start."""

    present: frozenset[str]


@dataclass(frozen=True, slots=True)
class Written:
    """The write in flight was applied; `sent_s` is when its request was sent."""

    view: LeaseView
    sent_s: float


@dataclass(frozen=True, slots=True)
class Refused:
    """The write in flight was certainly not applied (conflict, not found, forbidden, invalid)."""

    why: str


@dataclass(frozen=True, slots=True)
class Unanswered:
    """The request in flight may have been applied, or may be applied later."""

    why: str


@dataclass(frozen=True, slots=True)
class ReadDone:
    """The read in flight found this; None: there is no such Lease."""

    view: LeaseView | None


@dataclass(frozen=True, slots=True)
class Configured:
    """The kernel call in flight is over: what stands now, and how far each address got (announced where added)."""

    present: frozenset[str]
    reports: tuple[AddressReport, ...]
    fence: Fence


@dataclass(frozen=True, slots=True)
class Removed:
    """The removal in flight is over; `present` is what could not be removed."""

    present: frozenset[str]


@dataclass(frozen=True, slots=True)
class Reannounce:
    """The network may have forgotten or been told otherwise: a link up again or moved, another host's claim."""


@dataclass(frozen=True, slots=True)
class ClockStepped:
    """The wall clock was set: deadlines and lifetimes in the kernel must be written again."""


@dataclass(frozen=True, slots=True)
class Unfenced:
    """The deadlines in the kernel are gone, and could not be set again at once: only the lifetimes hold."""


@dataclass(frozen=True, slots=True)
class Stop:
    """End: hand over when a successor is prepared, release at `drain_until_s`, give up at `give_up_s`."""

    drain_until_s: float
    give_up_s: float


@dataclass(frozen=True, slots=True)
class Tick:
    """Time has passed (`wake_at` said when to come back)."""


Event = (
    Assigned
    | LeaseSeen
    | Prepared
    | Unprepared
    | KernelSeen
    | Written
    | Refused
    | Unanswered
    | ReadDone
    | Configured
    | Removed
    | Reannounce
    | ClockStepped
    | Unfenced
    | Stop
    | Tick
)


# Actions --------------------------------------------------------------------------------------------------------


class Kind(StrEnum):
    """The writes of docs/contract.md's table that a sidecar makes."""

    TAKE = "take"
    RENEW = "renew"
    PREPARE = "prepare"
    WITHDRAW = "withdraw"
    HAND_OVER = "hand over"
    RELEASE = "release"
    EXPLAIN = "explain"


@dataclass(frozen=True, slots=True)
class Write:
    """Write the Lease, valid for `view`'s version only; answered by Written, Refused or Unanswered."""

    kind: Kind
    view: LeaseView
    timeout_s: float
    successor: str = ""
    observed: str = ""


@dataclass(frozen=True, slots=True)
class Read:
    """Read the Lease; answered by ReadDone or Unanswered."""

    timeout_s: float


@dataclass(frozen=True, slots=True)
class Configure:
    """Make the kernel agree with `entry` until `deadline_s`; answered by Configured.

    Fence first, then addresses with a finite lifetime, then, for those newly added, the announcement; addresses of
    ours that the entry no longer names are removed.
    """

    entry: RouteEntry
    deadline_s: float


@dataclass(frozen=True, slots=True)
class Remove:
    """Remove these addresses; answered by Removed."""

    addresses: frozenset[str]


@dataclass(frozen=True, slots=True)
class Announce:
    """Send both gratuitous forms for these addresses now; not answered."""

    addresses: frozenset[str]


InFlight = Write | Read | Configure | Remove
Action = InFlight | Announce
