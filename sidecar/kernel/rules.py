"""The fence's tables, chains and rules, encoded. Pure: nothing here is sent.

A table ``holdfast`` in each family that can carry something about an address: ``arp`` and ``ip`` (``ip6``), which hold
for every interface there is and will be; and ``netdev``, which alone sees the frames of AF_PACKET sockets. In each of
them, per address, a chain ``at-ADDRESS`` with the rules that drop at or past the deadline, and two base chains
``in-ADDRESS`` and ``out-ADDRESS`` that lead there. So a deadline is one chain's rules per family, whatever the number
of interfaces and directions. Before the deadline a rule of ``in-ADDRESS`` keeps quiet the interfaces that the address
is not on: Linux answers ARP for an address on every interface that hears the question, and neighbour discovery too.

The library takes 1 ms and more for a rule: all is encoded once, and only the deadline is put in.
"""

from __future__ import annotations

import functools
import ipaddress
import socket
import struct
from typing import Any, Final

from sidecar.kernel import nftables
from sidecar.kernel.nftables import (
    NETWORK_HEADER,
    NFPROTO_ARP,
    NFPROTO_IPV4,
    NFPROTO_IPV6,
    NFPROTO_NETDEV,
    Cmp,
    Meta,
    Nftables,
)

TABLE: Final = "holdfast"
AT: Final = "at-"
"""What the name of a chain with an address' deadline begins with."""
DEADLINE_HERE: Final = b"\xf1DEADLIN"

_NFT: Final = {family: Nftables(TABLE, family) for family in (NFPROTO_NETDEV, NFPROTO_ARP, NFPROTO_IPV4, NFPROTO_IPV6)}
_FAMILIES: Final = {4: (NFPROTO_NETDEV, NFPROTO_ARP, NFPROTO_IPV4), 6: (NFPROTO_NETDEV, NFPROTO_IPV6)}
"""By the address' version."""
_HOOKS: Final = {
    NFPROTO_NETDEV: {"in": 0, "out": 1},  # NF_NETDEV_INGRESS, NF_NETDEV_EGRESS
    NFPROTO_ARP: {"in": 0, "out": 1},  # NF_ARP_IN, NF_ARP_OUT
    NFPROTO_IPV4: {"in": 0, "out": 4},  # NF_INET_PRE_ROUTING, NF_INET_POST_ROUTING
    NFPROTO_IPV6: {"in": 0, "out": 4},
}
# before any other chain: an address whose time is up is nobody's business
_PRIORITY: Final = -500

_IPV4_FRAME, _ARP_FRAME, _IPV6_FRAME = 0x0800, 0x0806, 0x86DD
# where the address stands, as (protocol where the family has several, place): IPv4 source and destination, ARP sender
# and target; IPv6 source and destination, and the target of neighbour discovery behind a header without extensions
# (RFC 4861)
_SENDER, _TARGET, _ND_TARGET = 14, 24, 48
_PLACES: Final[dict[tuple[int, int], tuple[tuple[int | None, int], ...]]] = {
    (NFPROTO_NETDEV, 4): ((_IPV4_FRAME, 12), (_IPV4_FRAME, 16), (_ARP_FRAME, _SENDER), (_ARP_FRAME, _TARGET)),
    (NFPROTO_NETDEV, 6): ((_IPV6_FRAME, 8), (_IPV6_FRAME, 24), (_IPV6_FRAME, _ND_TARGET)),
    (NFPROTO_ARP, 4): ((None, _SENDER), (None, _TARGET)),
    (NFPROTO_IPV4, 4): ((None, 12), (None, 16)),
    (NFPROTO_IPV6, 6): ((None, 8), (None, 24), (None, _ND_TARGET)),
}
_OPERATION, _ARP_REQUEST = 6, b"\0\1"
_NEXT_HEADER, _ICMP_TYPE, _SOLICITATION = 6, 40, 135
_INTERFACE_NAME_BYTES: Final = 16
_ADDRESS_HERE: Final = {4: b"\xf2ADR", 6: b"\xf2ADDRESS-OF-IPV6"}
_CHAIN_HERE: Final = b"?"
_KEPT: Final = 256
"""So many addresses' messages are kept encoded, more than a Pod has."""


def families(address: str) -> tuple[int, ...]:
    """The families that can carry something about an address."""
    return _FAMILIES[ipaddress.ip_address(address).version]


def of_address(chain: str, addresses: frozenset[str]) -> bool:
    """Whether a chain, perhaps one of a single interface, stands for one of these addresses."""
    return chain.partition("-")[2].partition("-")[0] in addresses


def _at(address: str) -> str:
    return f"{AT}{address}"


@functools.lru_cache(_KEPT)
def ground(address: str, interface: str, *, on_all: bool) -> tuple[bytes, ...]:
    """Everything but the deadline: it may be made again at any time, and no deadline is touched by it.

    Args:
        address: without prefix length.
        interface: that the address is, or will be, on.
        on_all: netdev's chains are on all interfaces; else `hooks` makes them, for one each.
    """
    made: list[bytes] = []
    for family in families(address):
        made += [_NFT[family].new_table(), _NFT[family].new_chain(_at(address))]
        if family != NFPROTO_NETDEV:
            for side, hook in _HOOKS[family].items():
                name = f"{side}-{address}"
                base = _NFT[family].new_base_chain(name, "filter", hook, _PRIORITY)
                made += _leading(family, name, address, base, _quiet(family, side, address, interface))
        elif on_all:
            for side, hook in _HOOKS[family].items():
                name = f"{side}-{address}"
                made += _leading(family, name, address, _NFT[family].new_chain_on_all(name, "filter", hook, _PRIORITY))
    return tuple(made)


