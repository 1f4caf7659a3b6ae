"""Whether a route is valid by itself: its fields, its Gateways, and the addresses that these list. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from contract.decode import host_address
from contract.errors import ContractError
from controller.choice.acceptance import Acceptance, Mode, Reason, name_of, wishes_of, with_warnings
from controller.choice.gateways import Offer, offer
from controller.choice.listeners import refused as refused_by
from controller.choice.listeners import unmatched
from controller.choice.reading import CIDR_ADDRESS, PLAIN_ADDRESS, canonical, reserved

if TYPE_CHECKING:
    from controller.choice.objects import Gateway, Key, ParentRef, Route, RouteSpec, Selector
    from controller.choice.snapshot import Snapshot

_GROUP: Final = "gateway.networking.k8s.io"
_FAST: Final = "-persistent-fast-"
_LABEL_KEY: Final = re.compile(
    r"^(?:[a-z0-9](?:[-a-z0-9.]{0,251}[a-z0-9])?/)?[A-Za-z0-9](?:[-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?$"
)
_LABEL_VALUE: Final = re.compile(r"^(?:[A-Za-z0-9](?:[-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?$")


@dataclass(frozen=True, slots=True)
class _Parent:
    at: str
    ref: ParentRef
    key: Key
    mode: Mode | None
    gateway: Gateway | None
    class_name: str = ""


class Validator:
    """Judges single routes over one state of the snapshot; not to be kept over a change."""

    def __init__(self, snap: Snapshot) -> None:
        self._snap = snap
        self._offers: dict[Key, Offer] = {}

    def judge(self, key: Key, route: Route) -> Acceptance:
        """Judge a route as if it were alone; whether its Network exists is not asked."""
        parents = [self._parent(key, f"spec.parentRefs[{i}]", ref) for i, ref in enumerate(route.spec.parent_refs)]
        mode, wishes = self._mode(parents), wishes_of(route)

        def refused(reason: Reason, message: str) -> Acceptance:
            return Acceptance(mode, reason, with_warnings(message, wishes), wishes=wishes)

        if (problem := _own_problem(route, mode)) is not None:
            return refused(*problem)
        problems = {parent.at: self._parent_problem(key, parent, mode) for parent in parents}
        usable = [parent for parent in parents if problems[parent.at] is None]
        others = [(at, problem) for at, problem in problems.items() if problem is not None]
        if not usable:
            return refused(*others[0][1])
        found = self._addresses(route, usable, mode)
        if isinstance(found, str):
            return refused(Reason.INVALID_ADDRESSES, found)
        names = ", ".join(f"Gateway {name_of(parent.key)}" for parent in usable)
        fast = any(_FAST in parent.class_name for parent in usable)
        left = "".join(f", but {_placed(at, message)}" for at, (_, message) in others)
        message = with_warnings(f"attached to {names}{left}", wishes)
        return Acceptance(mode, Reason.ACCEPTED, message, found, fast=fast, wishes=wishes)

    def _parent(self, key: Key, at: str, ref: ParentRef) -> _Parent:
        where = (ref.namespace or key[0], ref.name)
        gateway = self._snap.gateways.get(where) if _is_gateway(ref) else None
        if gateway is None:
            return _Parent(at, ref, where, None, None)
        name = gateway.spec.gateway_class_name
        found = self._snap.classes.get(name)
        if found is not None and found.ours:
            return _Parent(at, ref, where, Mode.OWN, gateway, name)
        if found is not None and found.followed:
            return _Parent(at, ref, where, Mode.FOLLOW, gateway, name)
        return _Parent(at, ref, where, Mode.IGNORED, gateway, name)

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

    def _parent_problem(self, key: Key, parent: _Parent, mode: Mode) -> tuple[Reason, str] | None:
        name, gateway = f"Gateway {name_of(parent.key)}", parent.gateway
        if gateway is None:
            if not _is_gateway(parent.ref):
                what = f"{parent.ref.kind} {name_of(parent.key)} of group {parent.ref.group!r}"
                return Reason.GATEWAY_NOT_FOUND, f"{parent.at}: {what} is not a Gateway: name a Gateway of {_GROUP}"
            return (
                Reason.GATEWAY_NOT_FOUND,
                f"{name} does not exist: create it, or create a new route with other spec.parentRefs",
            )
        if parent.mode is not mode or mode is Mode.IGNORED:
            message = f"{name} has gatewayClassName {parent.class_name!r}, which holdfast does not manage"
            return Reason.UNATTACHABLE, f"{message}: use one of holdfast's GatewayClasses"
        return self._refusal(key, parent, gateway) if mode is Mode.OWN else None

    def _refusal(self, key: Key, parent: _Parent, gateway: Gateway) -> tuple[Reason, str] | None:
        name = f"Gateway {name_of(parent.key)}"
        if not (given := self._offer(parent.key, gateway)).accepted:
            return Reason.GATEWAY_NOT_ACCEPTED, f"{name} is not accepted: {given.message}"
        if why := unmatched(gateway, parent.ref):
            message = f"{parent.at}.{why}: correct {name}, or create a new route with another reference"
            return Reason.NO_MATCHING_PARENT, message
        if why := refused_by(self._snap, gateway, parent.ref, key[0]):
            return Reason.UNATTACHABLE, f"no listener of {name} {why}"
        return None

    def _offer(self, key: Key, gateway: Gateway) -> Offer:
        if key not in self._offers:
            self._offers[key] = offer(self._snap, gateway)
        return self._offers[key]

    def _addresses(self, route: Route, usable: list[_Parent], mode: Mode) -> tuple[str, ...] | str:
        found: list[str] = []
        for i, asked in enumerate(route.spec.addresses):
            at, address = f"spec.addresses[{i}]", canonical(asked)
            if asked.type not in (CIDR_ADDRESS, PLAIN_ADDRESS):
                return f"{at}: type {asked.type!r} is not supported; use {CIDR_ADDRESS} or {PLAIN_ADDRESS}"
            try:
                host = host_address(address, f"GKEIPRoute {name_of(route.key)}", at)
            except ContractError as error:
                return f"{at}: {error.problem}"
            if what := reserved(host.network):
                return f"{at}: {address} is reserved ({what}); use an address that a Pod can have"
            if address in found:
                return f"{at}: {address} appears twice; remove one"
            given = [self._offer(parent.key, parent.gateway) for parent in usable if parent.gateway is not None]
            if mode is Mode.OWN and not any(each.covers(address) for each in given):
                names = " or ".join(f"Gateway {name_of(parent.key)}" for parent in usable)
                have = ", ".join(str(block) for each in given for block in each.blocks) or "none"
                return f"{at}: {address} is not in the addresses of {names} ({have}): add it there, or use one of those"
            found.append(address)
        return tuple(found) or "spec.addresses is empty: list the addresses for the Pod"


def _own_problem(route: Route, mode: Mode) -> tuple[Reason, str] | None:
    """What is wrong with a route whatever else there is."""
    if route.problem:
        reason = Reason.INVALID_LABELS if "podSelector" in route.field else Reason.INVALID_ADDRESSES
        return reason, f"{route.field or 'the route'}: {route.problem}; correct it"
    if (problem := _selector_problem(route.spec.pod_selector)) is not None:
        return Reason.INVALID_LABELS, problem
    if (unsupported := _unsupported(route.spec, mode)) is not None:
        return unsupported
    if not route.spec.parent_refs:
        return Reason.MISSING_PARENT_REFS, "spec.parentRefs is empty: name the Gateway"
    return None


def _unsupported(spec: RouteSpec, mode: Mode) -> tuple[Reason, str] | None:
    """What GKE has and holdfast has not, and that would change who gets the addresses if it were passed over."""
    if spec.load_balancing is not None:
        return Reason.LOAD_BALANCING_NOT_SUPPORTED, (
            "spec.loadBalancing asks for several Pods with one address, and holdfast gives it to one Pod at a time: "
            "remove it, or put a load balancer before the Pods"
        )
    if spec.node_selector and mode is not Mode.FOLLOW:
        return Reason.NODE_SELECTOR_NOT_SUPPORTED, (
            "spec.nodeSelector is not supported: remove it, and select the Pods by spec.podSelector or place them by "
            "the nodeSelector of their template"
        )
    return None


def _placed(at: str, message: str) -> str:
    return message if message.startswith(at) else f"{at}: {message}"


def _is_gateway(ref: ParentRef) -> bool:
    return ref.kind == "Gateway" and ref.group == _GROUP


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
