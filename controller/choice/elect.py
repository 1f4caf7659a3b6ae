"""Who shall hold a route: which Pods are eligible and why the others are not, and the winner. Pure, a total order.

Same Pods in, same winner out, in any order and on any machine. Lost Pods are named by the route's Lease; everything
else stands on the Pod itself.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Final

import msgspec

from contract.decode import interface_name
from contract.errors import ContractError
from contract.names import DEFAULT_NETWORKS, INTERFACES, NETWORK_STATUS

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from controller.choice.objects import Pod, Route

_ENDED: Final = ("Succeeded", "Failed")


class Verdict(StrEnum):
    """Why a Pod that the selector matches may or may not hold the route; in the order in which they are asked."""

    DELETING = "is being deleted"
    ENDED = "has ended"
    UNREADABLE = "has an annotation that cannot be read"
    NOT_ON_NETWORK = "is not on the route's network"
    NO_NODE = "is not scheduled"
    NOT_READY = "is not Ready"
    LOST = "is lost"
    ELIGIBLE = "is eligible"


@dataclass(frozen=True, slots=True)
class Candidate:
    """A matching Pod, judged; `detail` says more for people, `interface` where the address goes."""

    pod: Pod
    verdict: Verdict
    detail: str = ""
    interface: str | None = None

    @property
    def eligible(self) -> bool:
        """Whether it may hold the route."""
        return self.verdict is Verdict.ELIGIBLE

    @property
    def uid(self) -> str:
        """The Pod's UID."""
        return self.pod.metadata.uid


@dataclass(frozen=True, slots=True)
class Placement:
    """Where a network's interface is in a Pod; `found` and no interface: the one of the default route.

    Attributes:
        problem: which annotation cannot be read, and why; ``""`` where all can.
    """

    found: bool
    interface: str | None = None
    problem: str = ""


class _Interface(msgspec.Struct, frozen=True, rename="camel"):
    interface_name: str
    network: str = ""


class _Attachment(msgspec.Struct, frozen=True):
    name: str
    interface: str = ""


def placement(pod: Pod, network: str) -> Placement:
    """Find the interface by GKE's annotation, else by Multus', else (the default network) leave it open."""
    default = network in DEFAULT_NETWORKS
    problem = ""
    notes = pod.metadata.annotations
    for annotation, read in ((INTERFACES, _gke), (NETWORK_STATUS, _multus)):
        text = notes.get(annotation)
        if text is None:
            continue
        try:
            name = read(text, network, default)
            if name:
                return Placement(True, interface_name(name, f"Pod {pod.name}", annotation))  # noqa: FBT003 - found
        except (msgspec.DecodeError, ContractError) as error:
            problem = problem or f"{annotation}: {error.problem if isinstance(error, ContractError) else error}"
    if default:
        return Placement(True)  # noqa: FBT003 - found
    return Placement(False, None, problem)  # noqa: FBT003 - not found


def _gke(text: str, network: str, default: bool) -> str:  # noqa: FBT001 - both readers alike
    found = msgspec.json.decode(text, type=tuple[_Interface, ...])
    wanted = DEFAULT_NETWORKS if default else {network}
    return next((each.interface_name for each in found if each.network in wanted), "")


def _multus(text: str, network: str, default: bool) -> str:  # noqa: FBT001 - both readers alike
    if default:
        return ""
    found = msgspec.json.decode(text, type=tuple[_Attachment, ...])
    return next((each.interface for each in found if each.name.rpartition("/")[2] == network), "")


def judge(pod: Pod, route: Route, lost: Collection[str]) -> Candidate:
    """Say whether a matching Pod may hold a route."""
    place = placement(pod, route.spec.network)
    verdict, detail = _verdict(pod, route, place, lost)
    return Candidate(pod, verdict, detail, place.interface)


