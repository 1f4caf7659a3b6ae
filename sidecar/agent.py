"""The agent: one event loop that joins the sources, the routes' machines and the kernel, until it is asked to end.

Nothing here waits for a tick: every callback steps a machine at once. An error that nobody foresaw ends the process;
the kernel keeps the deadlines, and the kubelet starts the next one.
"""

from __future__ import annotations

import asyncio
import signal
from typing import TYPE_CHECKING, Final, Protocol

from sidecar.clock import StepAlarm, boottime
from sidecar.kernel.links import Monitor
from sidecar.kernel.placement import Placement
from sidecar.kernel.whereabouts import LinkNews, Whereabouts
from sidecar.protocol.events import ClockStepped, Event, Reannounce, Stop, Unfenced
from sidecar.protocol.machine import finished
from sidecar.route import Route

if TYPE_CHECKING:
    from collections.abc import Callable

    from contract.assignment import Assignment, RouteEntry
    from sidecar.cluster.client import ApiClient
    from sidecar.cluster.identity import Identity
    from sidecar.journal import Journal
    from sidecar.kernel.tampering import TamperMonitor

    OpenSource = Callable[[Callable[[Assignment], None]], "Source"]
    """Makes the source that calls back with this Pod's assignment, whenever that may have changed."""

MEND_AGAIN_S: Final = 1.0
"""So long after a fence could not be mended it is tried again."""
GIVE_UP_S: Final = 5.0
"""After the drain time, so long for the last writes: an API server that is away cannot keep a Pod from ending."""


class Source(Protocol):
    """Where the assignment comes from."""

    async def run(self) -> None:
        """Follow it for ever; ends only by cancellation."""


