"""One Pod's life on its node, from sandbox to the end, in the kubelet's order; a thread each.

Sidecar first, then the apps; at the end the apps first, then the sidecar with what is left of the grace period (at
least 2 s), then the network namespace, then the Pod's object. Status is written when something changes. What may
change it comes through one queue: the Pod's object, processes that ended, orders, and times that have come.
"""

from __future__ import annotations

import json
import queue
import shutil
import threading
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from contract.names import INJECT
from lab.errors import ApiError, ApiUnreachable, LabError, ProgramError
from lab.world import probes, sandbox
from lab.world.containers import Process, start_app, start_sidecar
from lab.world.host import Place, now
from lab.world.pod_status import BACK_OFF, CREATING, SIDECAR, Container, PodState, back_off_s, status
from lab.world.probes import Probe, Readiness, ask

if TYPE_CHECKING:
    from collections.abc import Callable

    from lab.world.host import Host

Object = dict[str, Any]

_STRATEGIC: Final = "application/strategic-merge-patch+json"
_SIDECAR_LEAST_S: Final = 2.0
_TOKEN_S: Final = 3600
_TOKEN_FRESH: Final = 0.8
_TRY_AGAIN_S: Final = 0.5
_BEGIN_AGAIN_S: Final = 2.0
_AUTHORIZER_S: Final = 0.02
_AUTHORIZER_TRIES: Final = 100


@dataclass(slots=True)
class _App:
    """A container's probe and what came of it, and its process while it runs."""

    spec: Object
    ports: list[int]
    probe: Probe | None
    readiness: Readiness
    process: Process | None = None
    began_s: float = 0.0


