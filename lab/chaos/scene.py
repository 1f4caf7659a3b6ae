"""One route, two Pods on two nodes, and a client that pings: what faults are tried on.

    with Scene(world, Ledger(world.api), number=1, lease_s=2) as scene:
        scene.holder.kill_sidecar()
        scene.settle(READY_S)

Leases are read to know when all is settled again, and who is to be struck. Not here: what is done to it
(`lab.chaos.strikes`), and what is seen meanwhile (`lab.chaos.trial`).
"""

from __future__ import annotations

import contextlib
import datetime as dt
import json
import time
from typing import TYPE_CHECKING, Any, Final, Self

from lab.api_client import is_ready
from lab.errors import LabError, WaitTimeout
from lab.wiring import Links
from lab.witness.ledger import PODS, Ledger

if TYPE_CHECKING:
    from contract.lease import LeaseView
    from lab.world.pods import PodHandle
    from lab.world.world import World

NETWORK: Final = "blue-network"
INTERFACE: Final = "eth1"
READY_S: Final = 60.0
_LOOK_EVERY_S: Final = 0.02
_ANNOUNCED: Final = '"state":"announced"'
_INTERFACES = json.dumps(
    [{"interfaceName": "eth0", "network": "default"}, {"interfaceName": INTERFACE, "network": NETWORK}]
)


