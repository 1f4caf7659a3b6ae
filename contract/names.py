"""Names that both programs, the manifests and the users share. Changing one is a change of the contract."""

from __future__ import annotations

import hashlib
from enum import StrEnum
from typing import Final

PREFIX: Final = "holdfast.dev/"
ASSIGNMENT: Final = PREFIX + "assignment"
SELECTION: Final = PREFIX + "selection"
HANDOVER: Final = PREFIX + "handover"
LEASE_SECONDS: Final = PREFIX + "lease-seconds"
MODE: Final = PREFIX + "mode"
INJECT: Final = PREFIX + "inject"
"""A Pod's label: `true` asks for an agent, `false` forbids one."""
INJECTION: Final = PREFIX + "injection"
"""A namespace's label: `enabled` gives an agent to each of its Pods that a route selects."""
SOURCE: Final = PREFIX + "source"
"""A Pod's annotation: from where its agent reads the assignment, `downward` or `watch`."""
CONTAINER: Final = PREFIX + "container"
"""A Pod's annotation: the container that is its agent, where that is not called `holdfast`."""
AGENT_CONTAINER: Final = "holdfast"
"""The agent's container in a Pod, unless that annotation names another."""
SOURCE_VARIABLE: Final = "HOLDFAST_SOURCE"
"""The variable of that container's environment that says from where it reads; not set: by a watch."""

OWNER: Final = PREFIX + "owner"
PREPARED: Final = PREFIX + "prepared"
OBSERVED: Final = PREFIX + "observed"
LOST: Final = PREFIX + "lost"
ADDRESSES: Final = PREFIX + "addresses"
ROUTE_LABEL: Final = PREFIX + "route"

CONTROLLER_NAME: Final = "holdfast.dev/persistent-ip-controller"
GKE_CONTROLLER_NAME: Final = "networking.gke.io/persistent-ip-controller"
SYSTEM_NAMESPACE: Final = "holdfast-system"
CONTROLLER_ACCOUNT: Final = "holdfast-controller"
SIDECAR_ROLE: Final = "holdfast-sidecar"
ELECTION_LEASE: Final = "controller.holdfast.dev"

INTERFACES: Final = "networking.gke.io/interfaces"
DEFAULT_INTERFACE: Final = "networking.gke.io/default-interface"
NETWORK_STATUS: Final = "k8s.v1.cni.cncf.io/network-status"
NETWORKS_STATUS: Final = "k8s.v1.cni.cncf.io/networks-status"
"""The same by its older name."""
DEFAULT_NETWORKS: Final = frozenset({"default", "pod-network"})

MOST_DURATION_S: Final = 60
"""The longest Lease duration that may be asked for; 1 s is the shortest."""
GUARD_DEADLINE_S: Final = 0.1
"""Added to a Lease's duration before it counts as expired, where the kernel enforces the holder's deadline."""
GUARD_LIFETIME_S: Final = 1.3
"""The same where only the address's lifetime does: of 1,200 measured the latest went 1.12 s late (bench_lifetime)."""
UNTAKEN_S: Final = 10.0
"""An owner that leaves a free Lease alone for so long is lost."""

_LEASE_PREFIX: Final = "holdfast-"
_NAME_MAX: Final = 253
_HASH_DIGITS: Final = 10


class Source(StrEnum):
    """From where the agent has its assignment."""

    DOWNWARD = "downward"
    WATCH = "watch"


class Handover(StrEnum):
    """How an address changes Pods: one holder at every instant, or service before exclusiveness."""

    EXCLUSIVE = "Exclusive"
    OVERLAP = "Overlap"


def lease_name(route: str) -> str:
    """Name the Lease of a route; a name over 253 characters (RFC 1123 subdomain) is cut and ends in a hash."""
    name = _LEASE_PREFIX + route
    if len(name) <= _NAME_MAX:
        return name
    digest = hashlib.sha256(route.encode()).hexdigest()[:_HASH_DIGITS]
    return f"{name[: _NAME_MAX - _HASH_DIGITS - 1].rstrip('-.')}-{digest}"
