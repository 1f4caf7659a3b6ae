"""nftables' messages by pyroute2's classes: transactions, tables, chains, rules, and the expressions of rules.

Names of attributes are the kernel's (include/uapi/linux/netfilter/nf_tables.h). The library leaves NLA_F_NESTED out,
which `nft` sets and the kernel does not ask for. Not here: what the rules are for, and a socket.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from pyroute2.netlink import NLM_F_APPEND, NLM_F_CREATE, nla
from pyroute2.netlink.marshal import Marshal
from pyroute2.netlink.nfnetlink import NFNL_SUBSYS_NFTABLES, nfgen_msg
from pyroute2.netlink.nfnetlink.nftsocket import (
    NFPROTO_ARP,
    NFPROTO_IPV4,
    NFPROTO_IPV6,
    NFPROTO_NETDEV,
    NFT_MSG_DELCHAIN,
    NFT_MSG_DELRULE,
    NFT_MSG_DELTABLE,
    NFT_MSG_GETCHAIN,
    NFT_MSG_NEWCHAIN,
    NFT_MSG_NEWRULE,
    NFT_MSG_NEWTABLE,
    Cmp,
    Meta,
    Regs,
    nft_chain_msg,
    nft_rule_msg,
    nft_table_msg,
)

from sidecar.kernel.netlink import answered, encode

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = [
    "NFPROTO_ARP",
    "NFPROTO_IPV4",
    "NFPROTO_IPV6",
    "NFPROTO_NETDEV",
    "NFPROTO_UNSPEC",
    "ChainMarshal",
    "Cmp",
    "Meta",
    "Nftables",
    "transaction",
]

NFPROTO_UNSPEC: Final = 0
"""In a request for a list: of every family."""
NETWORK_HEADER, TRANSPORT_HEADER = 1, 2
"""NFT_PAYLOAD_*_HEADER; the library names them only where it reads them."""
_BATCH_BEGIN, _BATCH_END = 0x10, 0x11
"""NFNL_MSG_BATCH_* of include/uapi/linux/netfilter/nfnetlink.h, which the library has no names for."""
_HTON: Final = 1
_DROP: Final = 0
_JUMP: Final = -3
_REGISTER: Final = Regs.NFT_REG_1

Attribute = tuple[str, Any]


def transaction(changes: Sequence[bytes]) -> list[bytes]:
    """Make encoded changes one transaction: the kernel does all or nothing, and answers the last, or what it refuses.

    Args:
        changes: at least one.
    """
    return [_edge(_BATCH_BEGIN), *changes[:-1], answered(changes[-1]), _edge(_BATCH_END)]


def _edge(kind: int) -> bytes:
    message = nfgen_msg()
    message["res_id"] = NFNL_SUBSYS_NFTABLES
    return encode(message, kind)


class ChainMarshal(Marshal):  # type: ignore[misc] # the library is not typed
    """Reads the kernel's answers about chains."""

    msg_map: Final = {NFNL_SUBSYS_NFTABLES << 8 | NFT_MSG_NEWCHAIN: nft_chain_msg}


class _ChainOnAll(nfgen_msg):  # type: ignore[misc]
    """A base chain whose hook has a prefix of interfaces' names, which the library does not know yet."""

    nla_map = (
        (1, "NFTA_CHAIN_TABLE", "asciiz"),
        (3, "NFTA_CHAIN_NAME", "asciiz"),
        (4, "NFTA_CHAIN_HOOK", "Hook"),
        (7, "NFTA_CHAIN_TYPE", "asciiz"),
    )

    class Hook(nla):  # type: ignore[misc]
        """Where it is."""

        nla_map = (
            (1, "NFTA_HOOK_HOOKNUM", "be32"),
            (2, "NFTA_HOOK_PRIORITY", "sbe32"),
            (4, "NFTA_HOOK_DEVS", "Devices"),
        )

        class Devices(nla):  # type: ignore[misc]
            """On which interfaces."""

            nla_map = ((2, "NFTA_DEVICE_PREFIX", "asciiz"),)


