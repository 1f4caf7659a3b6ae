"""What the benchmarks share: a small stage on a lab world, figures from many values, the machine they come from."""

from __future__ import annotations

import contextlib
import ctypes
import datetime as dt
import math
import os
import platform
import tempfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from contract.lease import LeaseView, decode_lease
from lab import closed, wiring
from lab.api_client import is_ready
from lab.binaries import find
from lab.wiring import Links
from lab.witness.ledger import PODS, Ledger
from lab.world.world import World

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from lab.api_client import ApiClient

ADDRESS = "192.0.2.10"
NAMESPACE = "bench"
LEASES = f"/apis/coordination.k8s.io/v1/namespaces/{NAMESPACE}/leases"
INTERFACES = '[{"interfaceName":"eth0","network":"default"},{"interfaceName":"eth1","network":"blue-network"}]'


@contextlib.contextmanager
def world(controllers: int = 1) -> Iterator[World]:
    """A world of two nodes, with the benchmark's namespace in it."""
    with (
        tempfile.TemporaryDirectory(prefix="holdfast-bench-") as state,
        World(binaries=find(), state=Path(state), controllers=controllers) as made,
    ):
        made.create_namespace(NAMESPACE)
        yield made


def pod(name: str, node: str, *, sidecar: bool = True) -> dict[str, Any]:
    """A Pod on a node, with eth1 on blue-network."""
    labels, notes = (
        {"who": name, "holdfast.dev/inject": str(sidecar).lower()},
        {"networking.gke.io/interfaces": INTERFACES},
    )
    meta = {"name": name, "namespace": NAMESPACE, "labels": labels, "annotations": notes}
    spec = {"nodeName": node, "containers": [{"name": "app", "image": "app"}]}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": spec}


def start_pods(made: World, ledger: Ledger, *pods: dict[str, Any]) -> dict[str, str]:
    """Start Pods and wait until they are Ready; {name: UID}."""
    for each in pods:
        made.api.create(f"/api/v1/namespaces/{NAMESPACE}/pods", each)
    ledger.wait("the Pods are Ready", lambda: sum(map(is_ready, ledger.all(PODS, NAMESPACE))) == len(pods), 30)
    return {each["metadata"]["name"]: each["metadata"]["uid"] for each in ledger.all(PODS, NAMESPACE)}


class LeaseWatch:
    """A bare watch on the benchmark's Leases: nothing but the time of each version's arrival."""

    def __init__(self, made: World) -> None:
        self._news = threading.Condition()
        self._arrived: dict[str, float] = {}
        self._listed = threading.Event()
        threading.Thread(target=self._follow, args=(made,), daemon=True).start()

    def _follow(self, made: World) -> None:
        for _, body in made.api.watch(LEASES):
            now = time.time()
            with self._news:
                self._arrived[body["metadata"]["resourceVersion"]] = now
                self._news.notify_all()

    def arrival(self, version: str, timeout_s: float = 10.0) -> float:
        """When a version arrived (CLOCK_REALTIME, seconds)."""
        with self._news:
            if not self._news.wait_for(lambda: version in self._arrived, timeout_s):
                raise TimeoutError(f"version {version} did not arrive within {timeout_s} s")
            return self._arrived[version]


def until(ledger: Ledger, name: str, condition: Callable[[LeaseView], bool]) -> LeaseView:
    """Wait until a Lease of the benchmark's namespace is as wished."""
    found: list[LeaseView] = []

    def wished() -> bool:
        lease = ledger.lease(f"{NAMESPACE}/{name}")
        if lease is None or not condition(lease):
            return False
        found.append(lease)
        return True

    ledger.wait(f"the Lease {name}", wished, 30)
    return found[0]


def allow(api: ApiClient, *leases: str) -> None:
    """The Role that the controller would make."""
    rules = [
        {
            "apiGroups": ["coordination.k8s.io"],
            "resources": ["leases"],
            "resourceNames": list(leases),
            "verbs": ["get", "watch", "update", "patch"],
        },
    ]
    base = f"/apis/rbac.authorization.k8s.io/v1/namespaces/{NAMESPACE}"
    api.create(f"{base}/roles", {"metadata": {"name": "sidecar"}, "rules": rules})
    group = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Group", "name": f"system:serviceaccounts:{NAMESPACE}"}
    role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "sidecar"}
    api.create(f"{base}/rolebindings", {"metadata": {"name": "sidecar"}, "roleRef": role, "subjects": [group]})


def view_of(body: dict[str, Any]) -> LeaseView:
    """A Lease as the contract reads it."""
    return decode_lease(body)


def percentile(values: Sequence[float], share: float) -> float:
    """The value that so large a share of all does not exceed (nearest rank)."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def figures(values: Sequence[float]) -> str:
    """p50, p99 and the greatest, with the number of values."""
    return f"{percentile(values, 0.5):.2f} | {percentile(values, 0.99):.2f} | {max(values):.2f} | {len(values)}"


def heading(title: str) -> str:
    """A title with the machine and the date."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    system = f"{os.cpu_count()} cores, {memory:.0f} GiB, Linux {platform.release()}, Python {platform.python_version()}"
    return f"## {title}\n\n{dt.datetime.now(dt.UTC):%Y-%m-%d}; {system}\n"


@contextlib.contextmanager
def cable() -> Iterator[tuple[Links, Links]]:
    """Two namespaces, `holder` and `client`, with a cable between their eth0; they stay when their links are closed."""
    closed.require()
    for name in ("holder", "client"):
        wiring.create(name)
    with Links("holder") as one, Links("client") as two:
        one.veth("eth0", "client", "eth0")
        one.up("eth0")
        two.up("eth0")
        yield one, two


def inside(netns: str, make: Callable[[], Any]) -> Any:
    """Make something in a network namespace: a socket stays in the one it was made in."""
    made: list[Any] = []

    def run() -> None:
        with open(f"/run/netns/{netns}") as file:  # noqa: PTH123 - its descriptor is wanted
            if ctypes.CDLL(None).setns(file.fileno(), 0x40000000):
                return
        made.append(make())

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    return made[0]
