"""Whether a route is valid, attached and alone with its addresses: the condition `Accepted`. Pure.

Two questions are kept apart. *Rightful*: is the route valid, and the oldest of the valid ones that claim its
addresses? That rests on specs alone. *Let go*: has every other holder of one of its addresses let go of it? A
rightful route gets only those of its addresses that nobody else may still have; the others are `waiting`, and what it
holds already stays.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Final

from contract.decode import host_address
from contract.errors import ContractError
from contract.names import DEFAULT_NETWORKS, HANDOVER, LEASE_SECONDS, MOST_DURATION_S, SELECTION, Handover
from controller.choice.gateways import Offer, admits, offer
from controller.choice.snapshot import CIDR_ADDRESS, PLAIN_ADDRESS, Snapshot, canonical

if TYPE_CHECKING:
    from controller.choice.objects import Gateway, Key, ParentRef, Route, Selector

DURATION_S: Final = 10
FAST_DURATION_S: Final = 2
_FAST: Final = "-persistent-fast-"
_DURATIONS: Final = range(1, MOST_DURATION_S + 1)
_LABEL_KEY: Final = re.compile(
    r"^(?:[a-z0-9](?:[-a-z0-9.]{0,251}[a-z0-9])?/)?[A-Za-z0-9](?:[-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?$"
)
_LABEL_VALUE: Final = re.compile(r"^(?:[A-Za-z0-9](?:[-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?$")


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
    UNATTACHABLE = "Unattachable"
    INVALID_ADDRESSES = "InvalidAddresses"
    ADDRESS_CONFLICT = "AddressConflict"
    NETWORK_NOT_FOUND = "NetworkNotFound"
    NETWORK_NOT_READY = "NetworkNotReady"


@dataclass(frozen=True, slots=True)
class Wishes:
    """What a route's annotations ask for; what cannot be read is a warning and has no effect."""

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


@dataclass(frozen=True, slots=True)
class _Parent:
    ref: ParentRef
    key: Key
    mode: Mode | None
    gateway: Gateway | None
    class_name: str = ""


