"""Pod and settings in, the Pod with its agent out, or the sentence that says why not. Pure.

Used by the webhook (`admit`, `json_patch`) and by ``holdfast inject`` (`inject`). To a Pod that has an agent nothing is
added, so that a second time changes nothing. Nothing of the user's is changed or lost, and the Pod that came in stays
as it was.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Final

from contract.names import CONTAINER, INJECT, INJECTION, SOURCE, SYSTEM_NAMESPACE, Source
from controller.injection import unfit
from controller.injection.sidecar import CONTAINER_NAME, Object, Settings, container, volume
from controller.injection.unfit import labels, notes

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from controller.choice.objects import Selector

NEVER_IN: Final = (SYSTEM_NAMESPACE, "kube-system")
ENABLED: Final = "enabled"
STANDARD: Final = "pod-security.kubernetes.io/enforce"
TOO_STRICT: Final = ("baseline", "restricted")
_NAMESPACE_NAME: Final = "kubernetes.io/metadata.name"
MIRROR: Final = "kubernetes.io/config.mirror"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a Pod.

    Attributes:
        pod: the Pod, with its agent where it got one.
        changed: whether it got one.
        refused: why the Pod must not be created like this; None: it may.
        reason: why it got an agent or none, for people; one sentence.
        warning: what the user should correct although the Pod may run; None: nothing.
    """

    pod: Object
    changed: bool
    refused: str | None
    reason: str
    warning: str | None = None


class Wish(Enum):
    """Who wants a Pod to have an agent."""

    POD = "its label asks for it"
    ROUTE = "a GKEIPRoute selects it in a namespace with injection"
    NOBODY = "nobody"


def admit(
    pod: Object, namespace_labels: Mapping[str, str], selectors: Iterable[Selector], settings: Settings
) -> Outcome:
    """Give a new Pod its agent if it is to have one.

    A Pod that asks for an agent and cannot have one is refused; one that only a route selects may run without, and the
    outcome carries a warning. So it is where the namespace's Pod security standard would refuse the Pod with its agent;
    a Pod that asks is told so by the API server itself.

    Args:
        pod: as the API server sends it.
        namespace_labels: those of the Pod's namespace.
        selectors: ``spec.podSelector`` of each GKEIPRoute in that namespace.
        settings: see there.
    """
    name = _name(pod, namespace_labels.get(_NAMESPACE_NAME, ""))
    broken = unfit.shape_problem(pod)
    if broken is None and not _never(pod, namespace_labels):
        broken = unfit.label_problem(pod)
    if broken:
        return _refused(pod, f"{name}: {broken}")
    wish, why = wanted(pod, namespace_labels, selectors)
    if wish is Wish.NOBODY:
        return _alone(pod, f"{name} gets no sidecar: {why}")
    outcome = inject(pod, settings, name=name)
    if wish is Wish.POD:
        return outcome
    barred = _barred(name, namespace_labels) if outcome.changed else outcome.refused
    return Outcome(pod, changed=False, refused=None, reason=barred, warning=barred) if barred else outcome


def wanted(pod: Object, namespace_labels: Mapping[str, str], selectors: Iterable[Selector]) -> tuple[Wish, str]:
    """Say who wants a Pod to have an agent, and why nobody does.

    Returns:
        The wish, and where there is none the reason.
    """
    never = _never(pod, namespace_labels)
    if never:
        return Wish.NOBODY, never
    if labels(pod).get(INJECT) == "true":
        return Wish.POD, ""
    if namespace_labels.get(INJECTION) != ENABLED:
        return Wish.NOBODY, f"it has no label {INJECT}=true, and its namespace no label {INJECTION}={ENABLED}"
    if any(not each.empty and each.matches(labels(pod)) for each in selectors):
        return Wish.ROUTE, ""
    return Wish.NOBODY, f"no GKEIPRoute of its namespace selects it, and it has no label {INJECT}=true"


