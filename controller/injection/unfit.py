"""Why a Pod cannot have the agent, each reason with its field and what to do about it. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from contract.names import CONTAINER, INJECT, SOURCE, Source
from controller.injection.sidecar import CONTAINER_NAME, VOLUME_NAME, Object

if TYPE_CHECKING:
    from collections.abc import Mapping

OS_LABEL: Final = "kubernetes.io/os"
_LISTS: Final = ("containers", "initContainers", "ephemeralContainers", "volumes")


def shape_problem(pod: Object) -> str | None:
    """Say what of the Pod is not even of the type that a Pod has, as far as injection reads it."""
    for field in ("metadata", "spec"):
        if not isinstance(pod.get(field) or {}, dict):
            return f"{field} is not an object: correct it"
    meta, spec = pod.get("metadata") or {}, pod.get("spec") or {}
    for name in ("labels", "annotations"):
        if not _texts(meta.get(name) or {}):
            return f"metadata.{name} is not a map of strings: quote its values"
    for name in ("securityContext", "nodeSelector", "os"):
        if not isinstance(spec.get(name) or {}, dict):
            return f"spec.{name} is not an object: correct it"
    for name in _LISTS:
        items = spec.get(name) or []
        if not isinstance(items, list) or not all(isinstance(each, dict) for each in items):
            return f"spec.{name} is not a list of objects: correct it"
        if not all(isinstance(each.get("name"), str) for each in items):
            return f"spec.{name} has an item without a name: give it one"
    return None if spec.get("containers") else "spec.containers is empty: name at least one container"


def label_problem(pod: Object) -> str | None:
    """Say what is wrong with the label that asks for the agent or forbids it."""
    value = labels(pod).get(INJECT)
    if value in (None, "true", "false"):
        return None
    return f'metadata.labels["{INJECT}"] is {value!r}: use "true" or "false"'


def problem(pod: Object) -> str | None:
    """Say why the agent cannot work in this Pod, or could not be added to it."""
    spec = pod["spec"]
    return (
        _network_problem(spec) or _system_problem(spec) or _annotation_problem(notes(pod), spec) or _name_problem(spec)
    )


def _network_problem(spec: Object) -> str | None:
    if spec.get("hostNetwork"):
        return "spec.hostNetwork is true, so the address would be the node's: remove it"
    return None


def _system_problem(spec: Object) -> str | None:
    needs = "and holdfast needs Linux"
    system = (spec.get("os") or {}).get("name", "linux")
    if system != "linux":
        return f"spec.os.name is {system!r}, {needs}: set it to linux"
    wanted = (spec.get("nodeSelector") or {}).get(OS_LABEL, "linux")
    if wanted != "linux":
        return f'spec.nodeSelector["{OS_LABEL}"] is {wanted!r}, {needs}: set it to linux'
    if (spec.get("securityContext") or {}).get("windowsOptions"):
        return f"spec.securityContext.windowsOptions is set, {needs}: remove it"
    return None


def _annotation_problem(given: Mapping[str, str], spec: Object) -> str | None:
    source = given.get(SOURCE)
    if source is not None and source not in set(Source):
        return f'metadata.annotations["{SOURCE}"] is {source!r}: use {" or ".join(Source)}'
    named = given.get(CONTAINER)
    if named is not None and named not in container_names(spec):
        return (
            f'metadata.annotations["{CONTAINER}"] names {named!r}, which is no container of the Pod: correct the name, '
            "or remove the annotation and holdfast adds its own"
        )
    return None


def _name_problem(spec: Object) -> str | None:
    for i, each in enumerate(spec.get("volumes") or []):
        if each["name"] == VOLUME_NAME:
            return f"spec.volumes[{i}].name is {VOLUME_NAME!r}, the name of the volume that is added: rename it"
    for i, each in enumerate(spec.get("ephemeralContainers") or []):
        if each["name"] == CONTAINER_NAME:
            field = f"spec.ephemeralContainers[{i}].name"
            return f"{field} is {CONTAINER_NAME!r}, and an ephemeral container cannot be the agent: rename it"
    return None


def labels(pod: Object) -> dict[str, str]:
    """The Pod's labels."""
    found: dict[str, str] = (pod.get("metadata") or {}).get("labels") or {}
    return found


def notes(pod: Object) -> dict[str, str]:
    """The Pod's annotations."""
    found: dict[str, str] = (pod.get("metadata") or {}).get("annotations") or {}
    return found


def container_names(spec: Object) -> set[str]:
    """The names of a Pod's containers and init containers."""
    both = (spec.get("initContainers") or [], spec.get("containers") or [])
    return {each["name"] for kind in both for each in kind}


def _texts(value: Any) -> bool:
    return isinstance(value, dict) and all(isinstance(each, str) for each in value.values())
