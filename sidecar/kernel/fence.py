"""The fence: nftables rules by which the kernel silences an address at an absolute time, whatever becomes of us.

One table ``holdfast`` of the netdev family; per address two base chains on its interface, ingress and egress, whose
rules drop IP to and from it, and ARP or neighbour discovery about it, when ``meta time`` is at or past the deadline
(nanoseconds of CLOCK_REALTIME). A new deadline replaces the rules in one transaction, so there is no instant without a
rule. The rules outlive the process; a restarted agent finds the table by its name.

By netlink, since `nft` takes whole seconds only and would be a program to ship. What is sent between a Lease and its
frame is encoded before, and only the deadline is put in. Not promised: anything while the wall clock stands wrong (the
lifetime of the address is the second fence), and VLAN-tagged frames.
"""

from __future__ import annotations

import errno
import functools
import ipaddress
import struct
from typing import TYPE_CHECKING, Any, Final

from pyroute2.netlink import NETLINK_NETFILTER

from sidecar.errors import FenceUnsupported, KernelRefused, NotPermitted
from sidecar.kernel import nftables
from sidecar.kernel.netlink import NetlinkSocket
from sidecar.kernel.nftables import NETWORK_HEADER, NFPROTO_NETDEV, ChainMarshal, Cmp, Meta, Nftables, transaction
from sidecar.kernel.tampering import TamperMonitor

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

TABLE: Final = "holdfast"

_NFT: Final = Nftables(TABLE, NFPROTO_NETDEV)
_TRIAL: Final = "try"
"""A chain's side in its name; as long as ``out``, so that their rules have one form."""
_DEADLINE_HERE: Final = b"\xf1DEADLIN"
_ADDRESS_HERE: Final = {4: b"\xf2ADR", 6: b"\xf2ADDRESS-OF-IPV6"}
_CHAIN_HERE: Final = b"?"
_KEPT: Final = 256
"""So many addresses' messages are kept encoded, more than a Pod has."""

_HOOKS: Final = {"in": 0, "out": 1}
"""NF_NETDEV_INGRESS and NF_NETDEV_EGRESS of include/uapi/linux/netfilter.h."""
# before any other netdev chain: an address whose time is up is nobody's business
_PRIORITY: Final = -500

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
            self._socket = NetlinkSocket(NETLINK_NETFILTER, ChainMarshal())
        except OSError as error:
            raise FenceUnsupported("this kernel has no nftables", error.errno or errno.EIO) from error

    def close(self) -> None:
        """Close the socket; the rules stay."""
        self._socket.close()

    def watch(self) -> TamperMonitor:
        """Hear from now on when somebody else changes these rules.

        Raises:
            KernelRefused: the kernel does not tell.
        """
        return TamperMonitor(TABLE, self._socket.port)

    def prepare(self, places: Mapping[str, str]) -> None:
        """Make table and chains for {address: interface}, so that the hooks stand before they are needed.

        Rules that an earlier self left stay. In the same transaction rules are put into a chain that nothing
        refers to and taken out again: a kernel that lacks one of their expressions says so here.

        Raises:
            FenceUnsupported: this kernel cannot do it.
            NotPermitted: a capability is missing.
        """
        batch = [_new_table()]
        for address, interface in places.items():
            _form(address, interface)  # encoded now, for `until`
            batch += [*_chains(address, interface), *_trial(address, interface)]
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
        deadline = struct.pack("!Q", deadline_ns)
        batch = [_new_table()]
        for address, interface in places.items():
            batch += [each.replace(_DEADLINE_HERE, deadline) for each in _form(address, interface)]
        self._commit(batch, f"fence for {_names(places)}")

    def lift(self, places: Mapping[str, str]) -> None:
        """Take the rules of addresses that no longer stand here, so that this Pod may talk to their new holder."""
        batch = [each for address, interface in places.items() for each in _flushes(address, interface)]
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
            found = self._socket.dump(*_NFT.list_chains(), "list of nftables chains")
        except NotPermitted:
            raise
        except KernelRefused as error:
            raise FenceUnsupported(str(error), error.errno) from error
        ours = [each for each in found if each.get_attr("NFTA_CHAIN_TABLE") == TABLE]
        return [each.get_attr("NFTA_CHAIN_NAME") for each in ours]

    def _remove_chains(self, names: list[str]) -> None:
        for name in names:
            batch = [_NFT.delete_rules(name), _NFT.delete_chain(name)]
            self._forget(batch, f"removal of nftables chain {name}")

    def _forget(self, batch: list[bytes], what: str) -> None:
        try:
            self._commit(batch, what)
        except FenceUnsupported as error:
            if error.errno != errno.ENOENT:  # not there is as good as gone
                raise

    def _commit(self, batch: list[bytes], what: str) -> None:
        try:
            self._socket.transact(transaction(batch), what)
        except NotPermitted:
            raise
        except KernelRefused as error:
            if error.errno in _UNSUPPORTED:
                raise FenceUnsupported(str(error), error.errno) from error
            raise


