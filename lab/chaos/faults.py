"""The catalogue of faults: each a value that says how it is made and healed, and what it may cost at most.

Tests, `make chaos` and the benchmarks try these same values (`lab.chaos.trial.try_fault`). A bound is a function of
the Lease's duration *d* and of how long the fault lasted: what docs/ownership.md promises, nothing added for slow
machines. Not here: how they are made (`lab.chaos.strikes`), what judges (`lab.witness.judge`), and faults of a whole
machine's clock.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from contract.names import GUARD_DEADLINE_S
from lab.chaos import strikes
from lab.errors import LabError

if TYPE_CHECKING:
    from collections.abc import Callable

    from lab.chaos.proxy import Proxy
    from lab.chaos.scene import Scene

HANDOVER_S: Final = 0.2
"""From a Lease that has run out to the next holder's address: the freeing write, the owner's take, the kernel."""
PLANNED_S: Final = 0.02
"""A planned handover: nobody has it from the removal in one Pod to the addition in the other."""
EXPIRED_S: Final = GUARD_DEADLINE_S + HANDOVER_S
ASK_AGAIN_S: Final = 1.3
"""A client that had given up asks for a neighbour each second; a link that comes up carries frames within a second."""
ANNOUNCED_AGAIN_S: Final = 1.1
RESTART_S: Final = 0.6
"""A sidecar that was killed is at work again within this, where the node starts it at once."""
CONTROLLER_BACK_S: Final = 6.0
"""A controller that was killed is started, and the Lease by which its last self led has run out (4 s)."""
MINUTES_S: Final = 120.0
"""Kubernetes calls a dead node NotReady, and its Pods unready, after some 50 s."""
BACK_S: Final = 1.0
"""After the API server's return the holder has its address back within this."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault.

    Attributes:
        name: short, for tables; `what`: what is done, in a sentence.
        strike: makes it; gives what heals it.
        lasts_s: how long until it is healed, by the Lease's duration.
        vacant_s: how long the address may be on nobody, by the Lease's duration and how long the fault lasted.
        gap_s: the same for the client's gap; None: as `vacant_s`, and a planned handover's gap.
        proxied: whether it needs the proxy in front of the API server.
        forged: how many false frames the fault itself puts on the wire.
        fresh: it kills what a kubelet starts again at once only the first time.
        stackable: others may be struck while it lasts, and it while others do: it waits for nothing.
    """

    name: str
    what: str
    strike: Callable[[Scene, Proxy | None], Callable[[], None]]
    lasts_s: Callable[[float], float]
    vacant_s: Callable[[float, float], float]
    gap_s: Callable[[float, float], float] | None = None
    proxied: bool = False
    forged: int = 0
    fresh: bool = False
    stackable: bool = True

    def gap_bound_s(self, d: float, lasted_s: float) -> float:
        """The longest gap that the client may see."""
        return (self.gap_s or self.vacant_s)(d, lasted_s)


# what bounds are made of ---------------------------------------------------------------------------------------


def _never(_d: float, _lasted_s: float) -> float:
    return 0.0


def _planned(_d: float, _lasted_s: float) -> float:
    return PLANNED_S


def _expired(_d: float, _lasted_s: float) -> float:
    """The kernel cuts at the deadline, the controller frees a guard later."""
    return EXPIRED_S


def _dead(d: float, _lasted_s: float) -> float:
    """Nothing answers from the first instant on; the Lease was renewed just before."""
    return d + EXPIRED_S


def _api_away(d: float, lasted_s: float) -> float:
    """The last renewal was a third of the duration ago at most; the holder takes it back soon after the return."""
    return max(0.0, lasted_s - d * 2 / 3) + BACK_S


def _while_cut(_d: float, lasted_s: float) -> float:
    return lasted_s + ASK_AGAIN_S


def _short(d: float) -> float:
    return d / 4


def _long(d: float) -> float:
    return d + 1.5


# The catalogue -------------------------------------------------------------------------------------------------

FAULTS: Final = (
    Fault(
        "planned handover",
        "No fault: the holder is no longer selected, and then is again.",
        strikes.hand_over,
        _short,
        _planned,
        stackable=False,
    ),
    Fault(
        "holder's sidecar killed", "SIGKILL; the node starts it again.", strikes.kill_holder, _short, _never, fresh=True
    ),
    Fault("holder's sidecar stopped, short", "SIGSTOP for d/4.", strikes.pause_holder, _short, _never),
    Fault(
        "holder's sidecar stopped, long",
        "SIGSTOP past its deadline, then SIGCONT: it wakes without the right.",
        strikes.pause_holder,
        _long,
        _expired,
    ),
    Fault(
        "successor killed, unprepared",
        "SIGKILL when it is to take over and cannot yet.",
        strikes.kill_unprepared,
        _short,
        _planned,
        fresh=True,
        stackable=False,
    ),
    Fault(
        "successor killed, taking over",
        "SIGKILL at some moment of a handover.",
        strikes.kill_successor,
        _short,
        lambda _d, _lasted_s: RESTART_S,
        fresh=True,
        stackable=False,
    ),
    Fault(
        "successor's sidecar stopped, short",
        "SIGSTOP for d/4; it is to take over.",
        strikes.pause_successor,
        _short,
        _planned,
        stackable=False,
    ),
    Fault(
        "successor's sidecar stopped, long",
        "SIGSTOP for longer than d; it is to take over.",
        strikes.pause_successor,
        _long,
        _planned,
        stackable=False,
    ),
    Fault(
        "both sidecars stopped",
        "SIGSTOP past the deadline; both wake at once.",
        strikes.pause_both,
        _long,
        lambda d, lasted_s: max(0.0, lasted_s - d * 2 / 3) + BACK_S,
    ),
    Fault(
        "controller killed", "SIGKILL; it is started again after more than d.", strikes.kill_controller, _long, _never
    ),
    Fault("controller stopped, short", "SIGSTOP for d/4.", strikes.pause_controller, _short, _never),
    Fault("controller stopped, long", "SIGSTOP for longer than d.", strikes.pause_controller, _long, _never),
    Fault(
        "controller replaced, holder stopped",
        "SIGKILL of the controller, which is started again at once, and SIGSTOP of the holder's sidecar.",
        strikes.replace_controller,
        lambda d: d + CONTROLLER_BACK_S + EXPIRED_S,
        lambda d, _lasted_s: d / 3 + CONTROLLER_BACK_S + EXPIRED_S,  # it counts anew from when it leads
        stackable=False,
    ),
    Fault("API server killed", "SIGKILL; it is started again at once.", strikes.kill_api, lambda _d: 0.0, _api_away),
    Fault("API server stopped, short", "SIGSTOP for d/4.", strikes.pause_api, _short, _never),
    Fault("API server stopped, long", "SIGSTOP for longer than d.", strikes.pause_api, _long, _api_away),
    Fault("etcd killed", "SIGKILL; it is started again at once.", strikes.kill_etcd, lambda _d: 0.0, _api_away),
    Fault("etcd stopped, short", "SIGSTOP for d/4.", strikes.pause_etcd, _short, _never),
    Fault("etcd stopped, long", "SIGSTOP for longer than d.", strikes.pause_etcd, _long, _api_away),
    Fault(
        "holder's link down", "Its interface is taken down, and up again.", strikes.link_down, _long, _never, _while_cut
    ),
    Fault(
        "holder cut off",
        "Its node is alone on one side of the cut switch; API server, client and the other node on the other.",
        strikes.cut_holder,
        _long,
        _expired,
        _dead,
    ),
    Fault("successor cut off", "The same, with the other node alone.", strikes.cut_successor, _long, _never),
    Fault(
        "switch cut in two",
        "Holder and client on one side, API server and the other node on the other.",
        strikes.split,
        _long,
        _expired,
        _while_cut,
    ),
    Fault(
        "LAN reachable, API not",
        "The holder's node is off the API server's network.",
        strikes.cut_api_side,
        _long,
        _expired,
    ),
    Fault(
        "API reachable, LAN not",
        "The holder's node is off the address's network.",
        strikes.cut_lan_side,
        _long,
        _never,
        _while_cut,
    ),
    Fault(
        "announcements lost",
        "Those of a handover are dropped at the switch for 1 s.",
        strikes.drop_announcements,
        lambda _d: 1.0,
        _planned,
        lambda _d, lasted_s: lasted_s + ANNOUNCED_AGAIN_S,
        stackable=False,
    ),
    Fault(
        "announcement late",
        "One of the old holder comes after those of the new one.",
        strikes.late_announcement,
        lambda _d: 2.0,
        _planned,
        lambda _d, _lasted_s: ANNOUNCED_AGAIN_S,
        forged=1,
        stackable=False,
    ),
    Fault(
        "holder's node dead",
        "Cables out, all processes killed; on again after the handover, with its old Pod.",
        strikes.node_dead,
        _long,
        _dead,
        fresh=True,
    ),
    Fault(
        "holder's node dead, for minutes",
        "The same for two minutes: Kubernetes has noticed, and the old Pod comes back into another world.",
        strikes.node_dead,
        lambda _d: MINUTES_S,
        _dead,
        fresh=True,
        stackable=False,
    ),
    Fault(
        "API slow",
        "Each request takes d/5 longer.",
        strikes.slow(0.2),
        lambda d: 3 * d,
        _never,
        proxied=True,
        stackable=False,
    ),
    Fault(
        "API too slow for its Lease",
        "Each request takes d/2 longer: no renewal is answered in time.",
        strikes.slow(0.5),
        lambda d: 3 * d,
        _api_away,
        proxied=True,
        stackable=False,
    ),
    Fault(
        "answers lost",
        "The holder's requests arrive, the API server's answers to it do not; they come late.",
        strikes.answers_lost,
        _long,
        lambda d, _lasted_s: d / 3 + EXPIRED_S,  # one renewal is applied that the holder does not know of
        proxied=True,
        stackable=False,
    ),
)
"""What is tried one at a time."""


def named(name: str) -> Fault:
    """The fault of the catalogue that has this name.

    Raises:
        LabError: there is none.
    """
    for fault in FAULTS:
        if fault.name == name:
            return fault
    raise LabError(f"unknown fault {name!r}: choose one of {', '.join(fault.name for fault in FAULTS)}")
