"""Manifests as text: where the Pods in them are, and how the agent is put in with every other byte as it was.

YAML is composed only to find places; what is written are insertions at those places. So comments, order, quotes, widths
and line ends stay, in block style and in JSON alike. Each edited document is read again and must say what was meant.
"""

from __future__ import annotations

import json
import textwrap
from dataclasses import dataclass
from itertools import zip_longest
from typing import TYPE_CHECKING, Any, Final

import yaml

if TYPE_CHECKING:
    from collections.abc import Iterator

Object = dict[str, Any]

_TEMPLATE: Final = ("spec", "template")
_PATHS: Final[dict[str, tuple[str, ...]]] = {
    "CronJob": ("spec", "jobTemplate", "spec", "template"),
    "DaemonSet": _TEMPLATE,
    "Deployment": _TEMPLATE,
    "Job": _TEMPLATE,
    "Pod": (),
    "PodTemplate": ("template",),
    "ReplicaSet": _TEMPLATE,
    "ReplicationController": _TEMPLATE,
    "StatefulSet": _TEMPLATE,
}
_GROUPS: Final = frozenset({"", "apps", "batch"})
_FIELDS: Final = ("initContainers", "volumes")


class ManifestError(Exception):
    """A file is not YAML, or cannot be edited in place; names the file and what to do."""


class _Loader(yaml.SafeLoader):
    """YAML as kubectl reads it: what looks like a date is a string."""


