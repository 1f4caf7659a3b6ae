"""Addresses in the kernel: carries out the machine's kernel actions for all routes of the Pod, one at a time.

The order in `configure` is the promise: fence first, address second, frame third; where the fence cannot be set no
address is added and no lifetime prolonged. Not here: whether to do any of it.
"""

from __future__ import annotations

import asyncio
import errno
from collections import Counter
from typing import TYPE_CHECKING, Final

from contract.names import INTERFACES
from contract.report import AddressReport, AddressState
from sidecar.clock import boottime
from sidecar.errors import InterfaceMissing, KernelRefused
from sidecar.kernel import frames
from sidecar.kernel.addresses import Addresses, Link, lifetime_s
from sidecar.kernel.deadlines import Deadlines
from sidecar.kernel.links import Wire, set_arp_announce
from sidecar.protocol.events import Configure, Configured, Prepared, Removed, Unprepared

if TYPE_CHECKING:
    from collections.abc import Iterable

    from contract.assignment import AddressEntry, RouteEntry
    from sidecar.journal import Journal
    from sidecar.kernel.tampering import TamperMonitor

CONFLICT_S: Final = 30.0
"""So long after another host's claim the report goes on saying so."""


def bare(address: str) -> str:
    """Cut off the prefix length."""
    return address.partition("/")[0]


def _named(places: dict[str, Link]) -> dict[str, str]:
    return {bare(address): link.name for address, link in places.items()}


def _supported(address: str) -> bool:
    """Whether any Pod's agent can place it: IPv6 comes later."""
    return ":" not in address


