"""One run of the demo: what can be asked of its world, what can be done to it, and how an event is measured.

Evidence is what the API server, the kernels and the switch say (`lab.witness.ledger`, `lab.witness`), not our own logs.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cli.outcome import Outcome
from lab.api_client import is_ready
from lab.errors import LabError
from lab.witness.ledger import PODS, ROUTES, Evidence, Ledger, stages

if TYPE_CHECKING:
    from collections.abc import Callable

    from cli.view import View
    from contract.lease import LeaseView
    from lab.world.pods import PodHandle
    from lab.world.world import World

SEED = Path(__file__).resolve().parent.parent / "examples" / "seed"
ADDRESS = "34.123.10.1"
ADDRESSES = frozenset({"34.123.10.1", "34.123.10.2"})
NETWORK = "blue-network"
NOBODY_BEFORE = "nobody held the addresses when it began"


class Stage:
    """One run: a world, what is seen of it, and the outcomes so far."""

    def __init__(self, world: World, view: View, ledger: Ledger) -> None:
        self.world = world
        self.view = view
        self.ledger = ledger
        self.outcomes: list[Outcome] = []
        self.namespace = ""
        self.route = ""

    # what can be asked -----------------------------------------------------------------------------------------

    @property
    def lease_name(self) -> str:
        """The Lease of the route under test."""
        return f"{self.namespace}/holdfast-{self.route}"

    def lease(self) -> LeaseView | None:
        """Its newest version."""
        return self.ledger.lease(self.lease_name)

    def pod_by_uid(self, uid: str) -> dict[str, Any]:
        """The Pod with this UID, or an empty one."""
        pods = self.ledger.all(PODS, self.namespace)
        return next((pod for pod in pods if pod["metadata"]["uid"] == uid), {})

    def uids(self) -> frozenset[str]:
        """The Pods there are now."""
        return frozenset(pod["metadata"]["uid"] for pod in self.ledger.all(PODS, self.namespace))

    def newest(self) -> str:
        """When the newest Pod was created, RFC 3339 with whole seconds."""
        return str(max(pod["metadata"]["creationTimestamp"] for pod in self.ledger.all(PODS, self.namespace)))

    def is_newest_of(self, ready: int, without: frozenset[str] = frozenset()) -> Callable[[str], bool]:
        """Ask whether a Pod is the newest one, once there are so many Pods, all Ready, and none of `without`."""

        def right(uid: str) -> bool:
            pods = {pod["metadata"]["uid"]: pod for pod in self.ledger.all(PODS, self.namespace)}
            if len(pods) != ready or without & pods.keys() or not all(is_lasting(pod) for pod in pods.values()):
                return False
            return uid in pods and pods[uid]["metadata"]["creationTimestamp"] == self.newest()

        return right

    def holder_uid(self) -> str:
        """UID of the Pod that holds the route, or ``""``."""
        lease = self.lease()
        return lease.holder if lease else ""

    def handle(self, uid: str) -> PodHandle:
        """The lab's hold on a Pod."""
        return self.world.pod(self.namespace, self.pod_by_uid(uid)["metadata"]["name"])

    def node_of(self, uid: str) -> str:
        """The node of a Pod, or ``""``."""
        return str(self.pod_by_uid(uid).get("spec", {}).get("nodeName", ""))

    def holder(self) -> dict[str, Any]:
        """The Pod that holds the route, or an empty one."""
        lease = self.lease()
        return self.pod_by_uid(lease.holder) if lease else {}

    def settled(self, uid_is_right: Callable[[str], bool]) -> bool:
        """Whether the right Pod holds, is the owner, and has reported both addresses as announced."""
        lease = self.lease()
        if lease is None or not lease.holder or lease.holder != lease.owner or not uid_is_right(lease.holder):
            return False
        reports = json.loads(lease.observed)["addresses"] if lease.observed else []
        return bool(reports) and all(each["state"] == "announced" for each in reports)

    def condition(self, route: str, kind: str) -> dict[str, Any]:
        """A condition of a route (``namespace/name``), or an empty one."""
        conditions = self.ledger.current(ROUTES, route).get("status", {}).get("conditions", [])
        return next((each for each in conditions if each["type"] == kind), {})

    # what can be done ------------------------------------------------------------------------------------------

    def apply(self, *names: str) -> None:
        """Apply manifests of examples/seed/."""
        for name in names:
            self.world.apply(self.seed(name))

    def seed(self, name: str) -> Path:
        """A manifest of examples/seed/."""
        return SEED / name

    def delete_pod(self, uid: str) -> None:
        """Delete a Pod as a user would, without waiting for its end."""
        name = self.pod_by_uid(uid)["metadata"]["name"]
        self.world.api.delete(f"/api/v1/namespaces/{self.namespace}/pods/{name}")

    def event(
        self,
        name: str,
        cause: Callable[[], None],
        uid_is_right: Callable[[str], bool],
        *,
        within_s: float,
        client: bool = False,
    ) -> None:
        """Do something, wait until the right Pod has the addresses, and measure what was seen meanwhile.

        Args:
            name: what the event is called.
            cause: does it.
            uid_is_right: whether the Pod with this UID should hold in the end.
            within_s: how long that may take.
            client: whether a client asks all the while; no, where nobody has held the addresses before.
        """
        probe = self.world.client(NETWORK).watch(ADDRESS) if client else None
        mark = self.world.witness.mark()
        cause_s = time.time()
        broken: list[str] = []
        try:
            cause()
            self.ledger.wait(f"{name}: the right Pod holds", lambda: self.settled(uid_is_right), within_s)
        except LabError as error:
            broken.append(str(error))
        outcome = self._measure(name, cause_s, mark, probe, broken)
        self.outcomes.append(outcome)
        self.view.outcome(outcome)

    def _measure(self, name: str, cause_s: float, mark: Any, probe: Any, broken: list[str]) -> Outcome:
        pod = self.holder()
        times: dict[str, float] = {}
        if pod:
            handle = self.handle(pod["metadata"]["uid"])
            frames = self.world.witness.frames(mark)
            kernel = self.world.witness.kernel(mark)
            evidence = Evidence(cause_s, self.lease_name, ADDRESSES, self.ledger.since(cause_s), kernel, frames)
            times = stages(evidence, handle.uid, handle.netns, handle.macs)
            broken += self._kernel_problems(handle)
            broken += [
                f"{stage} was not seen" for stage in ("acquired", "configured", "announced") if stage not in times
            ]
        gap_ms = max((gap.length_ms for gap in probe.stop()), default=0.0) if probe else None
        unmeasured = "" if probe else NOBODY_BEFORE
        holders = self.world.two_holders(mark)
        return Outcome(name, pod.get("metadata", {}).get("name", ""), gap_ms, holders, times, tuple(broken), unmeasured)

    def _kernel_problems(self, handle: PodHandle) -> list[str]:
        problems = []
        if missing := {f"{each}/32" for each in ADDRESSES} - handle.addresses("eth1"):
            problems.append(f"{handle.name} eth1 has not {', '.join(sorted(missing))}")
        if handle.arp_announce("eth1") != 2:
            problems.append(f"{handle.name} eth1 arp_announce is {handle.arp_announce('eth1')}, not 2")
        return problems

    def status(self, route: str, kind: str, reason: str, within_s: float = 10.0) -> None:
        """Wait for a condition's reason, and show its message."""
        broken: tuple[str, ...] = ()
        try:
            self.ledger.wait(
                f"{route}: {kind} says {reason}", lambda: self.condition(route, kind).get("reason") == reason, within_s
            )
            self.view.condition(route, f"{kind}={reason}", self.condition(route, kind).get("message", ""))
        except LabError as error:
            seen = self.condition(route, kind)
            broken = (f"{error}; it says {seen.get('reason', 'nothing')}: {seen.get('message', '')}",)
        outcome = Outcome(f"status {route} {reason}", "", None, 0, {}, broken)
        self.outcomes.append(outcome)
        if broken:
            self.view.outcome(outcome)


def is_lasting(pod: dict[str, Any]) -> bool:
    """Whether a Pod is Ready and to stay."""
    return is_ready(pod) and "deletionTimestamp" not in pod["metadata"]
