"""A Pod's status as a kubelet writes it. Pure: what is the case in, the body of a strategic merge patch out.

Not promised: resource figures, volumes, ephemeral containers, and whatever else no one here reads.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Final, Self

from contract.names import AGENT_CONTAINER

SIDECAR: Final = AGENT_CONTAINER
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

    def running(self, now: str, *, ready: bool) -> Self:
        """Its process has started."""
        return replace(self, started=now, ready=ready)

    def stopped(self, code: int, now: str) -> Self:
        """Its process has ended."""
        return replace(self, started=None, ready=False, exit_code=code, ended=now)


@dataclass(frozen=True, slots=True)
class PodState:
    """What is the case with a Pod on its node.

    Attributes:
        address: in the Pod's default network; empty: it has no network namespace yet.
        apps: the containers of its spec.
        sidecar: the native sidecar of its spec; None: this Pod has none.
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

    def app(self, name: str) -> Container:
        """One of the apps."""
        return next(each for each in self.apps if each.name == name)

    def having(self, app: Container) -> Self:
        """The same, but for one of the apps."""
        return replace(self, apps=tuple(app if each.name == app.name else each for each in self.apps))


def first_state(pod: Object, node_address: str, now: str) -> PodState:
    """What is the case before anything is started, by a Pod's object: of what ran before, its status tells."""
    known = pod.get("status", {})
    old = {
        each["name"]: each for kind in ("containerStatuses", "initContainerStatuses") for each in known.get(kind) or []
    }
    apps = tuple(_as_it_was(each["name"], each.get("image", ""), old) for each in pod["spec"]["containers"])
    agent = sidecar_of(pod)
    sidecar = _as_it_was(SIDECAR, agent.get("image", ""), old) if agent is not None else None
    started = known.get("startTime") or now
    return PodState(pod["metadata"]["uid"], node_address, started, apps=apps, sidecar=sidecar)


def sidecar_of(pod: Object) -> Object | None:
    """The native sidecar `holdfast` of a Pod's spec: the one init container that is started."""
    return next((each for each in pod["spec"].get("initContainers", []) if each["name"] == SIDECAR), None)


def _as_it_was(name: str, image: str, old: dict[str, Object]) -> Container:
    """A container as it was when the node lost its power: what ran then has ended, and starts once more."""
    if name not in old:
        return Container(name, image)
    before = old[name]
    ran = before.get("state", {}).get("running") is not None
    return Container(name, image, restarts=before.get("restartCount", 0) + ran, exit_code=255 if ran else None)


def back_off_s(restarts: int, ran_s: float) -> float:
    """How long a container that ended waits: first not at all, then 10 s, twice as long each time, up to 300 s.

    Args:
        restarts: how often it was started again since it last ran for long.
        ran_s: how long it ran; after ten minutes its past is forgotten.
    """
    if restarts == 0 or ran_s >= BACK_OFF_FORGOTTEN_S:
        return 0.0
    return float(min(BACK_OFF_FIRST_S * 2 ** (restarts - 1), BACK_OFF_MOST_S))


def restarted(container: Container, ran_s: float) -> tuple[Container, float]:
    """What a container that ended is while it waits to be started again.

    Args:
        container: as it ended.
        ran_s: how long it ran.

    Returns:
        It, and for how many seconds it waits.
    """
    pause_s = back_off_s(container.restarts, ran_s)
    again = replace(container, restarts=container.restarts + 1)
    if pause_s:
        why = f"back-off {pause_s:g}s restarting failed container={container.name}"
        again = replace(again, waiting=(BACK_OFF, why))
    return again, pause_s


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
        body["initContainerStatuses"] = [_container(state.sidecar)]
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
