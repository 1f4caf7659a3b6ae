"""Which routes a Gateway's listeners admit. Pure.

A listener is meant by a route's reference unless `sectionName` or `port` means another. One that is meant admits by
kind, then by namespace. What else a listener has (`hostname`, `protocol`, `tls`) is about connections, and a Pod's
address has connections of all kinds: it narrows nothing here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from controller.choice.objects import Gateway, Key, Listener, ParentRef, RouteKind
    from controller.choice.snapshot import Snapshot

ROUTE_KIND: Final = {"group": "networking.gke.io", "kind": "GKEIPRoute"}
_ROUTE: Final = "{group: networking.gke.io, kind: GKEIPRoute}"


def unmatched(gateway: Gateway, ref: ParentRef) -> str:
    """Say that a reference means no listener of its Gateway, naming the field; ``""``: it means one."""
    listeners = gateway.spec.listeners
    if any(_meant(ref, each) for each in listeners):
        return ""
    if ref.section_name and not any(each.name == ref.section_name for each in listeners):
        there = ", ".join(each.name for each in listeners) or "none"
        return f"sectionName: there is no listener {ref.section_name!r} (there are: {there})"
    if ref.section_name:
        port = next(each.port for each in listeners if each.name == ref.section_name)
        return f"port: listener {ref.section_name} has port {port}, not {ref.port}"
    if ref.port:
        there = ", ".join(str(each.port) for each in listeners) or "none"
        return f"port: no listener has port {ref.port} (there are: {there})"
    return "there is no listener"


def refused(snap: Snapshot, gateway: Gateway, ref: ParentRef, namespace: str) -> str:
    """Say why no listener that a reference means admits routes of a namespace, and what to do; ``""``: one does."""
    meant = [each for each in gateway.spec.listeners if _meant(ref, each)]
    of_kind = [each for each in meant if admits_kind(each)]
    if not of_kind:
        return f"allows routes of kind GKEIPRoute: add {_ROUTE} to its spec.listeners[].allowedRoutes.kinds"
    if any(_admits_namespace(snap, gateway, each, namespace) for each in of_kind):
        return ""
    return f"allows routes from namespace {namespace}: correct its spec.listeners[].allowedRoutes"


def _meant(ref: ParentRef, listener: Listener) -> bool:
    return ref.section_name in ("", listener.name) and ref.port in (0, listener.port)


def admits_kind(listener: Listener) -> bool:
    """Whether a listener admits GKEIPRoutes at all: it names them, or no kind."""
    kinds = listener.allowed_routes.kinds
    return not kinds or any(map(_is_ours, kinds))


def _is_ours(kind: RouteKind) -> bool:
    return {"group": kind.group, "kind": kind.kind} == ROUTE_KIND


def _admits_namespace(snap: Snapshot, gateway: Gateway, listener: Listener, namespace: str) -> bool:
    allowed = listener.allowed_routes.namespaces
    match allowed.from_:
        case "All":
            return True
        case "Same":
            return namespace == gateway.metadata.namespace
        case "Selector":
            found = snap.namespaces.get(namespace)
            selector = allowed.selector
            return found is not None and selector is not None and selector.matches(found.metadata.labels)
    return False


def attached(snap: Snapshot, gateway: Gateway, listener: Listener) -> int:
    """Count the routes that refer to a listener and that it admits."""
    return sum(_attaches(snap, gateway, listener, key) for key in snap.routes_of_gateway.get(gateway.key, ()))


def _attaches(snap: Snapshot, gateway: Gateway, listener: Listener, route: Key) -> bool:
    refs = snap.routes[route].spec.parent_refs
    meant = any((ref.namespace or route[0], ref.name) == gateway.key and _meant(ref, listener) for ref in refs)
    return meant and admits_kind(listener) and _admits_namespace(snap, gateway, listener, route[0])


def unknown_kinds(listener: Listener) -> str:
    """Name the kinds that a listener admits and that holdfast does not have; ``""``: there are none."""
    kinds = [
        f"{{group: {each.group}, kind: {each.kind}}}" for each in listener.allowed_routes.kinds if not _is_ours(each)
    ]
    return f"allowedRoutes.kinds: holdfast does not serve {', '.join(kinds)}; it serves {_ROUTE}" if kinds else ""