class Placement:
    """What stands in this network namespace on our account.

    Attributes:
        placed: {address with its prefix length: index of its interface}.
        links: the interfaces, by name, as last read.
    """

    def __init__(self, journal: Journal) -> None:
        self.placed: dict[str, int] = {}
        self.links: dict[str, Link] = {}
        self.wire = Wire()
        self._journal = journal
        self._addresses = Addresses()
        self._lock = asyncio.Lock()
        self._deadlines = Deadlines(journal)
        self._announced: set[str] = set()
        self._claims: dict[str, tuple[str, float]] = {}
        self._listened: set[str] = set()
        self._removals: Counter[str] = Counter()
        self._own: dict[str | None, str] = {}
        self._stale: set[str | None] = set()

    async def adopt(self) -> None:
        """Find what an earlier self left here: addresses by their mark, deadlines by the name of their table."""
        await self.refresh()
        self._deadlines.adopt(self._standing_bare())

    def close(self) -> None:
        """Close all sockets; take the fence away where nothing stands behind it any more."""
        self._deadlines.retire(self._standing_bare())
        self._deadlines.close()
        self.wire.close()
        self._addresses.close()

    async def refresh(self) -> None:
        """Read again what interfaces there are and which of our addresses stand."""
        async with self._lock:
            await self._read_links()
            self.placed = {f"{address}/32": index for address, index in (await self._addresses.marked()).items()}
            self._announced &= self.placed.keys()

    async def _read_links(self) -> None:
        self.links = await self._addresses.links()
        self._deadlines.cover(self.links.values())

    def _standing_bare(self) -> set[str]:
        return set(map(bare, self.placed))

    def removed_by_others(self, gone: Iterable[str], *, overrun: bool) -> bool:
        """Whether among addresses that the kernel says are gone is one that we have not removed ourselves.

        Looking again takes the kernel and us a millisecond, and our own removal is followed by the write that lets the
        next holder begin.

        Args:
            gone: without prefix length, each as often as it was told.
            overrun: some were not told, perhaps those of our removals.
        """
        others = False
        for address in gone:
            ours = self._removals[address] > 0
            self._removals[address] -= ours
            others |= not ours
        self._removals = Counter() if overrun else +self._removals
        return others

    # Prepare ----------------------------------------------------------------------------------------------------

    async def prepare(self, entry: RouteEntry) -> Prepared | Unprepared:
        """Make interface, socket, fence and frames ready, so that taking over is one call and one frame."""
        async with self._lock:
            await self._read_links()
            problems: dict[str, str] = {}
            able = False
            try:
                # the default route may have changed, or come at last
                self._stale = set(self._own)
                places = await self._places(entry, problems)
                # what no Pod can place keeps none of the others waiting; `configure` reports it
                able = bool(places) and not any(map(_supported, problems))
                if able:
                    self._make_ready(places)
            except KernelRefused as error:
                able, problems = False, dict.fromkeys((item.address for item in entry.addresses), str(error))
        if able:
            return Prepared(self._deadlines.kind)
        reports = [
            AddressReport(
                item.address,
                self._interface(item),
                AddressState.FAILED,
                problems.get(item.address, "not configured: another address of the route cannot be"),
            )
            for item in entry.addresses
        ]
        return Unprepared(tuple(reports))

    def _make_ready(self, places: dict[str, Link]) -> None:
        for index in {link.index for link in places.values()}:
            set_arp_announce(index)
        for address, link in places.items():
            self._addresses.prepare(bare(address), link.index)
        self._listened |= {bare(address) for address in places}
        self.wire.listen_for(self._listened)
        self._deadlines.prepare(_named(places))

    async def _places(self, entry: RouteEntry, problems: dict[str, str]) -> dict[str, Link]:
        places: dict[str, Link] = {}
        for item in entry.addresses:
            try:
                places[item.address] = await self._place(item)
            except InterfaceMissing as error:
                problems[item.address] = str(error)
        return places

    async def _place(self, item: AddressEntry) -> Link:
        if not _supported(item.address):
            raise InterfaceMissing("IPv6 is not supported yet; use an IPv4 address")
        if item.interface is None:
            await self._find_own(item.pod_ip)
        name = self._interface(item)
        link = self.links.get(name)
        if link is not None and link.unfit:
            raise InterfaceMissing(
                f"{name} {link.unfit}, and no address can be announced there; name another interface in the Pod's "
                f"annotation {INTERFACES}, or by Multus"
            )
        if link is not None:
            return link
        there = ", ".join(link.name for link in self.links.values() if not link.loopback) or "none"
        raise InterfaceMissing(
            f"this Pod has no interface {name} (it has: {there}); correct its annotation {INTERFACES}"
        )

    async def _find_own(self, pod_ip: str | None) -> None:
        """Find the interface that is on the Pod's own network; while it cannot be told, the one before stays."""
        before = self._own.get(pod_ip, "")
        if before and pod_ip not in self._stale:
            return
        try:
            found = await self._addresses.default_interface(pod_ip, before)
        except InterfaceMissing as error:
            if before not in self.links or self.links[before].unfit:
                raise
            self._journal.tell("own network", f"{error}; the addresses stay on {before}")
        else:
            self._own[pod_ip] = found
            if before not in ("", found):
                self._journal.tell("own network", f"the Pod's own network is on {found} now, no longer on {before}")
            else:
                self._journal.forget("own network")
        self._stale.discard(pod_ip)

    def _interface(self, item: AddressEntry) -> str:
        return item.interface or self._own.get(item.pod_ip, "")

    # Configure --------------------------------------------------------------------------------------------------

    async def configure(self, action: Configure, standing: frozenset[str]) -> Configured:
        """Make the kernel agree with the entry; `standing` are the route's addresses that may stand already."""
        async with self._lock:
            problems: dict[str, str] = {}
            if all(item.address in self.placed for item in action.entry.addresses):
                # nobody waits for a renewal: time to see where the Pod's own network is by now
                self._stale = set(self._own)
            places = await self._places(action.entry, problems)
            try:
                self._deadlines.until(_named(places), action.deadline_s)
            except KernelRefused as error:
                problems |= dict.fromkeys(places, f"not configured: the fence cannot be set: {error}")
            for address, link in places.items():
                if address not in problems:
                    await self._put(address, link, action.deadline_s, problems)
            await self._take_away(standing - {item.address for item in action.entry.addresses})
            reports = tuple(self._report(item, problems) for item in action.entry.addresses)
            return Configured(self._standing(standing | places.keys()), reports, self._deadlines.kind)

    def watch_fence(self) -> TamperMonitor | None:
        """Hear when somebody else changes the fence's rules; None: there is nothing to hear."""
        return self._deadlines.watch()

    async def mend_fence(self) -> bool:
        """Set every deadline again after that; say whether they stand."""
        async with self._lock:
            return self._deadlines.mend()

    async def _put(self, address: str, link: Link, deadline_s: float, problems: dict[str, str]) -> None:
        left_s = deadline_s - boottime()
        valid_s = lifetime_s(left_s, only_fence=not self._deadlines.ruled)
        if left_s <= 0:
            return  # the machine sees the same clock and will say what to do
        if valid_s == 0:
            # what stands has a longer lifetime, from before, than the machine now counts with
            await self._take_away(frozenset({address}))
            problems[address] = (
                "the Lease duration is too short for a kernel without the fence; "
                "set holdfast.dev/lease-seconds on the route to 2 or more"
            )
            return
        try:
            if self.placed.get(address, link.index) != link.index:
                await self._take_away(frozenset({address}))
            await self._stand(address, link, valid_s)
            if address not in self._announced:
                self._send(address, link)
        except KernelRefused as error:
            problems[address] = str(error)

    async def _stand(self, address: str, link: Link, valid_s: int) -> None:
        if address in self.placed:
            await self._addresses.renew(bare(address), link.index, valid_s)
            return
        try:
            await self._addresses.add(bare(address), link.index, valid_s)
        except KernelRefused as error:
            if error.errno != errno.EEXIST or (await self._addresses.marked()).get(bare(address)) != link.index:
                raise
            await self._addresses.renew(bare(address), link.index, valid_s)
        self.placed[address] = link.index

    def _report(self, item: AddressEntry, problems: dict[str, str]) -> AddressReport:
        address, interface = item.address, self._interface(item)
        if problem := problems.get(address):
            # a frame that could not be sent is told apart from an address that does not stand
            state = AddressState.CONFIGURED if address in self.placed else AddressState.FAILED
            return AddressReport(address, interface, state, problem)
        mac, at_s = self._claims.get(address, ("", float("-inf")))
        if boottime() - at_s < CONFLICT_S:
            return AddressReport(
                address,
                interface,
                AddressState.CONFLICT,
                f"{mac} claims it too; find that host and take the address from it",
            )
        state = AddressState.ANNOUNCED if address in self._announced else AddressState.CONFIGURED
        return AddressReport(address, interface, state)

    def _standing(self, addresses: Iterable[str]) -> frozenset[str]:
        return frozenset(addresses) & self.placed.keys()

    # Remove and announce ----------------------------------------------------------------------------------------

    async def remove(self, addresses: frozenset[str]) -> Removed:
        """Remove addresses; what could not be removed is in the answer."""
        async with self._lock:
            await self._take_away(addresses)
            return Removed(self._standing(addresses))

    async def _take_away(self, addresses: frozenset[str]) -> None:
        for address in addresses & self.placed.keys():
            try:
                if await self._addresses.delete(bare(address), self.placed[address]):
                    self._removals[bare(address)] += 1
            except KernelRefused as error:
                self._journal.tell(address, str(error))
                continue
            del self.placed[address]
            self._announced.discard(address)

    async def lift(self) -> None:
        """Take the fence from what no longer stands, so that this Pod may talk to the new holder; not urgent."""
        async with self._lock:  # an add under way has its rule already, but its address not yet
            self._deadlines.lift(self._standing_bare())

    async def retire(self) -> None:
        """Take away the chains of addresses that do not stand, when a route has left; those in use come again."""
        async with self._lock:
            self._deadlines.retire(self._standing_bare())

    def announce(self, addresses: Iterable[str]) -> None:
        """Send both gratuitous forms for each address, now."""
        by_index = {link.index: link for link in self.links.values()}
        for address in sorted(addresses):
            link = by_index.get(self.placed.get(address, -1))
            if link is None:
                continue
            try:
                self._send(address, link)
            except KernelRefused as error:
                self._announced.discard(address)
                self._journal.tell(f"announcement of {address}", str(error))

    def _send(self, address: str, link: Link) -> None:
        forms = (frames.arp_request, frames.arp_reply)
        self.wire.send(link.name, [form(link.mac, bare(address)) for form in forms])
        self._announced.add(address)
        self._journal.forget(f"announcement of {address}")

    def foreign_claims(self) -> set[str]:
        """Read what other hosts claim; give those addresses of ours that are among it."""
        own = {link.mac for link in self.links.values()}
        claimed: set[str] = set()
        for interface, claim in self.wire.claims():
            address = f"{claim.address}/32"
            if claim.mac in own or address not in self.placed:
                continue
            mac = claim.mac.hex(":")
            self._claims[address] = (mac, boottime())
            self._journal.tell(
                address, f"{mac} on {interface} claims {claim.address}, which this Pod holds; find that host"
            )
            claimed.add(address)
        return claimed
