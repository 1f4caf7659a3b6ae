"""Strict decoding: every error names the object and the field."""

from __future__ import annotations

import ipaddress
import re
from typing import Any, TypeVar

import msgspec

from contract.errors import ContractError, UnknownVersion

T = TypeVar("T")
VERSION = 1

_PATH = re.compile(r"^(?P<problem>.*?)(?: - at `\$\.?(?P<path>[^`]*)`)?$", re.DOTALL)
_INTERFACE = re.compile(r"[^\s/:\0\ud800-\udfff]{1,15}")


class _Version(msgspec.Struct):
    v: Any = None


_read_version = msgspec.json.Decoder(_Version).decode  # made before there are threads: see contract.lease


def decode_json(text: str | bytes, kind: type[T], where: str) -> T:
    """Decode versioned JSON into `kind`, tolerating fields it does not know.

    Raises:
        UnknownVersion: ``v`` is not the version spoken here.
        ContractError: anything else, with the field's path.
    """
    try:
        version = _read_version(text).v
    except msgspec.DecodeError as error:
        raise named_error(where, error) from error
    if type(version) is not int or version != VERSION:
        raise UnknownVersion(where, version, VERSION)
    try:
        return msgspec.json.decode(text, type=kind)
    except msgspec.DecodeError as error:
        raise named_error(where, error) from error


def named_error(where: str, error: Exception) -> ContractError:
    """Turn a decoder's error into ours, with the path of the field."""
    match = _PATH.match(str(error))
    field = (match["path"] or "") if match else ""
    problem = match["problem"] if match else str(error)
    return ContractError(where, field, problem)


def host_address(value: str, where: str, field: str) -> ipaddress.IPv4Interface | ipaddress.IPv6Interface:
    """Read a single address with its full-length prefix, ``/32`` or ``/128`` (seed, step 5).

    Raises:
        ContractError: not an address, host bits cut off, or another prefix length.
    """
    try:
        if "/" not in value:
            raise ValueError("the prefix length is missing")  # noqa: TRY301 - one message for both
        parsed = ipaddress.ip_interface(value)
    except ValueError as error:
        raise ContractError(where, field, f"{value!r} is not an address with its prefix length ({error})") from error
    if parsed.network.prefixlen != parsed.max_prefixlen:
        one = f"{parsed.ip}/{parsed.max_prefixlen}"
        raise ContractError(where, field, f"{value!r} is a range; give one address, as {one}")
    if str(parsed) != value:
        raise ContractError(where, field, f"{value!r} is not in canonical form; write {parsed}")
    return parsed


def plain_address(value: str, where: str, field: str) -> str:
    """Check an address without a prefix length, and give it its one way of writing.

    Raises:
        ContractError: it is not one.
    """
    try:
        return str(ipaddress.ip_address(value))
    except ValueError as error:
        raise ContractError(where, field, f"{value!r} is not an address ({error})") from error


def interface_name(value: str, where: str, field: str) -> str:
    """Check the name of a network interface by the kernel's own rule (net/core/dev.c, dev_valid_name).

    Raises:
        ContractError: empty, over 15 bytes, ``.``, ``..``, or with a slash, a colon or white space in it.
    """
    if not _INTERFACE.fullmatch(value) or value in {".", ".."} or len(value.encode()) > 15:
        raise ContractError(where, field, f"{value!r} is not a valid interface name")
    return value
