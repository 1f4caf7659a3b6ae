"""What one sidecar costs at rest, and how soon after its start it works again.

Memory: resident, and what is its own alone, of sidecars that hold an address. Start: from exec to the arrival of its
first renewal on a bare watch, after SIGKILL: interpreter, imports, TLS, the watch of its Pod and one write.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

from common import (
    ADDRESS,
    LEASES,
    NAMESPACE,
    LeaseWatch,
    allow,
    figures,
    heading,
    pod,
    start_pods,
    until,
    world,
)

from contract import lease as writes
from contract.assignment import AddressEntry, Assignment, RouteEntry, encode_assignment
from contract.names import ASSIGNMENT, CONTROLLER_ACCOUNT, SYSTEM_NAMESPACE, Handover, lease_name
from lab.witness.ledger import Ledger

PODS = int(sys.argv[1]) if len(sys.argv) > 1 else 10
_TICK = os.sysconf("SC_CLK_TCK")


def main() -> None:
    """Print the figures."""
    with world(controllers=0) as made:
        ledger, watch = Ledger(made.api), LeaseWatch(made)
        names = [f"p{number}" for number in range(PODS)]
        allow(made.api, *(lease_name(name) for name in names))
        uids = start_pods(made, ledger, *(pod(name, f"node-{n % 2 + 1}") for n, name in enumerate(names)))
        controller = made.api.as_token(made.token(SYSTEM_NAMESPACE, CONTROLLER_ACCOUNT))
        for number, name in enumerate(names):
            address = f"{ADDRESS.rpartition('.')[0]}.{100 + number}/32"
            entry = RouteEntry(name, lease_name(name), Handover.EXCLUSIVE, (AddressEntry(address, "eth1"),))
            note = {"metadata": {"annotations": {ASSIGNMENT: encode_assignment(Assignment((entry,)))}}}
            controller.create(LEASES, writes.create(name, NAMESPACE, uids[name], 60, addresses=(address,)))
            controller.patch(f"/api/v1/namespaces/{NAMESPACE}/pods/{name}", note)
        for name in names:
            until(ledger, lease_name(name), lambda lease: "announced" in lease.observed)
        handles = [made.pod(NAMESPACE, name) for name in names]
        resident = [memory_mib(each.sidecar_pid, "Rss") for each in handles]
        own = [memory_mib(each.sidecar_pid, "Private_Dirty") for each in handles]
        starts = []
        for name, handle in zip(names, handles, strict=True):
            before, old = until(ledger, lease_name(name), lambda _: True), handle.sidecar_pid
            handle.kill_sidecar()
            after = until(ledger, lease_name(name), lambda lease, v=before: lease.version != v.version)
            assert handle.sidecar_pid != old
            starts.append((watch.arrival(after.version) - started(handle.sidecar_pid)) * 1000)
    print(heading("One sidecar"))
    print("| | p50 | p99 | most | n |\n|---|---|---|---|---|")
    print(f"| resident, MiB | {figures(resident)} |")
    print(f"| its own pages, MiB | {figures(own)} |")
    print(f"| exec to its first write's watch event, ms | {figures(starts)} |")
    print("\nGoals: 38 MiB resident, 300 ms to watching.")


def memory_mib(pid: int, what: str) -> float:
    """One line of a process' smaps_rollup."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith(f"{what}:"):
            return int(line.split()[1]) / 1024
    raise ValueError(f"/proc/{pid}/smaps_rollup has no {what}")


def started(pid: int) -> float:
    """When a process was started (CLOCK_REALTIME, seconds; the kernel tells it to 10 ms)."""
    ticks = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])
    return time.time() - time.clock_gettime(time.CLOCK_BOOTTIME) + ticks / _TICK


if __name__ == "__main__":
    main()
