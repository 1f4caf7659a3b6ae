"""A Pod's status as its kubelet would write it. Pure: from the Pod's spec and what its containers do now."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

TYPES = ("PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady", "PodScheduled")


@dataclass(frozen=True, slots=True)
class Now:
    """What a Pod's containers do now.

    Attributes:
        address: its address on the default network, ``""`` before it has one.
        running: all its containers have been started.
        ready: its app's probe succeeds.
        restarts: how often its containers have been started again.
        started: RFC 3339, when the node took it.
        waiting: why its containers cannot be started, or ``""``.
        ended: its containers have ended for good.
    """

    address: str = ""
    running: bool = False
    ready: bool = False
    restarts: int = 0
    started: str = ""
    waiting: str = ""
    ended: bool = False


def status(pod: dict[str, Any], now: Now, stamp: str, host: str) -> dict[str, Any]:
    """Say it.

    Args:
        pod: the Pod; the times of conditions that do not change are taken from its present status.
        now: what its containers do.
        stamp: the time now, RFC 3339.
        host: the node's address.
    """
    ready = now.ready and now.running and not now.ended
    truth = {
        "PodReadyToStartContainers": bool(now.address),
        "Initialized": now.running,
        "Ready": ready,
        "ContainersReady": ready,
        "PodScheduled": True,
    }
    body: dict[str, Any] = {
        "phase": "Failed" if now.ended else "Running" if now.running else "Pending",
        "conditions": [_condition(pod, kind, truth[kind], stamp) for kind in TYPES],
        "containerStatuses": [_container(each, pod, now) for each in pod["spec"]["containers"]],
        "hostIP": host,
        "startTime": now.started,
    }
    if now.address:
        body |= {"podIP": now.address, "podIPs": [{"ip": now.address}]}
    return body


def _condition(pod: dict[str, Any], kind: str, truth: bool, stamp: str) -> dict[str, Any]:  # noqa: FBT001 - a value
    value = "True" if truth else "False"
    before: dict[str, Any] = next((c for c in pod.get("status", {}).get("conditions", []) if c["type"] == kind), {})
    since = before.get("lastTransitionTime") if before.get("status") == value else None
    condition = {"type": kind, "status": value, "lastTransitionTime": since or stamp}
    if kind in ("Ready", "ContainersReady") and not truth:
        names = [each["name"] for each in pod["spec"]["containers"]]
        condition |= {"reason": "ContainersNotReady", "message": f"containers with unready status: [{' '.join(names)}]"}
    return condition


def _container(container: dict[str, Any], pod: dict[str, Any], now: Now) -> dict[str, Any]:
    if now.ended:
        state: dict[str, Any] = {"terminated": {"exitCode": 0, "reason": "Completed"}}
    elif now.running:
        state = {"running": {"startedAt": now.started}}
    else:
        state = {"waiting": {"reason": "ContainerCreating", "message": now.waiting}}
    return {
        "name": container["name"],
        "image": container["image"],
        "imageID": "lab.app",
        "containerID": f"lab://{pod['metadata']['uid']}/{container['name']}" if now.running else "",
        "ready": now.ready and now.running and not now.ended,
        "started": now.running and not now.ended,
        "restartCount": now.restarts,
        "state": state,
    }
