"""The real nodes themselves: they run Pods, lead to the API server by its Service, and leave nothing behind."""

from __future__ import annotations

import contextlib
import os
import select
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from lab import closed
from lab.api_client import is_ready
from lab.errors import CommandError
from lab.real import cgroups, images
from tests.lab.steps import NICS, SOON_S

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lab.real.world import RealWorld

pytestmark = pytest.mark.lab

LONG_S = 2 * SOON_S
HOLDFAST = [sys.executable, "-m", "cli.main"]
_ASKS = """
import socket, ssl, pathlib, os
where = (os.environ["KUBERNETES_SERVICE_HOST"], int(os.environ["KUBERNETES_SERVICE_PORT"]))
folder = pathlib.Path("/var/run/secrets/kubernetes.io/serviceaccount")
context = ssl.create_default_context(cafile=folder / "ca.crt")
with context.wrap_socket(socket.create_connection(where, 5), server_hostname=where[0]) as server:
    token = (folder / "token").read_text()
    server.sendall(f"GET /version HTTP/1.1\\r\\nHost: x\\r\\nAuthorization: Bearer {token}\\r\\n\\r\\n".encode())
    print(where, server.recv(4096).decode())
"""


def pod(name: str, node: str) -> dict:
    probe = {"httpGet": {"path": "/healthz", "port": 8080}, "periodSeconds": 1}
    container = {"name": "app", "image": images.APP, "readinessProbe": probe}
    spec = {"nodeName": node, "terminationGracePeriodSeconds": 2, "containers": [container]}
    return {"metadata": {"name": name, "annotations": {"networking.gke.io/interfaces": NICS}}, "spec": spec}


@pytest.fixture
def space(world: RealWorld, request: pytest.FixtureRequest) -> Iterator[str]:
    name = request.node.name.replace("_", "-")[:50].strip("-")
    world.create_namespace(name)
    yield name
    world.api.delete(f"/api/v1/namespaces/{name}")


@pytest.fixture
def pods(world: RealWorld, space: str) -> list[str]:
    """A Ready Pod on each node."""
    collection = f"/api/v1/namespaces/{space}/pods"
    for node in world.nodes:
        world.api.create(collection, pod(f"on-{node}", node))
    for node in world.nodes:
        world.api.wait(f"{collection}/on-{node}", is_ready, LONG_S)
    return [f"on-{node}" for node in world.nodes]


def test_nodes_are_real_kubelets(world):
    for node in world.api.list("/api/v1/nodes"):
        assert is_ready(node)
        assert node["status"]["nodeInfo"]["kubeletVersion"] == "v1.34.4"
        assert node["status"]["nodeInfo"]["containerRuntimeVersion"].startswith("containerd://")


def test_pods_of_both_nodes_are_on_both_networks_and_hear_each_other(world, space, pods):
    one, two = (world.pod(space, name) for name in pods)
    assert {one.node, two.node} == {"node-1", "node-2"}
    for interface, network in (("eth0", "10.200"), ("eth1", "10.201")):
        (theirs,) = {each for each in two.addresses(interface) if each.startswith(network)}
        said = world.kubectl("exec", "-n", space, one.name, "--", "python3", "-c", _connect(theirs.partition("/")[0]))
        assert f"Hello from {two.name}" in said


def _connect(address: str) -> str:
    return f"import urllib.request as u; print(u.urlopen('http://{address}:8080/', timeout=5).read().decode())"


def test_a_pod_reaches_the_api_server_by_its_service(world, space, pods):
    said = world.kubectl("exec", "-n", space, pods[0], "--", "python3", "-c", _ASKS)
    assert "('10.255.0.1', 443)" in said
    assert "200 OK" in said


def test_nothing_leads_out(world, space, pods):
    with pytest.raises(CommandError, match=r"unreachable|timed out"):
        world.kubectl("exec", "-n", space, pods[0], "--", "python3", "-c", _connect("192.0.2.1"))


def test_an_app_fails_and_heals(world, space, pods):
    handle, path = world.pod(space, pods[0]), f"/api/v1/namespaces/{space}/pods/{pods[0]}"
    handle.fail_app()
    world.api.wait(path, lambda body: not is_ready(body), LONG_S)
    handle.heal_app()
    world.api.wait(path, is_ready, LONG_S)


def test_a_pod_that_ends_takes_its_network_namespace_along(world, space, pods):
    named = Path("/run/netns", world.pod(space, pods[0]).netns)
    assert named.exists()
    world.kubectl("delete", "pod", "-n", space, pods[0])
    world.api.wait(f"/api/v1/namespaces/{space}/pods/{pods[0]}", lambda body: body is None, LONG_S)
    assert not named.exists()


def test_a_kubelet_leaves_the_machines_settings_alone(world, settings_before):
    """It sets some that are the whole machine's; these nodes have their own."""
    inside = world.node("node-1").within("cat", "/proc/sys/kernel/panic", "/proc/sys/vm/overcommit_memory")
    assert subprocess.run(inside, capture_output=True, text=True, check=True).stdout == "101"
    assert {path: path.read_text() for path in settings_before} == settings_before


def test_a_lab_by_hand_and_that_a_killed_one_leaves_nothing_that_the_next_one_does_not_remove(world):
    """A second lab in a closed world of its own; it is killed while its nodes run."""
    assert world
    before = _node_cgroups()
    outer = {key: value for key, value in os.environ.items() if key != closed.ENV_CLOSED}
    up = [*HOLDFAST, "lab", "up", "--nodes", "real", "--name", "second"]
    with subprocess.Popen(up, env=outer, stdout=subprocess.PIPE, text=True) as lab:
        try:
            assert select.select([lab.stdout], [], [], LONG_S)[0], "the second lab did not start"
            assert "The lab is up" in lab.stdout.readline()
            asked = [*HOLDFAST, "lab", "exec", "--name", "second", "--", "kubectl", "get", "nodes", "-o", "wide"]
            said = subprocess.run(asked, env=outer, capture_output=True, text=True, check=True).stdout
            assert said.count("containerd://") == 2
            left = _node_cgroups() - before
            assert {each.name[-6:] for each in left} == {"node-1", "node-2"}
        finally:
            lab.kill()
    _until_empty(left)
    cgroups.sweep()
    assert _node_cgroups() == before


def _node_cgroups() -> set[Path]:
    return {each for hierarchy in cgroups.hierarchies() for each in hierarchy.glob("holdfast-node-*")}


def _until_empty(folders: set[Path]) -> None:
    """Wait until the kernel has ended all processes in them; it tells nobody, and so is asked."""
    deadline = time.monotonic() + SOON_S
    while any(_processes(each) for each in folders):
        assert time.monotonic() < deadline, "a process of the killed lab goes on"


def _processes(folder: Path) -> list[str]:
    found = []
    for procs in folder.rglob("cgroup.procs"):
        with contextlib.suppress(OSError):
            found += procs.read_text().split()
    return found
