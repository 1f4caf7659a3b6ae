"""One Pod on one node, in a thread of its own: start, probe, restart, stop, in the kubelet's order.

Start: network, service account, sidecar (a native one: started before the app), app. Stop: app, then sidecar, each
with SIGTERM and what is left of the grace period; then the network goes and the API is told. A container that ends is
started again at once, then after 1 s, 2 s and so on up to 10 s: a kubelet's back-off, on a shorter scale.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import http.client
import json
import queue
import subprocess
import threading
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from contract.names import INJECT
from lab import containers, sandbox
from lab.capture import CONTROL
from lab.errors import ApiError, ApiUnreachable, LabError
from lab.networks import address
from lab.pod_status import Now, status
from lab.witness import register

if TYPE_CHECKING:
    from pathlib import Path

    from lab.api import Api

_DEFAULT_PORT = 8080
_PROBE_EVERY_S = 1.0
_PROBE_TIMEOUT_S = 1.0
_LISTENS_WITHIN_S = 5.0
_LEAST_GRACE_S = 2.0
_BACK_OFF_MAX_S = 10.0
_TOKEN_S = 3600
_RETRY_S = 1.0


@dataclass(frozen=True, slots=True)
class Node:
    """What a node's Pods have in common."""

    name: str
    number: int
    networks: tuple[str, ...]
    api: Api
    run_dir: Path
    hosts: sandbox.Hosts

    @property
    def witness(self) -> Path:
        """Where the world's witness takes registrations of network namespaces."""
        return self.run_dir.parent.parent / CONTROL


