"""holdfast as a user installs it: the images that `make images` builds, the overlay as it is, the guide word for word.

Its world is new: nothing of holdfast runs outside of Pods.
"""

from __future__ import annotations

import base64
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from contract.names import AGENT_CONTAINER, ELECTION_LEASE, INJECT, INJECTION, INTERFACES, SOURCE
from contract.names import SYSTEM_NAMESPACE as SYSTEM
from lab.api_client import is_ready
from lab.binaries import find
from lab.errors import ApiError, CommandError
from lab.real import images
from lab.real.world import RealWorld
from tests.cluster.conftest import NETWORKS
from tests.cluster.injected import (
    ADDRESSES,
    DEPLOYMENT,
    LONG_S,
    ROUTE,
    SEED,
    SPACES,
    STATEFULSET,
    four_ready,
    held,
    in_space,
)
from tests.lab.readme import everything, uninstall
from tests.lab.steps import NICS, steps_in

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.lab.steps import Body, Steps

pytestmark = pytest.mark.lab

OVERLAY = Path(__file__).parents[2] / "deploy" / "overlays" / "injection"
DEPLOYED = f"--namespace={SYSTEM} deployment/holdfast-controller"
FULL_S = 50
"""Less than `World.kubectl` allows a command."""
PODS = f"/api/v1/namespaces/{SYSTEM}/pods"
ELECTION = f"/apis/coordination.k8s.io/v1/namespaces/{SYSTEM}/leases/{ELECTION_LEASE}"
CONFIGURATION = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations/holdfast-webhook"


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, pytestconfig: pytest.Config) -> Iterator[RealWorld]:
    with RealWorld(
        networks=NETWORKS,
        binaries=find(real=True),
        images=images.archives(controller=True),
        state=tmp_path_factory.mktemp("world"),
        bare=True,
        cni=pytestconfig.getoption("cni"),
    ) as world:
        install(world)
        yield world


def install(world: RealWorld) -> None:
    """Install as the README says, and label the guide's namespaces."""
    run(world, f"kubectl apply --server-side -f {world.binaries.gateway_crds}")
    run(world, "kubectl wait crds --all --for=condition=Established --timeout=30s")
    run(world, f"kubectl apply -k {OVERLAY}")
    rolled_out(world)
    world.apply(SEED / "00-namespaces.yaml")
    for space in SPACES:
        run(world, f"kubectl label namespace {space} {INJECTION}=enabled")


def run(world: RealWorld, command: str) -> str:
    """Run a kubectl command line."""
    return world.kubectl(*command.split()[1:])


def rolled_out(world: RealWorld) -> None:
    try:
        run(world, f"kubectl rollout status {DEPLOYED} --timeout={FULL_S}s")
    except CommandError as error:
        error.add_note(run(world, f"kubectl describe pods --namespace={SYSTEM}"))
        raise


def controllers(world: RealWorld) -> list[Body]:
    return world.api.list(PODS)


def gone(world: RealWorld, old: set[str]) -> None:
    """Wait until none of these controllers, by UID, is there."""
    world.api.wait(PODS, lambda pods: not old & uids(pods), LONG_S)


def uids(pods: list[Body]) -> set[str]:
    return {pod["metadata"]["uid"] for pod in pods}


def leader(world: RealWorld) -> str:
    """Name the controller's Pod that leads."""
    return leads(world.api.get(ELECTION))


def leads(lease: Body) -> str:
    return str(lease["spec"].get("holderIdentity") or "").partition("_")[0]


def with_agent(pod: Body) -> bool:
    return any(each["name"] == AGENT_CONTAINER for each in pod["spec"].get("initContainers", []))


def asking(name: str) -> Body:
    """A Pod that asks for the agent by its label."""
    container = {"name": "app", "image": images.APP}
    return {"metadata": {"name": name, "labels": {INJECT: "true"}}, "spec": {"containers": [container]}}


def scale(world: RealWorld, replicas: int) -> None:
    run(world, f"kubectl scale {DEPLOYED} --replicas={replicas}")
    world.api.wait(PODS, lambda pods: len(pods) == replicas, LONG_S)
    rolled_out(world)


# the install itself ------------------------------------------------------------------------------------------------


def test_two_replicas_on_two_nodes_of_which_one_leads(world):
    pods = controllers(world)
    assert {pod["spec"]["nodeName"] for pod in pods} == {"node-1", "node-2"}
    assert all(map(is_ready, pods))
    assert [each["restartCount"] for pod in pods for each in pod["status"]["containerStatuses"]] == [0, 0]
    assert leader(world) in {pod["metadata"]["name"] for pod in pods}
    path = f"/apis/policy/v1/namespaces/{SYSTEM}/poddisruptionbudgets/holdfast-controller"
    world.api.wait(path, lambda budget: budget["status"].get("disruptionsAllowed") == 1, LONG_S)


