"""The deadlines of this Pod's addresses: which are set, and what becomes of them where the kernel refuses.

Around `sidecar.kernel.fence`, of which it gives up where the kernel lacks it: then only the lifetime of each address
enforces its deadline, and `kind` says so. Addresses here have no prefix length. Not here: the addresses themselves.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from contract.report import Fence as Kind
from sidecar.clock import realtime_ns
from sidecar.errors import FenceUnsupported, KernelRefused, NotPermitted
from sidecar.kernel.fence import Fence

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from sidecar.journal import Journal
    from sidecar.kernel.addresses import Link
    from sidecar.kernel.tampering import TamperMonitor

_BY_HAND: Final = "remove it with `nft delete table netdev holdfast`, and the same for arp, ip and ip6"


class Deadlines:
    """What the kernel was told of each address, and whether it holds."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._set: dict[str, tuple[str, float]] = {}
        self._broken = False
        self._fence: Fence | None = None
        try:
            self._fence = Fence()
        except FenceUnsupported as error:
            self._give_up(error)

    @property
    def kind(self) -> Kind:
        """What enforces a deadline now."""
        return Kind.LIFETIME if self._fence is None or self._broken else Kind.DEADLINE

    @property
    def ruled(self) -> bool:
        """Whether this kernel has rules for it; else the lifetime is the only fence."""
        return self._fence is not None

    def close(self) -> None:
        """Close the socket; the rules stay."""
        if self._fence is not None:
            self._fence.close()

    def _give_up(self, error: FenceUnsupported) -> None:
        self._journal.tell("fence", f"{error}; only the lifetime of each address enforces the deadline")
        self.close()
        self._fence = None

    def adopt(self, standing: Iterable[str]) -> None:
        """Keep what an earlier self left for the addresses that stand, and take away the rest."""
        if self._fence is not None:
            try:
                self._fence.adopt(standing)
            except FenceUnsupported as error:
                self._give_up(error)

    def cover(self, links: Iterable[Link]) -> None:
        """Take in what interfaces there are now."""
        if self._fence is None:
            return
        try:
            self._fence.cover({link.name: link.index for link in links if not link.loopback})
        except KernelRefused as error:
            self._journal.tell("fence", f"{error}; of that interface only the kernel's own frames are cut")

    def prepare(self, places: Mapping[str, str]) -> None:
        """Make everything for {address: interface} but the deadlines.

        Raises:
            KernelRefused: for a reason that may pass.
        """
        if self._fence is not None:
            try:
                self._fence.prepare(places)
            except FenceUnsupported as error:
                self._give_up(error)

    def until(self, places: Mapping[str, str], deadline_s: float) -> None:
        """Set the deadline of {address: interface}, a time on CLOCK_BOOTTIME, instead of any earlier one.

        Raises:
            KernelRefused: what was set before still holds.
        """
        if self._fence is None or not places:
            return
        for address, interface in places.items():
            self._set[address] = (interface, deadline_s)
        self._fence.until(places, realtime_ns(deadline_s))
        self._broken = self._broken and not self._set.keys() <= places.keys()

    def watch(self) -> TamperMonitor | None:
        """Hear when somebody else changes the rules; None: there are none, or the kernel does not tell."""
        if self._fence is None:
            return None
        try:
            return self._fence.watch()
        except KernelRefused as error:
            self._journal.tell("fence", f"{error}; a flush of the nftables rules is mended by the next renewal only")
            return None

    def mend(self) -> bool:
        """Set every deadline again, after somebody else has touched the rules; say whether they stand.

        A deadline is an absolute time, so setting it again is right whatever has become of the address.
        """
        if self._fence is None:
            return True
        self._fence.distrust()
        try:
            for address, (interface, deadline_s) in self._set.items():
                self._fence.until({address: interface}, realtime_ns(deadline_s))
        except KernelRefused as error:
            self._broken = True
            self._journal.tell("fence", f"{error}; until it is set only the lifetime enforces the deadline")
            return False
        self._broken = False
        self._journal.forget("fence")
        return True

    def lift(self, standing: Collection[str]) -> None:
        """Take the deadline from what no longer stands, so that this Pod may talk to the new holder."""
        gone = self._set.keys() - standing
        for address in gone:
            del self._set[address]
        if self._fence is None or not gone:
            return
        try:
            self._fence.lift(gone)
        except KernelRefused as error:
            # nothing stands behind it: the Pod only cannot reach these addresses on other hosts
            self._journal.tell("fence", f"{error}; {_BY_HAND}")

    def retire(self, standing: Iterable[str]) -> None:
        """Take away all that is for no address that stands."""
        if self._fence is None:
            return
        try:
            self._fence.retire(standing)
        except NotPermitted:
            return  # then none of it is ours either; whoever needs the capability says so
        except KernelRefused as error:
            self._journal.tell("fence", f"{error}; {_BY_HAND}")
