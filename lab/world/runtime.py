"""A Pod's containers while it lives: started, started again when they end, asked whether they are ready, stopped.

Sidecar first, then the apps; at the end the apps first, then the sidecar. What is the case is `Runtime.state`, from
which a status is written (`lab.world.pod_worker`); the world reads it from a record, written when a process begins or
ends. Not here: what a container's process may do (`lab.world.containers`), and how long one that ended waits
(`lab.world.pod_status`).
"""

from __future__ import annotations

import json
import threading
import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final

from lab.errors import LabError, ProgramError
from lab.world import probes
from lab.world.containers import Process, start_app, start_sidecar
from lab.world.host import now
from lab.world.pod_status import CREATING, SIDECAR, first_state, restarted, sidecar_of
from lab.world.probes import Probe, Readiness, ask

if TYPE_CHECKING:
    from collections.abc import Callable

    from lab.world.agenda import Agenda
    from lab.world.host import Place
    from lab.world.sandbox import Sandbox

Object = dict[str, Any]

_SIDECAR_LEAST_S: Final = 2.0
_TRY_AGAIN_S: Final = 0.5


@dataclass(slots=True)
class _App:
    """A container's probe and what came of it, and its process while it runs."""

    ports: list[int]
    probe: Probe | None
    readiness: Readiness = field(default_factory=Readiness)
    process: Process | None = None
    began_s: float = 0.0

    @classmethod
    def of(cls, spec: Object, *, first: bool) -> _App:
        default = probes.DEFAULT_PORT if first else None
        return cls(probes.ports(spec, default), Probe.of(spec, default))


