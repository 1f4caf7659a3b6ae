"""Install and uninstall as the README says, with kubectl, on a cluster of its own: in one go, and gone again."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from lab import closed
from lab.world import injection
from tests.lab.readme import everything, uninstall

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.lab

ROOT = Path(__file__).parents[3]
NAME = "install"
INJECTION = "deploy/overlays/injection"
HOLDFAST = [sys.executable, "-m", "cli.main", "lab"]
DEADLINE_S = 60.0
CLASS = "gke-persistent-regional-external-managed"
USERS = f"""
apiVersion: v1
kind: Namespace
metadata: {{name: mine}}
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {{name: addresses, namespace: mine}}
spec:
  gatewayClassName: {CLASS}
  listeners: [{{name: default, port: 443, protocol: none}}]
  addresses: [{{value: 192.0.2.1/32, type: gke.networking.io/cidr}}]
---
apiVersion: networking.gke.io/v1
kind: GKEIPRoute
metadata: {{name: route, namespace: mine}}
spec:
  parentRefs: [{{name: addresses}}]
  addresses: [{{value: 192.0.2.1/32, type: gke.networking.io/cidr}}]
  podSelector: {{matchLabels: {{app: mine}}}}
"""


class Cluster:
    """A cluster within this closed world, used as by a person in a shell of it."""

    def __init__(self) -> None:
        # whoever starts a lab is outside of one
        self.environment = {name: value for name, value in os.environ.items() if name != closed.ENV_CLOSED}

    def run(self, command: str, stdin: str = "") -> str:
        done = subprocess.run(
            [*HOLDFAST, "exec", "--name", NAME, "--", *command.split()],
            cwd=ROOT,
            env=self.environment,
            input=stdin,
            capture_output=True,
            text=True,
            check=False,
            timeout=3 * DEADLINE_S,
        )
        assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
        return done.stdout


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    made = Cluster()
    up = [*HOLDFAST, "up", "--name", NAME, "--nodes", "1"]
    with subprocess.Popen(up, stdout=subprocess.PIPE, text=True, env=made.environment) as lab:
        assert lab.stdout is not None
        assert any("The lab is up" in line for line in lab.stdout)
        yield made
        lab.terminate()
        lab.stdout.read()


def test_install_and_uninstall(cluster: Cluster) -> None:
    cluster.run(f"kubectl apply -k {INJECTION}")
    cluster.run(f"kubectl apply -k {INJECTION}")
    assert cluster.run(f"kubectl diff -k {INJECTION}") == ""

    cluster.run("kubectl apply -f -", USERS)
    for kind, name in (("lease", "holdfast-route"), ("rolebinding", "holdfast-sidecar")):
        cluster.run(f"kubectl wait --namespace mine {kind}/{name} --for=create --timeout={DEADLINE_S:g}s")
    commands = uninstall()
    assert commands[-1] == f"kubectl delete -k {INJECTION}"
    for command in commands:
        cluster.run(command)
    left = everything(cluster.run)
    assert "Gateway mine/addresses" in left, "what is the user's own stays"
    own = f"/{injection.POLICY}"  # the lab's, from before
    assert [key for key, text in left.items() if "holdfast" in text and not key.endswith(own)] == []
    assert [key for key in left if "networking.gke.io" in key or "GatewayClass" in key] == []

    made = cluster.run("kubectl apply -k deploy/base").splitlines()
    assert [line for line in made if not line.endswith(" created")] == []
    order = [line.partition("/")[0] for line in made]
    assert order.index("serviceaccount") < order.index("deployment.apps"), "the Pods find their service account"
    status = "kubectl rollout status deployment/holdfast-controller --namespace holdfast-system"
    assert "successfully rolled out" in cluster.run(f"{status} --timeout={DEADLINE_S:g}s")
