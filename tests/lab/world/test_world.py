"""The lab itself: it starts, it is closed, and it ends with whoever started it."""

from __future__ import annotations

import contextlib
import errno
import os
import select
import signal
import socket
import subprocess
import sys
import time

import psutil
import pytest

from lab import closed, wiring
from lab.errors import AlreadyRunning, ApiError, CommandError, LabError, ProgramError
from lab.program import Program
from lab.wiring import Links
from lab.world.credentials import node_user
from lab.world.world import World

HOLDFAST = [sys.executable, "-m", "cli.main"]
DEADLINE_S = 30.0

# A real control plane ----------------------------------------------------------------------------------------


def test_the_world_has_a_real_api_server_with_holdfasts_definitions(world):
    assert world.api.get("/version")["gitVersion"] == "v1.34.4"
    routes = world.api.get("/apis/networking.gke.io/v1/gkeiproutes")
    assert routes["kind"] == "GKEIPRouteList"


def test_kubectl_works_and_says_what_it_was_refused(world, kube_namespace):
    assert kube_namespace in world.kubectl("get", "namespaces", "-o", "name")
    with pytest.raises(CommandError, match="NotFound"):
        world.kubectl("get", "pod", "nobody", "-n", kube_namespace)


def test_policies_are_in_effect(world, kube_namespace):
    lease = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": "holdfast-mine"}}
    with pytest.raises(ApiError, match="holdfast-lease") as refused:
        world.api.create(f"/apis/coordination.k8s.io/v1/namespaces/{kube_namespace}/leases", lease)
    assert refused.value.code == 403