@functools.lru_cache(_KEPT)
def hooks(address: str, interface: str) -> tuple[bytes, ...]:
    """The netdev chains of one interface, for a kernel whose chains cannot be on all."""
    made: list[bytes] = []
    for side, hook in _HOOKS[NFPROTO_NETDEV].items():
        name = f"{side}-{address}-{interface}"
        base = _NFT[NFPROTO_NETDEV].new_base_chain(name, "filter", hook, _PRIORITY, interface)
        made += _leading(NFPROTO_NETDEV, name, address, base)
    return tuple(made)


def _leading(family: int, name: str, address: str, base: bytes, *first: bytes) -> list[bytes]:
    """A base chain that leads to an address' rules, whatever stood in it before."""
    nft = _NFT[family]
    return [base, nft.delete_rules(name), *filter(None, first), nft.new_rule(name, [nftables.jump(_at(address))])]


def _quiet(family: int, side: str, address: str, interface: str) -> bytes:
    """Let no other interface hear who asks for the address; what its holder says of itself is no question."""
    if side != "in" or family not in (NFPROTO_ARP, NFPROTO_IPV6):
        return b""
    packed = ipaddress.ip_address(address).packed
    elsewhere = [
        nftables.meta(Meta.NFT_META_IIFNAME),
        nftables.compare(Cmp.NFT_CMP_NEQ, interface.encode().ljust(_INTERFACE_NAME_BYTES, b"\0")),
    ]
    if family == NFPROTO_ARP:
        # not the answers to the Pod's own questions, which it may ask in the address' name by any interface
        asked = [*_loaded(_OPERATION, _ARP_REQUEST), *_loaded(_TARGET, packed)]
        asked += _loaded(_SENDER, packed, Cmp.NFT_CMP_NEQ)
    else:
        asked = [*_loaded(_NEXT_HEADER, bytes([socket.IPPROTO_ICMPV6])), *_loaded(_ICMP_TYPE, bytes([_SOLICITATION]))]
        asked += _loaded(_ND_TARGET, packed)
    return _NFT[family].new_rule(f"{side}-{address}", [*elsewhere, *asked, nftables.drop()])


@functools.lru_cache(_KEPT)
def deadline(address: str) -> tuple[bytes, ...]:
    """Everything that sets an address' deadline on its ground, with `DEADLINE_HERE` where it is put in."""
    return (
        *flushes(address),
        *(rule for family in families(address) for rule in _rules(family, _at(address), address)),
    )


@functools.lru_cache(_KEPT)
def flushes(address: str) -> tuple[bytes, ...]:
    """What takes the deadline away."""
    return tuple(_NFT[family].delete_rules(_at(address)) for family in families(address))


@functools.lru_cache(_KEPT)
def trial(address: str) -> tuple[bytes, ...]:
    """The rules in chains that nothing refers to, and taken out again: a kernel that lacks something says so."""
    name = f"tr-{address}"  # as long as the other, so that their rules have one form
    made: list[bytes] = []
    for family in families(address):
        nft = _NFT[family]
        made += [nft.new_chain(name), *_rules(family, name, address), nft.delete_rules(name), nft.delete_chain(name)]
    return tuple(made)


def removal(chains: list[tuple[int, str]]) -> list[bytes]:
    """Take chains away, given as (family, name): first what is in them, since some refer to others."""
    emptied = [_NFT[family].delete_rules(name) for family, name in chains]
    return emptied + [_NFT[family].delete_chain(name) for family, name in chains]


def _rules(family: int, chain: str, address: str) -> tuple[bytes, ...]:
    parsed, name = ipaddress.ip_address(address), chain.encode()
    place = _ADDRESS_HERE[parsed.version]
    forms = _rule_forms(family, parsed.version, len(name))
    return tuple(form.replace(_CHAIN_HERE * len(name), name).replace(place, parsed.packed) for form in forms)


@functools.lru_cache(_KEPT)
def _rule_forms(family: int, version: int, length: int) -> tuple[bytes, ...]:
    """An address' rules with places for chain and address."""
    chain, address = (_CHAIN_HERE * length).decode(), _ADDRESS_HERE[version]
    return tuple(_NFT[family].new_rule(chain, _expressions(*at, address)) for at in _PLACES[family, version])


def _expressions(protocol: int | None, offset: int, address: bytes) -> list[dict[str, Any]]:
    of_protocol = []
    if protocol is not None:
        of_protocol = [
            nftables.meta(Meta.NFT_META_PROTOCOL),
            nftables.compare(Cmp.NFT_CMP_EQ, struct.pack("!H", protocol)),
        ]
    return [
        *of_protocol,
        *_loaded(offset, address),
        nftables.meta(Meta.NFT_META_TIME_NS),
        nftables.to_network_order(len(DEADLINE_HERE)),
        nftables.compare(Cmp.NFT_CMP_GTE, DEADLINE_HERE),
        nftables.drop(),
    ]


def _loaded(offset: int, value: bytes, operation: int = Cmp.NFT_CMP_EQ) -> list[dict[str, Any]]:
    return [nftables.payload(NETWORK_HEADER, offset, len(value)), nftables.compare(operation, value)]
