"""The lab itself: it starts, it is closed, and it ends with whoever started it."""

from __future__ import annotations

import errno
import socket

import pytest

from lab.errors import ApiError


def test_the_world_has_a_real_api_server_with_holdfasts_definitions(world):
    assert world.api.get("/version")["gitVersion"] == "v1.34.4"
    routes = world.api.get("/apis/networking.gke.io/v1/gkeiproutes")
    assert routes["kind"] == "GKEIPRouteList"


def test_policies_are_in_effect(world, kube_namespace):
    lease = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": "holdfast-mine"}}
    with pytest.raises(ApiError, match="holdfast-lease") as refused:
        world.api.create(f"/apis/coordination.k8s.io/v1/namespaces/{kube_namespace}/leases", lease)
    assert refused.value.code == 403


def test_nothing_leads_out():
    with socket.socket() as any_socket, pytest.raises(OSError, match="unreachable") as refused:
        any_socket.connect(("34.123.10.1", 80))
    assert refused.value.errno == errno.ENETUNREACH
