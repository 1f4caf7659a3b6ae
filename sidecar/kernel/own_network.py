"""Which interface is on the Pod's own network, where no annotation states it. Pure.

In this order: the one that has the Pod's IP address, by which Kubernetes knows the Pod; the one of the default route,
and of several next hops the first that can be used; where there is no default route, the one that was used before, or
else the first that a runtime makes. Never one without Ethernet and ARP: there an address is announced to nobody. If the
Pod's IP address is on such a one, no other is taken in its place, since that would be of another network.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from contract.names import INTERFACES
from sidecar.errors import InterfaceMissing

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from sidecar.kernel.addresses import Link

PRIMARY: Final = "eth0"
"""containerd and CRI-O give the Pod's first interface this name; used where there is no default route."""
_ADVICE: Final = f"name the interface in the Pod's annotation {INTERFACES}"


@dataclass(frozen=True, slots=True, order=True)
class Hop:
    """One next hop of a default route; of two the lesser is better."""

    metric: int
    down: bool
    place: int
    index: int


def own_interface(links: Mapping[int, Link], with_pod_ip: Iterable[int], hops: Iterable[Hop], before: str = "") -> str:
    """Name the interface.

    Args:
        links: all there are, by index.
        with_pod_ip: the indexes of those that have the Pod's IP address.
        hops: of the default routes.
        before: the answer before this one, `""` for none.

    Raises:
        InterfaceMissing: there is none, or only such as have no Ethernet and ARP.
    """
    own = [links[index] for index in with_pod_ip if index in links]
    if own:
        return _fit(own, "the Pod's IP address is on")
    ways = [links[hop.index] for hop in sorted(hops) if hop.index in links]
    if ways:
        return _fit(ways, "the default route is by")
    left = [link for name in (before, PRIMARY) for link in links.values() if link.name == name]
    if left:
        return _fit(left, "there is no default route, and there is")
    raise InterfaceMissing(f"this Pod has no default route and no interface {PRIMARY}; {_ADVICE}")


def _fit(found: list[Link], said: str) -> str:
    for link in found:
        if not link.unfit:
            return link.name
    raise InterfaceMissing(f"{said} {', '.join(f'{link.name}, which {link.unfit}' for link in found)}; {_ADVICE}")
