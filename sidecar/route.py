"""One route of the Pod: feeds its machine with what happens, carries out what the machine wants, tells what changed."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from sidecar.clock import boottime
from sidecar.cluster import lease
from sidecar.cluster.sources import lease_watch
from sidecar.kernel.placement import bare
from sidecar.protocol import machine
from sidecar.protocol.events import (
    Action,
    Announce,
    Assigned,
    Configure,
    Configured,
    Event,
    KernelSeen,
    LeaseSeen,
    Read,
    Reannounce,
    Remove,
    Removed,
    Tick,
    Write,
)
from sidecar.protocol.state import Phase, State, phase

if TYPE_CHECKING:
    from collections.abc import Callable

    from contract.assignment import RouteEntry
    from contract.lease import LeaseView
    from sidecar.cluster.client import ApiClient
    from sidecar.cluster.identity import Identity
    from sidecar.journal import Journal
    from sidecar.kernel.placement import Placement

LIFT_AFTER_S: Final = 0.2
"""The fence of what was removed is taken away after the handover's write, not before it."""


class Route:
    """The runner of one route's machine.

    Args:
        entry: what the assignment says first; its Lease stays the same for as long as this lives.
        tasks: everything that is awaited here runs in this group, so that an error nobody foresaw ends the agent.
        changed: called after each step.
    """

    def __init__(
        self,
        entry: RouteEntry,
        *,
        me: Identity,
        api: ApiClient,
        placement: Placement,
        journal: Journal,
        tasks: asyncio.TaskGroup,
        changed: Callable[[], None],
    ) -> None:
        self.state = State(me.uid)
        self._lease = entry.lease
        self._subject = f"route {entry.route}"
        self._me = me
        self._api = api
        self._placement = placement
        self._journal = journal
        self._tasks = tasks
        self._changed = changed
        self._lease_known = asyncio.Event()
        self._timer: asyncio.TimerHandle | None = None
        self._lifting: asyncio.TimerHandle | None = None
        self._preparing: asyncio.Task[None] | None = None
        watch = lease_watch(api, me.namespace, entry.lease, self._lease_seen, journal)
        self._watching = tasks.create_task(watch.run())
        self.assign(entry)
        # after the assignment, or they would count as nobody's
        if standing := self._standing():
            self.feed(KernelSeen(standing))

    def close(self) -> None:
        """Stop watching; nothing in the kernel or on the Lease changes by this."""
        self._watching.cancel()
        if self._preparing is not None:
            self._preparing.cancel()
        for timer in (self._timer, self._lifting):
            if timer is not None:
                timer.cancel()

    # What happens -----------------------------------------------------------------------------------------------

    def assign(self, entry: RouteEntry | None) -> None:
        """Note what the assignment says of this route."""
        if entry != self.state.entry or self.state.unassigned:
            self.feed(Assigned(entry))

    def prepare(self) -> None:
        """Make everything ready, or again where interfaces have changed."""
        if self._preparing is not None:
            self._preparing.cancel()
        entry = self.state.entry
        self._preparing = None if entry is None else self._tasks.create_task(self._prepare(entry))

    def kernel_changed(self) -> None:
        """Compare what stands with what the machine believes."""
        busy = isinstance(self.state.flight, (Configure, Remove))  # its result will say
        if not busy and (standing := self._standing()) != self.state.present:
            self.feed(KernelSeen(standing))

    @property
    def over(self) -> bool:
        """Whether the route has left the assignment and nothing is left to do for it."""
        s = self.state
        busy = s.present or s.flight is not None or s.mine or s.reread
        return s.entry is None and not busy and (s.lease is None or s.lease.prepared != s.me)

    def feed(self, event: Event) -> None:
        """Step the machine and carry out what it wants."""
        before = self.state
        self.state, actions = machine.step(before, event, boottime())
        for action in actions:
            self._start(action)
        if self.state.entry is not before.entry:
            self.prepare()
        # after the actions have begun: a line in the log costs more than a frame
        asyncio.get_running_loop().call_soon(self._tell, before, self.state)
        self._set_timer()
        self._changed()

    def _lease_seen(self, view: LeaseView | None) -> None:
        self._lease_known.set()
        self.feed(LeaseSeen(view))

    def _standing(self) -> frozenset[str]:
        return (self.state.named | self.state.present) & self._placement.placed.keys()

    def _set_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        now = boottime()
        at_s = machine.wake_at(self.state, now)
        if at_s is not None:
            self._timer = asyncio.get_running_loop().call_later(at_s - now, self.feed, Tick())

    # What is to be done -----------------------------------------------------------------------------------------

    async def _prepare(self, entry: RouteEntry) -> None:
        result = await self._placement.prepare(entry)
        await self._lease_known.wait()
        self.feed(result)

    def _start(self, action: Action) -> None:
        if isinstance(action, Announce):
            self._placement.announce(action.addresses)
        else:
            self._tasks.create_task(self._carry_out(action))

    async def _carry_out(self, action: Write | Read | Configure | Remove) -> None:
        match action:
            case Write():
                self.feed(await lease.write(self._api, action, self._me.uid))
            case Read():
                self.feed(await lease.read(self._api, self._me.namespace, self._lease, action))
            case Configure():
                self._configured(await self._placement.configure(action, self.state.present))
            case Remove():
                self._removed(await self._placement.remove(action.addresses))

    def _configured(self, event: Configured) -> None:
        self.feed(event)
        if event.present and self.state.announce_at_s is None:
            # an earlier self added these: the machine does not know when they were last announced
            self.feed(Reannounce())

    def _removed(self, event: Removed) -> None:
        self.feed(event)
        # one is enough: it lifts the fence from all that is gone by then
        if self._lifting is not None:
            self._lifting.cancel()
        self._lifting = asyncio.get_running_loop().call_later(LIFT_AFTER_S, self._lift)

    def _lift(self) -> None:
        self._tasks.create_task(self._placement.lift())

    # What is told -----------------------------------------------------------------------------------------------

    def _tell(self, before: State, s: State) -> None:
        now = boottime()
        if s.trouble and s.trouble != before.trouble:
            self._journal.tell(f"{self._subject} trouble", s.trouble)
        for report in s.reports:
            if report.message:
                self._journal.tell(f"{self._subject} {report.address}", f"{report.state}: {report.message}")
        self._journal.tell(self._subject, self._sentence(s, phase(s, now)), epoch=_epoch(s))

    def _sentence(self, s: State, at: Phase) -> str:  # noqa: PLR0911 - one case per phase
        standing = ", ".join(sorted(bare(address) for address in s.present)) or "no address"
        holder = (s.lease.holder if s.lease else "") or "no Pod"
        match at:
            case Phase.HOLDING if s.present:
                return f"holds {standing}"
            case Phase.HOLDING:
                return "is the holder and has configured no address yet"
            case Phase.LEAVING:
                return f"is the holder and is giving up {standing}"
            case Phase.OUSTED:
                return f"may no longer hold {standing} and removes it"
            case Phase.WAITING:
                return f"waiting for the Lease, {'prepared' if s.prepared else 'not prepared'}; holder: {holder}"
            case Phase.BLIND:
                return f"has not seen the Lease {self._lease} yet; configured: {standing}"
            case Phase.ABSENT:
                return "is not assigned to this Pod"


def _epoch(s: State) -> int:
    return s.lease.transitions if s.lease else 0
