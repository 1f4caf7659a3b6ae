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
from pathlib import Path

import psutil
import pytest

from lab import closed, links
from lab.credentials import node_user
from lab.errors import AlreadyRunning, ApiError, CommandError, ServiceError
from lab.links import Links
from lab.service import Service
from lab.world import World

HOLDFAST = str(Path(sys.executable).with_name("holdfast"))
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


def test_waiting_is_told_of_what_appears_and_of_what_goes(world, kube_namespace):
    path = f"/api/v1/namespaces/{kube_namespace}/configmaps"
    world.api.create(path, {"metadata": {"name": "note"}, "data": {"a": "1"}})
    found = world.api.wait(f"{path}/note", lambda note: note and note["data"] == {"a": "1"}, DEADLINE_S)
    assert found["kind"] == "ConfigMap"
    world.api.delete(f"{path}/note")
    world.api.wait(f"{path}/note", lambda note: note is None, DEADLINE_S)


# Closed --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("netns", [None, "cp", "switch", "node-1", "client-blue-network"])
@pytest.mark.usefixtures("world")
def test_nothing_leads_out(netns):
    inside = ["nsenter", f"--net=/run/netns/{netns}"] if netns else []
    code = "import socket; socket.socket().connect(('34.123.10.1', 80))"
    tried = subprocess.run([*inside, sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert f"[Errno {errno.ENETUNREACH}]" in tried.stderr


def test_two_networks_do_not_hear_each_other(world):
    with Links("switch") as switch:
        assert {f"sw{number}" for number in range(len(world.networks.names))} <= set(switch.names())
    reached = ["ip", "netns", "exec", "client-blue-network", "ping", "-c1", "-W2", "10.201.1.1"]
    subprocess.run(reached, check=True, capture_output=True)
    other = subprocess.run([*reached[:-1], "10.202.1.1"], check=False, capture_output=True, text=True)
    assert other.returncode != 0
    assert "unreachable" in other.stderr


def test_a_node_can_be_cut_from_a_network_and_join_it_again(world):
    node = world.node("node-1")
    ping = ["ip", "netns", "exec", "client-blue-network", "ping", "-c1", "-W1", "10.201.1.1"]
    node.cut("blue-network")
    assert subprocess.run(ping, check=False, capture_output=True).returncode == 1
    node.join("blue-network")
    subprocess.run(ping, check=True, capture_output=True)


def test_a_second_world_in_one_closed_world_says_so(world, tmp_path):
    with pytest.raises(AlreadyRunning, match="holdfast lab run"), World(binaries=world.binaries, state=tmp_path):
        pass
    assert links.exists("cp"), "the first one stays"


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
    script = "setsid sleep 1000 & (sleep 1000 &) ; trap '' TERM HUP INT; echo ready; sleep 1000"
    with subprocess.Popen(
        [HOLDFAST, "lab", "run", "--", "sh", "-c", script], stdout=subprocess.PIPE, text=True, env=outside
    ) as lab:
        assert lab.stdout is not None
        assert lab.stdout.readline() == "ready\n"
        assert _kill_and_see_all_end(lab) >= 5


def test_run_gives_the_commands_exit_code_and_forwards_a_signal(outside):
    run = [HOLDFAST, "lab", "run", "--", "sh", "-c"]
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
    up = [HOLDFAST, "lab", "up", *name, "--nodes", "1", "--network", "green"]
    with subprocess.Popen(up, stdout=subprocess.PIPE, text=True, env=outside) as lab:
        assert lab.stdout is not None
        said = next(line for line in lab.stdout if "The lab is up" in line)
        assert "networks default, green" in said
        asked = [HOLDFAST, "lab", "exec", *name, "--", "kubectl", "get", "--raw", "/readyz"]
        assert subprocess.check_output(asked, text=True, env=outside) == "ok"
        again = subprocess.run(up, check=False, capture_output=True, text=True, env=outside)
        assert again.returncode == 2
        assert "runs already" in again.stderr
        assert _kill_and_see_all_end(lab) >= 6, "at least the control plane"
    gone = subprocess.run(asked, check=False, capture_output=True, text=True, env=outside)
    assert "holdfast lab up --name test" in gone.stderr


# Its components ------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("world")
def test_a_component_that_ends_says_why(tmp_path):
    service = Service("thing", ["sh", "-c", "echo no such thing >&2; exit 3"], tmp_path / "log", "cp")
    service.start()
    service.wait(DEADLINE_S)
    with pytest.raises(ServiceError, match=r"(?s)thing ended with 3.*no such thing"):
        service.check()


def test_a_taken_port_is_named(world, tmp_path):
    argv = [*world.control_plane.etcd.argv, f"--data-dir={tmp_path / 'etcd'}"]
    service = Service("etcd", argv, tmp_path / "etcd.log", "cp")
    service.start()
    service.wait(DEADLINE_S)
    with pytest.raises(ServiceError, match="Its port is taken"):
        service.check()


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