class PodWorker:
    """One Pod on one node."""

    def __init__(self, host: Host, pod: Object, ended: Callable[[PodWorker], None]) -> None:
        """Nothing happens before `start`.

        Args:
            host: the node's.
            pod: its object.
            ended: called with this worker, in its thread, when nothing is left of the Pod.
        """
        self.place = Place.of(host, pod)
        self._host = host
        self._ended = ended
        self._pod = pod
        self._meta = pod["metadata"]
        self._volume = self.place.volume
        self._news: queue.Queue[Callable[[], None]] = queue.Queue()
        self._due: dict[str, tuple[float, Callable[[], None]]] = {}
        self._sandbox: sandbox.Sandbox | None = None
        self._apps = {each["name"]: _app(each, first=not at) for at, each in enumerate(pod["spec"]["containers"])}
        self._sidecar: Process | None = None
        self._sidecar_began_s = 0.0
        self._ending = False
        self._doomed = False
        self._written = ""
        self._version = 0
        self._thread = threading.Thread(target=self._run, name=f"pod-{self.place.name}", daemon=True)
        self._state = self._first_state()

    # from outside: any thread ----------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def join(self) -> None:
        """Wait until nothing is left of it."""
        self._thread.join()

    def changed(self, pod: Object) -> None:
        """The Pod's object has a new version."""
        self._doomed = self._doomed or "deletionTimestamp" in pod["metadata"]
        self._news.put(lambda: self._changed(pod))

    def deleted(self) -> None:
        """The Pod's object is no more."""
        self._doomed = True
        self._news.put(lambda: self._end(_SIDECAR_LEAST_S, delete=False))

    def order(self, what: str) -> None:
        """Carry out `fail-app` or `heal-app`; done, and in the Pod's status, when this returns.

        Raises:
            LabError: it could not be done.
        """
        said: queue.Queue[LabError | None] = queue.Queue()

        def carry_out() -> None:
            try:
                self._tell_apps(what.removesuffix("-app"))
            except LabError as error:
                said.put(error)
            else:
                said.put(None)

        self._news.put(carry_out)
        if error := said.get(timeout=_TRY_AGAIN_S * 20):
            raise error

    # the thread ------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            self._begin()
            while not self._gone():
                self._next()()
                self._write()
        except Exception:
            self.place.say("is lost to a fault of the lab")
            raise

    def _gone(self) -> bool:
        return self._ending

    def _next(self) -> Callable[[], None]:
        """The next thing to do: news, or what is due."""
        while True:
            name, (at_s, what) = min(self._due.items(), key=lambda item: item[1][0], default=("", (0.0, _nothing)))
            left_s = at_s - time.monotonic() if name else None
            try:
                return self._news.get(timeout=None if left_s is None else max(left_s, 0))
            except queue.Empty:
                self._due.pop(name)
                return what

    def _at(self, name: str, after_s: float, what: Callable[[], None]) -> None:
        self._due[name] = (time.monotonic() + after_s, what)

    # beginning -------------------------------------------------------------------------------------------------

    def _first_state(self) -> PodState:
        old = {each["name"]: each for each in self._old("containerStatuses") + self._old("ephemeralContainerStatuses")}
        apps = tuple(_container(each["name"], each.get("image", ""), old) for each in self._pod["spec"]["containers"])
        injected = self._meta.get("annotations", {}).get(INJECT, "true") != "false"
        sidecar = _container(SIDECAR, SIDECAR, old) if injected else None
        started = self._pod.get("status", {}).get("startTime") or now()
        return PodState(self.place.uid, self._host.address, started, apps=apps, sidecar=sidecar)

    def _old(self, kind: str) -> list[Object]:
        return list(self._pod.get("status", {}).get(kind) or [])

    def _begin(self) -> None:
        if self._meta.get("deletionTimestamp"):
            self._changed(self._pod)
            return
        try:
            if self._sandbox is None:
                place = self.place
                annotations = self._pod["metadata"].get("annotations", {})
                self._sandbox = self._host.sandboxes.make(place.namespace, place.name, place.uid, annotations)
                self._state = replace(self._state, address=self._sandbox.address)
            self._furnish_volume()
            self._start_sidecar()
            for name in self._apps:
                self._start_app(name)
        except (LabError, OSError) as error:
            self.place.say(f"does not start: {error}")
            waits = tuple(replace(each, waiting=(CREATING, str(error))) for each in self._state.apps)
            self._state = replace(self._state, apps=waits)
            self._at("begin", _BEGIN_AGAIN_S, self._begin)
        self._write()

    def _furnish_volume(self) -> None:
        if self._state.sidecar is None:
            return
        self._volume.mkdir(parents=True, exist_ok=True)
        (self._volume / "ca.crt").write_text(self._host.ca_file.read_text())
        (self._volume / "namespace").write_text(self.place.namespace)
        self._renew_token()

    def _renew_token(self) -> None:
        """Ask for a token that is bound to this Pod, and again when most of its time is over."""
        account = f"/api/v1/namespaces/{self.place.namespace}/serviceaccounts/{self._pod['spec']['serviceAccountName']}"
        bound = {"apiVersion": "v1", "kind": "Pod", "name": self.place.name, "uid": self.place.uid}
        spec = {"audiences": [], "expirationSeconds": _TOKEN_S, "boundObjectRef": bound}
        new = self._volume / "token.new"
        try:
            answer = self._until_authorized(lambda: self._host.api.create(f"{account}/token", {"spec": spec}))
        except (ApiUnreachable, ApiError) as error:
            if not (self._volume / "token").exists():
                raise
            self.place.say(f"keeps its old token: {error}")
            self._at("token", _TRY_AGAIN_S, self._renew_token)
            return
        new.touch(mode=0o600)
        new.write_text(answer["status"]["token"])
        new.replace(self._volume / "token")
        self._at("token", _TOKEN_S * _TOKEN_FRESH, self._renew_token)

    def _until_authorized(self, request: Callable[[], Object]) -> Object:
        """The Node authorizer learns of a Pod by its own watch, a moment after we do; a kubelet tries again too."""
        for _ in range(_AUTHORIZER_TRIES):
            try:
                return request()
            except ApiError as error:
                if error.code != 403 or self._doomed:
                    raise
                time.sleep(_AUTHORIZER_S)
        return request()

    # containers ------------------------------------------------------------------------------------------------

    def _start_sidecar(self) -> None:
        if self._state.sidecar is None or self._sandbox is None:
            return
        place, env = self.place, self._host.service_env
        env = {"POD_NAME": place.name, "POD_NAMESPACE": place.namespace, "POD_UID": place.uid, **env}
        log = self.place.log(SIDECAR)
        self._sidecar = start_sidecar(self._host.sidecar_argv, log, self._sandbox.netns, self._volume, env)
        self._sidecar_began_s = time.monotonic()
        self._sidecar.watch(lambda process, code: self._news.put(lambda: self._sidecar_ended(process, code)))
        self._state = replace(self._state, sidecar=_running(self._state.sidecar, now(), ready=True))
        self._record()

    def _sidecar_ended(self, process: Process, code: int) -> None:
        if process is not self._sidecar or self._state.sidecar is None:
            return
        self._sidecar = None
        ran_s = time.monotonic() - self._sidecar_began_s
        ended = _ended(self._state.sidecar, code, now())
        self._record()
        self._restart(SIDECAR, ended, ran_s, self._start_sidecar)

    def _start_app(self, name: str) -> None:
        app = self._apps[name]
        if self._sandbox is None:
            return
        app.began_s = time.monotonic()
        refuses = app.probe is not None and app.probe.path is None
        control = self.place.control(list(self._apps).index(name))
        log, netns = self.place.log(name), self._sandbox.netns
        try:
            app.process = start_app(name, log, netns, app.ports, refuses=refuses, control=control)
        except ProgramError as error:
            self.place.say(str(error))
            self._app_ended(name, None, 1)
            return
        app.readiness = Readiness(ready=app.probe is None)
        app.process.watch(lambda process, code: self._news.put(lambda: self._app_ended(name, process, code)))
        self._set(_running(self._container(name), now(), ready=app.readiness.ready))
        self._record()
        if app.probe and app.probe.delay_s:
            self._at(f"probe-{name}", app.probe.delay_s, lambda: self._probe(name))
        else:
            self._probe(name)

    def _app_ended(self, name: str, process: Process | None, code: int) -> None:
        app = self._apps[name]
        if process is not app.process:
            return
        app.process = None
        self._due.pop(f"probe-{name}", None)
        self._set(_ended(self._container(name), code, now()))
        self._record()
        policy = self._pod["spec"].get("restartPolicy", "Always")
        if policy == "Never" or (policy == "OnFailure" and code == 0):
            self._set(replace(self._container(name), over=True))
        else:
            ran_s = time.monotonic() - app.began_s
            self._restart(name, self._container(name), ran_s, lambda: self._start_app(name))

    def _restart(self, name: str, container: Container, ran_s: float, start: Callable[[], None]) -> None:
        pause_s = back_off_s(container.restarts, ran_s)
        again = replace(container, restarts=container.restarts + 1)
        if pause_s:
            again = replace(again, waiting=(BACK_OFF, f"back-off {pause_s:g}s restarting failed container={name}"))
        if name == SIDECAR:
            self._state = replace(self._state, sidecar=again)
        else:
            self._set(again)
        if pause_s:
            self._at(f"restart-{name}", pause_s, start)
        else:
            start()

    def _container(self, name: str) -> Container:
        return next(each for each in self._state.apps if each.name == name)

    def _set(self, container: Container) -> None:
        apps = tuple(container if each.name == container.name else each for each in self._state.apps)
        self._state = replace(self._state, apps=apps)

    # readiness -------------------------------------------------------------------------------------------------

    def _probe(self, name: str, *, at_once: bool = False) -> None:
        app = self._apps[name]
        if app.probe is None or app.process is None or self._sandbox is None:
            return
        good = ask(app.probe, self._sandbox.address)
        app.readiness = app.readiness.after(app.probe, good=good, at_once=at_once)
        self._set(replace(self._container(name), ready=app.readiness.ready))
        if app.probe.period_s is not None:
            self._at(f"probe-{name}", app.probe.period_s, lambda: self._probe(name))
        elif not good and not at_once:
            self._at(f"probe-{name}", _TRY_AGAIN_S, lambda: self._probe(name))

    def _tell_apps(self, word: str) -> None:
        for name, app in self._apps.items():
            if app.process is None:
                raise LabError(f"Pod {self.place.full_name}: its container {name} is not running")
            app.process.tell(word)
            self._probe(name, at_once=True)
        self._write()

    # end -------------------------------------------------------------------------------------------------------

    def _changed(self, pod: Object) -> None:
        self._pod = pod
        if pod["metadata"].get("deletionTimestamp"):
            self._end(float(pod["metadata"].get("deletionGracePeriodSeconds", 30)), delete=True)
        elif int(pod["metadata"]["resourceVersion"]) > self._version:
            said = {each["type"]: each["status"] for each in pod.get("status", {}).get("conditions") or []}
            if self._version and said.get("Ready") != ("True" if self._state.ready else "False"):
                self._written = ""  # somebody else changed it: say it again

    def _end(self, grace_s: float, *, delete: bool) -> None:
        deadline = time.monotonic() + grace_s
        self._ending = True
        running = [app.process for app in self._apps.values() if app.process]
        stopping = [threading.Thread(target=each.stop, args=(grace_s,)) for each in running]
        for thread in stopping:
            thread.start()
        for thread in stopping:
            thread.join()
        if self._sidecar:
            self._sidecar.stop(max(deadline - time.monotonic(), _SIDECAR_LEAST_S))
        if self._sandbox:
            self._host.sandboxes.remove(self._sandbox)
        self.place.record.unlink(missing_ok=True)
        shutil.rmtree(self._volume, ignore_errors=True)
        if delete:
            self._delete()
        self._ended(self)

    def _delete(self) -> None:
        """Remove the Pod's object: the one with this UID, and no other of its name."""
        at_once = {"gracePeriodSeconds": 0, "preconditions": {"uid": self.place.uid}}
        while True:
            try:
                self._host.api.delete(self.place.path, at_once)
            except ApiUnreachable:
                time.sleep(_TRY_AGAIN_S)
            except ApiError as error:
                if error.code not in (404, 409):
                    raise
                return
            else:
                return

    # what is written -------------------------------------------------------------------------------------------

    def _write(self) -> None:
        """Write the status, if it is another than before."""
        if self._ending:
            return
        body = status(self._state, self._pod.get("status", {}), now())
        new = repr(self._state)
        if new == self._written:
            return
        try:
            answer = self._host.api.patch(f"{self.place.path}/status", body, _STRATEGIC)
        except (ApiUnreachable, ApiError) as error:
            if not (isinstance(error, ApiError) and error.code in (404, 409)):
                self.place.say(f"status not written: {error}")
                self._at("status", _TRY_AGAIN_S, _nothing)
            return
        self._written = new
        self._version = int(answer["metadata"]["resourceVersion"])
        self._pod["status"] = answer["status"]

    def _record(self) -> None:
        """Write what the world may want to know, at once or not at all."""
        if self._sandbox is None:
            return
        record = {
            "namespace": self.place.namespace,
            "name": self.place.name,
            "uid": self.place.uid,
            "netns": self._sandbox.netns,
            "sidecar_pid": self._sidecar.pid if self._sidecar else None,
            "app_pids": [app.process.pid for app in self._apps.values() if app.process],
            "interfaces": self._sandbox.interfaces,
        }
        new = self.place.record.with_suffix(".new")
        new.write_text(json.dumps(record))
        new.replace(self.place.record)


def _nothing() -> None:
    """Wake up."""


def _app(spec: Object, *, first: bool) -> _App:
    default = probes.DEFAULT_PORT if first else None
    probe = Probe.of(spec, default)
    return _App(spec, probes.ports(spec, default), probe, Readiness())


def _container(name: str, image: str, old: dict[str, Object]) -> Container:
    """A container as it was when the node lost its power: what ran then has ended, and starts once more."""
    if name not in old:
        return Container(name, image)
    before = old[name]
    ran = before.get("state", {}).get("running") is not None
    return Container(name, image, restarts=before.get("restartCount", 0) + ran, exit_code=255 if ran else None)


def _running(container: Container, now: str, *, ready: bool) -> Container:
    return replace(container, started=now, ready=ready)


def _ended(container: Container, code: int, now: str) -> Container:
    return replace(container, started=None, ready=False, exit_code=code, ended=now)
