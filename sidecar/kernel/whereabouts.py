"""What neighbours and switches store of the Pod's interfaces, and whether the kernel's news change it. Pure.

A neighbour stores the MAC address; a switch stores the MAC address and the port behind which it is. So news of an
interface that is up are to be announced where its address, what lies below it, its port or its master has changed,
where it carries again, or where the kernel itself asks for it (a bond that fails over, a machine that has moved).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

NOTIFY: Final = (3, 4)
"""IFLA_EVENT_BONDING_FAILOVER and IFLA_EVENT_NOTIFY_PEERS of include/uapi/linux/if_link.h."""

Stored = tuple[object, ...]
"""MAC address, the link below and its namespace, port, master: as the kernel tells them."""


@dataclass(frozen=True, slots=True)
class LinkNews:
    """What the kernel told of one interface at one time.

    Attributes:
        up: whether it is up and carries; not, where it is gone.
        asked: the kernel asks to tell the neighbours.
    """

    index: int
    up: bool
    stored: Stored = ()
    asked: bool = False


class Whereabouts:
    """What of every interface was told last."""

    def __init__(self) -> None:
        self._last: dict[int, LinkNews] = {}

    def moved(self, news: Iterable[LinkNews]) -> bool:
        """Take the kernel's news, in their order; whether something is to be announced."""
        moved = False
        for each in news:  # every one, since each is what the next is compared with
            moved = self._moved(each) or moved
        return moved

    def _moved(self, told: LinkNews) -> bool:
        before = self._last.get(told.index)
        self._last[told.index] = told
        if not told.up:
            return False
        return told.asked or before is None or not before.up or before.stored != told.stored
