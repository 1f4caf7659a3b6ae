"""Whether a route is valid, attached and alone with its addresses: the condition `Accepted`. Pure.

Two questions are kept apart. *Rightful*: is the route valid, and the oldest of the valid ones that claim its
addresses? That rests on specs alone. *Let go*: has every other holder of one of its addresses let go of it? A
rightful route gets only those of its addresses that nobody else may still have; the others are `waiting`, and what it
holds already stays.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from contract.names import DEFAULT_NETWORKS
from controller.choice.acceptance import Acceptance, Mode, Reason, name_of, with_warnings
from controller.choice.reading import canonical
from controller.choice.validate import Validator

if TYPE_CHECKING:
    from controller.choice.objects import Key, Route
    from controller.choice.snapshot import Snapshot


_NETWORK_NEEDS: Final = {
    "Ready": "correct it, see its status",
    "ParamsReady": "correct the object that its spec.parametersRef names",
}
"""The conditions of a Network that must not be False, and what to do if one is."""


class Acceptor:
    """Judges routes over one state of the snapshot and remembers what it found; not to be kept over a change."""

    def __init__(self, snap: Snapshot) -> None:
        self._snap = snap
        self._validator = Validator(snap)
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
                f"{address} belongs to the older GKEIPRoute {name_of(other)}: use another address, or delete that route"
            )
            return _refused(valid, Reason.ADDRESS_CONFLICT, message)
        if (problem := _network_problem(self._snap, route)) is not None:
            return _refused(valid, *problem)
        return self._held_back(key, valid)

    def valid(self, key: Key) -> Acceptance:
        """Judge one route as if it were alone."""
        if key not in self._valid:
            self._valid[key] = self._validator.judge(key, self._snap.routes[key])
        return self._valid[key]

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
        return self._snap.routes[key].metadata.creation_timestamp, name_of(key)

    def _held_back(self, key: Key, valid: Acceptance) -> Acceptance:
        others = {address: self._snap.others_with(address, key) for address in valid.addresses}
        waiting = {address: leases for address, leases in others.items() if leases}
        if not waiting:
            return valid
        by_lease: dict[Key, list[str]] = {}
        for address, leases in waiting.items():
            by_lease.setdefault(leases[0], []).append(address)
        said = "; ".join(f"{', '.join(found)} (Lease {name_of(lease)})" for lease, found in by_lease.items())
        message = f"waiting for another route's Pod to release {said}; no action is needed"
        return Acceptance(
            valid.mode,
            Reason.ADDRESS_CONFLICT,
            with_warnings(message, valid.wishes),
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
    return Acceptance(valid.mode, reason, with_warnings(message, valid.wishes), fast=valid.fast, wishes=valid.wishes)


def _network_problem(snap: Snapshot, route: Route) -> tuple[Reason, str] | None:
    name = route.spec.network
    if name in DEFAULT_NETWORKS:
        return None
    network = snap.networks.get(name)
    if network is None:
        return Reason.NETWORK_NOT_FOUND, f"Network {name} does not exist: create it"
    for each in network.status.conditions:
        if each.type in _NETWORK_NEEDS and each.status == "False":
            why = ": ".join(part for part in (each.reason, each.message) if part)
            return Reason.NETWORK_NOT_READY, f"Network {name} is not {each.type} ({why}): {_NETWORK_NEEDS[each.type]}"
    return None