class Acceptor:
    """Judges routes over one state of the snapshot and remembers what it found; not to be kept over a change."""

    def __init__(self, snap: Snapshot) -> None:
        self._snap = snap
        self._offers: dict[Key, Offer] = {}
        self._valid: dict[Key, Acceptance] = {}
        self._rival: dict[Key, tuple[str, Key] | None] = {}

    def judge(self, key: Key) -> Acceptance:
        """Judge one route."""
        valid = self.valid(key)
        if not valid.rightful:
            return valid
        route = self._snap.routes[key]
        if (rival := self._rival_of(key)) is not None:
            address, other = rival
            message = (
                f"{address} belongs to the older GKEIPRoute {_name(other)}: use another address, or delete that route"
            )
            return _refused(valid, Reason.ADDRESS_CONFLICT, message)
        if (problem := _network_problem(self._snap, route)) is not None:
            return _refused(valid, *problem)
        return self._held_back(key, valid)

    def valid(self, key: Key) -> Acceptance:
        """Judge one route as if it were alone."""
        if key not in self._valid:
            self._valid[key] = self._validate(key, self._snap.routes[key])
        return self._valid[key]

    # one route alone -------------------------------------------------------------------------------------------

    def _validate(self, key: Key, route: Route) -> Acceptance:
        parents = [self._parent(key, ref) for ref in route.spec.parent_refs]
        mode, wishes = self._mode(parents), _wishes(route)

        def refused(reason: Reason, message: str) -> Acceptance:
            return Acceptance(mode, reason, _with(message, wishes), wishes=wishes)

        if route.problem:
            reason = Reason.INVALID_LABELS if "podSelector" in route.field else Reason.INVALID_ADDRESSES
            return refused(reason, f"{route.field or 'the route'}: {route.problem}; correct it")
        if (problem := _selector_problem(route.spec.pod_selector)) is not None:
            return refused(Reason.INVALID_LABELS, problem)
        if not parents:
            return refused(Reason.MISSING_PARENT_REFS, "spec.parentRefs is empty: name the Gateway")
        usable, why = self._usable(key, parents, mode)
        if not usable:
            return refused(*why)
        found = self._addresses(route, usable, mode)
        if isinstance(found, str):
            return refused(Reason.INVALID_ADDRESSES, found)
        names = ", ".join(f"Gateway {_name(parent.key)}" for parent in usable)
        fast = any(_FAST in parent.class_name for parent in usable)
        message = _with(f"attached to {names}", wishes)
        return Acceptance(mode, Reason.ACCEPTED, message, found, fast=fast, wishes=wishes)

    def _parent(self, key: Key, ref: ParentRef) -> _Parent:
        where = (ref.namespace or key[0], ref.name)
        is_gateway = ref.kind == "Gateway" and ref.group == "gateway.networking.k8s.io"
        gateway = self._snap.gateways.get(where) if is_gateway else None
        if gateway is None:
            return _Parent(ref, where, None, None)
        name = gateway.spec.gateway_class_name
        found = self._snap.classes.get(name)
        if found is not None and found.ours:
            return _Parent(ref, where, Mode.OWN, gateway, name)
        if found is not None and found.followed:
            return _Parent(ref, where, Mode.FOLLOW, gateway, name)
        return _Parent(ref, where, Mode.IGNORED, gateway, name)

    def _mode(self, parents: list[_Parent]) -> Mode:
        modes = {parent.mode for parent in parents}
        if Mode.FOLLOW in modes:
            return Mode.FOLLOW
        if Mode.OWN in modes:
            return Mode.OWN
        # Nobody's route yet. Where GKE selects at all it will say what is wrong; where holdfast alone does, it does.
        classes = self._snap.classes.values()
        ours = any(each.ours for each in classes) and not any(each.followed for each in classes)
        return Mode.OWN if ours else Mode.IGNORED

    def _usable(self, key: Key, parents: list[_Parent], mode: Mode) -> tuple[list[_Parent], tuple[Reason, str]]:
        usable: list[_Parent] = []
        why: tuple[Reason, str] | None = None
        for parent in parents:
            problem = self._parent_problem(key, parent, mode)
            if problem is None:
                usable.append(parent)
            why = why or problem
        return usable, why or (Reason.UNATTACHABLE, "")

    def _parent_problem(self, key: Key, parent: _Parent, mode: Mode) -> tuple[Reason, str] | None:
        name, gateway = f"Gateway {_name(parent.key)}", parent.gateway
        if gateway is None:
            if parent.ref.kind != "Gateway":
                what = f"{parent.ref.kind} {_name(parent.key)}"
                return Reason.GATEWAY_NOT_FOUND, f"spec.parentRefs: {what} is not a Gateway: name a Gateway"
            return (
                Reason.GATEWAY_NOT_FOUND,
                f"{name} does not exist: create it, or create a new route with other spec.parentRefs",
            )
        if parent.mode is not mode or mode is Mode.IGNORED:
            message = f"{name} has gatewayClassName {parent.class_name!r}, which holdfast does not manage"
            return Reason.UNATTACHABLE, f"{message}: use one of holdfast's GatewayClasses"
        if mode is Mode.OWN and not (given := self._offer(parent.key, gateway)).accepted:
            return Reason.GATEWAY_NOT_ACCEPTED, f"{name} is not accepted: {given.message}"
        if mode is Mode.OWN and not admits(self._snap, gateway, parent.ref, key[0]):
            return Reason.UNATTACHABLE, (
                f"no listener of {name} allows routes from namespace {key[0]}: "
                "correct its spec.listeners[].allowedRoutes"
            )
        return None

    def _offer(self, key: Key, gateway: Gateway) -> Offer:
        if key not in self._offers:
            self._offers[key] = offer(gateway)
        return self._offers[key]

    def _addresses(self, route: Route, usable: list[_Parent], mode: Mode) -> tuple[str, ...] | str:
        found: list[str] = []
        for i, asked in enumerate(route.spec.addresses):
            at, address = f"spec.addresses[{i}]", canonical(asked)
            if asked.type not in (CIDR_ADDRESS, PLAIN_ADDRESS):
                return f"{at}: type {asked.type!r} is not supported; use {CIDR_ADDRESS} or {PLAIN_ADDRESS}"
            try:
                host = host_address(address, f"GKEIPRoute {_name(route.key)}", at)
            except ContractError as error:
                return f"{at}: {error.problem}"
            if host.is_multicast or host.is_loopback or host.is_unspecified:
                return f"{at}: {address} is multicast, loopback or unspecified; use a unicast address"
            if address in found:
                return f"{at}: {address} appears twice; remove one"
            given = [self._offer(parent.key, parent.gateway) for parent in usable if parent.gateway is not None]
            if mode is Mode.OWN and not any(each.covers(address) for each in given):
                names = " or ".join(f"Gateway {_name(parent.key)}" for parent in usable)
                have = ", ".join(str(block) for each in given for block in each.blocks) or "none"
                return f"{at}: {address} is not in the addresses of {names} ({have}): add it there, or use one of those"
            found.append(address)
        return tuple(found) or "spec.addresses is empty: list the addresses for the Pod"

    # among others ----------------------------------------------------------------------------------------------

    def _rival_of(self, key: Key) -> tuple[str, Key] | None:
        """The older route that has one of its addresses; the whole group that touches each other is settled at once."""
        if key in self._rival:
            return self._rival[key]
        taken: dict[str, Key] = {}
        for each in sorted(group(self._snap, [key]), key=self._age):
            valid = self.valid(each)
            if not valid.rightful or valid.mode is Mode.IGNORED:
                continue
            rival = next(((address, taken[address]) for address in valid.addresses if address in taken), None)
            self._rival[each] = rival
            if rival is None:
                taken.update(dict.fromkeys(valid.addresses, each))
        return self._rival.get(key)

    def _age(self, key: Key) -> tuple[str, str]:
        return self._snap.routes[key].metadata.creation_timestamp, _name(key)

    def _held_back(self, key: Key, valid: Acceptance) -> Acceptance:
        others = {address: self._snap.others_with(address, key) for address in valid.addresses}
        waiting = {address: leases for address, leases in others.items() if leases}
        if not waiting:
            return valid
        by_lease: dict[Key, list[str]] = {}
        for address, leases in waiting.items():
            by_lease.setdefault(leases[0], []).append(address)
        said = "; ".join(f"{', '.join(found)} (Lease {_name(lease)})" for lease, found in by_lease.items())
        message = f"waiting for another route's Pod to release {said}; no action is needed"
        return Acceptance(
            valid.mode,
            Reason.ADDRESS_CONFLICT,
            _with(message, valid.wishes),
            valid.addresses,
            frozenset(waiting),
            valid.fast,
            valid.wishes,
        )