def _names(places: Mapping[str, str]) -> str:
    return ", ".join(f"{address} on {interface}" for address, interface in places.items())


def _chain(address: str, interface: str, side: str) -> str:
    return f"{side}-{address}-{interface}"


# what is sent, encoded ------------------------------------------------------------------------------------------


@functools.cache
def _new_table() -> bytes:
    return _NFT.new_table()


@functools.lru_cache(_KEPT)
def _chains(address: str, interface: str) -> tuple[bytes, ...]:
    names = [(_chain(address, interface, side), hook) for side, hook in _HOOKS.items()]
    return tuple(_NFT.new_base_chain(name, "filter", hook, _PRIORITY, interface) for name, hook in names)


@functools.lru_cache(_KEPT)
def _flushes(address: str, interface: str) -> tuple[bytes, ...]:
    return tuple(_NFT.delete_rules(_chain(address, interface, side)) for side in _HOOKS)


@functools.lru_cache(_KEPT)
def _trial(address: str, interface: str) -> tuple[bytes, ...]:
    name = _chain(address, interface, _TRIAL)
    return _NFT.new_chain(name), *_rules(name, address), _NFT.delete_rules(name), _NFT.delete_chain(name)


@functools.lru_cache(_KEPT)
def _form(address: str, interface: str) -> tuple[bytes, ...]:
    """Everything that sets an address' deadline, with `_DEADLINE_HERE` where it is put in."""
    rules = [_rules(_chain(address, interface, side), address) for side in _HOOKS]
    return (*_chains(address, interface), *_flushes(address, interface), *rules[0], *rules[1])


def _rules(chain: str, address: str) -> tuple[bytes, ...]:
    parsed, name = ipaddress.ip_address(address), chain.encode()
    place = _ADDRESS_HERE[parsed.version]
    forms = _rule_forms(parsed.version, len(name))
    return tuple(form.replace(_CHAIN_HERE * len(name), name).replace(place, parsed.packed) for form in forms)


@functools.lru_cache(_KEPT)
def _rule_forms(version: int, length: int) -> tuple[bytes, ...]:
    """An address' rules with places for chain and address: the library takes 1 ms and more for a rule, so once."""
    chain, address = (_CHAIN_HERE * length).decode(), _ADDRESS_HERE[version]
    return tuple(_NFT.new_rule(chain, _expressions(*place, address)) for place in _PLACES[version])


def _expressions(protocol: int, offset: int, address: bytes) -> list[dict[str, Any]]:
    return [
        nftables.meta(Meta.NFT_META_PROTOCOL),
        nftables.compare(Cmp.NFT_CMP_EQ, struct.pack("!H", protocol)),
        nftables.payload(NETWORK_HEADER, offset, len(address)),
        nftables.compare(Cmp.NFT_CMP_EQ, address),
        nftables.meta(Meta.NFT_META_TIME_NS),
        nftables.to_network_order(len(_DEADLINE_HERE)),
        nftables.compare(Cmp.NFT_CMP_GTE, _DEADLINE_HERE),
        nftables.drop(),
    ]
