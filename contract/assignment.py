"""The assignment: the annotation by which the controller tells a Pod's sidecar which routes it is to hold."""

from __future__ import annotations

import msgspec

from contract.decode import VERSION, decode_json, host_address, interface_name, plain_address
from contract.errors import ContractError
from contract.names import Handover


class AddressEntry(msgspec.Struct, frozen=True, omit_defaults=True, order=True):
    """One address, ``a.b.c.d/32`` or an IPv6 ``/128``, and where it goes.

    Attributes:
        interface: its name; None: the interface that is on the Pod's own network, which the Pod's agent finds.
        pod_ip: the Pod's own IP address, by which it does.
    """

    address: str
    interface: str | None = None
    pod_ip: str | None = msgspec.field(default=None, name="podIP")


class RouteEntry(msgspec.Struct, frozen=True):
    """One route that the Pod is to hold, and the Lease, in the Pod's namespace, that says whether it does."""

    route: str
    lease: str
    handover: Handover
    addresses: tuple[AddressEntry, ...]


class Assignment(msgspec.Struct, frozen=True):
    """All the routes of one Pod; empty means that it holds nothing."""

    routes: tuple[RouteEntry, ...] = ()


class _Wire(msgspec.Struct, frozen=True):
    v: int
    routes: tuple[RouteEntry, ...]


def encode_assignment(assignment: Assignment) -> str:
    """Write the annotation's text; the same assignment always gives the same text."""
    return msgspec.json.encode(_Wire(VERSION, assignment.routes)).decode()


def decode_assignment(text: str, where: str) -> Assignment:
    """Read the annotation's text.

    Args:
        text: the annotation's value.
        where: the object it stands on, for messages.

    Raises:
        UnknownVersion: a version that is not spoken here.
        ContractError: anything else that is wrong, with the field's path.
    """
    routes = decode_json(text, _Wire, where).routes
    seen: set[str] = set()
    leases: set[str] = set()
    for i, entry in enumerate(routes):
        _check_entry(entry, where, f"routes[{i}]", seen)
        if entry.lease in leases:
            raise ContractError(where, f"routes[{i}].lease", f"{entry.lease!r} appears twice")
        leases.add(entry.lease)
    return Assignment(routes)


def _check_entry(entry: RouteEntry, where: str, path: str, seen: set[str]) -> None:
    for name in ("route", "lease"):
        if not getattr(entry, name):
            raise ContractError(where, f"{path}.{name}", "is empty")
    if not entry.addresses:
        raise ContractError(where, f"{path}.addresses", "is empty")
    for j, item in enumerate(entry.addresses):
        field = f"{path}.addresses[{j}]"
        host_address(item.address, where, f"{field}.address")
        if item.interface is not None:
            interface_name(item.interface, where, f"{field}.interface")
        if item.pod_ip is not None:
            plain_address(item.pod_ip, where, f"{field}.podIP")
        if item.address in seen:
            raise ContractError(where, f"{field}.address", f"{item.address} appears twice")
        seen.add(item.address)