class Runtime:
    """The containers of one Pod; used by its worker's thread alone.

    Attributes:
        state: what is the case with them.
        sandbox: None: the Pod has no network namespace yet, and nothing is started.
    """

    def __init__(self, place: Place, pod: Object, agenda: Agenda) -> None:
        """Nothing is started before `start`; ends of processes and times to probe come by the worker's agenda."""
        self._place = place
        self._agenda = agenda
        self._policy = pod["spec"].get("restartPolicy", "Always")
        self._apps = {each["name"]: _App.of(each, first=not at) for at, each in enumerate(pod["spec"]["containers"])}
        self._agent = sidecar_of(pod)
        self._sidecar: Process | None = None
        self._sidecar_began_s = 0.0
        self.state = first_state(pod, place.host.address, now())
        self.sandbox: Sandbox | None = None

    def enter(self, sandbox: Sandbox) -> None:
        """The Pod's network namespace is there."""
        self.sandbox = sandbox
        self.state = replace(self.state, address=sandbox.address)

    def start(self) -> None:
        """Start all containers.

        Raises:
            OSError: a program is not there.
        """
        self._start_sidecar()
        for name in self._apps:
            self._start_app(name)

    def wait(self, why: str) -> None:
        """The apps wait to be started, and say why."""
        waiting = tuple(replace(each, waiting=(CREATING, why)) for each in self.state.apps)
        self.state = replace(self.state, apps=waiting)

    def tell(self, word: str) -> None:
        """Tell every app `fail` or `heal`, and ask it at once whether it is ready.

        Raises:
            LabError: one is not running, or does not answer.
        """
        for name, app in self._apps.items():
            if app.process is None:
                raise LabError(f"Pod {self._place.full_name}: its container {name} is not running")
            app.process.tell(word)
            self._probe(name, at_once=True)

    def stop(self, grace_s: float) -> None:
        """End the apps, all at a time, then the sidecar with what is left of the grace period, at least 2 s."""
        deadline = time.monotonic() + grace_s
        running = [app.process for app in self._apps.values() if app.process]
        stopping = [threading.Thread(target=each.stop, args=(grace_s,)) for each in running]
        for thread in stopping:
            thread.start()
        for thread in stopping:
            thread.join()
        if self._sidecar:
            self._sidecar.stop(max(deadline - time.monotonic(), _SIDECAR_LEAST_S))

    # the sidecar -----------------------------------------------------------------------------------------------

    def _start_sidecar(self) -> None:
        if self._agent is None or self.state.sidecar is None or self.sandbox is None:
            return
        place, host = self._place, self._place.host
        argv = [*host.sidecar_argv, *self._agent.get("args", [])]
        env = _environment(self._agent, place) | host.service_env
        mounts = [each["mountPath"] for each in self._agent.get("volumeMounts", [])]
        log, netns = place.log(SIDECAR), self.sandbox.netns
        self._sidecar = start_sidecar(argv, log, netns, volume=place.volume, mounts=mounts, env=env)
        self._sidecar_began_s = time.monotonic()
        self._sidecar.watch(lambda process, code: self._agenda.put(lambda: self._sidecar_ended(process, code)))
        self.state = replace(self.state, sidecar=self.state.sidecar.running(now(), ready=True))
        self._record()

    def _sidecar_ended(self, process: Process, code: int) -> None:
        if process is not self._sidecar or self.state.sidecar is None:
            return
        self._sidecar = None
        self._record()
        ended = self.state.sidecar.stopped(code, now())
        again, pause_s = restarted(ended, time.monotonic() - self._sidecar_began_s)
        self.state = replace(self.state, sidecar=again)
        self._start_after(pause_s, SIDECAR, self._start_sidecar)

    # the apps --------------------------------------------------------------------------------------------------

    def _start_app(self, name: str) -> None:
        app = self._apps[name]
        if self.sandbox is None:
            return
        app.began_s = time.monotonic()
        refuses = app.probe is not None and app.probe.path is None
        control = self._place.control(list(self._apps).index(name))
        log, netns = self._place.log(name), self.sandbox.netns
        try:
            app.process = start_app(name, log, netns, app.ports, refuses=refuses, control=control)
        except ProgramError as error:
            self._place.say(str(error))
            self._app_ended(name, None, 1)
            return
        app.process.watch(lambda process, code: self._agenda.put(lambda: self._app_ended(name, process, code)))
        self._app_started(name, app)

    def _app_started(self, name: str, app: _App) -> None:
        app.readiness = Readiness(ready=app.probe is None)
        self.state = self.state.having(self.state.app(name).running(now(), ready=app.readiness.ready))
        self._record()
        if app.probe and app.probe.delay_s:
            self._agenda.at(f"probe-{name}", app.probe.delay_s, lambda: self._probe(name))
        else:
            self._probe(name)

    def _app_ended(self, name: str, process: Process | None, code: int) -> None:
        app = self._apps[name]
        if process is not app.process:
            return
        app.process = None
        self._agenda.drop(f"probe-{name}")
        ended = self.state.app(name).stopped(code, now())
        self._record()
        if self._policy == "Never" or (self._policy == "OnFailure" and code == 0):
            self.state = self.state.having(replace(ended, over=True))
            return
        again, pause_s = restarted(ended, time.monotonic() - app.began_s)
        self.state = self.state.having(again)
        self._start_after(pause_s, name, lambda: self._start_app(name))

    def _probe(self, name: str, *, at_once: bool = False) -> None:
        app = self._apps[name]
        if app.probe is None or app.process is None or self.sandbox is None:
            return
        good = ask(app.probe, self.sandbox.address)
        app.readiness = app.readiness.after(app.probe, good=good, at_once=at_once)
        self.state = self.state.having(replace(self.state.app(name), ready=app.readiness.ready))
        if app.probe.period_s is not None:
            self._agenda.at(f"probe-{name}", app.probe.period_s, lambda: self._probe(name))
        elif not good and not at_once:
            self._agenda.at(f"probe-{name}", _TRY_AGAIN_S, lambda: self._probe(name))

    # both ------------------------------------------------------------------------------------------------------

    def _start_after(self, pause_s: float, name: str, start: Callable[[], None]) -> None:
        if pause_s:
            self._agenda.at(f"restart-{name}", pause_s, start)
        else:
            start()

    def _record(self) -> None:
        """Write what the world may want to know, at once or not at all."""
        if self.sandbox is None:
            return
        record = {
            "namespace": self._place.namespace,
            "name": self._place.name,
            "uid": self._place.uid,
            "netns": self.sandbox.netns,
            "sidecar_pid": self._sidecar.pid if self._sidecar else None,
            "app_pids": [app.process.pid for app in self._apps.values() if app.process],
            "interfaces": self.sandbox.interfaces,
        }
        new = self._place.record.with_suffix(".new")
        new.write_text(json.dumps(record))
        new.replace(self._place.record)


def _environment(container: Object, place: Place) -> dict[str, str]:
    """What a container's spec sets: values, and what the downward API says of its Pod."""
    fields = {"metadata.name": place.name, "metadata.namespace": place.namespace, "metadata.uid": place.uid}
    variables = container.get("env", [])
    set_ = {each["name"]: each["value"] for each in variables if "value" in each}
    told = {each["name"]: each["valueFrom"]["fieldRef"]["fieldPath"] for each in variables if "valueFrom" in each}
    return set_ | {name: fields[path] for name, path in told.items()}