def test_a_replicas_root_is_read_only_and_its_user_has_no_name(world):
    name = leader(world)
    inside = ("exec", "-n", SYSTEM, name, "--", "python", "-c")
    assert world.kubectl(*inside, "import os; print(os.getuid())").strip() == "65532"
    with pytest.raises(CommandError, match="Read-only file system"):
        world.kubectl(*inside, "open('/tmp/x', 'w')")


def test_the_webhook_is_trusted_by_its_own_authority(world):
    secret = world.api.get(f"/api/v1/namespaces/{SYSTEM}/secrets/holdfast-webhook")["data"]
    bundles = {hook["clientConfig"]["caBundle"] for hook in world.api.get(CONFIGURATION)["webhooks"]}
    assert bundles == {secret["ca.crt"]}
    assert b"BEGIN CERTIFICATE" in base64.b64decode(secret["ca.crt"])
    assert with_agent(world.api.create("/api/v1/namespaces/default/pods", asking("asks"), dryRun="All"))


# the guide, word for word ------------------------------------------------------------------------------------------


def test_the_statefulset(cluster):
    steps = in_space(cluster, "proxy-ss-ns")
    cluster.apply(SEED / STATEFULSET)
    holder = held(steps, "proxy-ss-1")
    for address in ADDRESSES:
        steps.announced(holder, address, steps.mark)
    steps.condition("Ready", "ProgrammingComplete", ROUTE)
    steps.until("three Pods", lambda: len(steps.pods()) == 3, LONG_S)
    # the others are none of the route's
    assert [pod["metadata"]["name"] for pod in steps.pods() if with_agent(pod)] == ["proxy-ss-1"]


def test_the_deployment(cluster):
    steps = in_space(cluster, "proxy-deploy-ns")
    cluster.apply(SEED / DEPLOYMENT)
    four_ready(steps)
    assert all(map(with_agent, steps.pods()))
    held(steps, is_ready)
    old = uids(steps.pods())
    cluster.kubectl("rollout", "restart", "deployment/proxy-deploy", "-n", steps.space)
    held(steps, lambda pod: pod["metadata"]["uid"] not in old)
    steps.until("the old Pods to be gone", lambda: not old & uids(steps.pods()), LONG_S)
    four_ready(steps)
    newest = max(pod["metadata"]["creationTimestamp"] for pod in steps.pods())
    held(steps, lambda pod: pod["metadata"]["creationTimestamp"] == newest)


@pytest.mark.parametrize("level", ["baseline", "restricted"])
def test_under_a_pod_security_standard_who_asks_is_refused_and_whom_a_route_selects_runs_without(world, level):
    """Both standards forbid what the agent needs; a Deployment's ReplicaSet says so."""
    world.create_namespace(level)
    labels = {INJECTION: "enabled", "pod-security.kubernetes.io/enforce": level}
    world.api.patch(f"/api/v1/namespaces/{level}", {"metadata": {"labels": labels}})
    with steps_in(world, level) as steps:
        steps.gateway()
        steps.route()
        quiet = {
            "runAsNonRoot": True,
            "runAsUser": 65532,
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "seccompProfile": {"type": "RuntimeDefault"},
        }
        app = {"name": "app", "image": images.APP, "securityContext": quiet}
        made = {"metadata": {"name": "selected", "labels": {"app": "web"}}, "spec": {"containers": [app]}}
        made["metadata"]["annotations"] = {INTERFACES: NICS}
        steps.api.create(steps.at("pods"), made)
        steps.ready("selected")
        assert not with_agent(steps.pod_named("selected"))
        steps.condition("Ready", "NoPodsFound", part="it has no agent: selected")
        template = {"metadata": {"labels": {"app": "x", INJECT: "true"}}, "spec": {"containers": [app]}}
        spec = {"replicas": 1, "selector": {"matchLabels": {"app": "x"}}, "template": template}
        steps.api.create(steps.at("deployments"), {"metadata": {"name": "x"}, "spec": spec})
        sets = f"/apis/apps/v1/namespaces/{level}/replicasets"
        (refused,) = steps.api.wait(sets, lambda found: found and found[0]["status"].get("conditions"), LONG_S)
        (said,) = refused["status"]["conditions"]
        assert (said["type"], said["reason"]) == ("ReplicaFailure", "FailedCreate")
        assert f'violates PodSecurity "{level}:latest"' in said["message"]
        assert f'container "{AGENT_CONTAINER}" must not include "NET_ADMIN", "NET_RAW"' in said["message"]
        steps.delete("pods", "selected")
    world.api.delete(f"/api/v1/namespaces/{level}")


# the controllers come and go ---------------------------------------------------------------------------------------


def unmoved(steps: Steps, uid: str, since_s: float) -> None:
    assert held(steps, "proxy-ss-1").uid == uid
    assert [steps.removals(address, since_s) for address in ADDRESSES] == [[], []]


