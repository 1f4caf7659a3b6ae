"""What comes of judging a route, as values: the condition `Accepted`, and what the route's annotations ask for."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Final

from contract.names import HANDOVER, LEASE_SECONDS, MOST_DURATION_S, SELECTION, Handover

if TYPE_CHECKING:
    from controller.choice.objects import Key, Route

DURATION_S: Final = 10
FAST_DURATION_S: Final = 2
_DURATIONS: Final = range(1, MOST_DURATION_S + 1)


class Mode(StrEnum):
    """Who selects."""

    OWN = "own"  # holdfast does, and writes status
    FOLLOW = "follow"  # GKE does; holdfast reads status.pods
    IGNORED = "ignored"  # neither: the route is not looked at


class Reason(StrEnum):
    """The reasons of `Accepted`."""

    ACCEPTED = "Accepted"
    INVALID_LABELS = "InvalidLabels"
    MISSING_PARENT_REFS = "MissingParentRefs"
    GATEWAY_NOT_FOUND = "GatewayNotFound"
    GATEWAY_NOT_ACCEPTED = "GatewayNotAccepted"
    NO_MATCHING_PARENT = "NoMatchingParent"
    UNATTACHABLE = "Unattachable"
    INVALID_ADDRESSES = "InvalidAddresses"
    LOAD_BALANCING_NOT_SUPPORTED = "LoadBalancingNotSupported"
    NODE_SELECTOR_NOT_SUPPORTED = "NodeSelectorNotSupported"
    ADDRESS_CONFLICT = "AddressConflict"
    NETWORK_NOT_FOUND = "NetworkNotFound"
    NETWORK_NOT_READY = "NetworkNotReady"


@dataclass(frozen=True, slots=True)
class Wishes:
    """What a route's annotations ask for; what cannot be read, and what means nothing here, is a warning."""

    sticky: bool = False
    handover: Handover = Handover.EXCLUSIVE
    lease_s: int | None = None
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Acceptance:
    """The outcome.

    Attributes:
        addresses: all that the route asks for, in their one way of writing; empty where it is not rightful.
        waiting: those of them that another may still have.
    """

    mode: Mode
    reason: Reason
    message: str
    addresses: tuple[str, ...] = ()
    waiting: frozenset[str] = frozenset()
    fast: bool = False
    wishes: Wishes = field(default_factory=Wishes)

    @property
    def rightful(self) -> bool:
        """Whether the route's addresses are its to have, now or when others have let go."""
        return bool(self.addresses)

    @property
    def granted(self) -> tuple[str, ...]:
        """The addresses that it may have now."""
        return tuple(each for each in self.addresses if each not in self.waiting)

    @property
    def duration_s(self) -> int:
        """How long its Lease is to last without renewing."""
        return self.wishes.lease_s or (FAST_DURATION_S if self.fast else DURATION_S)


_WITHOUT_EFFECT: Final = {
    "allow_global_access": "spec.allowGlobalAccess has no effect: its network's routers decide who reaches an address",
    "ha_policy": f"spec.haPolicy has no effect: annotation {LEASE_SECONDS} says how soon a failover begins",
}
"""Fields of GKE's that mean nothing here and take nothing away."""


def wishes_of(route: Route) -> Wishes:
    """Read what a route's annotations ask for, and name the fields that have no effect."""
    notes = route.metadata.annotations
    warnings = [said for name, said in _WITHOUT_EFFECT.items() if getattr(route.spec, name) is not None]
    selection = notes.get(SELECTION, "Newest")
    if selection not in ("Newest", "Sticky"):
        warnings.append(f"annotation {SELECTION}: {selection!r} is ignored; write Newest or Sticky")
    handover = notes.get(HANDOVER, Handover.EXCLUSIVE)
    if handover not in tuple(Handover):
        warnings.append(f"annotation {HANDOVER}: {handover!r} is ignored; write Exclusive or Overlap")
        handover = Handover.EXCLUSIVE
    lease_s, text = None, notes.get(LEASE_SECONDS)
    if text is not None:
        if text.isascii() and text.isdecimal() and len(text) <= 2 and int(text) in _DURATIONS:
            lease_s = int(text)
        else:
            warnings.append(
                f"annotation {LEASE_SECONDS}: {text!r} is ignored; write a whole number from 1 to {MOST_DURATION_S}"
            )
    return Wishes(selection == "Sticky", Handover(handover), lease_s, tuple(warnings))


def with_warnings(message: str, wishes: Wishes) -> str:
    """Add to a message what has no effect."""
    return "; ".join((message, *wishes.warnings))


def name_of(key: Key) -> str:
    """Name an object as people write it."""
    return f"{key[0]}/{key[1]}"