class Nftables:
    """The messages about one table, encoded."""

    def __init__(self, table: str, family: int) -> None:
        """Take the table's name and its family, such as ``NFPROTO_NETDEV``."""
        self._table = table
        self._family = family

    def new_table(self) -> bytes:
        """Make the table, where it is not there."""
        return self._encode(nft_table_msg(), NFT_MSG_NEWTABLE, NLM_F_CREATE, [("NFTA_TABLE_NAME", self._table)])

    def delete_table(self) -> bytes:
        """Remove the table and all that is in it."""
        return self._encode(nft_table_msg(), NFT_MSG_DELTABLE, 0, [("NFTA_TABLE_NAME", self._table)])

    def new_chain(self, name: str) -> bytes:
        """Make a chain that nothing refers to, where it is not there."""
        return self._encode(nft_chain_msg(), NFT_MSG_NEWCHAIN, NLM_F_CREATE, self._chain(name))

    def new_base_chain(self, name: str, kind: str, hook: int, priority: int, device: str = "") -> bytes:
        """Make a chain at a hook of the kernel, where it is not there.

        Args:
            name: the chain's.
            kind: ``filter`` or ``nat``.
            hook: its number in the family.
            priority: lower comes first.
            device: the interface, for the netdev family.
        """
        at: list[Attribute] = [("NFTA_HOOK_HOOKNUM", hook), ("NFTA_HOOK_PRIORITY", priority)]
        at += [("NFTA_HOOK_DEV", device)] if device else []
        hooked = [*self._chain(name), ("NFTA_CHAIN_TYPE", kind), _nest("NFTA_CHAIN_HOOK", at)]
        return self._encode(nft_chain_msg(), NFT_MSG_NEWCHAIN, NLM_F_CREATE, hooked)

    def new_chain_on_all(self, name: str, kind: str, hook: int, priority: int) -> bytes:
        """Make a chain of the netdev family at a hook of all interfaces, later ones included (Linux 6.18)."""
        at: list[Attribute] = [("NFTA_HOOK_HOOKNUM", hook), ("NFTA_HOOK_PRIORITY", priority)]
        at += [_nest("NFTA_HOOK_DEVS", [("NFTA_DEVICE_PREFIX", "")])]  # what every name begins with
        hooked = [*self._chain(name), ("NFTA_CHAIN_TYPE", kind), _nest("NFTA_CHAIN_HOOK", at)]
        return self._encode(_ChainOnAll(), NFT_MSG_NEWCHAIN, NLM_F_CREATE, hooked)

    def delete_chain(self, name: str) -> bytes:
        """Remove a chain without rules."""
        return self._encode(nft_chain_msg(), NFT_MSG_DELCHAIN, 0, self._chain(name))

    def new_rule(self, chain: str, expressions: Sequence[dict[str, Any]]) -> bytes:
        """Append a rule to a chain."""
        attributes = [*self._rules(chain), ("NFTA_RULE_EXPRESSIONS", list(expressions))]
        return self._encode(nft_rule_msg(), NFT_MSG_NEWRULE, NLM_F_CREATE | NLM_F_APPEND, attributes)

    def delete_rules(self, chain: str) -> bytes:
        """Remove all rules of a chain."""
        return self._encode(nft_rule_msg(), NFT_MSG_DELRULE, 0, self._rules(chain))

    def list_chains(self) -> tuple[Any, int]:
        """Give the request for the chains of all tables of the family, not encoded, and its type."""
        message = nft_chain_msg()
        message["nfgen_family"] = self._family
        return message, NFNL_SUBSYS_NFTABLES << 8 | NFT_MSG_GETCHAIN

    def _chain(self, name: str) -> list[Attribute]:
        return [("NFTA_CHAIN_TABLE", self._table), ("NFTA_CHAIN_NAME", name)]

    def _rules(self, chain: str) -> list[Attribute]:
        return [("NFTA_RULE_TABLE", self._table), ("NFTA_RULE_CHAIN", chain)]

    def _encode(self, message: Any, number: int, flags: int, attributes: list[Attribute]) -> bytes:
        message["nfgen_family"] = self._family
        message["attrs"] = attributes
        return encode(message, NFNL_SUBSYS_NFTABLES << 8 | number, flags)


# expressions of rules -------------------------------------------------------------------------------------------


def meta(key: int) -> dict[str, Any]:
    """Load what is known of a frame, such as ``Meta.NFT_META_TIME_NS``."""
    return _expression("meta", ("NFTA_META_KEY", key), ("NFTA_META_DREG", _REGISTER))


def payload(base: int, offset: int, length: int) -> dict[str, Any]:
    """Load bytes of a frame, counted from a header's start."""
    return _expression(
        "payload",
        ("NFTA_PAYLOAD_DREG", _REGISTER),
        ("NFTA_PAYLOAD_BASE", base),
        ("NFTA_PAYLOAD_OFFSET", offset),
        ("NFTA_PAYLOAD_LEN", length),
    )


def compare(operation: int, value: bytes) -> dict[str, Any]:
    """Go on only if what was loaded compares so with a value in network order."""
    data = _nest("NFTA_CMP_DATA", [("NFTA_DATA_VALUE", value)])
    return _expression("cmp", ("NFTA_CMP_SREG", _REGISTER), ("NFTA_CMP_OP", operation), data)


def to_network_order(length: int) -> dict[str, Any]:
    """Turn what was loaded, of so many bytes, to network order."""
    return _expression(
        "byteorder",
        ("NFTA_BYTEORDER_SREG", _REGISTER),
        ("NFTA_BYTEORDER_DREG", _REGISTER),
        ("NFTA_BYTEORDER_OP", _HTON),
        ("NFTA_BYTEORDER_LEN", length),
        ("NFTA_BYTEORDER_SIZE", length),
    )


def drop() -> dict[str, Any]:
    """Drop the frame."""
    verdict = _nest("NFTA_DATA_VERDICT", [("NFTA_VERDICT_CODE", _DROP)])
    data = _nest("NFTA_IMMEDIATE_DATA", [verdict])
    return _expression("immediate", ("NFTA_IMMEDIATE_DREG", Regs.NFT_REG_VERDICT), data)


def jump(chain: str) -> dict[str, Any]:
    """Go through the rules of another chain of the table, and come back where none of them decides."""
    verdict = _nest("NFTA_DATA_VERDICT", [("NFTA_VERDICT_CODE", _JUMP), ("NFTA_VERDICT_CHAIN", chain)])
    data = _nest("NFTA_IMMEDIATE_DATA", [verdict])
    return _expression("immediate", ("NFTA_IMMEDIATE_DREG", Regs.NFT_REG_VERDICT), data)


def load(value: bytes) -> dict[str, Any]:
    """Load a value in network order."""
    data = _nest("NFTA_IMMEDIATE_DATA", [("NFTA_DATA_VALUE", value)])
    return _expression("immediate", ("NFTA_IMMEDIATE_DREG", _REGISTER), data)


def redirect() -> dict[str, Any]:
    """Send the packet to this host, at the port that was loaded."""
    return _expression("redir", ("NFTA_REDIR_REG_PROTO_MIN", _REGISTER))


def _nest(name: str, attributes: list[Attribute]) -> Attribute:
    return name, {"attrs": attributes}


def _expression(name: str, *attributes: Attribute) -> dict[str, Any]:
    return {"attrs": [("NFTA_EXPR_NAME", name), _nest("NFTA_EXPR_DATA", list(attributes))]}