def test_a_token_is_of_its_service_account_and_may_no_more(world, kube_namespace):
    api = world.api.as_token(world.token(kube_namespace, "default"))
    review = {"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}
    answer = api.create("/apis/authentication.k8s.io/v1/selfsubjectreviews", review)
    assert answer["status"]["userInfo"]["username"] == f"system:serviceaccount:{kube_namespace}:default"
    with pytest.raises(ApiError) as refused:
        api.list("/api/v1/nodes")
    assert refused.value.reason == "Forbidden"


def test_a_node_gets_tokens_for_its_own_pods_only(world, kube_namespace):
    """As a real kubelet: the Node authorizer and NodeRestriction are on."""
    pods = f"/api/v1/namespaces/{kube_namespace}/pods"
    pod = {
        "metadata": {"name": "theirs"},
        "spec": {"nodeName": "elsewhere", "containers": [{"name": "a", "image": "a"}]},
    }
    uid = world.api.create(pods, pod)["metadata"]["uid"]
    node = world.api.as_token(world.control_plane.credentials.token(node_user("node-1")))
    bound = {"apiVersion": "v1", "kind": "Pod", "name": "theirs", "uid": uid}
    request = {"spec": {"audiences": [], "boundObjectRef": bound}}
    with pytest.raises(ApiError) as refused:
        node.create(f"/api/v1/namespaces/{kube_namespace}/serviceaccounts/default/token", request)
    assert refused.value.code == 403
    with pytest.raises(ApiError):
        node.patch(f"{pods}/theirs/status", {"status": {"phase": "Running"}})


def test_a_token_that_a_node_asks_for_is_bound_to_its_pod(world, kube_namespace):
    pods = f"/api/v1/namespaces/{kube_namespace}/pods"
    pod = {"metadata": {"name": "mine"}, "spec": {"nodeName": "node-1", "containers": [{"name": "a", "image": "a"}]}}
    uid = world.api.create(pods, pod)["metadata"]["uid"]
    node = world.api.as_token(world.control_plane.credentials.token(node_user("node-1")))
    world.api.wait(f"{pods}/mine", bool, DEADLINE_S)
    bound = {"apiVersion": "v1", "kind": "Pod", "name": "mine", "uid": uid}
    request = {"spec": {"audiences": [], "boundObjectRef": bound}}
    path = f"/api/v1/namespaces/{kube_namespace}/serviceaccounts/default/token"
    # the Node authorizer learns of a Pod by a watch of its own, a moment later: a kubelet tries again too
    token = _until_allowed(lambda: node.create(path, request))["status"]["token"]
    review = {"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}
    answer = world.api.as_token(token).create("/apis/authentication.k8s.io/v1/selfsubjectreviews", review)
    assert answer["status"]["userInfo"]["extra"]["authentication.kubernetes.io/pod-uid"] == [uid]


def _until_allowed(request):
    deadline = time.monotonic() + DEADLINE_S
    while True:
        try:
            return request()
        except ApiError as error:
            if error.code != 403 or time.monotonic() > deadline:
                raise


def test_waiting_is_told_of_what_appears_and_of_what_goes(world, kube_namespace):
    path = f"/api/v1/namespaces/{kube_namespace}/configmaps"
    world.api.create(path, {"metadata": {"name": "note"}, "data": {"a": "1"}})
    found = world.api.wait(f"{path}/note", lambda note: note and note["data"] == {"a": "1"}, DEADLINE_S)
    assert found["kind"] == "ConfigMap"
    world.api.delete(f"{path}/note")
    world.api.wait(f"{path}/note", lambda note: note is None, DEADLINE_S)


# Nodes and Pods ------------------------------------------------------------------------------------------------

DEPLOYMENT = """
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 3
  selector: {matchLabels: {app: web}}
  template:
    metadata:
      labels: {app: web}
      annotations:
        networking.gke.io/interfaces: |
          [{"interfaceName": "eth0", "network": "default"}, {"interfaceName": "eth1", "network": "red-network"}]
    spec:
      terminationGracePeriodSeconds: 2
      topologySpreadConstraints:
        - {maxSkew: 1, topologyKey: kubernetes.io/hostname, whenUnsatisfiable: DoNotSchedule,
           labelSelector: {matchLabels: {app: web}}}
      containers: [{name: web, image: web, ports: [{containerPort: 80}], readinessProbe: {httpGet: {port: 80}}}]
"""


def _is_ready(pod):
    return pod and any(c["type"] == "Ready" and c["status"] == "True" for c in pod["status"].get("conditions", []))


def _all_ready(count):
    return lambda pods: len(pods) == count and all(map(_is_ready, pods))


@pytest.fixture
def web(world, kube_namespace):
    """Three Ready Pods of a Deployment."""
    world.kubectl("apply", "-n", kube_namespace, "-f", "-", stdin=DEPLOYMENT)
    world.api.wait(f"/api/v1/namespaces/{kube_namespace}/pods", _all_ready(3), DEADLINE_S, "three Ready Pods")
    return world.pods(kube_namespace)


def test_a_deployments_pods_are_scheduled_and_ready_with_their_interfaces(world, web, kube_namespace):
    assert {pod.node for pod in web} == {"node-1", "node-2"}
    for pod in web:
        body = world.api.get(f"/api/v1/namespaces/{kube_namespace}/pods/{pod.name}")
        assert pod.uid == body["metadata"]["uid"]
        assert f"{body['status']['podIP']}/16" in pod.addresses("eth0")
        assert any(address.startswith("10.202.") for address in pod.addresses("eth1"))
        assert pod.run(["ip", "-brief", "link"]).count("eth") == 2
    one, other = web[0], next(pod for pod in web if pod.node != web[0].node)
    there = next(each for each in other.addresses("eth1") if each.startswith("10.202.")).removesuffix("/16")
    one.run([sys.executable, "-m", "lab.world.ping", there])


def test_an_app_fails_and_heals_as_told(world, web, kube_namespace):
    path = f"/api/v1/namespaces/{kube_namespace}/pods/{web[0].name}"
    web[0].fail_app()
    world.api.wait(path, lambda pod: not _is_ready(pod), DEADLINE_S)
    web[0].heal_app()
    world.api.wait(path, _is_ready, DEADLINE_S)


def test_a_killed_sidecar_is_started_again(world, web, kube_namespace):
    before = web[0].sidecar_pid
    web[0].kill_sidecar()
    path = f"/api/v1/namespaces/{kube_namespace}/pods/{web[0].name}"

    def restarted(pod):
        return any(each["restartCount"] == 1 for each in pod["status"]["initContainerStatuses"])

    world.api.wait(path, restarted, DEADLINE_S)
    assert web[0].sidecar_pid != before


def test_a_node_without_power_has_nothing_on_it_and_starts_its_pods_again(world, web, kube_namespace):
    pod = web[0]
    node = world.node(pod.node)
    sidecar = psutil.Process(pod.sidecar_pid)
    node.power_off()
    assert not sidecar.is_running() or sidecar.status() == psutil.STATUS_ZOMBIE
    assert not wiring.exists(pod.netns)
    assert node.pods() == []
    node.power_on()

    def again(body):
        return _is_ready(body) and all(each["restartCount"] == 1 for each in body["status"]["containerStatuses"])

    world.api.wait(f"/api/v1/namespaces/{kube_namespace}/pods/{pod.name}", again, DEADLINE_S)
    assert world.pod(kube_namespace, pod.name).uid == pod.uid


def test_a_pod_that_is_not_there_is_named(world):
    with pytest.raises(LabError, match="default/nobody"):
        world.pod("default", "nobody")


# Closed --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("netns", [None, "cp", "switch", "node-1", "client-blue-network"])
@pytest.mark.usefixtures("world")
def test_nothing_leads_out(netns):
    inside = ["nsenter", f"--net=/run/netns/{netns}"] if netns else []
    code = "import socket; socket.socket().connect(('34.123.10.1', 80))"
    tried = subprocess.run([*inside, sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert f"[Errno {errno.ENETUNREACH}]" in tried.stderr


def _answered(address: str, within_s: float) -> bool:
    """Whether an address answers the client on blue-network."""
    command = ["nsenter", "--net=/run/netns/client-blue-network", sys.executable, "-m", "lab.world.ping", address]
    return subprocess.run([*command, str(within_s)], check=False, timeout=30).returncode == 0


def test_two_networks_do_not_hear_each_other(world):
    with Links("switch") as switch:
        assert {f"sw{number}" for number in range(len(world.networks.names))} <= set(switch.names())
    assert _answered("10.201.1.1", 3)
    assert not _answered("10.202.1.1", 0.5)


def test_a_node_can_be_cut_from_a_network_and_join_it_again(world):
    node = world.node("node-1")
    node.cut("blue-network")
    assert not _answered("10.201.1.1", 1)
    node.join("blue-network")
    # the first one may wait behind the client's last ARP request, which is repeated after a second
    assert _answered("10.201.1.1", 5)


def test_a_second_world_in_one_closed_world_says_so(world, tmp_path):
    with pytest.raises(AlreadyRunning, match="holdfast lab run"), World(binaries=world.binaries, state=tmp_path):
        pass
    assert wiring.exists("cp"), "the first one stays"


# Its end -------------------------------------------------------------------------------------------------------


@pytest.fixture
def outside() -> dict[str, str]:
    """The environment of somebody who is not in a closed world: these tests make worlds within this one."""
    return {name: value for name, value in os.environ.items() if name != closed.ENV_CLOSED}


def _kill_and_see_all_end(outermost: subprocess.Popen[str]) -> int:
    with contextlib.ExitStack() as stack:
        ends = []
        for process in psutil.Process(outermost.pid).children(recursive=True):
            ends.append(os.pidfd_open(process.pid))
            stack.callback(os.close, ends[-1])
        outermost.send_signal(signal.SIGKILL)
        outermost.wait(DEADLINE_S)
        deadline = time.monotonic() + DEADLINE_S
        for end in ends:
            left_s = max(deadline - time.monotonic(), 0)
            assert select.select([end], [], [], left_s)[0], "a process outlived the outermost one"
        return len(ends)


def test_nothing_outlives_the_outermost_process(outside):
    script = "trap '' TERM HUP INT; setsid sleep 1000 & (sleep 1000 &) ; sleep 1000 & echo ready; wait"
    with subprocess.Popen(
        [*HOLDFAST, "lab", "run", "--", "sh", "-c", script], stdout=subprocess.PIPE, text=True, env=outside
    ) as lab:
        assert lab.stdout is not None
        assert lab.stdout.readline() == "ready\n"
        assert _kill_and_see_all_end(lab) >= 5, "init, shell and three sleeps"


def test_run_gives_the_commands_exit_code_and_forwards_a_signal(outside):
    run = [*HOLDFAST, "lab", "run", "--", "sh", "-c"]
    assert subprocess.run([*run, "exit 7"], check=False, env=outside).returncode == 7
    script = "trap 'echo told; exit 9' TERM; echo ready; while :; do read -r _ || sleep 0.01; done"
    with subprocess.Popen(
        [*run, script], stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True, env=outside
    ) as lab:
        assert lab.stdout is not None
        assert lab.stdout.readline() == "ready\n"
        lab.terminate()
        assert lab.stdout.read() == "told\n"
        assert lab.wait(DEADLINE_S) == 9


def test_a_lab_is_worked_in_from_another_terminal_and_starts_once(outside):
    name = ["--name", "test"]
    up = [*HOLDFAST, "lab", "up", *name, "--nodes", "1", "--network", "green"]
    with subprocess.Popen(up, stdout=subprocess.PIPE, text=True, env=outside) as lab:
        assert lab.stdout is not None
        said = next(line for line in lab.stdout if "The lab is up" in line)
        assert "networks default, green" in said
        asked = [*HOLDFAST, "lab", "exec", *name, "--", "kubectl", "get", "--raw", "/readyz"]
        assert subprocess.check_output(asked, text=True, env=outside) == "ok"
        again = subprocess.run(up, check=False, capture_output=True, text=True, env=outside)
        assert again.returncode == 2
        assert "is already running" in again.stderr
        assert _kill_and_see_all_end(lab) >= 6, "at least the control plane"
    gone = subprocess.run(asked, check=False, capture_output=True, text=True, env=outside)
    assert "holdfast lab up --name test" in gone.stderr


def test_neither_root_nor_user_namespaces(outside):
    lab = " ".join([*HOLDFAST, "lab", "run", "--", "true"])
    bare = f"echo 0 > /proc/sys/user/max_user_namespaces; exec setpriv --bounding-set=-all --inh-caps=-all {lab}"
    tried = subprocess.run(
        ["unshare", "--user", "--map-root-user", "sh", "-c", bare],
        check=False,
        capture_output=True,
        text=True,
        env=outside,
    )
    assert tried.returncode == 2
    assert "the lab needs root or unprivileged user namespaces" in tried.stderr
    assert "Traceback" not in tried.stderr


# Its components ------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("world")
def test_a_component_that_ends_says_why(tmp_path):
    program = Program("thing", ["sh", "-c", "echo no such thing >&2; exit 3"], tmp_path / "log", "cp")
    program.start()
    program.wait(DEADLINE_S)
    with pytest.raises(ProgramError, match=r"(?s)thing ended with 3.*no such thing"):
        program.check()


def test_a_taken_port_is_named(world, tmp_path):
    argv = [*world.control_plane.etcd.argv, f"--data-dir={tmp_path / 'etcd'}"]
    program = Program("etcd", argv, tmp_path / "etcd.log", "cp")
    program.start()
    program.wait(DEADLINE_S)
    with pytest.raises(ProgramError, match="Its port is taken"):
        program.check()


def test_the_api_server_is_killed_and_comes_back_with_all_it_knew(world, kube_namespace):
    seen = world.api.watch("/api/v1/namespaces", timeout_s=DEADLINE_S)
    names = {body["metadata"]["name"] for _, body in (next(seen) for _ in range(3))}
    assert names
    world.control_plane.api_server.kill()
    world.control_plane.api_server.start()
    world.control_plane.wait_ready().close()
    assert world.api.get(f"/api/v1/namespaces/{kube_namespace}")["status"]["phase"] == "Active"
    world.api.create("/api/v1/namespaces", {"metadata": {"name": f"{kube_namespace}-after"}})
    assert any(body["metadata"]["name"] == f"{kube_namespace}-after" for _, body in seen), "the watch goes on"
    seen.close()
    world.api.delete(f"/api/v1/namespaces/{kube_namespace}-after")


def test_a_paused_api_server_answers_when_it_is_resumed(world):
    world.control_plane.api_server.pause()
    try:
        with socket.create_connection(("10.200.0.1", 6443), DEADLINE_S) as connection:
            connection.settimeout(0.05)
            connection.sendall(b"\x16\x03\x01")
            with pytest.raises(TimeoutError):
                connection.recv(1)
    finally:
        world.control_plane.api_server.resume()
    assert world.api.get("/version")["major"] == "1"
