"""What one object says by itself: addresses in their one spelling, the entries on a Pod, whose Lease is whose. Pure."""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING, Final

from contract.assignment import RouteEntry, decode_assignment
from contract.errors import ContractError
from contract.names import ASSIGNMENT, lease_name
from contract.report import report_of

if TYPE_CHECKING:
    from contract.lease import LeaseView
    from controller.choice.objects import Address, Key, Pod, Route

PLAIN_ADDRESS: Final = "IPAddress"
CIDR_ADDRESS: Final = "gke.networking.io/cidr"
Net = ipaddress.IPv4Network | ipaddress.IPv6Network
_RESERVED: Final[dict[Net, str]] = {
    ipaddress.ip_network("0.0.0.0/8"): "this network",
    ipaddress.ip_network("127.0.0.0/8"): "loopback",
    ipaddress.ip_network("224.0.0.0/4"): "multicast",
    ipaddress.ip_network("255.255.255.255/32"): "broadcast",
    ipaddress.ip_network("::/128"): "unspecified",
    ipaddress.ip_network("::1/128"): "loopback",
    ipaddress.ip_network("ff00::/8"): "multicast",
}
"""Addresses that no host can be reached by (RFC 6890, RFC 5771, RFC 4291)."""
_LEASE_PREFIX: Final = "holdfast-"
_NODE_LEASES: Final = "kube-node-lease"


def is_route_lease(view: LeaseView) -> bool:
    """Whether a Lease is, by its name, one of a route; other programs' Leases and nodes' heartbeats are not."""
    return view.name.startswith(_LEASE_PREFIX) and view.namespace != _NODE_LEASES


def canonical(address: Address) -> str:
    """Give an address its one way of writing, with its prefix length; nonsense stays as it is."""
    try:
        if address.type == PLAIN_ADDRESS and "/" not in address.value:
            return str(ipaddress.ip_interface(address.value))
        return str(ipaddress.ip_interface(address.value)) if "/" in address.value else address.value
    except ValueError:
        return address.value


def reserved(block: Net) -> str:
    """Say for what a whole block, or one address, is reserved, so that no Pod can have it; ``""``: it is not."""
    found = (what for net, what in _RESERVED.items() if net.version == block.version and block.subnet_of(net))  # type: ignore[arg-type]
    return next(found, "")


def named(view: LeaseView) -> frozenset[str]:
    """The addresses that a Lease names, and those that are still in its holder's report."""
    report = report_of(view) if view.holder else None
    return frozenset(view.addresses).union(each.address for each in (report.addresses if report else ()))


def entries_on(pod: Pod) -> tuple[RouteEntry, ...]:
    """The entries that a Pod carries now; none where they cannot be read."""
    text = pod.metadata.annotations.get(ASSIGNMENT)
    if not text:
        return ()
    try:
        return decode_assignment(text, f"Pod {pod.metadata.namespace}/{pod.name}").routes
    except ContractError:
        return ()


def entry_on(pod: Pod, lease: str) -> RouteEntry | None:
    """The entry for a Lease that a Pod carries now."""
    return next((entry for entry in entries_on(pod) if entry.lease == lease), None)


def lease_key(route: Key) -> Key:
    """Where a route's Lease is."""
    return route[0], lease_name(route[1])


def parents(route: Route) -> list[Key]:
    """The Gateways a route refers to."""
    return [
        (ref.namespace or route.metadata.namespace, ref.name)
        for ref in route.spec.parent_refs
        if ref.kind == "Gateway" and ref.group == "gateway.networking.k8s.io"
    ]
