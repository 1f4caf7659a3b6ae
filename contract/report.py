"""The report: what the holder's sidecar says, on the Lease, of the addresses it was given."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING

import msgspec

from contract.decode import VERSION, decode_json, host_address
from contract.errors import ContractError

if TYPE_CHECKING:
    from contract.lease import LeaseView


class Fence(StrEnum):
    """What silences a holder whose time is up although its process does nothing."""

    DEADLINE = "deadline"
    LIFETIME = "lifetime"


class AddressState(StrEnum):
    """How far one address is: on the interface, told to the network, claimed by another host, or not possible."""

    CONFIGURED = "configured"
    ANNOUNCED = "announced"
    CONFLICT = "conflict"
    FAILED = "failed"


class AddressReport(msgspec.Struct, frozen=True, omit_defaults=True):
    """One address of the report; `message` says what to do where the state is not a good one."""

    address: str
    interface: str
    state: AddressState
    message: str = ""


class Report(msgspec.Struct, frozen=True):
    """The whole report.

    Attributes:
        fence: what enforces the holder's deadline.
        addresses: one entry per address of the route.
        duration_s: the Lease duration that the holder counts its deadline with, 0 where it does not say. A
            controller that shortens the duration goes by the longer of the two until the holder has followed.
    """

    fence: Fence
    addresses: tuple[AddressReport, ...]
    duration_s: int = 0


class _Wire(msgspec.Struct, frozen=True, rename={"duration_s": "durationSeconds"}):
    v: int
    fence: Fence
    addresses: tuple[AddressReport, ...]
    duration_s: int = 0


def encode_report(report: Report) -> str:
    """Write the annotation's text; the same report always gives the same text."""
    return msgspec.json.encode(_Wire(VERSION, report.fence, report.addresses, report.duration_s)).decode()


def decode_report(text: str, where: str) -> Report:
    """Read the annotation's text.

    Raises:
        UnknownVersion: a version that is not spoken here.
        ContractError: anything else that is wrong, with the field's path.
    """
    wire = decode_json(text, _Wire, where)
    for i, item in enumerate(wire.addresses):
        host_address(item.address, where, f"addresses[{i}].address")
    return Report(wire.fence, wire.addresses, wire.duration_s)


def report_of(view: LeaseView) -> Report | None:
    """Give the report on a Lease; None where there is none that can be read."""
    try:
        return decode_report(view.observed, view.where) if view.observed else None
    except ContractError:
        return None
