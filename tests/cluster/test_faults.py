"""Faults of Pods and of the control plane, with two Pods on two real nodes; the witness judges each."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from lab.api_client import is_ready
from lab.real import cgroups
from lab.real.images import APP
from tests.cluster.injected import LONG_S, inject
from tests.lab.steps import NICS, steps_in

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lab.real.world import RealWorld
    from tests.lab.steps import Body, Steps

pytestmark = pytest.mark.lab

KUBELET_S = 180.0
"""A kubelet asks a lost API server again after 0.8 s, then twice as long each time up to 30 s, and up to twice that by
chance (client-go tools/cache/reflector.go); of six outages of 12 s its files followed after 22 to 92 s."""


@pytest.fixture
def steps(world: RealWorld, request: pytest.FixtureRequest) -> Iterator[Steps]:
    """A namespace with a Gateway and a route; afterwards no instant had two holders, and nothing is left."""
    space = request.node.name.replace("_", "-")[5:45].strip("-")
    world.create_namespace(space)
    with steps_in(world, space) as steps:
        steps.gateway()
        steps.route()
        yield steps
    world.api.delete(f"/api/v1/namespaces/{space}")


@pytest.fixture
def two(steps: Steps) -> Steps:
    """A Pod on each node, both Ready; the newer one, `b` on node-2, holds the address."""
    create(steps, "a", "node-1")
    create(steps, "b", "node-2")
    ready(steps, "a", "b")
    held(steps, "b")
    return steps


def create(steps: Steps, name: str, node: str, **spec: Any) -> None:
    steps.tick()
    probe = {"httpGet": {"path": "/healthz", "port": 8080}, "periodSeconds": 1, "failureThreshold": 1}
    app = {"name": "app", "image": APP, "readinessProbe": probe}
    whole = inject({"nodeName": node, "terminationGracePeriodSeconds": 5, "containers": [app], **spec})
    meta = {"name": name, "labels": {"app": "web"}, "annotations": {"networking.gke.io/interfaces": NICS}}
    steps.api.create(steps.at("pods"), {"metadata": meta, "spec": whole})


def ready(steps: Steps, *names: str) -> None:
    steps.until(f"{names} to be Ready", lambda: all(is_ready(steps.pod_named(name)) for name in names), LONG_S)


def held(steps: Steps, who: str):
    return steps.held_by(who, within_s=LONG_S)


def test_readiness_is_lost_and_comes_again(two):
    holder = held(two, "b")
    holder.fail_app()
    held(two, "a")
    holder.heal_app()
    held(two, "b")


def test_the_sidecar_is_stopped_and_goes_on(two):
    holder = held(two, "b")
    mark = two.world.witness.mark()
    holder.pause_sidecar()
    successor = held(two, "a")
    two.announced(successor, two.addresses[0], mark)
    holder.resume_sidecar()
    held(two, "b")


def test_the_sidecar_runs_out_of_memory(two):
    """It is killed by the kernel, for its container's limit, and goes on where it was."""
    holder = held(two, "b")
    killed, mark = holder.sidecar_pid, two.world.witness.mark()
    with out_of_memory(killed):
        two.until("the sidecar to be started again", lambda: oom_killed(two.pod_named("b")), LONG_S)
    ready(two, "b")
    two.announced_again(holder, two.addresses[0], mark)
    again = held(two, "b")
    assert again.uid == holder.uid
    assert again.sidecar_pid != killed
    assert two.removals(two.addresses[0], mark) == []


HOG = """
import os, sys
with open(sys.argv[1], "w") as file:
    file.write(str(os.getpid()))
taken = bytearray(48 << 20)
for at in range(0, len(taken), 4096):
    taken[at] = 1
input()
"""
"""Takes most of what a control group may have; the kernel ends the container for it, whose oom_score_adj is higher."""


@contextlib.contextmanager
def out_of_memory(pid: int) -> Iterator[None]:
    """Another process takes the memory of a container, whose own one the kernel ends."""
    lines = Path(f"/proc/{pid}/cgroup").read_text().splitlines()
    (own,) = (path for _, kinds, path in (line.split(":", 2) for line in lines) if kinds == "memory")
    entry = f"{cgroups.ROOT / 'memory'}{own}/cgroup.procs"
    with subprocess.Popen([sys.executable, "-I", "-S", "-c", HOG, entry], stdin=subprocess.PIPE) as hog:
        yield
        hog.communicate(b"\n")


def oom_killed(pod: Body) -> bool:
    said = pod.get("status", {}).get("initContainerStatuses", [])
    return any(each.get("lastState", {}).get("terminated", {}).get("reason") == "OOMKilled" for each in said)


def test_the_app_ends_again_and_again(two):
    """Started anew at once the first time; then the other Pod has the address while the kubelet waits to do it."""
    end_app(two, "b")
    two.until("the app to be started again", lambda: restarts(two.pod_named("b")) == 1, LONG_S)
    ready(two, "b")
    held(two, "b")
    end_app(two, "b")
    held(two, "a")
    two.until("the app to be started once more", lambda: restarts(two.pod_named("b")) == 2, LONG_S)
    held(two, "b")


def end_app(steps: Steps, name: str) -> None:
    (pid,) = steps.world.node(steps.pod_named(name)["spec"]["nodeName"]).pod(steps.space, name)["app_pids"]
    os.kill(pid, signal.SIGKILL)


def restarts(pod: Body) -> int:
    return int(pod["status"]["containerStatuses"][0]["restartCount"])


def test_all_controllers_are_killed(two):
    for controller in two.world.controllers:
        controller.kill()
    two.delete("pods", "b")
    two.until("b to be gone", lambda: not two.pod_named("b"), LONG_S)
    two.nowhere(two.addresses[0])
    for controller in two.world.controllers:
        controller.start()
    held(two, "a")


def test_the_api_server_is_away_for_longer_than_a_lease(two):
    """The kernel silences the holder when its time is up; nobody else may have the address until the server is back."""
    plane = two.world.control_plane
    plane.api_server.kill()
    silent(two)
    plane.api_server.start()
    plane.wait_ready().close()
    plane.renew_clients()
    held(two, "b")
    two.delete("gkeiproutes", "r")
    two.delete("pods", "a")
    two.until(
        "the kubelets to hear of it, on both nodes", lambda: not two.lease() and not two.pod_named("a"), KUBELET_S
    )


def silent(steps: Steps) -> None:
    """Wait until no kernel answers for the address any more: a deadline that passes is no event, and so this looks."""
    deadline, pause = time.monotonic() + LONG_S, threading.Event()
    while steps.places(steps.addresses[0]):
        assert time.monotonic() < deadline, "an address outlives its Lease"
        pause.wait(0.05)


def test_a_pod_without_the_token_of_its_account(steps):
    create(steps, "only", "node-1", automountServiceAccountToken=False)
    ready(steps, "only")
    holder = held(steps, "only")
    steps.announced(holder, steps.addresses[0], steps.mark)
