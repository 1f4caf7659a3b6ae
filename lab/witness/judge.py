"""Judges what was witnessed: were there ever two holders, and did anybody speak for an address that was another's?

Pure, and of no opinion on how holdfast works: it knows the kernels' events and the frames on the switch, nothing of
Leases or logs. A network namespace *holds* an address while the address is on one of its interfaces and the deadline
of its fence, if it has one, has not passed.

Not promised: an event's time is that of its receipt. Removals and additions come in the kernel's order, by one queue,
so that an overlap of these is never missed or invented; beside a deadline, which is compared with the clock, an
addition may seem later than it was by as long as the witness needed to receive it.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from lab.witness.kernel_events import AddressEvent, FenceEvent, KernelEvent, LinkEvent, SpaceGone

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from lab.witness.frames import Frame

_Place = tuple[str, int]
LATE_S: Final = 0.1
"""So late a busy witness may receive an event; seen here on two busy cores: 30 ms."""


@dataclass(frozen=True, slots=True)
class Overlap:
    """A time during which several network namespaces held one address.

    Attributes:
        end_s: None: it had not ended when the evidence ended.
        holders: all that held it at some time of these, by name.
    """

    start_s: float
    end_s: float | None
    address: str
    holders: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Tenure:
    """A time during which one network namespace held an address; `end_s` None: it still did when the evidence ended."""

    netns: str
    space: int
    start_s: float
    end_s: float | None


@dataclass(frozen=True, slots=True)
class Speaker:
    """A MAC address that spoke for an address, and for how long no other did."""

    mac: str
    first_s: float
    last_s: float
    frames: int


@dataclass(slots=True)
class _Holding:
    interfaces: set[str] = field(default_factory=set)
    deadline_s: float | None = None

    def at(self, time_s: float) -> bool:
        return bool(self.interfaces) and (self.deadline_s is None or time_s < self.deadline_s)


@dataclass(slots=True)
class _Kernels:
    """The state of all kernels, as their events built it up."""

    held: dict[str, dict[_Place, _Holding]] = field(default_factory=dict)
    macs: dict[str, _Place] = field(default_factory=dict)

    def apply(self, event: KernelEvent) -> set[str]:
        """Take an event in; gives the addresses whose holders it may change."""
        place = (event.netns, event.space)
        match event:
            case AddressEvent():
                interfaces = self._holding(event.address, place).interfaces
                (interfaces.add if event.added else interfaces.discard)(event.interface)
                return {event.address}
            case FenceEvent():
                self._holding(event.address, place).deadline_s = event.deadline_s
                return {event.address}
            case LinkEvent():
                self.macs[event.mac] = place
                return set()
            case SpaceGone():
                return {address for address, places in self.held.items() if places.pop(place, None)}

    def holders(self, address: str, time_s: float) -> set[_Place]:
        return {place for place, holding in self.held.get(address, {}).items() if holding.at(time_s)}

    def _holding(self, address: str, place: _Place) -> _Holding:
        return self.held.setdefault(address, {}).setdefault(place, _Holding())


def two_holders(events: Iterable[KernelEvent], until_s: float | None = None) -> list[Overlap]:
    """Find every time during which an address had more than one holder, however short.

    Args:
        events: in the order of their receipt, from the beginning.
        until_s: when the evidence ends; deadlines until then count. None: with the last event.
    """
    kernels = _Kernels()
    going_on: dict[str, tuple[float, set[_Place]]] = {}
    found: list[Overlap] = []
    for time_s, event in _with_deadlines(events, until_s):
        touched = kernels.apply(event) if not isinstance(event, str) else {event}
        for address in touched:
            now = kernels.holders(address, time_s)
            if len(now) > 1:
                start_s, before = going_on.get(address, (time_s, set()))
                going_on[address] = (start_s, before | now)
            elif address in going_on:
                found.append(_overlap(address, *going_on.pop(address), time_s))
    found += [_overlap(address, *each, None) for address, each in going_on.items()]
    return sorted(found, key=lambda each: (each.start_s, each.address))


def tenures(events: Iterable[KernelEvent], address: str, until_s: float | None = None) -> list[Tenure]:
    """Say who held an address, and from when to when, by the beginnings; arguments as of `two_holders`."""
    kernels = _Kernels()
    since: dict[_Place, float] = {}
    found: list[Tenure] = []
    for time_s, event in _with_deadlines(events, until_s):
        touched = kernels.apply(event) if not isinstance(event, str) else {event}
        if address not in touched:
            continue
        now = kernels.holders(address, time_s)
        found += [Tenure(*place, since.pop(place), time_s) for place in sorted(since.keys() - now)]
        for place in now:
            since.setdefault(place, time_s)
    found += [Tenure(*place, start_s, None) for place, start_s in since.items()]
    return sorted(found, key=lambda each: (each.start_s, each.netns, each.space))


def vacancies(held: Iterable[Tenure], since_s: float, until_s: float) -> list[tuple[float, float]]:
    """Times between two instants during which nobody held the address that these tenures are of."""
    found = []
    at_s = since_s
    for tenure in sorted(held, key=lambda each: each.start_s):
        if tenure.start_s > at_s:
            found.append((at_s, min(tenure.start_s, until_s)))
        at_s = max(at_s, until_s if tenure.end_s is None else tenure.end_s)
        if at_s >= until_s:
            return found
    return [*found, (at_s, until_s)]


def _with_deadlines(events: Iterable[KernelEvent], until_s: float | None) -> Iterator[tuple[float, KernelEvent | str]]:
    """The events, and between them each address whose deadline comes, by time."""
    points: list[tuple[float, KernelEvent | str]] = [(event.time_s, event) for event in events]
    end_s = until_s if until_s is not None else max((time_s for time_s, _ in points), default=0.0)
    fences = [event for _, event in points if isinstance(event, FenceEvent)]
    points += [
        (fence.deadline_s, fence.address)
        for fence in fences
        if fence.deadline_s is not None and fence.time_s < fence.deadline_s <= end_s
    ]
    yield from sorted(points, key=lambda point: point[0])  # stable: what has one time keeps its order


def _overlap(address: str, start_s: float, holders: set[_Place], end_s: float | None) -> Overlap:
    return Overlap(start_s, end_s, address, tuple(sorted(name for name, _ in holders)))


def false_speakers(frames: Iterable[Frame], events: Sequence[KernelEvent]) -> list[Frame]:
    """Find every frame by which a Pod's MAC address claimed an address while another Pod held it.

    ARP frames of every kind and echo replies count. A MAC address that no kernel event has named is not a Pod's; it is
    not judged here. A frame has the kernel's time, an event that of its receipt: so a Pod whose address is seen to be
    added up to `LATE_S` after the frame may have had it by then.
    """
    kernels = _Kernels()
    found = []
    pending = sorted(events, key=lambda event: event.time_s)
    at = 0
    for frame in sorted(frames, key=lambda frame: frame.time_s):
        while at < len(pending) and pending[at].time_s <= frame.time_s:
            kernels.apply(pending[at])
            at += 1
        speaker = kernels.macs.get(frame.sender_mac)
        holders = kernels.holders(frame.sender_ip, frame.time_s)
        if not frame.claims or speaker is None or not holders or speaker in holders:
            continue
        if not _soon_added(itertools.islice(pending, at, None), frame, speaker):
            found.append(frame)
    return found


def _soon_added(following: Iterable[KernelEvent], frame: Frame, speaker: _Place) -> bool:
    soon = itertools.takewhile(lambda event: event.time_s <= frame.time_s + LATE_S, following)
    added = (event for event in soon if isinstance(event, AddressEvent) and event.added)
    return any(event.address == frame.sender_ip and (event.netns, event.space) == speaker for event in added)


def speakers(frames: Iterable[Frame], address: str) -> list[Speaker]:
    """Who claimed an address, one after the other: a MAC address that comes again comes again in the list."""
    found: list[Speaker] = []
    claims = (frame for frame in frames if frame.claims and frame.sender_ip == address)
    for frame in sorted(claims, key=lambda frame: frame.time_s):
        if found and found[-1].mac == frame.sender_mac:
            last = found.pop()
            found.append(Speaker(last.mac, last.first_s, frame.time_s, last.frames + 1))
        else:
            found.append(Speaker(frame.sender_mac, frame.time_s, frame.time_s, 1))
    return found
