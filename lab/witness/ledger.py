"""What the API server and the network said, and when: the demo's evidence. Nothing here comes from holdfast's own logs.

Leases and Pods are watched with the lab's own client; kernel events and frames come from the lab's witness. `stages`
is pure and turns them into the times of one handover.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from contract.assignment import Assignment, decode_assignment
from contract.errors import ContractError
from contract.lease import LeaseView, decode_lease
from contract.names import ASSIGNMENT
from lab.errors import WaitTimeout

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from lab.api_client import ApiClient
    from lab.witness.frames import Frame
    from lab.witness.kernel_events import AddressEvent

LEASES = "/apis/coordination.k8s.io/v1/leases"
PODS = "/api/v1/pods"
ROUTES = "/apis/networking.gke.io/v1/gkeiproutes"


@dataclass(frozen=True, slots=True)
class Seen:
    """One version of an object and when its watch delivered it (CLOCK_REALTIME, seconds)."""

    at_s: float
    kind: str
    body: dict[str, Any]

    @property
    def name(self) -> str:
        """``namespace/name``."""
        meta = self.body["metadata"]
        return f"{meta['namespace']}/{meta['name']}"


class Ledger:
    """Watches Leases, Pods and routes of all namespaces and keeps every version seen."""

    def __init__(self, api: ApiClient) -> None:
        self._api = api
        self._changed = threading.Condition()
        self._history: list[Seen] = []
        self._now: dict[tuple[str, str], dict[str, Any]] = {}
        for path in (LEASES, PODS, ROUTES):
            threading.Thread(target=self._follow, args=(path,), daemon=True).start()

    def _follow(self, path: str) -> None:
        for kind, body in self._api.watch(path):
            seen = Seen(time.time(), path, body)
            with self._changed:
                self._history.append(seen)
                if kind == "DELETED":
                    self._now.pop((path, seen.name), None)
                else:
                    self._now[path, seen.name] = body
                self._changed.notify_all()

    def wait(self, what: str, condition: Callable[[], bool], timeout_s: float) -> None:
        """Wait until the condition holds; it is asked again at every change.

        Raises:
            WaitTimeout: it did not in time; says for what it waited.
        """
        with self._changed:
            if not self._changed.wait_for(condition, timeout_s):
                raise WaitTimeout(f"timed out after {timeout_s:g} s waiting for {what}")

    def current(self, path: str, name: str) -> dict[str, Any]:
        """The newest version of an object, or an empty one."""
        return self._now.get((path, name), {})

    def all(self, path: str, namespace: str) -> list[dict[str, Any]]:
        """The newest versions of a namespace's objects."""
        return [body for (kind, name), body in self._now.items() if kind == path and name.split("/")[0] == namespace]

    def everything(self, path: str) -> list[dict[str, Any]]:
        """The newest versions of all objects of a kind, by name."""
        return [body for (kind, _name), body in sorted(self._now.items()) if kind == path]

    def lease(self, name: str) -> LeaseView | None:
        """The newest version of a Lease."""
        body = self.current(LEASES, name)
        return decode_lease(body) if body else None

    def since(self, at_s: float) -> list[Seen]:
        """Everything seen from `at_s` on."""
        with self._changed:
            return [seen for seen in self._history if seen.at_s >= at_s]


@dataclass(frozen=True, slots=True)
class Evidence:
    """What took place from the cause of an event on.

    Attributes:
        lease: the route's Lease, as ``namespace/name``.
        addresses: the route's addresses without their prefix length.
        seen: versions of Leases and Pods, oldest first.
        kernel: address events of all Pods, oldest first.
        frames: ARP frames on the switch, oldest first.
    """

    cause_s: float
    lease: str
    addresses: frozenset[str]
    seen: list[Seen] = field(default_factory=list)
    kernel: list[AddressEvent] = field(default_factory=list)
    frames: list[Frame] = field(default_factory=list)


def stages(evidence: Evidence, uid: str, netns: str, macs: frozenset[str]) -> dict[str, float]:
    """Say when the addresses took each step on their last way to one Pod, in milliseconds after the cause.

    Args:
        evidence: what was seen.
        uid: the Pod that has them in the end.
        netns: its network namespace.
        macs: the MAC addresses of its interfaces.
    """
    leases = [(s.at_s, decode_lease(s.body)) for s in evidence.seen if s.kind == LEASES and s.name == evidence.lease]
    pods = [s for s in evidence.seen if s.kind == PODS and s.body["metadata"]["uid"] == uid]
    mine = [e for e in evidence.kernel if e.address in evidence.addresses]
    configured = _last_of_first(e for e in mine if e.added and e.netns == netns)
    # a Pod of the same name has a network namespace of the same name: so by time, not by place
    removed = [e.time_s for e in mine if not e.added and (configured is None or e.time_s < configured)]
    found = {
        "decided": _first(at for at, view in leases if view.owner == uid),
        "annotated": _first(s.at_s for s in pods if names_lease(s.body, evidence.lease)),
        "released": max(removed, default=None),
        "acquired": _first(at for at, view in leases if view.holder == uid),
        "configured": configured,
        "announced": _first(
            f.time_s
            for f in evidence.frames
            if f.gratuitous and f.sender_mac in macs and f.sender_ip in evidence.addresses
        ),
    }
    return {stage: (at - evidence.cause_s) * 1000 for stage, at in found.items() if at is not None}


def names_lease(pod: dict[str, Any], lease: str) -> bool:
    """Whether a Pod's assignment has an entry with this Lease (``namespace/name``)."""
    entries = assignment(pod).routes
    return any(f"{pod['metadata']['namespace']}/{entry.lease}" == lease for entry in entries)


def assignment(pod: dict[str, Any]) -> Assignment:
    """A Pod's assignment; a damaged one counts as none."""
    text = pod["metadata"].get("annotations", {}).get(ASSIGNMENT, "")
    try:
        return decode_assignment(text, "Pod") if text else Assignment()
    except ContractError:
        return Assignment()


def _first(times: Iterable[float]) -> float | None:
    return min(times, default=None)


def _last(times: Iterable[float]) -> float | None:
    return max(times, default=None)


def _last_of_first(events: Iterable[AddressEvent]) -> float | None:
    first: dict[str, float] = {}
    for event in events:
        first.setdefault(event.address, event.time_s)
    return _last(first.values())
