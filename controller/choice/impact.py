"""Which decisions an object can touch, so that an event costs what it concerns and no more. Pure.

Asked before and after a change of the snapshot; the union of both answers is what must be decided again. Too much is
harmless and slow, too little is a bug: tests/unit/controller/choice/test_decide_properties.py compares with deciding
everything.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from contract.lease import LeaseView
from controller.choice.accept import group
from controller.choice.decide import route_of
from controller.choice.objects import Gateway, GatewayClass, Key, Namespace, Network, Pod, Route
from controller.choice.reading import lease_key, parents

if TYPE_CHECKING:
    from controller.choice.snapshot import Snapshot


@dataclass(slots=True)
class Impact:
    """What is to be decided again; `spaces` are the namespaces whose Role may change."""

    routes: set[Key] = field(default_factory=set)
    pods: set[Key] = field(default_factory=set)
    gateways: set[Key] = field(default_factory=set)
    classes: set[str] = field(default_factory=set)
    spaces: set[str] = field(default_factory=set)

    def add(self, other: Impact) -> None:
        """Take in another."""
        self.routes |= other.routes
        self.pods |= other.pods
        self.gateways |= other.gateways
        self.classes |= other.classes
        self.spaces |= other.spaces

    def __bool__(self) -> bool:
        return bool(self.routes or self.pods or self.gateways or self.classes or self.spaces)


def everything(snap: Snapshot) -> Impact:
    """All there is."""
    routes = set(snap.routes) | {found for key in snap.leases if (found := route_of(snap, key)) is not None}
    spaces = {key[0] for key in (*routes, *snap.watching)}
    return Impact(routes, set(snap.annotated), set(snap.gateways), set(snap.classes), spaces)


def impact(snap: Snapshot, kind: type[Any], key: Key) -> Impact:
    """What one object, as the snapshot has it now, can touch."""
    if kind is Pod:
        return _of_pod(snap, key)
    if kind is LeaseView:
        return _of_lease(snap, key)
    if kind is Route:
        route = snap.routes.get(key)
        routes = group(snap, [key]) | {key} | _claiming(snap, lease_key(key))
        touched = Impact(routes, gateways=set(parents(route)) if route else set(), spaces={key[0]})
    elif kind is Gateway:
        touched = Impact(set(snap.routes_of_gateway.get(key, ())), gateways={key})
    elif kind is GatewayClass:
        # rare, and it decides who looks after routes that no Gateway claims
        touched = Impact(set(snap.routes), gateways=set(snap.gateways_of_class.get(key[1], ())), classes={key[1]})
    elif kind is Network:
        touched = Impact({each for each, route in snap.routes.items() if route.spec.network == key[1]})
    elif kind is Namespace:
        routes = set(snap.routes_in.get(key[1], ()))
        touched = Impact(routes, gateways={each for route in routes for each in parents(snap.routes[route])})
    else:
        touched = Impact()
    touched.routes |= group(snap, list(touched.routes))
    touched.spaces |= {each[0] for each in touched.routes}
    return touched


def _of_pod(snap: Snapshot, key: Key) -> Impact:
    pod = snap.pods.get(key)
    routes: set[Key] = set()
    uid = pod.metadata.uid if pod is not None else ""
    for each in snap.routes_in.get(key[0], ()):
        if key in snap.matched[each] or key[1] in snap.routes[each].status.pods:
            routes.add(each)
    for lease in snap.leases_in.get(key[0], ()):
        view = snap.leases[lease]
        if uid in (view.owner, view.holder, *view.lost) and (found := route_of(snap, lease)) is not None:
            routes.add(found)
    # (its namespace's Role names the Pods that watch themselves)
    return Impact(routes, {key}, spaces={key[0]} if key in snap.watching else set())


def _of_lease(snap: Snapshot, key: Key) -> Impact:
    route = route_of(snap, key)
    routes = {route} if route is not None else set()
    return Impact(routes | _claiming(snap, key), spaces={key[0]})


def _claiming(snap: Snapshot, lease: Key) -> set[Key]:
    """The routes that claim what whoever holds a Lease may have."""
    found: set[Key] = set()
    for address in snap.may_be_on(lease):
        found |= snap.claimants.get(address, set())
    return found
