"""The guide's manifests on two real kubelets: real containers hold the address, and the witness judges."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

import pytest

from contract.names import Source
from lab.api_client import is_ready
from tests.cluster.injected import (
    ADDRESSES,
    DEPLOYMENT,
    LONG_S,
    ROUTE,
    STATEFULSET,
    four_ready,
    guide,
    held,
    in_space,
)
from tests.lab.steps import SOON_S

if TYPE_CHECKING:
    from tests.lab.steps import Body

pytestmark = pytest.mark.lab

LEASE_S = 10.0


@pytest.mark.parametrize("source", Source)
def test_the_statefulset(cluster, source):
    steps = in_space(cluster, "proxy-ss-ns")
    with cluster.client("blue-network").watch("34.123.10.1") as probe:
        cluster.apply(guide(STATEFULSET, source))
        first = held(steps, "proxy-ss-1")
        for address in ADDRESSES:
            steps.announced(first, address, steps.mark)
        assert steps.status(ROUTE)["pods"] == ["proxy-ss-1"]
        steps.condition("Ready", "ProgrammingComplete", ROUTE)
        cluster.witness.wait_frame(lambda f: f.kind == "echo-reply" and f.sender_ip == "34.123.10.1", SOON_S)
    assert all(gap.ended for gap in probe.stop())


def test_the_statefulsets_pod_is_deleted_and_comes_again_under_its_name(cluster):
    steps = in_space(cluster, "proxy-ss-ns")
    cluster.apply(guide(STATEFULSET))
    first = held(steps, "proxy-ss-1")
    mark = cluster.witness.mark()
    steps.delete("pods", "proxy-ss-1")
    second = held(steps, lambda pod: pod["metadata"]["uid"] != first.uid)
    assert second.name == "proxy-ss-1"
    for address in ADDRESSES:
        steps.announced(second, address, mark)
        assert steps.removals(address, mark)[0].time_s < steps.first_on(second, address, mark)


def test_a_rollout_of_the_deployment(cluster):
    steps = in_space(cluster, "proxy-deploy-ns")
    cluster.apply(guide(DEPLOYMENT))
    four_ready(steps)
    before = held(steps, is_ready)
    old = {pod["metadata"]["uid"] for pod in steps.pods()}
    cluster.kubectl("rollout", "restart", "deployment/proxy-deploy", "-n", steps.space)
    after = held(steps, lambda pod: pod["metadata"]["uid"] not in old)
    assert after.uid != before.uid
    steps.until("the old Pods to be gone", lambda: not old & {p["metadata"]["uid"] for p in steps.pods()}, LONG_S)
    held(steps, is_ready)


def test_a_node_loses_its_power_and_gets_it_again(cluster):
    steps = in_space(cluster, "proxy-deploy-ns")
    cluster.apply(guide(DEPLOYMENT))
    four_ready(steps)
    assert {pod["spec"]["nodeName"] for pod in steps.pods()} == {"node-1", "node-2"}
    holder = held(steps, is_ready)
    other = next(name for name in cluster.nodes if name != holder.node)
    mark = cluster.witness.mark()
    cluster.node(holder.node).power_off()
    successor = held(steps, lambda pod: pod["spec"]["nodeName"] == other)
    for address in ADDRESSES:
        assert steps.first_on(successor, address, mark) - mark < LEASE_S + SOON_S
    cluster.node(holder.node).power_on()
    steps.until(
        "its Pods to have been started again and to be Ready", lambda: restarted(steps.pod_named(holder.name)), LONG_S
    )
    four_ready(steps)
    held(steps, is_ready)


def test_the_sidecar_is_killed(cluster):
    steps = in_space(cluster, "proxy-ss-ns")
    cluster.apply(guide(STATEFULSET))
    first = held(steps, "proxy-ss-1")
    killed, mark = first.sidecar_pid, cluster.witness.mark()
    os.kill(killed, signal.SIGKILL)
    steps.until("the sidecar to be started again", lambda: restarted(steps.pod_named("proxy-ss-1")), LONG_S)
    for address in ADDRESSES:
        steps.announced_again(first, address, mark)
    again = held(steps, "proxy-ss-1")
    assert again.uid == first.uid
    assert again.sidecar_pid != killed


def test_the_holders_node_is_drained(cluster):
    steps = in_space(cluster, "proxy-deploy-ns")
    cluster.apply(guide(DEPLOYMENT))
    four_ready(steps)
    holder = held(steps, is_ready)
    other = next(name for name in cluster.nodes if name != holder.node)
    try:
        cluster.kubectl("drain", holder.node, "--ignore-daemonsets", "--delete-emptydir-data", "--timeout=50s")
        held(steps, lambda pod: pod["spec"]["nodeName"] == other)
    finally:
        cluster.kubectl("uncordon", holder.node)
    four_ready(steps)


def restarted(pod: Body) -> bool:
    said = pod.get("status", {}).get("initContainerStatuses", [])
    return is_ready(pod) and any(each["name"] == "holdfast" and each["restartCount"] > 0 for each in said)
