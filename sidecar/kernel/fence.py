"""The fence: nftables rules by which the kernel silences an address at an absolute time, whatever becomes of us.

Past the deadline (nanoseconds of CLOCK_REALTIME) nothing to, from or about the address passes any interface of the
network namespace, one that comes later included; before it only the interface that the address is on answers for it.
A new deadline replaces the rules in one transaction, so there is no instant without a rule. The rules outlive the
process; a restarted agent finds them by their names. What they are is in `sidecar.kernel.rules`.

By netlink, since `nft` takes whole seconds only and would be a program to ship. Not promised: anything while the wall
clock stands wrong (the lifetime of the address is the second fence); frames that AF_PACKET sends with a VLAN tag; and,
before Linux 6.18, frames that it sends by an interface that came while the agent was stopped.
"""

from __future__ import annotations

import errno
import struct
from typing import TYPE_CHECKING, Final

from pyroute2.netlink import NETLINK_NETFILTER

from sidecar.errors import FenceUnsupported, KernelRefused, NotPermitted
from sidecar.kernel import rules
from sidecar.kernel.netlink import NetlinkSocket
from sidecar.kernel.nftables import NFPROTO_UNSPEC, ChainMarshal, Nftables, transaction
from sidecar.kernel.tampering import TamperMonitor

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

_UNSUPPORTED: Final = {errno.EOPNOTSUPP, errno.ENOENT, errno.EPROTONOSUPPORT, errno.EAFNOSUPPORT, errno.EINVAL}


class Fence:
    """The deadlines of this Pod's addresses in the kernel."""

    def __init__(self) -> None:
        try:
            self._socket = NetlinkSocket(NETLINK_NETFILTER, ChainMarshal())
        except OSError as error:
            raise FenceUnsupported("this kernel has no nftables", error.errno or errno.EIO) from error
        self._on_all = True
        self._interfaces: dict[str, int] = {}
        self._ground: dict[str, str] = {}

    def close(self) -> None:
        """Close the socket; the rules stay."""
        self._socket.close()

    def watch(self) -> TamperMonitor:
        """Hear from now on when somebody else changes these rules.

        Raises:
            KernelRefused: the kernel does not tell.
        """
        return TamperMonitor(rules.TABLE, self._socket.port)

    def prepare(self, places: Mapping[str, str]) -> None:
        """Make all but the deadlines for {address: interface}, so that the hooks stand before they are needed.

        Deadlines that an earlier self left stay. In the same transaction the rules are tried.

        Raises:
            FenceUnsupported: this kernel cannot do it.
            NotPermitted: a capability is missing.
        """
        for address in places:
            rules.deadline(address)  # encoded now, for `until`
        self._stand(places, [each for address in places for each in rules.trial(address)])

    def until(self, places: Mapping[str, str], deadline_ns: int) -> None:
        """Silence each address from `deadline_ns` of CLOCK_REALTIME on, instead of any earlier set.

        Args:
            places: {address without prefix length: the interface that it is on}.
            deadline_ns: may be in the past, then the address is silent at once.

        Raises:
            FenceUnsupported: this kernel cannot do it.
            NotPermitted: a capability is missing.
        """
        put_in = struct.pack("!Q", deadline_ns)
        batch = [each.replace(rules.DEADLINE_HERE, put_in) for one in places for each in rules.deadline(one)]
        if places.items() <= self._ground.items():
            try:
                self._commit(batch, f"fence for {_names(places)}")
            except FenceUnsupported as error:
                if error.errno != errno.ENOENT:
                    raise
                self._ground.clear()  # somebody has taken it away
            else:
                return
        self._stand(places, batch)

    def distrust(self) -> None:
        """Take nothing for standing that was made before: the next deadline of each address makes it all again."""
        self._ground.clear()

    def _stand(self, places: Mapping[str, str], batch: Sequence[bytes]) -> None:
        """Make the ground and then, in the same transaction, what is to stand on it."""
        what = f"fence for {_names(places)}"
        if self._on_all:
            try:
                self._commit([*_ground(places, on_all=True), *batch], what)
            except FenceUnsupported:
                self._on_all = False  # before Linux 6.18 a chain is on the interfaces that it names
        if not self._on_all:
            self._commit([*_ground(places, on_all=False), *batch], what)
            for address, interface in places.items():
                self._commit(rules.hooks(address, interface), what)
                self._hook(address, self._interfaces.keys() - {interface})
        self._ground |= places

    def cover(self, interfaces: Mapping[str, int]) -> None:
        """Take in what interfaces there are now, as {name: index}; new ones are fenced too.

        Where the kernel can have a chain on all of them there is nothing to do.
        """
        new = {name for name, index in interfaces.items() if self._interfaces.get(name) != index}
        self._interfaces = dict(interfaces)
        if self._on_all:
            return
        for address in self._ground:
            self._hook(address, new)

    def _hook(self, address: str, interfaces: Iterable[str]) -> None:
        for interface in sorted(interfaces):
            # one that has gone meanwhile carries nothing
            self._forget(rules.hooks(address, interface), f"fence for {address} on {interface}")

    def lift(self, addresses: Iterable[str]) -> None:
        """Take the deadlines of addresses that no longer stand here, so that this Pod may talk to their new holder."""
        given = list(addresses)
        self._forget([each for one in given for each in rules.flushes(one)], f"lift of the fence for {given}")

    def adopt(self, standing: Iterable[str]) -> None:
        """At the start: keep the deadlines that an earlier self left for addresses that still stand here."""
        chains = self.chains()
        # an earlier version's chains have their rules in them, and would cut at a deadline that nobody renews
        keep = frozenset(standing) & {name.removeprefix(rules.AT) for _, name in chains}
        self._remove([each for each in chains if not rules.of_address(each[1], keep)])

    def retire(self, standing: Iterable[str]) -> None:
        """Take away all that is for no address that stands here; where it is needed again it is made again."""
        keep = frozenset(standing)
        self._ground = {address: interface for address, interface in self._ground.items() if address in keep}
        self._remove([each for each in self.chains() if not rules.of_address(each[1], keep)])

    def chains(self) -> list[tuple[int, str]]:
        """List the chains of our tables as (family, name)."""
        try:
            listed = Nftables(rules.TABLE, NFPROTO_UNSPEC).list_chains()
            found = self._socket.dump(*listed, "list of nftables chains")
        except NotPermitted:
            raise
        except KernelRefused as error:
            raise FenceUnsupported(str(error), error.errno) from error
        ours = [each for each in found if each.get_attr("NFTA_CHAIN_TABLE") == rules.TABLE]
        return sorted({(each["nfgen_family"], each.get_attr("NFTA_CHAIN_NAME")) for each in ours})

    def _remove(self, chains: list[tuple[int, str]]) -> None:
        if chains:
            self._forget(rules.removal(chains), f"removal of nftables chains {', '.join(name for _, name in chains)}")

    def _forget(self, batch: Sequence[bytes], what: str) -> None:
        try:
            self._commit(batch, what)
        except FenceUnsupported as error:
            if error.errno != errno.ENOENT:  # not there is as good as gone
                raise

    def _commit(self, batch: Sequence[bytes], what: str) -> None:
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


def _ground(places: Mapping[str, str], *, on_all: bool) -> list[bytes]:
    return [each for at in places.items() for each in rules.ground(*at, on_all=on_all)]
