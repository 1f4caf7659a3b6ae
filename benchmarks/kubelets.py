"""How soon a Pod on a real kubelet has what it is assigned, by each source; how long a handover and a dead node take.

    holdfast lab run --real -- python benchmarks/kubelets.py [ROUNDS]

Two real nodes, the images that users build, `downward` and `watch` one after the other in one world. What is measured
is what the kernels say, from what the API says: so the file's delay is in the first rows of `downward`.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench_handover import LEASE, MANIFEST, held_by, select
from common import ADDRESS, NAMESPACE, figures, heading, pod, until

from contract.names import Source
from controller.injection import pod as injection
from controller.injection.release import SIDECAR_IMAGE
from controller.injection.sidecar import Settings
from lab.api_client import is_ready
from lab.binaries import find
from lab.real import images
from lab.real.world import RealWorld
from lab.witness.ledger import PODS, Ledger, names_lease

if TYPE_CHECKING:
    from lab.world.world import World

ROUNDS = int(sys.argv[1]) if len(sys.argv) > 1 else 20
FIRST = 6
DEAD = 2
WAIT_S = 120.0
ROUTE = f"/apis/networking.gke.io/v1/namespaces/{NAMESPACE}/gkeiproutes/r"
PODS_PATH = f"/api/v1/namespaces/{NAMESPACE}/pods"


def main() -> None:
    """Print the figures."""
    rows: dict[str, dict[Source, list[float]]] = {}
    with (
        tempfile.TemporaryDirectory(prefix="holdfast-bench-") as state,
        RealWorld(binaries=find(real=True), images=images.archives(), state=Path(state)) as made,
    ):
        made.create_namespace(NAMESPACE)
        made.apply(MANIFEST)
        ledger, mark = Ledger(made.api), made.witness.mark()
        for source in Source:
            for what, values in measured(made, ledger, source).items():
                rows.setdefault(what, {})[source] = values
        holders = made.two_holders(mark)
    print(heading("On real kubelets"))
    print("| ms | source | p50 | p99 | most | n |\n|---|---|---|---|---|---|")
    for what, by_source in rows.items():
        for source, values in by_source.items():
            print(f"| {what} | {source} | {figures(values)} |")
    print(f"\nTwo holders: {holders} times. The Lease's duration is 10 s.")


def measured(made: World, ledger: Ledger, source: Source) -> dict[str, list[float]]:
    """Everything, of one source."""
    first = [first_assignment(made, ledger, source, number) for number in range(FIRST)]
    a, b = (start(made, ledger, f"{source}-{name}", node, source) for name, node in (("a", "node-1"), ("b", "node-2")))
    select(made, a)
    held_by(ledger, uid(ledger, a), a)
    whole, gaps = handovers(made, ledger, (a, b))
    return {
        "from the Pod's entry to its address, the Lease being free": [each[0] for each in first],
        "from a Pod's creation to its address": [each[1] for each in first],
        "from the choice of another Pod to its address": whole,
        "planned handover: the client's gap": gaps,
        "from the end of the holder's node to the next Pod's address": dead_nodes(made, ledger, (a, b)),
    }


def first_assignment(made: World, ledger: Ledger, source: Source, number: int) -> tuple[float, float]:
    """Create a Pod that is the only one to be selected: milliseconds from its entry, and from its creation."""
    name = f"{source}-{number}"
    select(made, name)
    until(ledger, "holdfast-r", lambda lease: not lease.holder)
    mark = time.time()
    start(made, ledger, name, f"node-{number % 2 + 1}", source)
    held_by(ledger, uid(ledger, name), name)
    entry_s = min(
        seen.at_s
        for seen in ledger.since(mark)
        if seen.kind == PODS and seen.name == f"{NAMESPACE}/{name}" and names_lease(seen.body, LEASE)
    )
    there_s = arrival(made, name, mark)
    made.api.delete(f"{PODS_PATH}/{name}")
    return (there_s - entry_s) * 1000, (there_s - mark) * 1000


def handovers(made: World, ledger: Ledger, names: tuple[str, str]) -> tuple[list[float], list[float]]:
    """To and fro: milliseconds from the choice to the address, and of the client's gaps."""
    whole = []
    with made.client("blue-network").watch(ADDRESS) as probe:
        for number in range(ROUNDS):
            to = names[(number + 1) % 2]
            mark = time.time()
            select(made, to)
            held_by(ledger, uid(ledger, to), to)
            whole.append((arrival(made, to, mark) - mark) * 1000)
        gaps = [each.length_ms for each in probe.stop()]
    return whole, gaps + [0.0] * (ROUNDS - len(gaps))


def dead_nodes(made: World, ledger: Ledger, names: tuple[str, str]) -> list[float]:
    """Cut the power of the node of the newer of two Pods; milliseconds until the older one has the address."""
    older, newer = names
    made.api.patch(ROUTE, {"spec": {"podSelector": {"matchLabels": {"who": None, "pair": pair(newer)}}}})
    took = []
    for _ in range(DEAD):
        held_by(ledger, uid(ledger, newer), newer)
        mark = time.time()
        made.node("node-2").power_off()
        until(ledger, "holdfast-r", lambda lease: lease.holder == uid(ledger, older))
        took.append((arrival(made, older, mark) - mark) * 1000)
        made.node("node-2").power_on()
        ledger.wait("the Pod to be Ready again", lambda: back(ledger, newer), WAIT_S)
        ledger.wait("it to hold again", lambda: (v := ledger.lease(LEASE)) and v.holder == uid(ledger, newer), WAIT_S)
    made.api.patch(ROUTE, {"spec": {"podSelector": {"matchLabels": {"who": "nobody", "pair": None}}}})
    return took


def arrival(made: World, name: str, since_s: float) -> float:
    """When a Pod's kernel got the address; it has it already, or is about to."""
    netns = made.pod(NAMESPACE, name).netns
    deadline = time.monotonic() + WAIT_S
    while time.monotonic() < deadline:
        events = (e for e in made.witness.kernel(since_s) if e.address == ADDRESS and e.added and e.netns == netns)
        if (first := next(events, None)) is not None:
            return float(first.time_s)
        time.sleep(0.01)
    raise TimeoutError(f"Pod {name} has no address")


def start(made: World, ledger: Ledger, name: str, node: str, source: Source) -> str:
    """Create a Pod with its agent, and wait until it is Ready."""
    body = pod(name, node)
    body["metadata"]["labels"]["pair"] = pair(name)
    body["spec"] |= {"terminationGracePeriodSeconds": 5}
    body["spec"]["containers"][0]["image"] = images.APP
    made.api.create(PODS_PATH, injection.inject(body, Settings(SIDECAR_IMAGE, source)).pod)
    ledger.wait(f"Pod {name} to be Ready", lambda: is_ready(found(ledger, name)), WAIT_S)
    return name


def pair(name: str) -> str:
    """Label the two Pods of a source alike."""
    return name.partition("-")[0]


def found(ledger: Ledger, name: str) -> dict[str, Any]:
    """Look a Pod up."""
    return ledger.current(PODS, f"{NAMESPACE}/{name}")


def uid(ledger: Ledger, name: str) -> str:
    """Look its UID up."""
    return str(found(ledger, name)["metadata"]["uid"])


def back(ledger: Ledger, name: str) -> bool:
    """Whether a Pod runs again after its node's end."""
    said = found(ledger, name)["status"].get("initContainerStatuses", [])
    return is_ready(found(ledger, name)) and any(each["restartCount"] for each in said)


if __name__ == "__main__":
    main()
