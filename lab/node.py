"""A lab node: plays the kubelet for the Pods bound to it, with the real sidecar beside a stand-in for the app.

`python -m lab.node --name node-1 --kubeconfig FILE --run-dir DIR --networks default,blue-network`, one process per
node in the node's network namespace, with a kubelet's credentials. Pods are followed by a watch; each has a thread of
its own (`lab.pod_worker`). DIR/control.sock takes one JSON request per connection:
``{"do": "fail-app", "pod": "ns/name"}``.
Not here: images, volumes, exec, logs, eviction.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime as dt
import json
import socketserver
import threading
from pathlib import Path
from typing import Any

from lab.api import Api
from lab.errors import ApiError, ApiUnreachable, LabError
from lab.networks import address
from lab.pod_worker import Node, PodWorker
from lab.sandbox import Hosts

_HEARTBEAT_S = 5.0
_LEASE_S = 40


def main() -> None:
    """Run until killed."""
    parser = argparse.ArgumentParser(description=__doc__)
    for option in ("--name", "--kubeconfig", "--run-dir", "--networks"):
        parser.add_argument(option, required=True)
    given = parser.parse_args()
    networks = tuple(given.networks.split(","))
    number = int(given.name.rpartition("-")[2])
    node = Node(given.name, number, networks, _client(Path(given.kubeconfig)), Path(given.run_dir), Hosts())
    threading.Thread(target=_heartbeats, args=(node,), daemon=True).start()
    kubelet = Kubelet(node)
    threading.Thread(target=kubelet.listen, daemon=True).start()
    kubelet.follow()


def _client(kubeconfig: Path) -> Api:
    config = json.loads(kubeconfig.read_text())
    cluster = config["clusters"][0]["cluster"]
    token = config["users"][0]["user"]["token"]
    return Api(cluster["server"], Path(cluster["certificate-authority"]), token)


class Kubelet:
    """The Pods of one node."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._workers: dict[str, PodWorker] = {}

    def follow(self) -> None:
        """Follow the Pods bound to this node, for ever."""
        for kind, pod in self._node.api.watch("/api/v1/pods", fieldSelector=f"spec.nodeName={self._node.name}"):
            uid = pod["metadata"]["uid"]
            worker = self._workers.get(uid)
            if worker is None:
                if kind == "DELETED":
                    continue
                worker = self._workers[uid] = PodWorker(self._node, pod)
            worker.tell(None if kind == "DELETED" else pod)
            for ended in [key for key, each in self._workers.items() if each.ended]:
                del self._workers[ended]

    def listen(self) -> None:
        """Take requests on the control socket, for ever."""
        path = self._node.run_dir / "control.sock"
        path.unlink(missing_ok=True)
        kubelet = self

        class Handler(socketserver.StreamRequestHandler):
            def handle(self) -> None:
                answer = kubelet.answer(json.loads(self.rfile.readline()))
                with contextlib.suppress(BrokenPipeError):
                    self.wfile.write(json.dumps(answer).encode() + b"\n")

        with socketserver.ThreadingUnixStreamServer(str(path), Handler) as server:
            server.serve_forever()

    def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        """Do what is asked to a Pod of this node."""
        worker = next((each for each in self._workers.values() if each.key == request.get("pod")), None)
        if worker is None:
            return {"ok": False, "error": f"no Pod {request.get('pod')} on {self._node.name}"}
        try:
            match request.get("do"):
                case "fail-app":
                    worker.app_says("fail")
                case "heal-app":
                    worker.app_says("heal")
                case other:
                    return {"ok": False, "error": f"do {other!r} is not known: fail-app, heal-app"}
        except (OSError, LabError) as error:
            return {"ok": False, "error": repr(error)}
        return {"ok": True}


def _heartbeats(node: Node) -> None:
    while True:
        with contextlib.suppress(ApiError, ApiUnreachable):
            _heartbeat(node)
        threading.Event().wait(_HEARTBEAT_S)


def _heartbeat(node: Node) -> None:
    stamp = dt.datetime.now(dt.UTC)
    ready = {
        "type": "Ready",
        "status": "True",
        "reason": "LabNodeReady",
        "message": "the lab's node runs",
        "lastHeartbeatTime": stamp.strftime("%Y-%m-%dT%H:%M:%SZ"),
    }
    size = {"cpu": "64", "memory": "64Gi", "pods": "250"}
    status = {
        "conditions": [ready],
        "capacity": size,
        "allocatable": size,
        "addresses": [{"type": "InternalIP", "address": address(0, node.number, 1)}],
    }
    path = f"/api/v1/nodes/{node.name}"
    try:
        node.api.patch(f"{path}/status", {"status": status})
    except ApiError as error:
        if error.code != 404:
            raise
        # by these labels, which a kubelet gives too, the scheduler spreads Pods over nodes
        labels = {"kubernetes.io/hostname": node.name, "kubernetes.io/os": "linux"}
        meta = {"name": node.name, "labels": labels}
        node.api.create("/api/v1/nodes", {"apiVersion": "v1", "kind": "Node", "metadata": meta})
        node.api.patch(f"{path}/status", {"status": status})
    spec = {
        "holderIdentity": node.name,
        "leaseDurationSeconds": _LEASE_S,
        "renewTime": stamp.strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
    }
    leases = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases"
    try:
        node.api.patch(f"{leases}/{node.name}", {"spec": spec})
    except ApiError as error:
        if error.code != 404:
            raise
        meta = {"name": node.name, "namespace": "kube-node-lease"}
        node.api.create(
            leases, {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": meta, "spec": spec}
        )


if __name__ == "__main__":
    main()
