"""What is said where no matching Pod is eligible: by cause, how many Pods, some names, and what to do. Pure."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from contract.names import INJECT, INJECTION
from controller.choice.elect import Verdict
from controller.choice.interfaces import correcting_advice, joining_advice

if TYPE_CHECKING:
    from controller.choice.elect import Candidate
    from controller.choice.objects import Route

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
    Verdict.HOST_NETWORK: _Words(
        "uses the node's network",
        "use the node's network",
        "all use the node's network",
        "remove hostNetwork from the Pod's template, since the address would be the node's",
    ),
    Verdict.NO_AGENT: _Words(
        "has no agent",
        "have no agent",
        "none has an agent",
        f'label the Pod\'s template {INJECT}: "true", or its namespace {INJECTION}: enabled, or use holdfast inject, '
        "and create the Pods anew",
    ),
    Verdict.UNREADABLE: _Words(
        "has an unreadable annotation",
        "have an unreadable annotation",
        "all have an unreadable annotation",
        "",  # by the annotation
    ),
    Verdict.NOT_ON_NETWORK: _Words(
        "is not on network {network}",
        "are not on network {network}",
        "none is on network {network}",
        "",  # by the annotation that the Pods have
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
    return f"{said.format(network=network)}: {_names(found)}{why}; {_advice(cause, found)}"


def _one_of(cause: Verdict, found: list[Candidate], network: str) -> str:
    words, details = _WORDS[cause], _details(found)
    said = words.one if len(found) == 1 else words.many
    why = f": {details}" if details else ""
    return f"{len(found)} {said.format(network=network)} ({_names(found)}{why}): {_advice(cause, found)}"


def _advice(cause: Verdict, found: list[Candidate]) -> str:
    if cause is Verdict.NOT_ON_NETWORK:
        return joining_advice([each.pod for each in found])
    if cause is Verdict.UNREADABLE:
        return correcting_advice(found[0].detail)
    return _WORDS[cause].advice


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