class Scene:
    """See the module's docstring."""

    def __init__(self, world: World, ledger: Ledger, *, number: int, lease_s: int) -> None:
        """Nothing is made before it is entered; the number tells its names and its address from other scenes'."""
        self.world = world
        self.ledger = ledger
        self.lease_s = lease_s
        self.namespace = f"faults-{number}"
        self.address = f"192.0.2.{number}"
        self.lease_name = f"{self.namespace}/holdfast-r"
        self._undo = contextlib.ExitStack()

    def __enter__(self) -> Self:
        """Make it; the address is on the newer of both Pods when this returns.

        Raises:
            LabError: that did not come about.
        """
        self.world.create_namespace(self.namespace)
        self._undo.callback(self.world.api.delete, f"/api/v1/namespaces/{self.namespace}")
        self.world.apply(self._manifest())
        self._start_pod("older", "node-1")
        self._start_pod("newer", "node-2")
        self._wait_ready()
        with self.world.client(NETWORK).watch(self.address):
            self.settle(READY_S)
        return self

    def __exit__(self, *_: object) -> None:
        self._undo.close()

    # what there is ---------------------------------------------------------------------------------------------

    @property
    def lease(self) -> LeaseView | None:
        """The newest version of the route's Lease."""
        return self.ledger.lease(self.lease_name)

    @property
    def names(self) -> dict[str, str]:
        """The names of its Pods by their UIDs."""
        return {pod["metadata"]["uid"]: pod["metadata"]["name"] for pod in self.ledger.all(PODS, self.namespace)}

    @property
    def pods(self) -> list[PodHandle]:
        """Both Pods, the older first, where they run."""
        found = {pod.name: pod for pod in self.world.pods(self.namespace)}
        return [found[name] for name in ("older", "newer") if name in found]

    @property
    def holder(self) -> PodHandle:
        """The Pod that holds.

        Raises:
            LabError: none does.
        """
        lease = self.lease
        for pod in self.pods:
            if lease is not None and lease.holder == pod.uid:
                return pod
        raise LabError(f"{self.namespace}: no running Pod holds the route now")

    @property
    def other(self) -> PodHandle:
        """The Pod that does not hold.

        Raises:
            LabError: there is none.
        """
        lease = self.lease
        for pod in self.pods:
            if lease is None or lease.holder != pod.uid:
                return pod
        raise LabError(f"{self.namespace}: no other Pod is running now")

    # what can be done ------------------------------------------------------------------------------------------

    def choose(self, name: str, *, eligible: bool) -> None:
        """Let the route select a Pod, or no longer."""
        self.world.api.patch(self._pod_path(name), {"metadata": {"labels": {"app": "r" if eligible else "no"}}})

    def wait_owner(self, uid: str) -> None:
        """Wait until the controller wants a Pod to hold."""

        def named() -> bool:
            lease = self.lease
            return lease is not None and lease.owner == uid

        self.ledger.wait(f"{self.namespace}: {uid} is to hold", named, READY_S)

    def wait_holder(self, uid: str) -> None:
        """Wait until a Pod holds and has said that its address is announced."""

        def holds() -> bool:
            lease = self.lease
            return lease is not None and lease.holder == uid and _ANNOUNCED in lease.observed

        self.ledger.wait(f"{self.namespace}: {uid} holds", holds, READY_S)

    def settle(self, timeout_s: float) -> None:
        """Wait until the newer Pod has the address, as Lease, kernels and the client's neighbour table say.

        Raises:
            LabError: it does not come about; says what is amiss.
        """
        deadline = time.monotonic() + timeout_s
        with contextlib.suppress(WaitTimeout):
            self.ledger.wait("the Lease", lambda: not self._lease_amiss(), timeout_s)
        # a kernel's state and a host's neighbour table have no event that could be waited for here
        while (amiss := self._amiss()) and time.monotonic() < deadline:
            time.sleep(_LOOK_EVERY_S)
        if amiss:
            raise WaitTimeout(f"{self.namespace}: timed out after {timeout_s:g} s: {amiss}")

    def wait_renewed(self, times: int) -> None:
        """Wait until the holder has renewed its Lease so many times from now on."""
        seen: set[str] = set()

        def often_enough() -> bool:
            lease = self.lease
            seen.add(lease.renew_time if lease else "")
            return len(seen) > times

        self.ledger.wait(f"{self.namespace}: the holder renews", often_enough, READY_S)

    def _lease_amiss(self) -> str:
        """What of the route's Lease is not as it is when all is well, or ``""``."""
        lease = self.lease
        if lease is None:
            return "there is no Lease"
        names = self.names
        for what, uid in (("held by", lease.holder), ("owned by", lease.owner)):
            if names.get(uid) != "newer":
                return f"the Lease is {what} {names.get(uid) or uid or 'nobody'}, not by newer"
        if lease.lost:
            return f"{' and '.join(names.get(uid, uid) for uid in lease.lost)} still counts as lost"
        return "" if _ANNOUNCED in lease.observed else f"newer has not announced its address: {lease.observed}"

    def _amiss(self) -> str:
        if amiss := self._lease_amiss():
            return amiss
        for pod in self.pods:
            has = f"{self.address}/32" in pod.addresses(INTERFACE)
            if has != (pod.name == "newer"):
                return f"{pod.name} {'has' if has else 'has not'} {self.address}"
        return "" if self.neighbour_right() else "the client's neighbour table does not name the newer Pod"

    def neighbour_right(self) -> bool:
        """Whether the client's neighbour table names the newer Pod."""
        with Links(f"client-{NETWORK}") as client:
            known = client.neighbour(self.address)
        return any(pod.name == "newer" and _mac(pod) == known for pod in self.pods)

    # making it -------------------------------------------------------------------------------------------------

    def _pod_path(self, name: str = "") -> str:
        return f"/api/v1/namespaces/{self.namespace}/pods{'/' + name if name else ''}"

    def _start_pod(self, name: str, node: str) -> None:
        meta: dict[str, Any] = {"name": name, "labels": {"app": "r"}}
        meta["annotations"] = {"networking.gke.io/interfaces": _INTERFACES}
        spec = {"nodeName": node, "terminationGracePeriodSeconds": 1, "containers": [{"name": "app", "image": "app"}]}
        _after(self._newest())
        self.world.api.create(self._pod_path(), {"metadata": meta, "spec": spec})

    def _newest(self) -> str:
        pods = self.world.api.list(self._pod_path())
        return max((str(pod["metadata"]["creationTimestamp"]) for pod in pods), default="")

    def _wait_ready(self) -> None:
        def all_ready(pods: list[dict[str, Any]]) -> bool:
            return len(pods) == 2 and all(map(is_ready, pods))

        self.world.api.wait(self._pod_path(), all_ready, READY_S, "both Pods to be Ready")

    def _manifest(self) -> str:
        return _MANIFEST.format(namespace=self.namespace, address=self.address, lease=self.lease_s)


def _after(created: str) -> None:
    """Wait for the second after a Pod's creation: creation has whole seconds, and the newest is to be strictly so."""
    if created:
        time.sleep(max(0.0, dt.datetime.fromisoformat(created).timestamp() + 1 - time.time()))


def _mac(pod: PodHandle) -> str:
    with Links(pod.netns) as links:
        return links.mac(INTERFACE)


_MANIFEST = """
apiVersion: networking.gke.io/v1
kind: Network
metadata: {{name: blue-network}}
spec: {{type: L2}}
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {{name: g, namespace: {namespace}}}
spec:
  gatewayClassName: gke-persistent-regional-internal-managed
  listeners: [{{name: l, port: 443, protocol: none, allowedRoutes: {{namespaces: {{from: Same}}}}}}]
  addresses: [{{type: gke.networking.io/cidr, value: {address}/32}}]
---
apiVersion: networking.gke.io/v1
kind: GKEIPRoute
metadata: {{name: r, namespace: {namespace}, annotations: {{holdfast.dev/lease-seconds: "{lease}"}}}}
spec:
  parentRefs: [{{name: g}}]
  addresses: [{{type: gke.networking.io/cidr, value: {address}/32}}]
  network: blue-network
  podSelector: {{matchLabels: {{app: r}}}}
"""