def _verdict(pod: Pod, route: Route, place: Placement, lost: Collection[str]) -> tuple[Verdict, str]:
    exists, (ready, unready) = route.spec.reaction_mode == "Exists", _ready(pod)
    refusals = (
        (pod.metadata.deletion_timestamp is not None, Verdict.DELETING, ""),
        (pod.status.phase in _ENDED, Verdict.ENDED, f"phase {pod.status.phase}"),
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


# why there is nobody --------------------------------------------------------------------------------------------

_TOLD_MAX: Final = 900
"""Characters that the causes may take together; the first is told whatever its length."""
_NAMES: Final = 3
_NAME_MAX: Final = 63
_DETAILS: Final = 2
_DETAIL_MAX: Final = 120
_SELECTOR_MAX: Final = 300


@dataclass(frozen=True, slots=True)
class _Words:
    """How a cause is told: of one Pod, of several, of all that match; and what to do about it."""

    one: str
    many: str
    all: str
    advice: str


_WORDS: Final = {
    Verdict.DELETING: _Words(
        "is being deleted", "are being deleted", "all are being deleted", "wait for a new Pod, or create one"
    ),
    Verdict.ENDED: _Words("has ended", "have ended", "all have ended", "create a Pod that keeps running"),
    Verdict.UNREADABLE: _Words(
        "has an unreadable annotation",
        "have an unreadable annotation",
        "all have an unreadable annotation",
        "correct it in the Pod's template",
    ),
    Verdict.NOT_ON_NETWORK: _Words(
        "is not on network {network}",
        "are not on network {network}",
        "none is on network {network}",
        f"add an interface on that network to the annotation {INTERFACES} in the Pod's template",
    ),
    Verdict.NO_NODE: _Words(
        "is not scheduled to a node",
        "are not scheduled to a node",
        "none is scheduled to a node",
        "see kubectl describe pod",
    ),
    Verdict.NOT_READY: _Words(
        "is not Ready", "are not Ready", "none is Ready", "check the readiness probes and the containers' logs"
    ),
    Verdict.LOST: _Words(
        "is lost",
        "are lost",
        "all are lost",
        "check the container holdfast, which did not renew or take the Lease in time",
    ),
}


def nobody(candidates: list[Candidate], route: Route) -> str:
    """Say, for people, why no Pod is eligible: each cause once, with how many Pods, some names, and what to do."""
    if not candidates:
        asked = _clipped(str(route.spec.pod_selector), _SELECTOR_MAX)
        return (
            f"no Pod in namespace {route.metadata.namespace} matches spec.podSelector ({asked}): correct the Pods' "
            "labels or the route's spec.podSelector"
        )
    match = "1 Pod matches" if len(candidates) == 1 else f"{len(candidates)} Pods match"
    told = sorted(candidates, key=lambda each: (each.pod.metadata.creation_timestamp, each.uid), reverse=True)
    by_cause = {cause: found for cause in _WORDS if (found := [each for each in told if each.verdict is cause])}
    if len(by_cause) == 1:
        ((cause, found),) = by_cause.items()
        return f"{match}, {_only(cause, found, route.spec.network)}"
    # the most frequent first; of equals, in the order of `_WORDS`
    causes = sorted(by_cause.items(), key=lambda each: -len(each[1]))
    clauses = [_one_of(cause, found, route.spec.network) for cause, found in causes]
    return f"{match}, none can hold the addresses: {_fitting(clauses, [len(found) for _, found in causes])}"


def _only(cause: Verdict, found: list[Candidate], network: str) -> str:
    words, details = _WORDS[cause], _details(found)
    said = f"it {words.one}" if len(found) == 1 else words.all
    why = f" ({details})" if details else ""
    return f"{said.format(network=network)}: {_names(found)}{why}; {words.advice}"


def _one_of(cause: Verdict, found: list[Candidate], network: str) -> str:
    words, details = _WORDS[cause], _details(found)
    said = words.one if len(found) == 1 else words.many
    why = f": {details}" if details else ""
    return f"{len(found)} {said.format(network=network)} ({_names(found)}{why}): {words.advice}"


def _names(found: list[Candidate]) -> str:
    names = ", ".join(_clipped(each.pod.name, _NAME_MAX) for each in found[:_NAMES])
    return names + (f" and {len(found) - _NAMES} more" if len(found) > _NAMES else "")


def _details(found: list[Candidate]) -> str:
    """What the Pods say themselves: the most frequent first, equal ones once."""
    counted = Counter(each.detail for each in found if each.detail)
    details = sorted(counted, key=lambda each: (-counted[each], each))
    more = ["…"] if len(details) > _DETAILS else []
    return "; ".join([_clipped(each, _DETAIL_MAX) for each in details[:_DETAILS]] + more)


def _fitting(clauses: list[str], counts: list[int]) -> str:
    """As many whole clauses as fit, and how many Pods have other causes."""
    kept = next((n for n in range(len(clauses), 1, -1) if sum(map(len, clauses[:n])) <= _TOLD_MAX), 1)
    rest = sum(counts[kept:])
    more = [f"{rest} for other reasons"] if rest else []
    return "; ".join(clauses[:kept] + more)


def _clipped(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"