def group(snap: Snapshot, keys: list[Key]) -> set[Key]:
    """All routes that share addresses with these, directly or through others."""
    found, todo = set(keys), list(keys)
    while todo:
        route = snap.routes.get(todo.pop())
        for address in route.spec.addresses if route is not None else ():
            fresh = snap.claimants.get(canonical(address), set()) - found
            found |= fresh
            todo.extend(fresh)
    return {key for key in found if key in snap.routes}


def _refused(valid: Acceptance, reason: Reason, message: str) -> Acceptance:
    return Acceptance(valid.mode, reason, _with(message, valid.wishes), fast=valid.fast, wishes=valid.wishes)


def _with(message: str, wishes: Wishes) -> str:
    return "; ".join((message, *wishes.warnings))


def _name(key: Key) -> str:
    return f"{key[0]}/{key[1]}"


def _network_problem(snap: Snapshot, route: Route) -> tuple[Reason, str] | None:
    name = route.spec.network
    if name in DEFAULT_NETWORKS:
        return None
    network = snap.networks.get(name)
    if network is None:
        return Reason.NETWORK_NOT_FOUND, f"Network {name} does not exist: create it"
    for each in network.status.conditions:
        if each.type == "Ready" and each.status == "False":
            why = ": ".join(part for part in (each.reason, each.message) if part)
            return Reason.NETWORK_NOT_READY, f"Network {name} is not Ready ({why}): correct it, see its status"
    return None


def _selector_problem(selector: Selector) -> str | None:
    if selector.empty:
        return "spec.podSelector is empty: select Pods with matchLabels or matchExpressions"
    for key, value in selector.match_labels.items():
        if not _LABEL_KEY.match(key) or not _LABEL_VALUE.match(value):
            return f"spec.podSelector.matchLabels: {key}={value} is not a valid label: correct it"
    for i, need in enumerate(selector.match_expressions):
        at = f"spec.podSelector.matchExpressions[{i}]"
        if not _LABEL_KEY.match(need.key):
            return f"{at}.key: {need.key!r} is not a valid label key: correct it"
        if need.operator not in ("In", "NotIn", "Exists", "DoesNotExist"):
            return f"{at}.operator: {need.operator!r} is not an operator: use In, NotIn, Exists or DoesNotExist"
        if (need.operator in ("In", "NotIn")) != bool(need.values):
            return f"{at}.values: In and NotIn need values; Exists and DoesNotExist allow none"
    return None


def _wishes(route: Route) -> Wishes:
    notes, warnings = route.metadata.annotations, []
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