def _never(pod: Object, namespace_labels: Mapping[str, str]) -> str | None:
    namespace = (pod.get("metadata") or {}).get("namespace") or namespace_labels.get(_NAMESPACE_NAME, "")
    if namespace in NEVER_IN:
        return f"no Pod of namespace {namespace} does"
    if MIRROR in notes(pod):
        return "it stands for a static Pod, which only its node can change"
    return f"its label {INJECT} is false" if labels(pod).get(INJECT) == "false" else None


def _barred(name: str, namespace_labels: Mapping[str, str]) -> str | None:
    standard = namespace_labels.get(STANDARD, "")
    if standard not in TOO_STRICT:
        return None
    return (
        f"{name} gets no sidecar: its namespace enforces the Pod security standard {standard!r}, which forbids "
        f"NET_ADMIN and NET_RAW: set the namespace's label {STANDARD} to privileged"
    )


def inject(pod: Object, settings: Settings, *, name: str = "", at: str = "") -> Outcome:
    """Give a Pod, or a Pod template, its agent, whoever wants it; what cannot work is refused.

    Args:
        pod: with ``metadata`` and ``spec``; it stays as it is.
        settings: see there.
        name: what messages call the object; default: the Pod.
        at: where in the object the Pod is, as ``spec.template.``; for messages.
    """
    name = name or _name(pod)
    broken = unfit.shape_problem(pod) or unfit.label_problem(pod)
    if broken:
        return _refused(pod, f"{name}: {at}{broken}")
    if labels(pod).get(INJECT) == "false":
        return _alone(pod, f"{name} gets no sidecar: its label {INJECT} is false")
    agent = _agent(pod)
    if agent:
        return _alone(pod, f"{name} has the container {agent!r} already: nothing is added")
    unfitting = unfit.problem(pod)
    if unfitting:
        return _refused(pod, f'{name}: {at}{unfitting}, or set the label {INJECT} to "false"')
    spec = pod["spec"]
    added = {
        "initContainers": [container(settings, _source(pod, settings)), *(spec.get("initContainers") or [])],
        "volumes": [volume(), *(spec.get("volumes") or [])],
    }
    return Outcome(
        {**pod, "spec": {**spec, **added}},
        changed=True,
        refused=None,
        reason=f"{name} gets the sidecar {settings.image}",
    )


def json_patch(before: Object, outcome: Outcome) -> list[Object]:
    """Describe what injection added to a Pod as a JSON patch (RFC 6902); empty where it added nothing."""
    if not outcome.changed:
        return []
    old, new = before["spec"], outcome.pod["spec"]
    return [_insertion(field, new[field][0], old.get(field)) for field in ("initContainers", "volumes")]


def _insertion(field: str, first: Object, there: list[Object] | None) -> Object:
    if there:
        return {"op": "add", "path": f"/spec/{field}/0", "value": first}
    return {"op": "add", "path": f"/spec/{field}", "value": [first]}


def _agent(pod: Object) -> str:
    """The container that is the Pod's agent, or nothing."""
    names = unfit.container_names(pod["spec"])
    named = notes(pod).get(CONTAINER)
    return next((each for each in (named, CONTAINER_NAME) if each in names), "")


def _source(pod: Object, settings: Settings) -> Source:
    asked = notes(pod).get(SOURCE)
    return Source(asked) if asked else settings.source


def _name(pod: Object, namespace: str = "") -> str:
    meta = pod.get("metadata") or {}
    if not isinstance(meta, dict):
        return "Pod"
    namespace = meta.get("namespace") or namespace
    name = meta.get("name") or f"{meta.get('generateName') or '(no name)'}*"
    return f"Pod {namespace}/{name}" if namespace else f"Pod {name}"


def _alone(pod: Object, reason: str) -> Outcome:
    return Outcome(pod, changed=False, refused=None, reason=reason)


def _refused(pod: Object, reason: str) -> Outcome:
    return Outcome(pod, changed=False, refused=reason, reason=reason)
