"""Who shall hold a route: which Pods are eligible and why the others are not, and the winner. Pure, a total order.

Same Pods in, same winner out, in any order and on any machine. Lost Pods are named by the route's Lease; everything
else stands on the Pod itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Final

from controller.choice.interfaces import Placement, placement

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from controller.choice.objects import Pod, Route

_ENDED: Final = ("Succeeded", "Failed")


class Verdict(StrEnum):
    """Why a Pod that the selector matches may or may not hold the route; in the order in which they are asked."""

    DELETING = "is being deleted"
    ENDED = "has ended"
    HOST_NETWORK = "uses the node's network"
    NO_AGENT = "has no agent"
    UNREADABLE = "has an annotation that cannot be read"
    NOT_ON_NETWORK = "is not on the route's network"
    NO_NODE = "is not scheduled"
    NOT_READY = "is not Ready"
    LOST = "is lost"
    ELIGIBLE = "is eligible"


_MAY_KEEP: Final = (Verdict.DELETING, Verdict.NOT_READY)
"""What others have decided of a Pod, and not its own containers."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A matching Pod, judged; `detail` says more for people, `interface` where the address goes.

    Attributes:
        keeps: whether it is the holder, is not eligible, and keeps what it has while no other Pod is.
    """

    pod: Pod
    verdict: Verdict
    detail: str = ""
    interface: str | None = None
    keeps: bool = False

    @property
    def eligible(self) -> bool:
        """Whether it may hold the route."""
        return self.verdict is Verdict.ELIGIBLE

    @property
    def uid(self) -> str:
        """The Pod's UID."""
        return self.pod.metadata.uid


def judge(pod: Pod, route: Route, lost: Collection[str], holder: str = "") -> Candidate:
    """Say whether a matching Pod may hold a route.

    Args:
        pod: one that the route's selector matches.
        route: what it may hold.
        lost: UIDs of the Pods that the route's Lease calls lost.
        holder: UID of the one that the Lease names. It has an agent, whatever that is called, and that may be started
            anew without a move of the addresses.
    """
    place = placement(pod, route.spec.network)
    verdict, detail = _verdict(pod, route, place, lost, holder)
    alive = pod.metadata.uid == holder and holder not in lost
    if alive and verdict is Verdict.NOT_READY and _only_agent_unready(pod):
        verdict, detail = Verdict.ELIGIBLE, ""
    keeps = alive and verdict in _MAY_KEEP and place.found and not pod.spec.host_network and _serves(pod, route)
    return Candidate(pod, verdict, detail, place.interface, keeps)


def _verdict(pod: Pod, route: Route, place: Placement, lost: Collection[str], holder: str) -> tuple[Verdict, str]:
    exists, (ready, unready) = route.spec.reaction_mode == "Exists", _ready(pod)
    refusals = (
        (pod.metadata.deletion_timestamp is not None, Verdict.DELETING, ""),
        (pod.status.phase in _ENDED, Verdict.ENDED, f"phase {pod.status.phase}"),
        (pod.spec.host_network, Verdict.HOST_NETWORK, ""),
        (pod.agent is None and pod.metadata.uid != holder, Verdict.NO_AGENT, f"no container {pod.agent_name}"),
        (not place.found and place.problem != "", Verdict.UNREADABLE, place.problem),
        (not place.found, Verdict.NOT_ON_NETWORK, ""),
        (exists and not pod.spec.node_name, Verdict.NO_NODE, _scheduled(pod)),
        (not exists and not ready, Verdict.NOT_READY, unready),
        (pod.metadata.uid in lost, Verdict.LOST, ""),
    )
    return next(((verdict, why) for holds, verdict, why in refusals if holds), (Verdict.ELIGIBLE, ""))


def _ready(pod: Pod) -> tuple[bool, str]:
    for each in pod.status.conditions:
        if each.type == "Ready":
            said = ": ".join(part for part in (each.reason, each.message) if part)
            return each.status == "True", said
    return False, f"phase {pod.status.phase or 'unknown'}"


def _only_agent_unready(pod: Pod) -> bool:
    """Whether nothing but the agent's container keeps a Pod from being Ready.

    The kubelet does not look at readiness gates while a container is not ready (kubernetes pkg/kubelet/status,
    GeneratePodReadyCondition), so that is done here.
    """
    said = {each.type: each for each in pod.status.conditions}
    ready = said.get("Ready")
    if ready is None or ready.reason != "ContainersNotReady":
        return False
    gates = (said.get(each.condition_type) for each in pod.spec.readiness_gates)
    return _unready(pod) == {pod.agent_name} and all(gate is not None and gate.status == "True" for gate in gates)


def _serves(pod: Pod, route: Route) -> bool:
    """Whether a Pod's own containers go on: it is being deleted, or called not Ready for another's sake.

    A kubelet leaves the conditions of a Pod that ends as they are until its containers have ended, and the node
    lifecycle controller sets `Ready` alone (kubernetes pkg/controller/nodelifecycle, MarkPodsNotReady).
    """
    if pod.status.phase in _ENDED:
        return False
    ready = any((each.type, each.status) == ("ContainersReady", "True") for each in pod.status.conditions)
    return ready or route.spec.reaction_mode == "Exists" or _unready(pod) == {pod.agent_name}


def _unready(pod: Pod) -> set[str]:
    return {each.name for each in (*pod.status.init_container_statuses, *pod.status.container_statuses)}


def _scheduled(pod: Pod) -> str:
    said = next((each for each in pod.status.conditions if each.type == "PodScheduled"), None)
    return f"{said.reason}: {said.message}" if said is not None and said.reason else ""


def winner(candidates: Iterable[Candidate], owner: str, *, holder: str = "", sticky: bool = False) -> Candidate | None:
    """Choose: the newest; of several as new the present owner, then the greatest UID; Sticky keeps the present owner.

    A Pod on the node of one that was lost comes after all others, unless it is the holder: the node may be dead, and
    Kubernetes calls its Pods Ready for another 45 s.
    """
    known = list(candidates)
    doubted = {each.pod.spec.node_name for each in known if each.verdict is Verdict.LOST}
    eligible = [each for each in known if each.eligible]
    if sticky and (kept := next((each for each in eligible if each.uid == owner), None)) is not None:
        return kept

    def rank(each: Candidate) -> tuple[bool, str, bool, str]:
        sound = each.uid == holder or each.pod.spec.node_name not in doubted
        return sound, each.pod.metadata.creation_timestamp, each.uid == owner, each.uid

    return max(eligible, key=rank, default=None)
