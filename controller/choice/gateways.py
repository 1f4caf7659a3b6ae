"""What a Gateway gives: its addresses, and its own status; which routes its listeners admit is in `listeners`. Pure.

A Gateway with one bad address goes on with the others, so that a slip of the pen takes nobody's address away; it says
so in `Programmed`. It is not accepted only where nothing of it can be used.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from controller.choice.listeners import ROUTE_KIND, admits_kind, attached, unknown_kinds
from controller.choice.reading import CIDR_ADDRESS, PLAIN_ADDRESS, Net, reserved

if TYPE_CHECKING:
    from controller.choice.objects import Address, Condition, Gateway, GatewayClass, Listener
    from controller.choice.snapshot import Snapshot

TRUE: Final = "True"
FALSE: Final = "False"
UNKNOWN: Final = "Unknown"
_INVALID_PARAMETERS: Final = "InvalidParameters"
_SHOWN: Final = 16
"""Gateway's CRD allows so many status.addresses."""


@dataclass(frozen=True, slots=True)
class Offer:
    """What can be had from a Gateway: the blocks, what is wrong with the others, and why none where there is none."""

    blocks: tuple[Net, ...]
    bad: tuple[str, ...]
    reason: str
    message: str

    @property
    def accepted(self) -> bool:
        """Whether routes can attach."""
        return self.reason == "Accepted"

    def covers(self, address: str) -> bool:
        """Whether a single address, with prefix length, is among the blocks."""
        one = ipaddress.ip_network(address)
        return any(block.version == one.version and one.subnet_of(block) for block in self.blocks)  # type: ignore[arg-type]


def offer(snap: Snapshot, gateway: Gateway) -> Offer:
    """Judge a Gateway's parameters and addresses."""
    if problem := _parameters_problem(snap, gateway):
        return Offer((), (), _INVALID_PARAMETERS, problem)
    blocks: list[Net] = []
    problems: dict[str, list[str]] = {}
    for i, address in enumerate(gateway.spec.addresses):
        found = _block(address)
        if isinstance(found, str):
            problems.setdefault(found, []).append(f"spec.addresses[{i}]")
        else:
            blocks.append(found)
    bad = [f"{', '.join(where)}: {problem}" for problem, where in problems.items()]
    if gateway.spec.addresses and not blocks:
        return Offer((), tuple(bad), "UnsupportedAddress", "none of its addresses can be used: " + "; ".join(bad))
    note = "; ignored: " + "; ".join(bad) if bad else ""
    many = "1 address or CIDR block is" if len(blocks) == 1 else f"{len(blocks)} addresses or CIDR blocks are"
    return Offer(tuple(blocks), tuple(bad), "Accepted", f"{many} available to routes{note}")


def _block(address: Address) -> Net | str:
    if address.type not in (CIDR_ADDRESS, PLAIN_ADDRESS):
        return f"type {address.type!r} is not supported; use {CIDR_ADDRESS} or {PLAIN_ADDRESS}"
    if not address.value:
        return "has no value; set it, holdfast does not allocate addresses"
    try:
        block = ipaddress.ip_network(address.value)
    except ValueError as error:
        return f"{address.value!r} is not an address or a CIDR block ({error}); correct it"
    if what := reserved(block):
        return f"{address.value} is reserved ({what}); give addresses that Pods can have"
    return block


def _parameters_problem(snap: Snapshot, gateway: Gateway) -> str:
    """What parameters say may restrict what a Gateway gives: holdfast, which has none, gives nothing then."""
    owner = snap.classes.get(gateway.spec.gateway_class_name)
    if owner is not None and owner.spec.parameters_ref is not None:
        return f"GatewayClass {owner.name}: {_unread('spec.parametersRef')}"
    if gateway.spec.infrastructure.parameters_ref is not None:
        return _unread("spec.infrastructure.parametersRef")
    return ""


def _unread(field: str) -> str:
    return f"{field} is set, and holdfast has no parameters: remove it"


# status ---------------------------------------------------------------------------------------------------------


def gateway_status(snap: Snapshot, gateway: Gateway) -> dict[str, Any] | None:
    """Give the status a Gateway is to have, times left out; None: its class is not ours to write."""
    owner = snap.classes.get(gateway.spec.gateway_class_name)
    if owner is None or not owner.ours:
        return None
    given, generation = offer(snap, gateway), gateway.metadata.generation
    shown = [str(block) for block in given.blocks][:_SHOWN]
    return {
        "addresses": [{"type": CIDR_ADDRESS, "value": value} for value in shown],
        "conditions": [
            condition("Accepted", _word(given), given.reason, given.message, generation),
            _programmed(given, generation),
        ],
        "listeners": [_listener_status(snap, gateway, each, given) for each in gateway.spec.listeners],
    }


def class_status(found: GatewayClass) -> dict[str, Any] | None:
    """Give the status a GatewayClass is to have; None: it is not ours."""
    if not found.ours:
        return None
    generation = found.metadata.generation
    if found.spec.parameters_ref is not None:
        message = _unread("spec.parametersRef")
        return {"conditions": [condition("Accepted", FALSE, _INVALID_PARAMETERS, message, generation)]}
    message = "holdfast manages Gateways of this class"
    return {"conditions": [condition("Accepted", TRUE, "Accepted", message, generation)]}


def _programmed(given: Offer, generation: int) -> dict[str, Any]:
    if not given.accepted:
        return condition("Programmed", FALSE, "Invalid", given.message, generation)
    if given.bad:
        return condition("Programmed", FALSE, "AddressNotUsable", "; ".join(given.bad), generation)
    if not given.blocks:
        message = "spec.addresses is empty: list the addresses that routes may use"
        return condition("Programmed", FALSE, "AddressNotAssigned", message, generation)
    return condition("Programmed", TRUE, "Programmed", given.message, generation)


def _listener_status(snap: Snapshot, gateway: Gateway, listener: Listener, given: Offer) -> dict[str, Any]:
    generation, ours, unknown = gateway.metadata.generation, admits_kind(listener), unknown_kinds(listener)
    said = "the listener allows routes by their kind and namespace" if ours else "the listener allows no GKEIPRoutes"
    return {
        "name": listener.name,
        "attachedRoutes": attached(snap, gateway, listener),
        "supportedKinds": [ROUTE_KIND] if ours else [],
        "conditions": [
            condition("Accepted", TRUE, "Accepted", said, generation),
            condition("Programmed", _word(given), "Programmed" if given.accepted else "Invalid", "", generation),
            condition("ResolvedRefs", FALSE, "InvalidRouteKinds", unknown, generation)
            if unknown
            else condition("ResolvedRefs", TRUE, "ResolvedRefs", "", generation),
        ],
    }


def _word(given: Offer) -> str:
    return TRUE if given.accepted else FALSE


def condition(kind: str, status: str, reason: str, message: str, generation: int) -> dict[str, Any]:
    """Write a condition as the API has it, without its time."""
    return {
        "type": kind,
        "status": status,
        "reason": reason,
        "message": message[:32768],
        "observedGeneration": generation,
    }


def plain(found: Condition) -> dict[str, Any]:
    """Write a condition that was read, without its time."""
    return {
        "type": found.type,
        "status": found.status,
        "reason": found.reason,
        "message": found.message,
        "observedGeneration": found.observed_generation,
    }