_Loader.yaml_implicit_resolvers = {
    first: [each for each in resolvers if each[0] != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


class _Dumper(yaml.SafeDumper):
    """Texts of several lines as such."""


_Dumper.add_representer(
    str,
    lambda dumper, text: dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None),
)


@dataclass(frozen=True, slots=True)
class Workload:
    """A Pod or a Pod template in a file.

    Attributes:
        name: kind, namespace and name, for messages.
        namespace: as the manifest says; empty where it does not.
        at: the path of the Pod in the object, with a dot at its end; empty for a Pod.
        pod: ``metadata`` and ``spec``, as plain data.
        spec: the place of ``spec`` in the text; None where the Pod has no mapping there.
    """

    name: str
    namespace: str
    at: str
    pod: Object
    spec: yaml.MappingNode | None


@dataclass(frozen=True, slots=True)
class _Edit:
    start: int
    end: int
    text: str


def workloads(text: str, file: str) -> list[Workload]:
    """Find every Pod and Pod template.

    Raises:
        ManifestError: it is not YAML.
    """
    return _read(text, file)[1]


def with_agents(text: str, file: str, meant: list[tuple[Workload, Object]]) -> str:
    """Write the first init container and the first volume of each Pod that is meant into the text.

    Args:
        text: the file's content.
        file: its name, for messages.
        meant: workloads of this text, each with the Pod as it is to be.

    Raises:
        ManifestError: one of them is written so that it cannot be edited in place.
    """
    line_end = "\r\n" if "\r\n" in text else "\n"
    edits = {edit for workload, pod in meant for edit in _edits(text, file, workload, pod["spec"])}
    result = text
    # from the end, so that the places before stay where they are
    for edit in sorted(edits, key=lambda each: each.start, reverse=True):
        result = result[: edit.start] + edit.text.replace("\n", line_end) + result[edit.end :]
    _check(result, file, text, meant)
    return result


def _read(text: str, file: str) -> tuple[list[Any], list[Workload]]:
    """All documents, and the workloads in them, whose `pod` is part of their document."""
    try:
        nodes, values = list(yaml.compose_all(text, _Loader)), list(yaml.load_all(text, _Loader))
    except (yaml.YAMLError, ValueError) as error:
        raise ManifestError(f"{file} is not valid YAML: {error}") from error
    objects = [each for node, value in zip(nodes, values, strict=True) for each in _objects(node, value)]
    return values, [workload for each in objects for workload in _workload(*each)]


def documents(bodies: list[Object]) -> str:
    """Write objects as YAML documents."""
    return yaml.dump_all(bodies, Dumper=_Dumper, sort_keys=False, width=120, explicit_start=True)


def _objects(node: Any, value: Any, kind: str = "") -> Iterator[tuple[Any, Object, str]]:
    """An object and its kind, or those in a list; a list's items may leave their kind to it."""
    if not isinstance(value, dict) or not isinstance(node, yaml.MappingNode):
        return
    kind = str(value.get("kind") or kind)
    items, nodes = value.get("items"), _child(node, "items")
    if kind.endswith("List") and isinstance(items, list) and isinstance(nodes, yaml.SequenceNode):
        for below, item in zip(nodes.value, items, strict=True):
            yield from _objects(below, item, kind.removesuffix("List"))
    else:
        yield node, value, kind


def _workload(node: Any, value: Object, kind: str) -> list[Workload]:
    group, slash, _ = str(value.get("apiVersion") or "").rpartition("/")
    if kind not in _PATHS or (slash and group not in _GROUPS):
        return []
    path = _PATHS[kind]
    pod: Any = value
    for key in path:
        pod, node = (pod.get(key) if isinstance(pod, dict) else None), _child(node, key)
    meta = value.get("metadata")
    meta = meta if isinstance(meta, dict) else {}
    namespace, name = str(meta.get("namespace") or ""), meta.get("name") or f"{meta.get('generateName', '')}*"
    full = f"{kind} {namespace}/{name}" if namespace else f"{kind} {name}"
    spec = _child(node, "spec")
    plain = pod if isinstance(pod, dict) else {}
    at = "".join(f"{key}." for key in path)
    return [Workload(full, namespace, at, plain, spec if isinstance(spec, yaml.MappingNode) else None)]


def _child(node: Any, key: str) -> Any:
    if not isinstance(node, yaml.MappingNode):
        return None
    return next((value for name, value in node.value if name.value == key), None)


# Insertions ---------------------------------------------------------------------------------------------------------


def _edits(text: str, file: str, workload: Workload, new: Object) -> list[_Edit]:
    spec = workload.spec
    containers = next((key for key, _ in spec.value if key.value == "containers"), None) if spec else None
    if spec is None or containers is None:
        raise _not_in_place(file, workload)
    there = {field: _child(spec, field) for field in _FIELDS}
    missing = {field: new[field][:1] for field in _FIELDS if there[field] is None}
    edits = [_first_item(text, node, new[field][0]) for field, node in there.items() if node is not None]
    if missing and spec.flow_style:
        inner = "".join(f"{json.dumps(field)}: {json.dumps(items)}, " for field, items in missing.items())
        edits.append(_at(spec.start_mark.index + 1, inner))
    elif missing:
        indent = " " * containers.start_mark.column
        body = "".join(f"{field}:\n{_block(items)}" for field, items in missing.items())
        edits.append(_at(_above(text, containers.start_mark), textwrap.indent(body, indent)))
    return edits


def _first_item(text: str, node: Any, item: Object) -> _Edit:
    """Put an item before the others of a list, which may be empty or null."""
    start, end = node.start_mark.index, node.end_mark.index
    if not isinstance(node, yaml.SequenceNode):
        gap = "" if end > start else " "
        return _Edit(start, end, f"{gap}{json.dumps([item])}")
    if node.flow_style:
        return _at(start + 1, json.dumps(item) + (", " if node.value else ""))
    return _at(_above(text, node.start_mark), textwrap.indent(_block([item]), " " * node.start_mark.column))


def _above(text: str, mark: Any) -> int:
    """The beginning of a line, or of the comments of the same column that stand directly above it."""
    start, comment = text.rfind("\n", 0, mark.index) + 1, " " * mark.column + "#"
    while start and text.startswith(comment, before := text.rfind("\n", 0, start - 1) + 1):
        start = before
    return start


def _at(place: int, text: str) -> _Edit:
    return _Edit(place, place, text)


def _block(items: list[Object]) -> str:
    return yaml.safe_dump(items, sort_keys=False, default_flow_style=False, width=120)


def _check(result: str, file: str, text: str, meant: list[tuple[Workload, Object]]) -> None:
    """Read what was written: what was meant must be there, and everything else as before."""
    goal = {_place(workload): pod for workload, pod in meant}
    expected, before = _read(text, file)
    for each in before:
        each.pod.update(goal.get(_place(each), {}))
    try:
        found, after = _read(result, file)
    except ManifestError:
        found, after = [], []
    if found != expected:
        wrong = (old for old, new in zip_longest(before, after) if old and (not new or new.pod != old.pod))
        raise _not_in_place(file, next(wrong, meant[0][0]))


def _place(workload: Workload) -> int:
    return workload.spec.start_mark.index if workload.spec is not None else -1


def _not_in_place(file: str, workload: Workload) -> ManifestError:
    what = f"{workload.at}spec is written with anchors, tags or merge keys, and cannot be edited in place"
    return ManifestError(f"{file}: {workload.name}: {what}: write it out")
