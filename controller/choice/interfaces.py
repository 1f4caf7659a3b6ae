"""Which of a Pod's interfaces is on a network, by what its annotations say. Pure.

GKE's annotation is asked first, then Multus' status under its name of today, then under its old one. Each is read entry
by entry, as the types allow that GKE and Multus publish: keys in any case, null as if it were left out. What cannot be
read of one entry hides no other; it counts only where no entry is found. Not here: where nothing is stated, the Pod's
agent finds the interface of the Pod's own network by the Pod's IP address.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from contract.decode import interface_name
from contract.errors import ContractError
from contract.names import DEFAULT_NETWORKS, INTERFACES, NETWORK_STATUS, NETWORKS_STATUS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from controller.choice.objects import Pod

Entry = dict[str, Any]
"""One entry of an annotation; its keys are casefolded, none is null."""


@dataclass(frozen=True, slots=True)
class Placement:
    """Where a network's interface is in a Pod; `found` and no interface: its agent finds that of the Pod's own network.

    Attributes:
        problem: the annotation, what of it may be about the network and cannot be used, and why; ``""`` where all can.
    """

    found: bool
    interface: str | None = None
    problem: str = ""


@dataclass(frozen=True, slots=True)
class _Said:
    """What one annotation says of a network: the interfaces, the best first.

    Attributes:
        unusable: entries of the network without an interface that can be used.
        unknown: what cannot be read, and may be of the network.
    """

    interfaces: list[str] = field(default_factory=list)
    unusable: list[str] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)


def placement(pod: Pod, network: str) -> Placement:
    """Find the interface by GKE's annotation, else by Multus' status, else (the Pod's own network) leave it open."""
    problem = ""
    for each, read in ((INTERFACES, _gke), (NETWORK_STATUS, _multus), (NETWORKS_STATUS, _multus)):
        text = pod.metadata.annotations.get(each)
        if text is None:
            continue
        said = read(text, each, network, pod.metadata.namespace)
        if said.interfaces:
            return Placement(found=True, interface=said.interfaces[0])
        problem = problem or next(iter((*said.unusable, *said.unknown)), "")
    if network in DEFAULT_NETWORKS:
        return Placement(found=True)
    return Placement(found=False, problem=problem)


def _gke(text: str, annotation: str, network: str, _namespace: str) -> _Said:
    """The network is left out, empty, or one of its two names where the entry is of the Pod's own.

    An entry that refers to a NetworkInterface instead is on the network that this one names, which is not read.
    """
    said = _Said()
    for at, entry in _entries(text, annotation, said):
        named = entry.get("network", "")
        if not isinstance(named, str):
            said.unknown.append(f"{at}.network: is not a string")
        elif not named and entry.get("interface"):
            said.unknown.append(f"{at}.interface: holdfast does not read NetworkInterfaces; name the network instead")
        elif named == network or (network in DEFAULT_NETWORKS and named in ("", *DEFAULT_NETWORKS)):
            _take(entry, "interfacename", f"{at}.interfaceName", said)
    return said


def _multus(text: str, annotation: str, network: str, namespace: str) -> _Said:
    """The entry of the Pod's own network has `default: true`; the others have the name of an attachment.

    An attachment's name has its namespace before it: the Pod's own comes first, then none, then any other.
    """
    ranked: list[list[tuple[str, Entry]]] = [[], [], []]
    said = _Said()
    for at, entry in _entries(text, annotation, said):
        name = entry.get("name", "")
        if network in DEFAULT_NETWORKS:
            if entry.get("default") is True:
                ranked[0].append((at, entry))
        elif not isinstance(name, str):
            said.unknown.append(f"{at}.name: is not a string")
        elif name.rpartition("/")[2] == network:
            space = name.rpartition("/")[0]
            ranked[0 if space == namespace else 2 if space else 1].append((at, entry))
    for rank in ranked:
        for at, entry in rank:
            _take(entry, "interface", f"{at}.interface", said)
    return said


def _take(entry: Entry, key: str, at: str, said: _Said) -> None:
    name = entry.get(key, "")
    if not isinstance(name, str) or not name:
        said.unusable.append(f"{at}: is not a string" if name else f"{at}: is empty")
        return
    try:
        said.interfaces.append(interface_name(name, "Pod", at))
    except ContractError as error:
        said.unusable.append(f"{at}: {error.problem}")


def _entries(text: str, annotation: str, said: _Said) -> Iterator[tuple[str, Entry]]:
    """Give the entries that are objects, each with its path for messages."""
    try:
        # (a whole number of any length is no reason to refuse what stands beside it)
        found = json.loads(text, object_pairs_hook=_folded, parse_int=float)
    except (ValueError, RecursionError) as error:
        said.unknown.append(f"{annotation}: {error}")
        return
    if found is None:
        return
    if not isinstance(found, list):
        said.unknown.append(f"{annotation}: is not a list")
        return
    for i, each in enumerate(found):
        at = f"{annotation}[{i}]"
        if isinstance(each, dict):
            yield at, each
        else:
            said.unknown.append(f"{at}: is not an object")


def _folded(pairs: list[tuple[str, Any]]) -> Entry:
    return {key.casefold(): value for key, value in pairs if value is not None}


_GKE_ADVICE: Final = f"add an interface on that network to the annotation {INTERFACES} in the Pod's template"
_MULTUS_REQUEST: Final = "k8s.v1.cni.cncf.io/networks"
_MULTUS_ADVICE: Final = f"add the network to Multus' annotation {_MULTUS_REQUEST} in the Pod's template"
_EITHER_ADVICE: Final = f"{_GKE_ADVICE}, or, with Multus, the network to {_MULTUS_REQUEST}"


def joining_advice(pods: list[Pod]) -> str:
    """Say what puts Pods on a network, by the annotation that these have: GKE's, Multus', or not known."""
    notes = {key for pod in pods for key in pod.metadata.annotations}
    if INTERFACES in notes:
        return _GKE_ADVICE
    return _MULTUS_ADVICE if notes & {NETWORK_STATUS, NETWORKS_STATUS} else _EITHER_ADVICE


def correcting_advice(problem: str) -> str:
    """Say where a `Placement.problem` is put right."""
    if problem.startswith(INTERFACES):
        return "correct it in the Pod's template"
    return f"Multus writes it: correct {_MULTUS_REQUEST} in the Pod's template, or what it refers to"
