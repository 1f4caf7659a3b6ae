"""deploy/ as `kubectl` renders it: each overlay is complete, in an order that can be applied, and installs no more."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from contract.names import SYSTEM_NAMESPACE
from controller.injection.keeper import CONFIGURATION, SECRET, SERVICE
from controller.injection.keeper import NAMES as NAMES_OF_THE_WEBHOOK
from controller.injection.webhook import ANSWER_S
from lab.world import install

if TYPE_CHECKING:
    from lab.binaries import Binaries

pytestmark = pytest.mark.lab

DEPLOY = Path(__file__).parents[3] / "deploy"
OVERLAYS = sorted(path.parent for path in DEPLOY.rglob("kustomization.yaml") if "components" not in path.parts)
NAMES = [str(path.relative_to(DEPLOY)) for path in OVERLAYS]
COMPONENTS = sorted(path.parent for path in DEPLOY.glob("components/*/kustomization.yaml"))
_WITHOUT_NAMESPACE = {
    "ClusterRole",
    "ClusterRoleBinding",
    "CustomResourceDefinition",
    "GatewayClass",
    "MutatingWebhookConfiguration",
    "Namespace",
    "ValidatingAdmissionPolicy",
    "ValidatingAdmissionPolicyBinding",
}
Object = dict[str, Any]


def rendered(binaries: Binaries, folder: Path) -> list[Object]:
    done = subprocess.run(
        [str(binaries.kubectl), "kustomize", str(folder)], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == "", "kustomize warns"
    return list(yaml.safe_load_all(done.stdout))


def _key(body: Object) -> tuple[str, str, str]:
    return body["kind"], body["metadata"].get("namespace", ""), body["metadata"]["name"]


def _controller(bodies: list[Object]) -> Object:
    (found,) = (body for body in bodies if body["kind"] == "Deployment")
    return found["spec"]["template"]["spec"]


def test_there_are_the_overlays_that_the_readme_names() -> None:
    readme = (DEPLOY.parent / "README.md").read_text()
    assert set(NAMES) == {"base", "overlays/cert-manager", "overlays/gke", "overlays/injection"}
    assert [name for name in NAMES if f"kubectl apply -k deploy/{name}" not in readme] == []


@pytest.mark.parametrize("folder", OVERLAYS, ids=NAMES)
def test_what_others_need_comes_first(binaries: Binaries, folder: Path) -> None:
    kinds = [body["kind"] for body in rendered(binaries, folder)]
    assert kinds[0] == "Namespace"
    late = kinds.index("Deployment")
    needed = {"ServiceAccount", "Role", "RoleBinding", "ClusterRole", "ClusterRoleBinding"}
    assert {"ServiceAccount", "ClusterRole"} <= set(kinds[:late])
    assert needed & set(kinds[late:]) == set()


@pytest.mark.parametrize("folder", OVERLAYS, ids=NAMES)
def test_every_object_is_once_there_in_its_namespace_with_our_label(binaries: Binaries, folder: Path) -> None:
    bodies = rendered(binaries, folder)
    keys = [_key(body) for body in bodies]
    assert len(keys) == len(set(keys))
    for kind, namespace, name in keys:
        assert namespace == ("" if kind in _WITHOUT_NAMESPACE else SYSTEM_NAMESPACE), f"{kind} {name}"
    unlabelled = [
        _key(body) for body in bodies if "app.kubernetes.io/part-of" not in body["metadata"].get("labels", {})
    ]
    assert unlabelled == []


@pytest.mark.parametrize("folder", OVERLAYS, ids=NAMES)
def test_the_controller_is_hardened_spread_and_evicted_one_at_a_time(binaries: Binaries, folder: Path) -> None:
    bodies = rendered(binaries, folder)
    pod = _controller(bodies)
    (container,) = pod["containers"]
    security = {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}}
    assert container["securityContext"] == security
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    spread = {each["topologyKey"]: each["whenUnsatisfiable"] for each in pod["topologySpreadConstraints"]}
    assert spread == dict.fromkeys(("kubernetes.io/hostname", "topology.kubernetes.io/zone"), "ScheduleAnyway")
    (budget,) = (body["spec"] for body in bodies if body["kind"] == "PodDisruptionBudget")
    (deployment,) = (body["spec"] for body in bodies if body["kind"] == "Deployment")
    assert budget["maxUnavailable"] == 1 < deployment["replicas"]
    assert budget["selector"] == deployment["selector"]


def test_on_gke_nothing_of_gkes_is_installed(binaries: Binaries) -> None:
    elsewhere, gke = (rendered(binaries, DEPLOY / "overlays" / name) for name in ("injection", "gke"))
    gone = {_key(body)[::2] for body in elsewhere} - {_key(body)[::2] for body in gke}
    assert {kind for kind, _ in gone} == {"CustomResourceDefinition", "GatewayClass"}
    assert len(gone) == 6
    assert {body["kind"] for body in gke} & {"CustomResourceDefinition", "GatewayClass"} == set()
    assert [body for body in gke if body not in elsewhere] == []


def test_with_cert_manager_the_controller_only_reads_its_secret(binaries: Binaries) -> None:
    bodies = rendered(binaries, DEPLOY / "overlays" / "cert-manager")
    by_key = {_key(body): body for body in bodies}
    assert "--webhook-certificate=given" in _controller(bodies)["containers"][0]["args"]
    (rule,) = by_key["Role", SYSTEM_NAMESPACE, SECRET]["rules"]
    assert (rule["resourceNames"], rule["verbs"]) == ([SECRET], ["get", "list", "watch"])
    assert ("ClusterRole", "", CONFIGURATION) not in by_key
    assert ("ClusterRoleBinding", "", CONFIGURATION) not in by_key
    certificate = by_key["Certificate", SYSTEM_NAMESPACE, "holdfast-webhook"]["spec"]
    assert (certificate["secretName"], tuple(certificate["dnsNames"])) == (SECRET, NAMES_OF_THE_WEBHOOK)
    notes = by_key["MutatingWebhookConfiguration", "", CONFIGURATION]["metadata"]["annotations"]
    assert notes == {"cert-manager.io/inject-ca-from": f"{SYSTEM_NAMESPACE}/holdfast-webhook"}


def test_the_manifests_name_what_the_controller_keeps(binaries: Binaries) -> None:
    by_key = {_key(body): body for body in rendered(binaries, DEPLOY / "overlays" / "injection")}
    hooks = by_key["MutatingWebhookConfiguration", "", CONFIGURATION]["webhooks"]
    service = {"name": SERVICE, "namespace": SYSTEM_NAMESPACE, "path": "/mutate", "port": 443}
    assert [hook["clientConfig"] for hook in hooks] == [{"service": service}] * 2, "and no caBundle, which is kept"
    assert [hook["failurePolicy"] for hook in hooks] == ["Fail", "Ignore"]
    assert all(hook["timeoutSeconds"] > ANSWER_S for hook in hooks)
    assert by_key["Service", SYSTEM_NAMESPACE, SERVICE]["spec"]["ports"][0]["targetPort"] == "webhook"
    assert by_key["Role", SYSTEM_NAMESPACE, SECRET]["rules"][0]["resourceNames"] == [SECRET]


def test_a_component_gives_the_controller_the_clusters_priority(binaries: Binaries, tmp_path: Path) -> None:
    assert [each.name for each in COMPONENTS] == ["critical"]
    folder = tmp_path / "mine"
    folder.mkdir()
    # kustomize takes no absolute paths
    up = "/".join([".."] * (len(folder.parts) - 1))
    own = {"resources": [f"{up}{DEPLOY}/base"], "components": [f"{up}{COMPONENTS[0]}"]}
    (folder / "kustomization.yaml").write_text(yaml.safe_dump(own))
    bodies = rendered(binaries, folder)
    assert _controller(bodies)["priorityClassName"] == "system-cluster-critical"
    assert ("ResourceQuota", SYSTEM_NAMESPACE, "holdfast-critical") in map(_key, bodies)
    assert "priorityClassName" not in _controller(rendered(binaries, DEPLOY / "base"))


def test_the_lab_installs_the_base_but_for_the_deployment(binaries: Binaries) -> None:
    base = {_key(body): body for body in rendered(binaries, DEPLOY / "base")}
    lab = {_key(body): body for body in install.manifests(binaries.gateway_crds)}
    assert {kind for kind, _, _ in base.keys() - lab.keys()} == {"Deployment", "PodDisruptionBudget"}
    assert all(lab[key] == body for key, body in base.items() if key in lab)
    assert all(name.endswith("gateway.networking.k8s.io") for _, _, name in lab.keys() - base.keys())
