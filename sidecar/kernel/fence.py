"""The fence: nftables rules by which the kernel silences an address at an absolute time, whatever becomes of us.

One table ``holdfast`` of the netdev family; per address two base chains on its interface, ingress and egress, whose
rules drop IP to and from it, and ARP or neighbour discovery about it, when ``meta time`` is at or past the deadline
(nanoseconds of CLOCK_REALTIME). A new deadline replaces the rules in one transaction, so there is no instant without a
rule. The rules outlive the process; a restarted agent finds the table by its name.

Built by `struct`, since `nft` takes whole seconds only and would be a program to ship. Not promised: anything while the
wall clock stands wrong (the lifetime of the address is the second fence), and VLAN-tagged frames.
"""

from __future__ import annotations

import errno
import functools
import ipaddress
import socket
import struct
from typing import TYPE_CHECKING, Final

from sidecar.errors import FenceUnsupported, KernelRefused, NotPermitted
from sidecar.kernel.netlink import (
    ACK,
    CREATE,
    REQUEST,
    Message,
    NetlinkSocket,
    attribute,
    attributes,
    nested,
    number,
    text,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

TABLE: Final = "holdfast"

_NETLINK_NETFILTER: Final = 12
_NFTABLES: Final = 10 << 8
_NETDEV: Final = 5
_BATCH_BEGIN, _BATCH_END = 0x10, 0x11
_NEWTABLE, _DELTABLE = _NFTABLES | 0, _NFTABLES | 2
_NEWCHAIN, _GETCHAIN, _DELCHAIN = _NFTABLES | 3, _NFTABLES | 4, _NFTABLES | 5
_NEWRULE, _DELRULE = _NFTABLES | 6, _NFTABLES | 8
_APPEND: Final = 0x800
_TRIAL: Final = "trial"
_DEADLINE_HERE: Final = b"\xf1DEADLIN"

_HOOKS: Final = {"in": 0, "out": 1}
# before any other netdev chain: an address whose time is up is nobody's business
_PRIORITY: Final = -500
_REGISTER: Final = 1
_META_PROTOCOL, _META_TIME_NS = 1, 30
_NETWORK_HEADER: Final = 1
_EQUAL, _AT_LEAST = 0, 5
_HTON: Final = 1

_IPV4, _ARP, _IPV6 = 0x0800, 0x0806, 0x86DD
# by the address' version, (protocol, where the address stands): IPv4 source and destination, ARP sender and target;
# IPv6 source and destination, and the target of neighbour discovery behind a header without extensions (RFC 4861)
_PLACES: Final = {
    4: ((_IPV4, 12), (_IPV4, 16), (_ARP, 14), (_ARP, 24)),
    6: ((_IPV6, 8), (_IPV6, 24), (_IPV6, 48)),
}

_UNSUPPORTED: Final = {errno.EOPNOTSUPP, errno.ENOENT, errno.EPROTONOSUPPORT, errno.EAFNOSUPPORT, errno.EINVAL}


class Fence:
    """The deadlines of this Pod's addresses in the kernel."""

    def __init__(self) -> None:
        try:
            self._socket = NetlinkSocket(_NETLINK_NETFILTER)
        except OSError as error:
            raise FenceUnsupported("this kernel has no nftables", error.errno or errno.EIO) from error

    def close(self) -> None:
        """Close the socket; the rules stay."""
        self._socket.close()

    def prepare(self, places: Mapping[str, str]) -> None:
        """Make table and chains for {address: interface}, so that the hooks stand before they are needed.

        Rules that an earlier self left stay. In the same transaction rules are put into a chain that nothing
        refers to and taken out again: a kernel that lacks one of their expressions says so here.

        Raises:
            FenceUnsupported: this kernel cannot do it.
            NotPermitted: a capability is missing.
        """
        batch = [_message(_NEWTABLE, CREATE, text(1, TABLE))]
        for address, interface in places.items():
            batch += [_new_chain(address, interface, side) for side in _HOOKS]
            batch.append(_message(_NEWCHAIN, CREATE, text(1, TABLE) + text(3, _TRIAL)))
            batch += _new_rules(_TRIAL, address, 0)
            batch.append(_message(_DELRULE, 0, text(1, TABLE) + text(2, _TRIAL)))
            batch.append(_message(_DELCHAIN, 0, text(1, TABLE) + text(3, _TRIAL)))
        self._commit(batch, f"fence for {_names(places)}")

    def until(self, places: Mapping[str, str], deadline_ns: int) -> None:
        """Silence each address on its interface from `deadline_ns` of CLOCK_REALTIME on, instead of any earlier set.

        Args:
            places: {address without prefix length: interface}.
            deadline_ns: may be in the past, then the address is silent at once.

        Raises:
            FenceUnsupported: this kernel cannot do it.
            NotPermitted: a capability is missing.
        """
        batch = [_message(_NEWTABLE, CREATE, text(1, TABLE))]
        for address, interface in places.items():
            batch += [_new_chain(address, interface, side) for side in _HOOKS]
            for side in _HOOKS:
                name = _chain(address, interface, side)
                batch.append(_message(_DELRULE, 0, text(1, TABLE) + text(2, name)))
                batch += _new_rules(name, address, deadline_ns)
        self._commit(batch, f"fence for {_names(places)}")

    def lift(self, places: Mapping[str, str]) -> None:
        """Take the rules of addresses that no longer stand here, so that this Pod may talk to their new holder."""
        batch = [
            _message(_DELRULE, 0, text(1, TABLE) + text(2, _chain(address, interface, side)))
            for address, interface in places.items()
            for side in _HOOKS
        ]
        self._forget(batch, f"lift of the fence for {_names(places)}")

    def remove(self, places: Mapping[str, str]) -> None:
        """Take the chains too, when the addresses have left the assignment."""
        for address, interface in places.items():
            self._remove_chains([_chain(address, interface, side) for side in _HOOKS])

    def adopt(self, standing: Iterable[str]) -> None:
        """Keep what an earlier self left for the addresses that still stand here; take away the rest."""
        keep = tuple(f"{side}-{address}-" for address in standing for side in _HOOKS)
        stale = [name for name in self.chains() if not name.startswith(keep)]
        self._remove_chains(stale)

    def chains(self) -> list[str]:
        """Name the chains of our table."""
        try:
            found = self._socket.dump(_GETCHAIN, _family_header(), "list of nftables chains")
        except NotPermitted:
            raise
        except KernelRefused as error:
            raise FenceUnsupported(str(error), error.errno) from error
        read = [attributes(body[4:]) for body in found]
        return [_text(one[3]) for one in read if _text(one.get(1, b"")) == TABLE]

    def _remove_chains(self, names: list[str]) -> None:
        for name in names:
            one = text(1, TABLE) + text(3, name)
            rules = _message(_DELRULE, 0, text(1, TABLE) + text(2, name))
            self._forget([rules, _message(_DELCHAIN, 0, one)], f"removal of nftables chain {name}")

    def _forget(self, batch: list[Message], what: str) -> None:
        try:
            self._commit(batch, what)
        except FenceUnsupported as error:
            if error.errno != errno.ENOENT:  # not there is as good as gone
                raise

    def _commit(self, batch: list[Message], what: str) -> None:
        begin = Message(_BATCH_BEGIN, REQUEST, struct.pack("!BBH", socket.AF_UNSPEC, 0, _NFTABLES >> 8))
        end = Message(_BATCH_END, REQUEST, begin.body)
        try:
            self._socket.transact([begin, *batch, end], what)
        except NotPermitted:
            raise
        except KernelRefused as error:
            if error.errno in _UNSUPPORTED:
                raise FenceUnsupported(str(error), error.errno) from error
            raise


def _names(places: Mapping[str, str]) -> str:
    return ", ".join(f"{address} on {interface}" for address, interface in places.items())


def _text(value: bytes) -> str:
    return value.rstrip(b"\0").decode(errors="replace")


def _chain(address: str, interface: str, side: str) -> str:
    return f"{side}-{address}-{interface}"


def _family_header() -> bytes:
    return struct.pack("!BBH", _NETDEV, 0, 0)


def _message(kind: int, flags: int, body: bytes) -> Message:
    return Message(kind, REQUEST | ACK | flags, _family_header() + body)


def _new_chain(address: str, interface: str, side: str) -> Message:
    hook = nested(4, number(1, _HOOKS[side]), attribute(2, struct.pack("!i", _PRIORITY)), text(3, interface))
    name = text(3, _chain(address, interface, side))
    return _message(_NEWCHAIN, CREATE, text(1, TABLE) + name + hook + text(7, "filter"))


def _new_rules(chain: str, address: str, deadline_ns: int) -> list[Message]:
    deadline = struct.pack("!Q", deadline_ns)
    return [
        Message(rule.kind, rule.flags, rule.body.replace(_DEADLINE_HERE, deadline))
        for rule in _rule_forms(chain, address)
    ]


@functools.cache
def _rule_forms(chain: str, address: str) -> tuple[Message, ...]:
    # on the path from Lease to frame: only the deadline is new each time
    parsed = ipaddress.ip_address(address)
    packed = parsed.packed
    forms = []
    for protocol, offset in _PLACES[parsed.version]:
        expressions = (
            *(_meta(_META_PROTOCOL), _compare(_EQUAL, struct.pack("!H", protocol))),
            *(_payload(offset, len(packed)), _compare(_EQUAL, packed)),
            *(_meta(_META_TIME_NS), _byteorder(8), _compare(_AT_LEAST, _DEADLINE_HERE)),
            _drop(),
        )
        body = text(1, TABLE) + text(2, chain) + nested(4, *expressions)
        forms.append(_message(_NEWRULE, CREATE | _APPEND, body))
    return tuple(forms)


def _expression(name: str, *parameters: bytes) -> bytes:
    return nested(1, text(1, name), nested(2, *parameters))


def _meta(key: int) -> bytes:
    return _expression("meta", number(1, _REGISTER), number(2, key))


def _payload(offset: int, length: int) -> bytes:
    return _expression(
        "payload", number(1, _REGISTER), number(2, _NETWORK_HEADER), number(3, offset), number(4, length)
    )


def _compare(operation: int, value: bytes) -> bytes:
    return _expression("cmp", number(1, _REGISTER), number(2, operation), nested(3, attribute(1, value)))


def _byteorder(length: int) -> bytes:
    registers = (number(1, _REGISTER), number(2, _REGISTER))
    return _expression("byteorder", *registers, number(3, _HTON), number(4, length), number(5, length))


def _drop() -> bytes:
    return _expression("immediate", number(1, 0), nested(2, nested(2, number(1, 0))))
