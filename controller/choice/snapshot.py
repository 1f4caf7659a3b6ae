"""The world as the API server showed it: dictionaries by kind, and the indexes that make one event cheap.

What decides only reads it. The decision loop alone changes it, by `put` and `drop`, which keep the indexes; each
index answers a question that `decide` asks for one route, so that no answer takes work that grows with the number of
Pods. Facts about time (`expired`, `untaken`) are put in from outside: nothing here knows a clock.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from contract.lease import LeaseView
from contract.names import ASSIGNMENT, MOST_DURATION_S
from controller.choice.objects import (
    Gateway,
    GatewayClass,
    Key,
    Namespace,
    Network,
    Object,
    Pod,
    Route,
)
from controller.choice.reading import canonical, entries_on, lease_key, named, parents

if TYPE_CHECKING:
    from collections.abc import Iterable

    from controller.choice.expiry import Sign

Item = Object | LeaseView
"""What is taken in."""


@dataclass(frozen=True, slots=True)
class Vanished:
    """The last that was seen of a Lease that is no more.

    Attributes:
        final: nothing was missed since.
        known: it was seen at all; else there are only entries that name it.
    """

    view: LeaseView
    final: bool
    known: bool = True

    @property
    def counts(self) -> bool:
        """Whether somebody may still have what it named: who held it, or who may have taken it unseen."""
        return bool(self.view.holder) or not self.final


@dataclass(frozen=True, slots=True)
class UnderWay:
    """A write to a Lease that may be applied yet: for which version, and which addresses it names."""

    version: str
    addresses: frozenset[str]


class Snapshot:
    """All objects, by kind and key."""

    def __init__(self) -> None:
        self.classes: dict[str, GatewayClass] = {}
        self.gateways: dict[Key, Gateway] = {}
        self.routes: dict[Key, Route] = {}
        self.networks: dict[str, Network] = {}
        self.namespaces: dict[str, Namespace] = {}
        self.pods: dict[Key, Pod] = {}
        self.leases: dict[Key, LeaseView] = {}
        self.vanished: dict[Key, Vanished] = {}
        self.under_way: dict[Key, UnderWay] = {}
        self.expired: frozenset[Sign] = frozenset()
        self.untaken: frozenset[Sign] = frozenset()
        # indexes
        self.pod_by_uid: dict[str, Pod] = {}
        self.annotated: set[Key] = set()
        self.watching: set[Key] = set()
        self.pods_in: dict[str, set[Key]] = defaultdict(set)
        self.routes_in: dict[str, set[Key]] = defaultdict(set)
        self.leases_in: dict[str, set[Key]] = defaultdict(set)
        self.route_of_lease: dict[Key, Key] = {}
        self.matched: dict[Key, set[Key]] = {}
        self.routes_of_gateway: dict[Key, set[Key]] = defaultdict(set)
        self.gateways_of_class: dict[str, set[Key]] = defaultdict(set)
        self.claimants: dict[str, set[Key]] = defaultdict(set)
        self.named_by: dict[str, set[Key]] = defaultdict(set)

    @classmethod
    def of(cls, *objects: Item) -> Snapshot:
        """Make one of some objects."""
        made = cls()
        for each in objects:
            made.put(each)
        return made

    # change ----------------------------------------------------------------------------------------------------

    def put(self, new: Item) -> None:
        """Take in a version of an object."""
        match new:
            case LeaseView():
                self._put_lease(new)
            case Pod():
                self._put_pod(new)
            case Route():
                self._put_route(new)
            case Gateway():
                self.drop(Gateway, new.key)
                self.gateways[new.key] = new
                self.gateways_of_class[new.spec.gateway_class_name].add(new.key)
            case GatewayClass():
                self.classes[new.name] = new
            case Network():
                self.networks[new.name] = new
            case Namespace():
                self.namespaces[new.name] = new

    def drop(self, kind: type[Any], key: Key) -> None:
        """An object is no more; nothing happens where it was not known."""
        if kind is LeaseView:
            self._drop_lease(key)
            self.under_way.pop(key, None)  # every write to it names its UID
        elif kind is Pod:
            self._drop_pod(key)
        elif kind is Route:
            self._drop_route(key)
            gone = self.vanished.get(lease_key(key))
            if gone is not None and not gone.counts:
                del self.vanished[lease_key(key)]
        elif kind is Gateway:
            if (old := self.gateways.pop(key, None)) is not None:
                _discard(self.gateways_of_class, old.spec.gateway_class_name, key)
        elif kind is GatewayClass:
            self.classes.pop(key[1], None)
        elif kind is Network:
            self.networks.pop(key[1], None)
        elif kind is Namespace:
            self.namespaces.pop(key[1], None)

    def note_vanished(self, view: LeaseView, *, final: bool) -> bool:
        """A Lease is being dropped: remember how it was last seen; says whether somebody may still count with it."""
        key, gone = (view.namespace, view.name), Vanished(view, final)
        if gone.counts or key in self.route_of_lease:
            self.vanished[key] = gone
        return gone.counts

    def note_left_behind(self) -> list[LeaseView]:
        """Count Leases that entries name and that are not there as vanished, each as it may have been at most."""
        found: dict[Key, set[str]] = defaultdict(set)
        for pod in (self.pods[key] for key in self.annotated):
            for entry in entries_on(pod):
                key = (pod.metadata.namespace, entry.lease)
                if key not in self.leases and key not in self.vanished:
                    found[key].update(each.address for each in entry.addresses)
        views = [
            LeaseView(*key, uid="", version="0", addresses=tuple(sorted(addresses)), duration_s=MOST_DURATION_S)
            for key, addresses in sorted(found.items())
        ]
        self.vanished |= {(each.namespace, each.name): Vanished(each, final=False, known=False) for each in views}
        return views

    def run_out(self, key: Key) -> bool:
        """The time of a Lease that vanished is over: forget it; says whether there was one."""
        return key not in self.leases and self.vanished.pop(key, None) is not None

    def note_sent(self, key: Key, version: str, addresses: Iterable[str]) -> None:
        """A write to a Lease is on its way: what it names counts as named until its outcome is known."""
        self.under_way[key] = UnderWay(version, frozenset(addresses))

    def note_refused(self, key: Key) -> None:
        """The write that was on its way was certainly not applied."""
        self.under_way.pop(key, None)

    def _put_lease(self, view: LeaseView) -> None:
        key = (view.namespace, view.name)
        self._drop_lease(key)
        self.leases[key] = view
        self.leases_in[view.namespace].add(key)
        self.vanished.pop(key, None)
        sent = self.under_way.get(key)
        if sent is not None and view.version != sent.version:
            # whether it was this write or another that made a new version: for the old one none can be applied any more
            del self.under_way[key]
        for address in named(view):
            self.named_by[address].add(key)

    def _drop_lease(self, key: Key) -> None:
        old = self.leases.pop(key, None)
        if old is None:
            return
        _discard(self.leases_in, key[0], key)
        for address in named(old):
            _discard(self.named_by, address, key)

    def _put_pod(self, pod: Pod) -> None:
        self._drop_pod(pod.key)
        self.pods[pod.key] = pod
        self.pods_in[pod.metadata.namespace].add(pod.key)
        self.pod_by_uid[pod.metadata.uid] = pod
        if ASSIGNMENT in pod.metadata.annotations:
            self.annotated.add(pod.key)
        if pod.watches:
            self.watching.add(pod.key)
        for key in self.routes_in.get(pod.metadata.namespace, ()):
            if self.routes[key].spec.pod_selector.matches(pod.metadata.labels):
                self.matched[key].add(pod.key)

    def _drop_pod(self, key: Key) -> None:
        old = self.pods.pop(key, None)
        if old is None:
            return
        self.pod_by_uid.pop(old.metadata.uid, None)
        self.annotated.discard(key)
        self.watching.discard(key)
        _discard(self.pods_in, key[0], key)
        for route in self.routes_in.get(key[0], ()):
            self.matched[route].discard(key)

    def _put_route(self, route: Route) -> None:
        key = route.key
        old = self.routes.get(key)
        if old is None or old.spec.pod_selector != route.spec.pod_selector:
            selector, pods = route.spec.pod_selector, self.pods_in.get(key[0], set())
            found = {pod for pod in pods if selector.matches(self.pods[pod].metadata.labels)}
        else:
            found = self.matched[key]
        self._drop_route(key)
        self.routes[key] = route
        self.matched[key] = found
        self.routes_in[key[0]].add(key)
        self.route_of_lease[lease_key(key)] = key
        for address in route.spec.addresses:
            self.claimants[canonical(address)].add(key)
        for gateway in parents(route):
            self.routes_of_gateway[gateway].add(key)

    def _drop_route(self, key: Key) -> None:
        old = self.routes.get(key)
        if old is None:
            return
        del self.routes[key]
        self.matched.pop(key, None)
        _discard(self.routes_in, key[0], key)
        self.route_of_lease.pop(lease_key(key), None)
        for address in old.spec.addresses:
            _discard(self.claimants, canonical(address), key)
        for gateway in parents(old):
            _discard(self.routes_of_gateway, gateway, key)

    def stores(self) -> dict[type[Any], dict[Any, Any]]:
        """The dictionary of each kind."""
        return {
            GatewayClass: self.classes,
            Gateway: self.gateways,
            Route: self.routes,
            Network: self.networks,
            Namespace: self.namespaces,
            Pod: self.pods,
            LeaseView: self.leases,
        }

    # questions -------------------------------------------------------------------------------------------------

    def candidates(self, route: Key) -> list[Pod]:
        """The Pods that a route's selector matches, in no order that means anything."""
        return [self.pods[key] for key in sorted(self.matched.get(route, ()))]

    def lease_of(self, route: Key) -> LeaseView | None:
        """The Lease of a route."""
        return self.leases.get(lease_key(route))

    def may_be_on(self, key: Key) -> frozenset[str]:
        """The addresses that whoever holds a Lease, now or by its next write, may have configured.

        Those that it names, those that its holder still reports, and those that a write under way may give it. A Lease
        that was deleted while it was held stands for what it named until it is made again, or has run out.
        """
        view, gone, sent = self.leases.get(key), self.vanished.get(key), self.under_way.get(key)
        if view is None and gone is not None and gone.counts:
            # one that went while it was not looked at was most likely free by then; that is not certain
            view = gone.view
        found = named(view) if view is not None else frozenset[str]()
        return found if sent is None else found | sent.addresses

    def others_with(self, address: str, route: Key) -> list[Key]:
        """The Leases, but for the route's own, whose holders may have an address configured now."""
        mine = lease_key(route)
        asked: Iterable[Key] = self.named_by.get(address, set()) | self.vanished.keys() | self.under_way.keys()
        return sorted(key for key in asked if key != mine and address in self.may_be_on(key))


def _discard(index: dict[Any, set[Any]], at: Any, key: Any) -> None:
    members = index.get(at)
    if members is None:
        return
    members.discard(key)
    if not members:
        del index[at]
