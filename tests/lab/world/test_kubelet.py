"""The lab's nodes: they must do to a Pod what a kubelet does, in its order, with the real sidecar beside the app."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from lab.api_client import is_ready
from lab.errors import LabError
from lab.wiring import exists
from sidecar.cluster.downward import annotation

pytestmark = pytest.mark.lab

_S = 20.0
INTERFACES = "networking.gke.io/interfaces"
TWO = '[{"interfaceName":"eth0","network":"default"},{"interfaceName":"eth1","network":"blue-network"}]'


def create(
    world,
    namespace: str,
    name: str = "one",
    notes: dict[str, str] | None = None,
    labels: dict[str, str] | None = None,
    **spec: Any,
) -> str:
    body = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "annotations": notes or {}, "labels": labels or {}},
        "spec": {"containers": [{"name": "app", "image": "app"}], **spec},
    }
    world.api.create(f"/api/v1/namespaces/{namespace}/pods", body)
    return f"/api/v1/namespaces/{namespace}/pods/{name}"


def condition(pod: dict[str, Any] | None, kind: str = "Ready") -> str:
    found = [c["status"] for c in (pod or {}).get("status", {}).get("conditions", []) if c["type"] == kind]
    return found[0] if found else ""


def wait_ready(world, path: str, value: str = "True") -> dict[str, Any]:
    return world.api.wait(path, lambda pod: condition(pod) == value, _S, f"{path} Ready={value}")


def capabilities(pid: int) -> dict[str, int]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {line.split(":")[0]: int(line.split()[1], 16) for line in lines if line.startswith("Cap")}


def test_a_pod_becomes_ready_with_its_addresses_and_its_sidecar(world, kube_namespace):
    began = time.monotonic()
    path = create(world, kube_namespace, notes={INTERFACES: TWO})
    pod = wait_ready(world, path)
    took_s = time.monotonic() - began
    handle = world.pod(kube_namespace, "one")
    assert pod["status"]["phase"] == "Running"
    assert pod["status"]["podIP"] + "/16" in handle.addresses("eth0")
    assert any(each.startswith("10.201.") for each in handle.addresses("eth1"))
    assert {c["type"] for c in pod["status"]["conditions"]} >= {"PodScheduled", "Initialized", "ContainersReady"}
    (sidecar,) = pod["status"]["initContainerStatuses"]
    assert sidecar["started"]
    assert took_s < 3, "bound to Ready is to take well under a second on an idle machine"


def test_the_sidecar_has_two_capabilities_and_a_bound_token_and_nothing_else(world, kube_namespace):
    wait_ready(world, create(world, kube_namespace))
    handle = world.pod(kube_namespace, "one")
    pid = handle.sidecar_pid
    exe = _until(
        lambda: (c := Path(f"/proc/{pid}/cmdline").read_text().split("\0")) and c[-3:-2] == ["sidecar.cli"] and c
    )
    assert exe[-2:] == ["run", ""]
    admin_and_raw = (1 << 12) | (1 << 13)
    held = capabilities(pid)
    assert (held["CapBnd"], held["CapPrm"], held["CapEff"]) == (admin_and_raw,) * 3
    assert (held["CapInh"], held["CapAmb"]) == (0, 0)
    assert "NoNewPrivs:\t1" in Path(f"/proc/{pid}/status").read_text()
    volume = Path(f"/proc/{pid}/root/run/secrets/holdfast.dev")
    assert (volume / "namespace").read_text() == kube_namespace
    token = (volume / "token").read_text()
    review = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": {"token": token}}
    user = world.api.create("/apis/authentication.k8s.io/v1/tokenreviews", review)["status"]["user"]
    assert user["extra"]["authentication.kubernetes.io/pod-uid"] == [handle.uid]
    environment = Path(f"/proc/{pid}/environ").read_text().strip("\0").split("\0")
    assert {each.split("=")[0] for each in environment} == {
        *("PATH", "POD_NAME", "POD_NAMESPACE", "POD_UID", "KUBERNETES_SERVICE_HOST", "KUBERNETES_SERVICE_PORT"),
        *("HOLDFAST_SOURCE", "HOLDFAST_DIRECTORY"),
    }
    assert {"HOLDFAST_SOURCE=downward", f"POD_UID={handle.uid}"} <= set(environment)
    mounts = Path(f"/proc/{pid}/mounts").read_text().splitlines()
    assert any(each.split()[1] == "/proc/sys" and each.split()[3].startswith("ro") for each in mounts)


def test_the_sidecars_volume_has_the_annotations_as_they_are(world, kube_namespace):
    path = create(world, kube_namespace, notes={"said": 'of "old"\nand new'})
    wait_ready(world, path)
    pid = world.pod(kube_namespace, "one").sidecar_pid
    file = Path(f"/proc/{pid}/root/run/secrets/holdfast.dev/annotations")
    assert annotation(file.read_text(), "said") == 'of "old"\nand new'
    world.api.patch(path, {"metadata": {"annotations": {"said": None, "more": "ä\\"}}})
    _until(lambda: annotation(file.read_text(), "more") == "ä\\")
    assert annotation(file.read_text(), "said") is None


def test_readiness_follows_the_app_at_once(world, kube_namespace):
    path = create(world, kube_namespace)
    wait_ready(world, path)
    handle = world.pod(kube_namespace, "one")
    handle.fail_app()
    assert condition(world.api.get(path)) == "False"
    handle.heal_app()
    assert condition(world.api.get(path)) == "True"


def test_a_probe_that_does_not_answer_keeps_a_pod_unready(world, kube_namespace):
    probe = {"httpGet": {"path": "/", "port": 8080}, "periodSeconds": 1, "failureThreshold": 1}
    container = {"name": "app", "image": "app", "ports": [{"containerPort": 8080}], "readinessProbe": probe}
    path = create(world, kube_namespace, containers=[container])
    wait_ready(world, path)
    handle = world.pod(kube_namespace, "one")
    handle.link("eth0", up=False)
    wait_ready(world, path, "False")
    handle.link("eth0", up=True)
    wait_ready(world, path)


def test_a_dead_sidecar_is_started_again_at_once_and_counted(world, kube_namespace):
    path = create(world, kube_namespace)
    wait_ready(world, path)
    handle = world.pod(kube_namespace, "one")
    before = handle.sidecar_pid
    handle.kill_sidecar()
    pod = world.api.wait(path, lambda p: p["status"]["initContainerStatuses"][0]["restartCount"] == 1, _S)
    (status,) = pod["status"]["initContainerStatuses"]
    assert status["lastState"]["terminated"]["exitCode"] == 128 + signal.SIGKILL
    assert status["state"].keys() == {"running"}
    assert handle.sidecar_pid != before


def test_a_dead_app_is_started_again_then_backs_off(world, kube_namespace):
    path = create(world, kube_namespace)
    wait_ready(world, path)
    node = world.node(world.pod(kube_namespace, "one").node)
    for restarts in (1, 2):
        (pid,) = node.pod(kube_namespace, "one")["app_pids"]
        os.kill(pid, signal.SIGKILL)
        pod = world.api.wait(path, lambda p, n=restarts: p["status"]["containerStatuses"][0]["restartCount"] == n, _S)
    state = pod["status"]["containerStatuses"][0]["state"]
    assert state["waiting"]["reason"] == "CrashLoopBackOff"
    assert condition(pod) == "False"


def test_deletion_ends_the_app_first_and_leaves_nothing(world, kube_namespace):
    path = create(world, kube_namespace)
    wait_ready(world, path)
    handle = world.pod(kube_namespace, "one")
    record = world.node(handle.node).pod(kube_namespace, "one")
    os.kill(record["sidecar_pid"], signal.SIGSTOP)  # it cannot end before its time is up
    world.api.delete(path, {"gracePeriodSeconds": 3})
    _until(lambda: not Path(f"/proc/{record['app_pids'][0]}").exists())
    assert Path(f"/proc/{record['sidecar_pid']}").exists()
    assert condition(world.api.get(path)) == "True", "a kubelet leaves Ready as it is until the containers have ended"
    world.api.wait(path, lambda pod: pod is None, _S, "the Pod to be gone")
    assert not Path(f"/proc/{record['sidecar_pid']}").exists()
    assert not exists(handle.netns)
    assert world.node(handle.node).pod(kube_namespace, "one") is None


def test_a_pod_of_the_same_name_is_another(world, kube_namespace):
    path = create(world, kube_namespace)
    first = wait_ready(world, path)["metadata"]["uid"]
    world.api.delete(path, {"gracePeriodSeconds": 0})
    world.api.wait(path, lambda pod: pod is None, _S)
    create(world, kube_namespace)
    second = wait_ready(world, path)["metadata"]["uid"]
    assert second != first
    _until(lambda: [pod.uid for pod in world.pods(kube_namespace)] == [second])
    assert world.pod(kube_namespace, "one").addresses("eth0")
    assert world.two_holders() == 0


def test_a_third_pod_of_one_name_waits_for_the_second_that_waits_for_the_first(world, kube_namespace):
    path = create(world, kube_namespace, nodeName="node-1")
    wait_ready(world, path)
    first = world.pod(kube_namespace, "one")
    paused = first.sidecar_pid
    first.pause_sidecar()  # so that the first takes its grace period to end
    for _ in range(2):
        world.api.delete(path, {"gracePeriodSeconds": 0})
        create(world, kube_namespace, nodeName="node-1")
    pod = wait_ready(world, path)
    assert not Path(f"/proc/{paused}").exists()
    assert world.pod(kube_namespace, "one").uid == pod["metadata"]["uid"]


def test_of_two_pods_with_one_name_on_two_nodes_the_one_is_meant_that_the_api_server_knows(world, kube_namespace):
    path = create(world, kube_namespace, nodeName="node-1")
    wait_ready(world, path)
    first = world.pod(kube_namespace, "one")
    first.pause_sidecar()
    for grace_s in (60, 0):  # its node takes its time over it, and the API server forgets it at once
        world.api.delete(path, {"gracePeriodSeconds": grace_s})
    create(world, kube_namespace, nodeName="node-2")
    pod = wait_ready(world, path)
    assert first.uid in [each.uid for each in world.pods(kube_namespace)]
    assert world.pod(kube_namespace, "one").uid == pod["metadata"]["uid"]
    first.resume_sidecar()


def test_a_pod_on_a_network_that_is_not_there_waits_and_says_why(world, kube_namespace):
    path = create(world, kube_namespace, notes={INTERFACES: '[{"interfaceName": "eth1", "network": "green"}]'})

    def why(pod: dict[str, Any] | None) -> str:
        statuses = (pod or {}).get("status", {}).get("containerStatuses") or [{}]
        return statuses[0].get("state", {}).get("waiting", {}).get("message", "")

    pod = world.api.wait(path, lambda p: "green" in why(p), _S)
    assert pod["status"]["phase"] == "Pending"
    assert pod["status"]["containerStatuses"][0]["state"]["waiting"]["reason"] == "ContainerCreating"
    world.api.delete(path)
    world.api.wait(path, lambda p: p is None, _S)


def test_a_pod_without_a_sidecar(world, kube_namespace):
    pod = wait_ready(world, create(world, kube_namespace, labels={"holdfast.dev/inject": "false"}))
    assert "initContainerStatuses" not in pod["status"]
    with pytest.raises(LabError, match="no sidecar"):
        _ = world.pod(kube_namespace, "one").sidecar_pid


def test_a_node_that_lost_its_power_starts_its_pods_again(world, kube_namespace):
    path = create(world, kube_namespace)
    wait_ready(world, path)
    handle = world.pod(kube_namespace, "one")
    node = world.node(handle.node)
    node.power_off()
    assert not exists(handle.netns)
    node.power_on()
    pod = world.api.wait(path, lambda p: p["status"]["containerStatuses"][0]["restartCount"] == 1 and p, _S)
    wait_ready(world, path)
    assert pod["metadata"]["uid"] == handle.uid == world.pod(kube_namespace, "one").uid
    assert world.two_holders() == 0


def test_a_node_that_was_called_unknown_writes_its_status_again(world):
    """As the node lifecycle controller calls it 40 s after its last sign of life."""
    path, node = "/api/v1/nodes/node-2", world.node("node-2").program
    node.pause()
    try:
        unknown = {"type": "Ready", "status": "Unknown", "reason": "NodeStatusUnknown"}
        status = {"status": {"conditions": [unknown]}}
        world.api.patch(f"{path}/status", status, "application/strategic-merge-patch+json")
    finally:
        node.resume()
    world.api.wait(path, is_ready, _S, "the node to be Ready again")


def test_deployments_run_with_every_pod_on_the_wire(world, kube_namespace):
    body = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "web"},
        "spec": {
            "replicas": 4,
            "selector": {"matchLabels": {"a": "b"}},
            "template": {
                "metadata": {"labels": {"a": "b"}},
                "spec": {"containers": [{"name": "app", "image": "app"}]},
            },
        },
    }
    path = f"/apis/apps/v1/namespaces/{kube_namespace}/deployments"
    world.api.create(path, body)
    world.api.wait(f"{path}/web", lambda d: (d or {}).get("status", {}).get("readyReplicas") == 4, _S)
    pods = world.pods(kube_namespace)
    addresses = {each.split("/")[0] for pod in pods for each in pod.addresses("eth0") if each.startswith("10.200.")}
    assert len(addresses) == len(pods) == 4
    for address in addresses:
        inside = ["nsenter", "--net=/run/netns/client-default", "--"]
        subprocess.run([*inside, sys.executable, "-m", "lab.world.ping", address], check=True)


def test_what_a_node_is_not_told_to_do_is_refused(world, kube_namespace):
    wait_ready(world, create(world, kube_namespace))
    node = world.node(world.pod(kube_namespace, "one").node)
    with pytest.raises(LabError, match="fail-app or heal-app"):
        node.ask({"do": "dance", "pod": f"{kube_namespace}/one"})
    with pytest.raises(LabError, match="does not run"):
        node.ask({"do": "fail-app", "pod": f"{kube_namespace}/two"})


def _until(what: Any) -> Any:
    deadline = time.monotonic() + _S
    while not (found := what()):
        assert time.monotonic() < deadline
        os.sched_yield()
    return found
