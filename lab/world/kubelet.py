"""A node's kubelet, played: takes the Pods that are bound to it, and gives each network, processes and status.

    python -m lab.world.kubelet --name node-1 --kubeconfig FILE --run-dir DIRECTORY --networks default,blue-network

It runs in the node's network namespace with a kubelet's own user, and so may do what a kubelet may. It reacts to a
watch and to ends of processes; it asks nobody in turns but where a Pod's probe says so. For the world it writes
DIRECTORY/pods/<namespace>_<name>.json and answers JSON lines on DIRECTORY/control.sock: `{"do": "fail-app" |
"heal-app", "pod": "<namespace>/<name>"}`. Not promised: images, volumes, resources, init containers, exec and logs.
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import shlex
import shutil
import socket
import sys
import threading
import time
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from lab import closed
from lab.api_client import ApiClient, is_ready
from lab.errors import ApiError, ApiUnreachable, LabError
from lab.world import networks
from lab.world.host import Host, now
from lab.world.pod_worker import PodWorker
from lab.world.sandbox import Sandboxes

Object = dict[str, Any]

SIDECAR: Final = [sys.executable, "-m", "sidecar.cli"]
_LEASES: Final = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases"
_HEARTBEAT_S: Final = 10.0
_LEASE_S: Final = 40
_TRY_AGAIN_S: Final = 0.1
_STRATEGIC: Final = "application/strategic-merge-patch+json"


class Kubelet:
    """One node's."""

    def __init__(self, host: Host) -> None:
        """Nothing happens before `run`."""
        self._host = host
        self._workers: dict[str, PodWorker] = {}
        self._lock = threading.Lock()

    def run(self) -> None:
        """Play the kubelet until killed."""
        self._sweep()
        self._listen()
        threading.Thread(target=self._beat, name="heartbeat", daemon=True).start()
        for kind, pod in self._host.api.watch("/api/v1/pods", fieldSelector=f"spec.nodeName={self._host.name}"):
            self._heard(kind, pod)

    # Pods ------------------------------------------------------------------------------------------------------

    def _heard(self, kind: str, pod: Object) -> None:
        with self._lock:
            worker = self._workers.get(pod["metadata"]["uid"])
        if kind == "DELETED":
            if worker:
                worker.deleted()
        elif worker:
            worker.changed(pod)
        elif pod.get("status", {}).get("phase") not in ("Succeeded", "Failed"):
            self._take(PodWorker(self._host, pod, self._forget))

    def _take(self, worker: PodWorker) -> None:
        """Begin a Pod's life, after that of an earlier Pod of its name is over."""
        with self._lock:
            before = [each for each in self._workers.values() if each.place.full_name == worker.place.full_name]
            self._workers[worker.place.uid] = worker
        worker.start(after=before)

    def _forget(self, worker: PodWorker) -> None:
        with self._lock:
            self._workers.pop(worker.place.uid, None)

    def _sweep(self) -> None:
        """Remove what an earlier process of this node has left: its processes have ended with it."""
        run_dir, volumes = self._host.run_dir, self._host.volumes
        (run_dir / "logs").mkdir(parents=True, exist_ok=True)
        shutil.rmtree(volumes, ignore_errors=True)
        volumes.mkdir(parents=True)
        records = list((run_dir / "pods").glob("*.json"))
        self._host.sandboxes.sweep(json.loads(each.read_text())["netns"] for each in records)
        for each in records:
            each.unlink()

    # orders ----------------------------------------------------------------------------------------------------

    def _listen(self) -> None:
        path = self._host.run_dir / "control.sock"
        path.unlink(missing_ok=True)
        door = socket.socket(socket.AF_UNIX)
        door.bind(str(path))
        door.listen(16)

        def serve() -> None:
            while True:
                guest, _ = door.accept()
                threading.Thread(target=self._serve, args=(guest,), daemon=True).start()

        threading.Thread(target=serve, name="control", daemon=True).start()

    def _serve(self, guest: socket.socket) -> None:
        with guest, guest.makefile("rwb") as lines:
            for line in lines:
                try:
                    self._order(json.loads(line))
                    said: Object = {"ok": True}
                except (LabError, ValueError, KeyError) as error:
                    said = {"ok": False, "error": str(error) or repr(error)}
                lines.write(json.dumps(said).encode() + b"\n")
                lines.flush()

    def _order(self, request: Object) -> None:
        if request["do"] not in ("fail-app", "heal-app"):
            raise LabError(f"unknown request {request['do']!r}: use fail-app or heal-app")
        with self._lock:
            named = [each for each in self._workers.values() if each.place.full_name == request["pod"]]
        if not named:
            raise LabError(f"Pod {request['pod']} does not run on {self._host.name}")
        named[-1].order(request["do"])

    # the node's own objects ------------------------------------------------------------------------------------

    def _beat(self) -> None:
        """Register, then renew the node's Lease; a change of it is what the node lifecycle controller looks for.

        Where that controller has called the node's status unknown, since no change came, it is written again.
        """
        while True:
            try:
                while True:
                    if not self._said_ready():
                        self._register()
                    self._renew()
                    time.sleep(_HEARTBEAT_S)
            except (ApiUnreachable, ApiError) as error:
                self._host.say(f"node/{self._host.name}", str(error))
                time.sleep(_TRY_AGAIN_S)

    def _said_ready(self) -> bool:
        found = self._host.api.list("/api/v1/nodes", fieldSelector=f"metadata.name={self._host.name}")
        return bool(found) and is_ready(found[0])

    def _register(self) -> None:
        name, status = self._host.name, _status(self._host.address)
        labels = {"kubernetes.io/hostname": name, "kubernetes.io/os": "linux"}
        body = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": labels}, "status": status}
        try:
            self._host.api.create("/api/v1/nodes", body)
        except ApiError as error:
            if error.reason != "AlreadyExists":
                raise
            self._host.api.patch(f"/api/v1/nodes/{name}/status", {"status": status}, _STRATEGIC)

    def _renew(self) -> None:
        name, renewed = self._host.name, dt.datetime.now(dt.UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        spec = {"holderIdentity": name, "leaseDurationSeconds": _LEASE_S, "renewTime": renewed}
        try:
            self._host.api.patch(f"{_LEASES}/{name}", {"spec": spec})
        except ApiError as error:
            if error.code != 404:
                raise
            self._host.api.create(_LEASES, {"metadata": {"name": name}, "spec": spec})


def _status(address: str) -> Object:
    at = now()
    room = {"cpu": "64", "memory": "256Gi", "pods": "240"}
    ready = {"type": "Ready", "status": "True", "reason": "KubeletReady", "message": "the lab's node is up"}
    return {
        "capacity": room,
        "allocatable": room,
        "addresses": [{"type": "InternalIP", "address": address}],
        "conditions": [{**ready, "lastHeartbeatTime": at, "lastTransitionTime": at}],
        "nodeInfo": {
            **dict.fromkeys(("machineID", "systemUUID", "bootID", "kernelVersion", "osImage"), "lab"),
            **dict.fromkeys(("containerRuntimeVersion", "kubeletVersion", "kubeProxyVersion"), "lab://0"),
            "operatingSystem": "linux",
            "architecture": "amd64",
        },
    }


def _host(arguments: argparse.Namespace) -> Host:
    number = int(arguments.name.rpartition("-")[2])
    api, ca_file, service_env = _client(arguments.kubeconfig)
    witness = arguments.witness or arguments.run_dir.parent.parent / "witness.sock"
    return Host(
        name=arguments.name,
        address=networks.address(0, number, 1),
        api=api,
        ca_file=ca_file,
        service_env=service_env,
        sandboxes=Sandboxes(number, arguments.networks.split(","), witness),
        sidecar_argv=shlex.split(arguments.sidecar) if arguments.sidecar else SIDECAR,
        run_dir=arguments.run_dir,
        volumes=closed.RUN / "volumes" / arguments.name,
    )


def _client(kubeconfig: Path) -> tuple[ApiClient, Path, dict[str, str]]:
    """Read a kubeconfig of the lab (JSON); gives the client, the CA file, and what Pods are told of the server."""
    config = json.loads(kubeconfig.read_text())
    cluster = config["clusters"][0]["cluster"]
    ca_file = Path(cluster["certificate-authority"])
    where = urlsplit(cluster["server"])
    env = {"KUBERNETES_SERVICE_HOST": str(where.hostname), "KUBERNETES_SERVICE_PORT": str(where.port)}
    return ApiClient(cluster["server"], ca_file, config["users"][0]["user"]["token"]), ca_file, env


def main() -> None:
    """Run a node."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--name", required=True, help="node-<number>")
    parser.add_argument("--kubeconfig", type=Path, required=True)
    parser.add_argument("--run-dir", type=Path, required=True)
    parser.add_argument("--networks", required=True, help="comma-separated names, the default network first")
    parser.add_argument("--witness", type=Path, help="its control socket; default: witness.sock two folders up")
    parser.add_argument("--sidecar", help="command to run instead of the sidecar's; its arguments follow")
    closed.require()
    Kubelet(_host(parser.parse_args())).run()


if __name__ == "__main__":
    main()