def test_the_leaders_pod_is_deleted(cluster):
    steps = in_space(cluster, "proxy-ss-ns")
    cluster.apply(SEED / STATEFULSET)
    first, before = held(steps, "proxy-ss-1"), leader(cluster)
    mark, uid = cluster.witness.mark(), cluster.api.get(f"{PODS}/{before}")["metadata"]["uid"]
    cluster.api.delete(f"{PODS}/{before}")
    cluster.api.wait(ELECTION, lambda lease: leads(lease) not in {"", before}, LONG_S)
    gone(cluster, {uid})
    rolled_out(cluster)
    unmoved(steps, first.uid, mark)


def test_a_rollout_of_the_controllers_moves_nothing_and_the_webhook_answers_throughout(cluster):
    steps = in_space(cluster, "proxy-ss-ns")
    cluster.apply(SEED / STATEFULSET)
    first = held(steps, "proxy-ss-1")
    old = uids(controllers(cluster))
    mark, answers = cluster.witness.mark(), 0
    run(cluster, f"kubectl rollout restart {DEPLOYED}")
    with ThreadPoolExecutor(max_workers=2) as others:
        waits = [others.submit(rolled_out, cluster), others.submit(gone, cluster, old)]
        while not all(each.done() for each in waits):
            made = cluster.api.create("/api/v1/namespaces/default/pods", asking(f"asks-{answers}"), dryRun="All")
            assert with_agent(made)
            answers += 1
        for each in waits:
            each.result()
    assert answers > len(old)
    unmoved(steps, first.uid, mark)


def test_without_a_controller_a_pod_that_asks_is_refused_and_one_that_a_route_selects_runs_without(cluster):
    steps = in_space(cluster, "proxy-deploy-ns")
    scale(cluster, 0)
    try:
        with pytest.raises(ApiError, match=r"failed calling webhook .label\.inject\.holdfast\.dev"):
            cluster.api.create("/api/v1/namespaces/default/pods", asking("asks"))
        cluster.apply(SEED / DEPLOYMENT)
        four_ready(steps)
        assert not any(map(with_agent, steps.pods()))
    finally:
        scale(cluster, 2)
    said = steps.condition("Ready", "NoPodsFound", ROUTE, LONG_S, "none has an agent")
    assert f"{INJECTION}: enabled" in said
    steps.nowhere()
    cluster.kubectl("rollout", "restart", "deployment/proxy-deploy", "-n", steps.space)
    held(steps, with_agent)


def test_all_controllers_end_and_come_again_while_an_address_is_held(cluster):
    steps = in_space(cluster, "proxy-ss-ns")
    cluster.apply(SEED / STATEFULSET)
    first, mark = held(steps, "proxy-ss-1"), cluster.witness.mark()
    scale(cluster, 0)
    scale(cluster, 2)
    unmoved(steps, first.uid, mark)
    steps.delete("pods", "proxy-ss-1")
    held(steps, lambda pod: pod["metadata"]["uid"] != first.uid)


def test_an_agent_that_watches_and_is_there_before_its_route(world):
    """Its account may read it, and no other Pod, before its namespace has a route."""
    world.create_namespace("early")
    with steps_in(world, "early") as steps:
        steps.gateway()
        body = asking("only")
        body["metadata"]["labels"]["app"] = "web"
        body["metadata"]["annotations"] = {INTERFACES: NICS, SOURCE: "watch"}
        steps.api.create(steps.at("pods"), body)
        steps.until("it to be Ready", lambda: is_ready(steps.pod_named("only")), LONG_S)
        (rule,) = steps.api.wait(steps.role, lambda role: role is not None, LONG_S, "its Role")["rules"]
        assert (rule["resources"], rule["resourceNames"]) == (["pods"], ["only"])
        steps.route()
        holder = steps.held_by("only", within_s=LONG_S)
        steps.announced(holder, steps.addresses[0], steps.mark)
    world.api.delete("/api/v1/namespaces/early")


# and its end -------------------------------------------------------------------------------------------------------


def test_uninstalled_as_the_readme_says_nothing_is_left_and_it_can_be_installed_again(world):
    steps = in_space(world, "proxy-ss-ns")
    for name in ("00-namespaces.yaml", "01-network.yaml", "allowed-pod-ips.yaml", STATEFULSET):
        world.apply(SEED / name)
    held(steps, "proxy-ss-1")
    for command in uninstall():
        run(world, command)
    steps.nowhere()
    steps.one_holder()
    run(world, f"kubectl delete namespaces {' '.join(SPACES)} --timeout={FULL_S}s")
    left = everything(lambda command: run(world, command))
    assert "Gateway default/allowed-pod-ips" in left, "what is the user's own stays"
    # a node lists the images that are on it
    assert [key for key, text in left.items() if "holdfast" in text and not key.startswith("Node ")] == []
    assert [key for key in left if "networking.gke.io" in key or "GatewayClass" in key] == []
    install(world)
