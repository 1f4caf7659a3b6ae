"""How long is an address on nobody in a planned handover, as a client sees it?

A route's selector goes to and fro between two Ready Pods on two nodes; a client on the switch pings the address once a
millisecond. Between handovers a Lease of nobody is written and its watch event awaited: what the API server costs.
"""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING

from common import ADDRESS, LEASES, NAMESPACE, LeaseWatch, figures, heading, percentile, pod, start_pods, world

from lab.witness.ledger import PODS, ROUTES, Ledger, names_lease

if TYPE_CHECKING:
    from lab.world.world import World

ROUNDS = int(sys.argv[1]) if len(sys.argv) > 1 else 200
LEASE, ROUTE = f"{NAMESPACE}/holdfast-r", f"{NAMESPACE}/r"


def main() -> None:
    """Print the figures."""
    with world() as made:
        ledger, watch = Ledger(made.api), LeaseWatch(made)
        made.apply(MANIFEST)
        uids = start_pods(made, ledger, pod("a", "node-1"), pod("b", "node-2"))
        select(made, "a")
        held_by(ledger, uids["a"], "a")
        made.api.create(LEASES, {"metadata": {"name": "plain"}, "spec": {"renewTime": stamp()}})
        mark, costs, overslept = made.witness.mark(), [], 0.0
        probe = made.client("blue-network").watch(ADDRESS)
        for number in range(ROUNDS):
            costs.append(lease_write(made, watch))
            to = "ba"[number % 2]
            select(made, to)
            held_by(ledger, uids[to], to)
        gaps = probe.stop()
        overslept = sum(each.length_ms for each in probe.stalls)
        holders, false = made.two_holders(mark), len(made.witness.false_speakers(mark))
    lengths = [each.length_ms for each in gaps]
    lengths += [0.0] * (ROUNDS - len(lengths))  # too short for any ping to be lost
    print(heading("Planned handover"))
    print("| ms | p50 | p99 | most | n |\n|---|---|---|---|---|")
    print(f"| client's gap | {figures(lengths)} |")
    print(f"| a Lease write's start to its watch event | {figures(costs)} |")
    ratio = percentile(lengths, 0.5) / percentile(costs, 0.5)
    print(f"\nRatio of the medians {ratio:.1f} (goal 3). Goals: p50 6 ms, p99 20 ms.")
    print(f"Two holders: {holders} times; frames of a Pod that had lost the address: {false};", end=" ")
    print(f"the client overslept {overslept:.0f} ms in all, left out of the gaps.")


def select(made: World, who: str) -> None:
    """Let the route select a Pod."""
    path = f"/apis/networking.gke.io/v1/namespaces/{NAMESPACE}/gkeiproutes/r"
    made.api.patch(path, {"spec": {"podSelector": {"matchLabels": {"who": who}}}})


def held_by(ledger: Ledger, uid: str, name: str) -> None:
    """Wait until a Pod holds the route and nothing of the handover is left to be written: the next begins at rest."""

    def settled() -> bool:
        lease, status = ledger.lease(LEASE), ledger.current(ROUTES, ROUTE).get("status", {})
        if lease is None or lease.holder != uid or "announced" not in lease.observed:
            return False
        carriers = [pod for pod in ledger.all(PODS, NAMESPACE) if names_lease(pod, LEASE)]
        ready = {"type": "Ready", "status": "True"}.items()
        told = any(ready <= each.items() for each in status.get("conditions", []))
        said = [(each["pod"], each.get("state")) for each in status.get("addresses", [])]
        return told and len(carriers) == 1 and said == [(name, "announced")]

    ledger.wait("the handover", settled, 30)


def lease_write(made: World, watch: LeaseWatch) -> float:
    """Write a Lease; milliseconds from the start of the write to its watch event."""
    began = time.time()
    body = made.api.patch(f"{LEASES}/plain", {"spec": {"renewTime": stamp()}})
    return (watch.arrival(body["metadata"]["resourceVersion"]) - began) * 1000


def stamp() -> str:
    """Now, as the API writes it."""
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime()) + f".{time.time_ns() // 1000 % 10**6:06d}Z"


MANIFEST = f"""
apiVersion: networking.gke.io/v1
kind: Network
metadata: {{name: blue-network}}
spec: {{type: L2}}
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {{name: g, namespace: {NAMESPACE}}}
spec:
  gatewayClassName: gke-persistent-regional-internal-managed
  listeners: [{{name: l, port: 443, protocol: none, allowedRoutes: {{namespaces: {{from: Same}}}}}}]
  addresses: [{{type: gke.networking.io/cidr, value: {ADDRESS}/32}}]
---
apiVersion: networking.gke.io/v1
kind: GKEIPRoute
metadata: {{name: r, namespace: {NAMESPACE}}}
spec:
  parentRefs: [{{name: g}}]
  addresses: [{{type: gke.networking.io/cidr, value: {ADDRESS}/32}}]
  network: blue-network
  podSelector: {{matchLabels: {{who: nobody}}}}
"""

if __name__ == "__main__":
    main()
