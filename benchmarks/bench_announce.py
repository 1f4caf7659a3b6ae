"""From a change in the API to the first ARP frame, beside what a bare watch needs to be told of the same change.

The old holder is played here, with its own Pod's token: it writes the handover, and the clock runs from the start of
that write until the real sidecar in the other Pod is heard on the switch. No controller takes part.
"""

from __future__ import annotations

import datetime as dt
import sys
import time
from typing import TYPE_CHECKING

from common import (
    ADDRESS,
    LEASES,
    NAMESPACE,
    LeaseWatch,
    allow,
    figures,
    heading,
    percentile,
    pod,
    start_pods,
    until,
    view_of,
    world,
)

from contract import lease as writes
from contract.assignment import AddressEntry, Assignment, RouteEntry, encode_assignment
from contract.names import ASSIGNMENT, CONTROLLER_ACCOUNT, SYSTEM_NAMESPACE, Handover, lease_name
from lab.witness.ledger import Ledger

if TYPE_CHECKING:
    from contract.lease import LeaseView
    from lab.api_client import ApiClient
    from lab.world.world import World

ROUNDS = int(sys.argv[1]) if len(sys.argv) > 1 else 200
LEASE = lease_name("r")
PATH = f"{LEASES}/{LEASE}"


def main() -> None:
    """Print the figures."""
    with world(controllers=0) as made:
        ledger, watch = Ledger(made.api), LeaseWatch(made)
        allow(made.api, LEASE)
        uids = start_pods(made, ledger, pod("real", "node-1"), pod("played", "node-2", sidecar=False))
        controller = made.api.as_token(made.token(SYSTEM_NAMESPACE, CONTROLLER_ACCOUNT))
        played = made.api.as_token(made.token(NAMESPACE, "default", ("played", uids["played"])))
        entry = RouteEntry("r", LEASE, Handover.EXCLUSIVE, (AddressEntry(f"{ADDRESS}/32", "eth1"),))
        note = {"metadata": {"annotations": {ASSIGNMENT: encode_assignment(Assignment((entry,)))}}}
        body = writes.create("r", NAMESPACE, uids["real"], 10, addresses=(f"{ADDRESS}/32",), holder=uids["played"])
        controller.create(LEASES, body)
        controller.patch(f"/api/v1/namespaces/{NAMESPACE}/pods/real", note)
        bare, announced = [], []
        for _ in range(ROUNDS):
            told, heard = one_round(made, controller, played, ledger, watch, uids)
            bare.append(told)
            announced.append(heard)
    print(heading("From a change in the API to the first ARP frame"))
    print("| ms | p50 | p99 | most | n |\n|---|---|---|---|---|")
    print(f"| the handover's write to the bare watch's event | {figures(bare)} |")
    print(f"| the same write to the first ARP frame | {figures(announced)} |")
    goal = 1.5 * percentile(bare, 0.5) + 2
    print(f"\nGoal for the median: 1.5 x {percentile(bare, 0.5):.2f} + 2 = {goal:.2f} ms.")


def one_round(
    made: World, controller: ApiClient, played: ApiClient, ledger: Ledger, watch: LeaseWatch, uids: dict[str, str]
) -> tuple[float, float]:
    """Hand over to the real Pod, measure, and let it hand back; milliseconds to the watch event and to the frame."""
    real, ghost = uids["real"], uids["played"]
    view = until(ledger, LEASE, lambda lease: lease.holder == ghost and lease.prepared == real)
    began = time.time()
    answer = played.patch(PATH, writes.hand_over(view, real, dt.datetime.now(dt.UTC)))
    told = watch.arrival(answer["metadata"]["resourceVersion"])
    frame = made.witness.wait_frame(lambda f: f.gratuitous and f.sender_ip == ADDRESS, 10, since_s=began)
    view = until(ledger, LEASE, lambda lease: lease.holder == real and "announced" in lease.observed)
    view = view_of(controller.patch(PATH, owner_is(view, ghost)))
    played.patch(PATH, writes.prepare(view, ghost))
    view = until(ledger, LEASE, lambda lease: lease.holder == ghost)
    controller.patch(PATH, owner_is(view, real))
    return (told - began) * 1000, (frame.time_s - began) * 1000


def owner_is(view: LeaseView, uid: str) -> writes.Patch:
    """Name an owner, and change nothing else."""
    return writes.name_owner(view, uid, duration_s=10, lost=(), addresses=view.addresses)


if __name__ == "__main__":
    main()