class Agent:
    """All of one Pod's routes; made on a running event loop.

    Args:
        source: where the assignment is read.
        drain_s: at SIGTERM, how long to wait for a prepared successor before the Lease is freed.

    Raises:
        NotPermitted: a capability is missing.
    """

    def __init__(self, me: Identity, api: ApiClient, journal: Journal, *, source: OpenSource, drain_s: float) -> None:
        self._me = me
        self._api = api
        self._journal = journal
        self._source = source(self._assigned)
        self._drain_s = drain_s
        self._routes: dict[str, Route] = {}
        self._assignment: Assignment | None = None
        self._adopted = False
        self._stop: Stop | None = None
        self._done = asyncio.Event()
        self._tasks = asyncio.TaskGroup()
        self._placement = Placement(journal)
        self._monitor = Monitor()
        self._whereabouts = Whereabouts()
        self._alarm = StepAlarm()
        self._tampering: TamperMonitor | None = None
        self._mending: asyncio.TimerHandle | None = None

    async def run(self) -> bool:
        """Run until SIGTERM or SIGINT and everything is let go; say whether it was.

        Raises:
            NotPermitted: a capability is missing.
        """
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._asked_to_stop)
        try:
            async with self._tasks:
                # the source is asked while the kernel is asked what an earlier self left
                watching = self._tasks.create_task(self._source.run())
                await self._adopt()
                await self._done.wait()
                watching.cancel()
                if self._mending is not None:
                    self._mending.cancel()
                for route in self._routes.values():
                    route.close()
            let_go = not any(route.state.mine for route in self._routes.values())
            # an earlier self's, of which no source told us anything any more
            removed = await self._placement.remove(frozenset(self._placement.placed))
            return let_go and not removed.present
        finally:
            self._close(loop)

    def _close(self, loop: asyncio.AbstractEventLoop) -> None:
        for listened in (self._monitor, self._alarm, self._placement.wire):
            loop.remove_reader(listened.fileno())
        if self._tampering is not None:
            loop.remove_reader(self._tampering.fileno())
            self._tampering.close()
        self._monitor.close()
        self._alarm.close()
        self._placement.close()

    async def _adopt(self) -> None:
        await self._placement.adopt()
        self._whereabouts.moved(LinkNews(each.index, each.up, each.stored) for each in self._placement.links.values())
        loop = asyncio.get_running_loop()
        loop.add_reader(self._monitor.fileno(), self._kernel_news)
        loop.add_reader(self._alarm.fileno(), self._clock_news)
        loop.add_reader(self._placement.wire.fileno(), self._claims)
        self._tampering = self._placement.watch_fence()
        if self._tampering is not None:
            loop.add_reader(self._tampering.fileno(), self._fence_news)
        self._adopted = True
        self._apply()

    # The assignment ---------------------------------------------------------------------------------------------

    def _assigned(self, assignment: Assignment) -> None:
        self._assignment = assignment
        self._apply()

    def _apply(self) -> None:
        if self._assignment is None or not self._adopted:
            return
        # a route is known by its Lease: renamed or moved to another, it is another route
        entries = {entry.lease: entry for entry in self._assignment.routes}
        for lease, route in list(self._routes.items()):
            if lease not in entries:
                route.assign(None)
        for lease, entry in entries.items():
            if lease in self._routes:
                self._routes[lease].assign(entry)
            else:
                self._begin(entry)
        self._remove_strays()

    def _begin(self, entry: RouteEntry) -> None:
        route = Route(
            entry,
            me=self._me,
            api=self._api,
            placement=self._placement,
            journal=self._journal,
            tasks=self._tasks,
            changed=self._changed,
        )
        self._routes[entry.lease] = route
        if self._stop is not None:
            route.feed(self._stop)

    def _remove_strays(self) -> None:
        known: set[str] = set()
        for route in self._routes.values():
            known |= route.state.present | route.state.named
        if strays := self._placement.placed.keys() - known:
            self._journal.tell("clean-up", f"removing {', '.join(sorted(strays))}, left by an earlier run")
            self._tasks.create_task(self._remove(frozenset(strays)))

    async def _remove(self, strays: frozenset[str]) -> None:
        await self._placement.remove(strays)
        await self._placement.retire()

    def _changed(self) -> None:
        over = [lease for lease, route in self._routes.items() if route.over]
        for lease in over:
            self._routes.pop(lease).close()
        if over:
            self._tasks.create_task(self._placement.retire())
        now = boottime()
        if self._stop is not None and all(finished(route.state, now) for route in self._routes.values()):
            self._done.set()

    # News -------------------------------------------------------------------------------------------------------

    def _feed_all(self, event: Event) -> None:
        for route in list(self._routes.values()):
            route.feed(event)

    def _kernel_news(self) -> None:
        changes = self._monitor.read()
        gone = self._placement.removed_by_others(changes.addresses_gone, overrun=changes.overrun)
        if gone or changes.links or changes.overrun:
            self._tasks.create_task(self._look_again(changes.links, overrun=changes.overrun))

    async def _look_again(self, changed: tuple[LinkNews, ...], *, overrun: bool) -> None:
        before = {link.name: link.index for link in self._placement.links.values()}
        await self._placement.refresh()
        after = {link.name: link.index for link in self._placement.links.values()}
        moved = self._whereabouts.moved(changed) or overrun
        for route in list(self._routes.values()):
            route.kernel_changed()
            if moved:
                route.feed(Reannounce())
            if after != before:
                route.prepare()

    def _clock_news(self) -> None:
        if self._alarm.rang():
            self._journal.tell("clock", "the wall clock was set; writing the deadlines again")
            self._journal.forget("clock")
            self._feed_all(ClockStepped())

    def _fence_news(self) -> None:
        if self._tampering is not None and self._tampering.touched():
            self._begin_mending()

    def _begin_mending(self) -> None:
        self._tasks.create_task(self._mend_fence())

    async def _mend_fence(self) -> None:
        if await self._placement.mend_fence() or self._done.is_set():
            return
        self._feed_all(Unfenced())
        if self._mending is not None:
            self._mending.cancel()
        self._mending = asyncio.get_running_loop().call_later(MEND_AGAIN_S, self._begin_mending)

    def _claims(self) -> None:
        claimed = self._placement.foreign_claims()
        for route in list(self._routes.values()):
            if claimed & route.state.present:
                route.feed(Reannounce())

    def _asked_to_stop(self) -> None:
        if self._stop is not None:
            return
        until_s = boottime() + self._drain_s
        self._stop = Stop(until_s, until_s + GIVE_UP_S)
        self._journal.tell(
            "agent", f"asked to stop; waiting up to {self._drain_s:g} s for the next owners to be prepared"
        )
        self._feed_all(self._stop)
        self._changed()
