"""A Pod's status as a kubelet writes it. Pure: what is the case in, the body of a strategic merge patch out.

Not promised: resource figures, volumes, ephemeral containers, and whatever else no one here reads.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

SIDECAR: Final = "holdfast-sidecar"
BACK_OFF_FIRST_S: Final = 10.0
BACK_OFF_MOST_S: Final = 300.0
BACK_OFF_FORGOTTEN_S: Final = 600.0
CREATING: Final = "ContainerCreating"
BACK_OFF: Final = "CrashLoopBackOff"

Object = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Container:
    """One container.

    Attributes:
        started: when its process started; None: it is not running.
        exit_code: of its last process; None: none has ended.
        waiting: why it is not running: reason and message.
        over: it will not be started again.
    """

    name: str
    image: str
    started: str | None = None
    ready: bool = False
    restarts: int = 0
    exit_code: int | None = None
    ended: str = ""
    waiting: tuple[str, str] = (CREATING, "")
    over: bool = False


@dataclass(frozen=True, slots=True)
class PodState:
    """What is the case with a Pod on its node.

    Attributes:
        address: in the Pod's default network; empty: it has no network namespace yet.
        apps: the containers of its spec.
        sidecar: None: this Pod has none.
    """

    uid: str
    node_address: str
    started: str
    address: str = ""
    apps: tuple[Container, ...] = ()
    sidecar: Container | None = None

    @property
    def ready(self) -> bool:
        """Whether all of its containers are Ready."""
        return all(each.ready for each in (*self.apps, *([self.sidecar] if self.sidecar else [])))

    @property
    def phase(self) -> str:
        """`Pending`, `Running`, `Succeeded` or `Failed`."""
        if self.apps and all(each.over for each in self.apps):
            return "Failed" if any(each.exit_code for each in self.apps) else "Succeeded"
        ever_ran = all(each.started or each.exit_code is not None for each in self.apps)
        return "Running" if self.apps and ever_ran else "Pending"


def back_off_s(restarts: int, ran_s: float) -> float:
    """How long a container that ended waits: first not at all, then 10 s, twice as long each time, up to 300 s.

    Args:
        restarts: how often it was started again since it last ran for long.
        ran_s: how long it ran; after ten minutes its past is forgotten.
    """
    if restarts == 0 or ran_s >= BACK_OFF_FORGOTTEN_S:
        return 0.0
    return float(min(BACK_OFF_FIRST_S * 2 ** (restarts - 1), BACK_OFF_MOST_S))


def status(state: PodState, before: Object, now: str) -> Object:
    """Write the body of a strategic merge patch of the Pod's status.

    Args:
        state: what is the case.
        before: the status as last known; conditions that stay keep their time.
        now: for those that change.
    """
    known = {each["type"]: each for each in before.get("conditions") or []}
    body: Object = {
        "phase": state.phase,
        "hostIP": state.node_address,
        "startTime": state.started,
        "conditions": [_condition(kind, what, known.get(kind, {}), now) for kind, what in _conditions(state).items()],
        "containerStatuses": [_container(each) for each in state.apps],
        "qosClass": before.get("qosClass", "BestEffort"),
    }
    if state.sidecar:
        # the Pod's spec does not have it: as an init container of nobody's it would leave the Pod in "Init" for kubectl
        body["ephemeralContainerStatuses"] = [_container(state.sidecar)]
    if state.address:
        body["podIP"] = state.address
        body["podIPs"] = [{"ip": state.address}, {"$patch": "replace"}]
    return {"metadata": {"uid": state.uid}, "status": body}


def _conditions(state: PodState) -> dict[str, tuple[bool, str, str]]:
    finished = state.phase in ("Succeeded", "Failed")
    unready = [each.name for each in state.apps if not each.ready]
    if state.sidecar and not state.sidecar.ready:
        unready.insert(0, state.sidecar.name)
    reason = "PodCompleted" if finished else "ContainersNotReady"
    why = ("", "") if state.ready else (reason, f"containers with unready status: [{' '.join(unready)}]")
    return {
        "PodReadyToStartContainers": (bool(state.address), "", ""),
        "Initialized": (bool(state.address), *(("", "") if state.address else ("ContainersNotInitialized", ""))),
        "ContainersReady": (state.ready, *why),
        "Ready": (state.ready, *why),
    }


def _condition(kind: str, what: tuple[bool, str, str], before: Object, now: str) -> Object:
    true, reason, message = what
    value = "True" if true else "False"
    since = before.get("lastTransitionTime") if before.get("status") == value else None
    condition: Object = {"type": kind, "status": value, "lastTransitionTime": since or now}
    # null takes away what an earlier patch said
    return {**condition, "reason": reason or None, "message": message or None}


def _container(container: Container) -> Object:
    state: Object
    ended = {"terminated": _terminated(container)} if container.exit_code is not None else {}
    if container.over and ended:
        state, ended = ended, {}
    elif container.started:
        state = {"running": {"startedAt": container.started}}
    else:
        reason, message = container.waiting
        state = {"waiting": {"reason": reason, **({"message": message} if message else {})}}
    return {
        "name": container.name,
        "image": container.image,
        "imageID": "",
        "ready": container.ready,
        "started": container.started is not None,
        "restartCount": container.restarts,
        "state": state,
        "lastState": ended,
    }


def _terminated(container: Container) -> Object:
    reason = "Error" if container.exit_code else "Completed"
    return {"exitCode": container.exit_code, "reason": reason, "finishedAt": container.ended or None}