class PodWorker:
    """One Pod; `tell` is given every version of it, and None when it is deleted."""

    def __init__(self, node: Node, pod: dict[str, Any]) -> None:
        meta = pod["metadata"]
        self.key = f"{meta['namespace']}/{meta['name']}"
        self.ended = False
        self._node = node
        self._pod = pod
        self._namespace, self._name, self._uid = meta["namespace"], meta["name"], meta["uid"]
        self._path = f"/api/v1/namespaces/{self._namespace}/pods/{self._name}"
        self._netns = sandbox.netns_name(self._namespace, self._name)
        self._news: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._gone = False
        self._now = Now(started=_stamp(), restarts=_restarts(pod))
        self._changed = threading.Event()
        self._sidecar: subprocess.Popen[bytes] | None = None
        self._app: subprocess.Popen[bytes] | None = None
        self._failures = 0
        self._host: int | None = None
        self._wanted: tuple[sandbox.Interface, ...] = ()
        threading.Thread(target=self._run, name=self.key, daemon=True).start()
        threading.Thread(target=self._writer, name=f"{self.key} status", daemon=True).start()

    def tell(self, pod: dict[str, Any] | None) -> None:
        """Give it the newest version."""
        if pod is None:
            self._gone = True
        else:
            self._pod = pod
        self._news.put("pod")

    def app_says(self, what: str) -> None:
        """Let its app fail or heal, and probe it at once."""
        _get(self._now.address, self._ports()[0], f"/-/{what}")
        self._news.put("probe")

    # its life --------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            self._until_started()
            while not self._must_end():
                self._probe()
                self._changed.set()
                self._wait(_PROBE_EVERY_S)
        finally:
            self._stop()
            self.ended = True
            self._changed.set()

    def _must_end(self) -> bool:
        return self._gone or "deletionTimestamp" in self._pod["metadata"]

    def _until_started(self) -> None:
        if self._pod.get("status", {}).get("phase") in ("Succeeded", "Failed"):
            return
        while not self._must_end():
            try:
                self._start()
            except (LabError, OSError) as error:
                self._now = replace(self._now, waiting=str(error))
                self._changed.set()
                self._wait(_RETRY_S)
            else:
                return

    def _start(self) -> None:
        if self._host is None:
            self._host = self._node.hosts.take()
        notes = self._pod["metadata"].get("annotations", {})
        self._wanted = sandbox.interfaces(notes, self._node.networks)
        sandbox.create(self._netns)
        if self._node.witness.exists():  # a node may also be run by itself
            register(self._node.witness, self._netns)
        own = sandbox.plug(self._netns, self._node.number, self._host, self._wanted, self._node.networks)
        self._now = replace(self._now, address=own, waiting="")
        if notes.get(INJECT) != "false":
            self._new_token()
            self._start_sidecar()
        self._start_app()
        self._record()
        self._now = replace(self._now, running=True)

    def _start_sidecar(self) -> None:
        log = self._log("sidecar")
        self._sidecar = containers.start_sidecar(self._namespace, self._name, self._uid, self._netns, log)
        self._watch_end(self._sidecar)

    def _start_app(self) -> None:
        self._app = containers.start_app(self._ports(), self._netns, self._log("app"))
        self._watch_end(self._app)
        deadline = time.monotonic() + _LISTENS_WITHIN_S
        while _get(self._now.address, self._ports()[0], "/") is None and self._app.poll() is None:
            if time.monotonic() > deadline:
                raise LabError(f"Pod {self.key}: its app does not listen; its log: {self._log('app')}")
            self._wait(0.01)

    def _watch_end(self, process: subprocess.Popen[bytes]) -> None:
        def wait() -> None:
            process.wait()
            self._news.put("end")

        threading.Thread(target=wait, daemon=True).start()

    def _log(self, what: str) -> Path:
        folder = self._node.run_dir / "logs"
        folder.mkdir(exist_ok=True)
        return folder / f"{self._namespace}_{self._name}_{what}.log"

    def _wait(self, timeout_s: float) -> None:
        """Until there is news; several at once are one."""
        with contextlib.suppress(queue.Empty):
            self._news.get(timeout=timeout_s)
            while True:
                self._news.get_nowait()

    # while it runs ---------------------------------------------------------------------------------------------

    def _probe(self) -> None:
        self._restart_ended()
        ready = _get(self._now.address, self._ports()[0], "/") == http.client.OK
        self._now = replace(self._now, ready=ready)

    def _restart_ended(self) -> None:
        dead = [
            name for name in ("_sidecar", "_app") if (p := getattr(self, name)) is not None and p.poll() is not None
        ]
        if not dead:
            return
        if "_app" in dead:
            self._now = replace(self._now, ready=False)
            self._changed.set()
        if self._failures:
            self._pause(min(_BACK_OFF_MAX_S, 2.0 ** (self._failures - 1)))
        self._failures += 1
        if self._must_end():
            return
        self._now = replace(self._now, restarts=self._now.restarts + len(dead))
        if "_sidecar" in dead:
            self._start_sidecar()
        if "_app" in dead:
            self._start_app()
        self._record()

    def _pause(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0 and not self._must_end():
            self._wait(left)

    def _ports(self) -> list[int]:
        found: list[int] = []
        for container in self._pod["spec"]["containers"]:
            probe = container.get("readinessProbe", {})
            ports = [(probe.get(kind) or {}).get("port") for kind in ("httpGet", "tcpSocket")]
            ports += [each.get("containerPort") for each in container.get("ports", [])]
            found += [port for port in ports if isinstance(port, int)]
        return list(dict.fromkeys(found)) or [_DEFAULT_PORT]

    def _new_token(self) -> None:
        account = self._pod["spec"].get("serviceAccountName", "default")
        bound = {"apiVersion": "v1", "kind": "Pod", "name": self._name, "uid": self._uid}
        path = f"/api/v1/namespaces/{self._namespace}/serviceaccounts/{account}/token"
        request = {"spec": {"expirationSeconds": _TOKEN_S, "boundObjectRef": bound}}
        answer = self._node.api.create(path, request)
        ca = self._node.api.ca_file.read_bytes()
        containers.write_account(self._uid, answer["status"]["token"], ca, self._namespace)
        again = threading.Timer(_TOKEN_S * 0.8, self._renew_token)
        again.daemon = True
        again.start()

    def _renew_token(self) -> None:
        if self.ended:
            return
        with contextlib.suppress(ApiError, ApiUnreachable):
            self._new_token()

    # what is told ----------------------------------------------------------------------------------------------

    def _record(self) -> None:
        """Write down what runs, for the world (`lab.nodes`)."""
        path = self._node.run_dir / "pods" / f"{self._namespace}_{self._name}.json"
        record = {
            "namespace": self._namespace,
            "name": self._name,
            "uid": self._uid,
            "netns": self._netns,
            "sidecar_pid": self._sidecar.pid if self._sidecar else None,
            "app_pids": [self._app.pid] if self._app else [],
            "interfaces": {each.name: each.network for each in self._wanted},
        }
        new = path.with_suffix(".new")
        new.write_text(json.dumps(record))
        new.replace(path)

    def _writer(self) -> None:
        """In a thread of its own: an API server that does not answer keeps no container from being started."""
        written: dict[str, Any] = {}
        while not self.ended:
            self._changed.wait()
            self._changed.clear()
            body = status(self._pod, self._now, _stamp(), address(0, self._node.number, 1))
            plain = _without_times(body)
            if plain == written or self._must_end():
                continue
            try:
                self._node.api.patch(f"{self._path}/status", {"metadata": {"uid": self._uid}, "status": body})
                written = plain
            except ApiUnreachable:
                continue  # again at the next probe
            except ApiError as error:
                print(f"{self.key}: status not written: {error}", flush=True)

    # its end ---------------------------------------------------------------------------------------------------

    def _stop(self) -> None:
        meta = self._pod["metadata"]
        grace_s = 0.0 if self._gone else float(meta.get("deletionGracePeriodSeconds") or 0)
        end = time.monotonic() + grace_s
        containers.terminate(self._app)
        _end_by(self._app, end)
        containers.terminate(self._sidecar)
        _end_by(self._sidecar, max(end, time.monotonic() + (0 if self._gone else _LEAST_GRACE_S)))
        path = self._node.run_dir / "pods" / f"{self._namespace}_{self._name}.json"
        with contextlib.suppress(OSError, ValueError):
            if json.loads(path.read_text())["uid"] == self._uid:
                path.unlink()
        if self._host is not None:
            sandbox.remove(self._netns, self._host, len(self._wanted))
            self._node.hosts.give_back(self._host)
        if not self._gone and "deletionTimestamp" in meta:
            self._tell_end()

    def _tell_end(self) -> None:
        body = {"gracePeriodSeconds": 0, "preconditions": {"uid": self._uid}}
        while not self._gone:
            try:
                self._node.api.delete(self._path, body)
            except ApiUnreachable:
                self._wait(_RETRY_S)
            except ApiError as error:
                if error.code in (404, 409, 422):  # this Pod is no more
                    return
                print(f"{self.key}: not deleted: {error}", flush=True)
                self._wait(_RETRY_S)
            else:
                return


def _end_by(process: subprocess.Popen[bytes] | None, end: float) -> None:
    if process is not None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(max(0.0, end - time.monotonic()))
        containers.kill(process)


def _get(host: str, port: int, path: str) -> int | None:
    connection = http.client.HTTPConnection(host, port, timeout=_PROBE_TIMEOUT_S)
    with contextlib.closing(connection):
        try:
            connection.request("GET", path)
            return connection.getresponse().status
        except (OSError, http.client.HTTPException):
            return None


def _restarts(pod: dict[str, Any]) -> int:
    """A Pod that ran before, on a node that was started again, has been started once more."""
    before = pod.get("status", {}).get("containerStatuses", [])
    return max((each["restartCount"] + 1 for each in before if each.get("containerID")), default=0)


def _without_times(body: dict[str, Any]) -> dict[str, Any]:
    conditions = [{**each, "lastTransitionTime": ""} for each in body["conditions"]]
    return {**body, "conditions": conditions}


def _stamp() -> str:
    return dt.datetime.now(dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
