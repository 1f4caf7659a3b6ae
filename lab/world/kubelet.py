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
from lab.api_client import ApiClient
from lab.errors import ApiError, ApiUnreachable, LabError
from lab.world import networks
from lab.world.pod_worker import PodLife
from lab.world.sandbox import Sandboxes

Object = dict[str, Any]

SIDECAR: Final = [sys.executable, "-m", "sidecar.cli", "run", "--source", "watch"]
_LEASES: Final = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases"
_HEARTBEAT_S: Final = 10.0
_LEASE_S: Final = 40
_TRY_AGAIN_S: Final = 0.1
_STRATEGIC: Final = "application/strategic-merge-patch+json"


class Node:
    """One node; what its Pods share."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self.name: str = arguments.name
        self.run_dir: Path = arguments.run_dir
        self.volumes = closed.RUN / "volumes" / self.name
        self.sidecar_argv: list[str] = shlex.split(arguments.sidecar) if arguments.sidecar else SIDECAR
        number = int(self.name.rpartition("-")[2])
        self.address = networks.address(0, number, 1)
        self.api, self.ca_file, self.service_env = _client(arguments.kubeconfig)
        witness = arguments.witness or self.run_dir.parent.parent / "witness.sock"
        self.sandboxes = Sandboxes(number, arguments.networks.split(","), witness)
        self._lives: dict[str, PodLife] = {}
        self._lock = threading.Lock()
        self._said = ""

    def run(self) -> None:
        """Play the kubelet until killed."""
        self._sweep()
        self._listen()
        threading.Thread(target=self._beat, name="heartbeat", daemon=True).start()
        for kind, pod in self.api.watch("/api/v1/pods", fieldSelector=f"spec.nodeName={self.name}"):
            self._heard(kind, pod)

    def now(self) -> str:
        """The time as the API writes it."""
        return dt.datetime.now(dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")

    def say(self, key: tuple[str, str], what: str) -> None:
        """Write a line to the node's log, the same one only once in a row."""
        line = f"{'/'.join(key)}: {what}"
        if line != self._said:
            sys.stderr.write(f"{dt.datetime.now(dt.UTC).isoformat()} {line}\n")
        self._said = line

    def forget(self, life: PodLife) -> None:
        """Nothing is left of a Pod."""
        with self._lock:
            self._lives.pop(life.uid, None)

    def discard(self, volume: Path) -> None:
        """Remove a Pod's volume."""
        shutil.rmtree(volume, ignore_errors=True)

    # Pods ------------------------------------------------------------------------------------------------------

    def _heard(self, kind: str, pod: Object) -> None:
        uid = pod["metadata"]["uid"]
        with self._lock:
            life = self._lives.get(uid)
        if kind == "DELETED":
            if life:
                life.deleted()
        elif life:
            life.changed(pod)
        elif pod.get("status", {}).get("phase") not in ("Succeeded", "Failed"):
            self._take(PodLife(self, pod))

    def _take(self, life: PodLife) -> None:
        """Begin a Pod's life, after that of an earlier Pod of its name is over."""
        with self._lock:
            before = [each for each in self._lives.values() if each.key == life.key]
            self._lives[life.uid] = life

        def begin() -> None:
            for each in before:
                each.join()
            life.start()

        if before:
            threading.Thread(target=begin, daemon=True).start()
        else:
            begin()

    def _sweep(self) -> None:
        """Remove what an earlier process of this node has left: its processes have ended with it."""
        (self.run_dir / "logs").mkdir(parents=True, exist_ok=True)
        shutil.rmtree(self.volumes, ignore_errors=True)
        self.volumes.mkdir(parents=True)
        records = list((self.run_dir / "pods").glob("*.json"))
        self.sandboxes.sweep(json.loads(each.read_text())["netns"] for each in records)
        for each in records:
            each.unlink()

    # orders ----------------------------------------------------------------------------------------------------

    def _listen(self) -> None:
        path = self.run_dir / "control.sock"
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
            raise LabError(f"cannot {request['do']!r}: fail-app and heal-app are known")
        with self._lock:
            lives = [each for each in self._lives.values() if "/".join(each.key) == request["pod"]]
        if not lives:
            raise LabError(f"Pod {request['pod']} does not run on {self.name}")
        lives[-1].order(request["do"])

    # the node's own objects ------------------------------------------------------------------------------------

    def _beat(self) -> None:
        """Register, then renew the node's Lease; a change of it is what the node lifecycle controller looks for."""
        while True:
            try:
                self._register()
                while True:
                    self._renew()
                    time.sleep(_HEARTBEAT_S)
            except (ApiUnreachable, ApiError) as error:
                self.say(("node", self.name), str(error))
                time.sleep(_TRY_AGAIN_S)

    def _register(self) -> None:
        status = _status(self.address, self.now())
        labels = {"kubernetes.io/hostname": self.name, "kubernetes.io/os": "linux"}
        body = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": self.name, "labels": labels}, "status": status}
        try:
            self.api.create("/api/v1/nodes", body)
        except ApiError as error:
            if error.reason != "AlreadyExists":
                raise
            self.api.patch(f"/api/v1/nodes/{self.name}/status", {"status": status}, _STRATEGIC)

    def _renew(self) -> None:
        now = dt.datetime.now(dt.UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        spec = {"holderIdentity": self.name, "leaseDurationSeconds": _LEASE_S, "renewTime": now}
        try:
            self.api.patch(f"{_LEASES}/{self.name}", {"spec": spec})
        except ApiError as error:
            if error.code != 404:
                raise
            self.api.create(_LEASES, {"metadata": {"name": self.name}, "spec": spec})


def _status(address: str, now: str) -> Object:
    room = {"cpu": "64", "memory": "256Gi", "pods": "240"}
    ready = {"type": "Ready", "status": "True", "reason": "KubeletReady", "message": "the lab's node is up"}
    return {
        "capacity": room,
        "allocatable": room,
        "addresses": [{"type": "InternalIP", "address": address}],
        "conditions": [{**ready, "lastHeartbeatTime": now, "lastTransitionTime": now}],
        "nodeInfo": {
            **dict.fromkeys(("machineID", "systemUUID", "bootID", "kernelVersion", "osImage"), "lab"),
            **dict.fromkeys(("containerRuntimeVersion", "kubeletVersion", "kubeProxyVersion"), "lab://0"),
            "operatingSystem": "linux",
            "architecture": "amd64",
        },
    }


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
    parser.add_argument("--networks", required=True, help="names, comma separated; the first is the default network")
    parser.add_argument("--witness", type=Path, help="its control socket; else witness.sock two folders above run-dir")
    parser.add_argument("--sidecar", help="a command to run instead of the sidecar")
    closed.require()
    Node(parser.parse_args()).run()


if __name__ == "__main__":
    main()
