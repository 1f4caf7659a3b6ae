"""deploy/ and examples/seed/ on a real API server: what the schema fills in and refuses, who may do what.

Not here: how the manifests are rendered and installed (test_kustomize.py, test_install.py), what the admission policies
refuse (test_policies.py), and what comes of the manifests once the programs act
on them.
"""

from __future__ import annotations

import contextlib
import copy
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from contract import lease as contract_lease
from contract.names import CONTROLLER_ACCOUNT, CONTROLLER_NAME, ELECTION_LEASE, SIDECAR_ROLE
from contract.names import SYSTEM_NAMESPACE as SYSTEM
from lab.errors import ApiError, CommandError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lab.api_client import ApiClient
    from lab.world.world import World

pytestmark = pytest.mark.lab

ROOT = Path(__file__).parents[3]
BASE = ROOT / "deploy" / "base"
SEED = ROOT / "examples" / "seed"
DEADLINE_S = 30.0
MERGE = "application/merge-patch+json"


# GKEIPRoute: the schema ---------------------------------------------------------------------------------------------

# parents that do not exist: a controller that is running has nothing to give these routes
LEAST = {
    "parentRefs": [{"name": "no-such-gateway"}],
    "addresses": [{"value": "192.0.2.1/32", "type": "gke.networking.io/cidr"}],
    "podSelector": {"matchLabels": {"app": "x"}},
}


def _route(name: str = "r", **changes: Any) -> dict[str, Any]:
    spec = {key: value for key, value in {**copy.deepcopy(LEAST), **changes}.items() if value is not ...}
    return {"apiVersion": "networking.gke.io/v1", "kind": "GKEIPRoute", "metadata": {"name": name}, "spec": spec}


def _routes(namespace: str) -> str:
    return f"/apis/networking.gke.io/v1/namespaces/{namespace}/gkeiproutes"


def _addresses(count: int) -> list[dict[str, str]]:
    return [{"value": f"192.0.2.{i}/32", "type": "gke.networking.io/cidr"} for i in range(1, count + 1)]


def test_defaults(world: World, kube_namespace: str) -> None:
    made = world.api.create(_routes(kube_namespace), _route(addresses=[{"value": "192.0.2.1"}], network=None))["spec"]
    assert (made["network"], made["reactionMode"]) == ("default", "ReadyCondition")
    assert made["addresses"] == [{"value": "192.0.2.1", "type": "IPAddress"}]
    assert made["parentRefs"] == [{"name": "no-such-gateway", "group": "gateway.networking.k8s.io", "kind": "Gateway"}]


@pytest.mark.parametrize(
    "spec",
    [
        {"parentRefs": [{"name": "another"}]},
        {"parentRefs": [{"name": "no-such-gateway"}, {"name": "another"}]},
        {"parentRefs": [{"name": "no-such-gateway", "namespace": "another"}]},
        {"parentRefs": []},
        {"parentRefs": None},
        {"network": "blue-network"},
        {"network": None},
        {"reactionMode": "Exists"},
    ],
    ids=[
        "parent",
        "second parent",
        "parent's namespace",
        "no parents",
        "no field of parents",
        "network",
        "network to its default",
        "reactionMode",
    ],
)
def test_immutable(world: World, kube_namespace: str, spec: dict[str, Any]) -> None:
    before = "red-network" if spec == {"network": None} else "default"
    world.api.create(_routes(kube_namespace), _route(network=before))
    with pytest.raises(ApiError) as caught:
        world.api.patch(f"{_routes(kube_namespace)}/r", {"spec": spec}, MERGE)
    assert caught.value.code == 422
    assert f"{next(iter(spec))} is immutable: delete the route and create a new one" in str(caught.value)


def test_applied_again_is_no_change(world: World, kube_namespace: str) -> None:
    # kubectl sends the lists again, without the defaults that the server has filled in
    text = yaml.safe_dump(_route())
    for _ in range(2):
        world.kubectl("apply", "-n", kube_namespace, "-f", "-", stdin=text)
    assert world.api.get(f"{_routes(kube_namespace)}/r")["metadata"]["generation"] == 1


@pytest.mark.parametrize("before", [..., []], ids=["left out", "empty"])
def test_parents_can_be_named_once(world: World, kube_namespace: str, before: Any) -> None:
    world.api.create(_routes(kube_namespace), _route(parentRefs=before))
    after = world.api.patch(f"{_routes(kube_namespace)}/r", {"spec": {"parentRefs": LEAST["parentRefs"]}}, MERGE)
    assert [each["name"] for each in after["spec"]["parentRefs"]] == ["no-such-gateway"]
    with pytest.raises(ApiError, match="parentRefs is immutable"):
        world.api.patch(f"{_routes(kube_namespace)}/r", {"spec": {"parentRefs": None}}, MERGE)


def test_kubectl_takes_every_field_of_gkes(world: World, kube_namespace: str) -> None:
    """With its strict validation, which refuses what a schema does not know."""
    gkes = {
        "allowGlobalAccess": True,
        "haPolicy": {"any": {"thing": [1]}},
        "loadBalancing": {"healthCheckName": "hc", "aFieldOfTomorrow": 1},
        "nodeSelector": {"matchLabels": {"zone": "a"}},
    }
    made = _route(**gkes, parentRefs=...)
    world.kubectl("apply", "--validate=strict", "-n", kube_namespace, "-f", "-", stdin=yaml.safe_dump(made))
    kept = world.api.get(f"{_routes(kube_namespace)}/r")["spec"]
    assert {key: kept[key] for key in gkes} == gkes


def test_addresses_and_selector_are_mutable(world: World, kube_namespace: str) -> None:
    world.api.create(_routes(kube_namespace), _route())
    spec = {"addresses": _addresses(16), "podSelector": {"matchExpressions": [{"key": "app", "operator": "Exists"}]}}
    after = world.api.patch(f"{_routes(kube_namespace)}/r", {"spec": spec}, MERGE)
    assert len(after["spec"]["addresses"]) == 16
    assert after["metadata"]["generation"] == 2


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "parent without a name": ({"parentRefs": [{"namespace": "default"}]}, "spec.parentRefs[0].name: Required value"),
    "parent as text": ({"parentRefs": ["allowed-pod-ips"]}, "spec.parentRefs[0]"),
    "parents as a map": ({"parentRefs": {"name": "allowed-pod-ips"}}, "spec.parentRefs"),
    "no addresses": ({"addresses": []}, "spec.addresses"),
    "addresses left out": ({"addresses": ...}, "spec.addresses: Required value"),
    "17 addresses": ({"addresses": _addresses(17)}, "spec.addresses: Too many"),
    "address as text": ({"addresses": ["192.0.2.1/32"]}, "spec.addresses[0]"),
    "address as a number": ({"addresses": [{"value": 3221225985}]}, "spec.addresses[0].value"),
    "empty address": ({"addresses": [{"value": ""}]}, "spec.addresses[0].value"),
    "address twice": ({"addresses": _addresses(2) + _addresses(1)}, "names the same address twice"),
    "address twice, in two forms": ({"addresses": [{"value": "192.0.2.1"}, *_addresses(1)]}, "the same address twice"),
    "network as a list": ({"network": ["blue-network"]}, "spec.network"),
    "empty network": ({"network": ""}, "spec.network"),
    "empty selector": ({"podSelector": {}}, "podSelector is empty"),
    "selector with nothing in it": (
        {"podSelector": {"matchLabels": {}, "matchExpressions": []}},
        "podSelector is empty",
    ),
    "selector left out": ({"podSelector": ...}, "spec.podSelector: Required value"),
    "label as a number": ({"podSelector": {"matchLabels": {"app": 1}}}, "spec.podSelector.matchLabels.app"),
    "expression without operator": (
        {"podSelector": {"matchExpressions": [{"key": "app"}]}},
        "spec.podSelector.matchExpressions[0].operator: Required value",
    ),
    "unknown reactionMode": ({"reactionMode": "Ready"}, 'supported values: "ReadyCondition", "Exists"'),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused_by_the_schema(world: World, kube_namespace: str, name: str) -> None:
    changes, why = REFUSED[name]
    with pytest.raises(ApiError) as caught:
        world.api.create(_routes(kube_namespace), _route(**changes))
    assert caught.value.code == 422
    assert why in str(caught.value).replace('\\"', '"')


@pytest.mark.parametrize("value", ["192.0.2.0/24", "not-an-address", "2001:db8::1/128", "192.0.2.1/33"])
def test_what_the_controller_is_to_judge_passes(world: World, kube_namespace: str, value: str) -> None:
    made = world.api.create(_routes(kube_namespace), _route(addresses=[{"value": value}]))
    assert made["spec"]["addresses"][0]["value"] == value


# GKEIPRoute: the status and what people see -------------------------------------------------------------------------

SINCE = "2026-01-02T03:04:05.000006Z"


def _condition(kind: str, status: str, reason: str) -> dict[str, Any]:
    when = "2026-01-02T03:04:05Z"
    text = {"reason": reason, "message": f"{reason}, in a sentence", "lastTransitionTime": when}
    return {"type": kind, "status": status, "observedGeneration": 1, **text}


STATUS = {
    "pods": ["proxy-ss-1"],
    "addresses": [
        {
            "address": "192.0.2.1/32",
            "pod": "proxy-ss-1",
            "interface": "eth1",
            "epoch": 7,
            "state": "announced",
            "message": "",
            "since": SINCE,
        }
    ],
    "conditions": [
        _condition("Accepted", "True", "Accepted"),
        _condition("DPV2Ready", "Unknown", "NotReported"),
        _condition("GCPReady", "False", "Mutated"),
        _condition("Ready", "False", "NotReported"),
    ],
}


def _unwatched(world: World, namespace: str) -> str:
    """Make a route whose status no controller writes while it is looked at, and give its path."""
    world.api.create(_routes(namespace), _route())
    return f"{_routes(namespace)}/r"


@pytest.fixture(scope="module")
def quiet(world: World) -> Iterator[World]:
    """The world without its controllers: here the status is written by hand."""
    for controller in world.controllers:
        controller.kill()
    yield world
    for controller in world.controllers:
        controller.start()


def test_status_keeps_every_field_of_the_contract(quiet: World, kube_namespace: str) -> None:
    path = _unwatched(quiet, kube_namespace)
    after = quiet.api.patch(f"{path}/status", {"status": STATUS, "spec": {"network": "x"}}, MERGE)
    assert after["status"] == STATUS
    assert after["spec"]["network"] == "default"
    assert after["metadata"]["generation"] == 1


def test_status_is_not_written_with_the_route(quiet: World, kube_namespace: str) -> None:
    path = _unwatched(quiet, kube_namespace)
    quiet.api.patch(path, {"status": STATUS}, MERGE)
    assert "status" not in quiet.api.get(path)


def test_kubectl_get_shows_address_pod_and_reason(quiet: World, kube_namespace: str) -> None:
    quiet.api.patch(f"{_unwatched(quiet, kube_namespace)}/status", {"status": STATUS}, MERGE)
    head, row = quiet.kubectl("get", "gkeiproutes", "-n", kube_namespace).splitlines()
    assert head.split() == ["NAME", "ADDRESS", "POD", "READY", "REASON", "AGE"]
    assert row.split()[:5] == ["r", "192.0.2.1/32", "proxy-ss-1", "False", "NotReported"]
    head, row = quiet.kubectl("get", "gkeipr", "-n", kube_namespace, "-o", "wide").splitlines()
    assert head.split()[6:] == ["NETWORK", "MODE", "EPOCH", "MESSAGE"]
    assert row.split()[6:] == ["default", "ReadyCondition", "7", "NotReported,", "in", "a", "sentence"]


def test_kubectl_explain_knows_the_fields(world: World) -> None:
    assert "Immutable" in world.kubectl("explain", "gkeiproutes.spec.network")


# Network ------------------------------------------------------------------------------------------------------------

NETWORKS = "/apis/networking.gke.io/v1/networks"


def _network(spec: dict[str, Any]) -> dict[str, Any]:
    made = {"apiVersion": "networking.gke.io/v1", "kind": "Network", "metadata": {"generateName": "t-"}}
    return {**made, "spec": spec}


def test_network_takes_what_gke_publishes(world: World) -> None:
    spec = {
        "type": "L3",
        "provider": "GKE",
        "parametersRef": {"group": "networking.gke.io", "kind": "GKENetworkParamSet", "name": "blue"},
        "IPAMMode": "Internal",
        "aFieldOfTomorrow": {"kept": True},
    }
    made = world.api.create(NETWORKS, _network(spec))
    path = f"{NETWORKS}/{made['metadata']['name']}"
    status = {"conditions": [_condition("Ready", "True", "NetworkReady")]}
    after = world.api.patch(f"{path}/status", {"status": status}, MERGE)
    world.api.delete(path)
    assert (after["spec"], after["status"]) == (spec, status)
    assert "namespace" not in after["metadata"]


def test_a_param_set_of_gkes_beside_a_network_is_left_out_by_kubectl(world: World) -> None:
    network = {**_network({"type": "L3"}), "metadata": {"name": "beside"}}
    params = {"apiVersion": "networking.gke.io/v1", "kind": "GKENetworkParamSet", "metadata": {"name": "beside"}}
    try:
        with pytest.raises(CommandError, match='no matches for kind "GKENetworkParamSet"'):
            world.kubectl("apply", "-f", "-", stdin=yaml.safe_dump_all([params, network]))
        assert world.api.get(f"{NETWORKS}/beside")["spec"] == {"type": "L3"}
    finally:
        world.api.delete(f"{NETWORKS}/beside")


@pytest.mark.parametrize("spec", [{}, {"type": "L4"}, {"type": 3}, {"type": "L2", "l2NetworkConfig": {"vlanID": 4095}}])
def test_network_refuses(world: World, spec: dict[str, Any]) -> None:
    with pytest.raises(ApiError) as caught:
        world.api.create(NETWORKS, _network(spec))
    assert caught.value.code == 422


# The manifests as a whole -------------------------------------------------------------------------------------------


def test_the_four_classes_are_ours(world: World) -> None:
    found = world.api.get("/apis/gateway.networking.k8s.io/v1/gatewayclasses")["items"]
    ours = {each["metadata"]["name"] for each in found if each["spec"]["controllerName"] == CONTROLLER_NAME}
    assert ours >= {
        f"gke-persistent-{speed}regional-{scope}-managed"
        for speed in ("", "fast-")
        for scope in ("external", "internal")
    }


def test_the_controllers_pod_meets_the_restricted_standard(world: World) -> None:
    deployment = next(yaml.safe_load_all((BASE / "controller.yaml").read_text()))
    template = deployment["spec"]["template"]
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"generateName": "t-", **template["metadata"]}}
    made = world.api.create(f"/api/v1/namespaces/{SYSTEM}/pods", {**pod, "spec": template["spec"]}, dryRun="All")
    assert made["spec"]["containers"][0]["securityContext"]["readOnlyRootFilesystem"] is True
    template["spec"]["containers"][0]["securityContext"].pop("capabilities")
    with pytest.raises(ApiError) as caught:  # the standard is in force, so that the line above says something
        world.api.create(f"/api/v1/namespaces/{SYSTEM}/pods", {**pod, "spec": template["spec"]}, dryRun="All")
    assert "restricted" in str(caught.value)


@pytest.mark.parametrize("name", ["holdfast-assignment", "holdfast-lease"])
def test_the_policies_expressions_fit_the_types(world: World, name: str) -> None:
    path = f"/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicies/{name}"

    def checked(found: dict[str, Any] | None) -> bool:
        return bool(found and found.get("status", {}).get("observedGeneration") == found["metadata"]["generation"])

    found = world.api.wait(path, checked, DEADLINE_S)
    assert found["status"].get("typeChecking", {}).get("expressionWarnings", []) == []


# Who may do what ----------------------------------------------------------------------------------------------------


def _may(api: ApiClient, namespace: str, account: str, request: str) -> bool:
    """Ask the API server: ``verb resource[/subresource][.group] [in namespace] [name]``."""
    verb, what, where, *name = request.split()
    resource, _, group = what.partition(".")
    resource, _, subresource = resource.partition("/")
    asked = {"verb": verb, "resource": resource, "subresource": subresource, "group": group}
    asked |= {"namespace": "" if where == "*" else where, "name": name[0] if name else ""}
    groups = ["system:serviceaccounts", f"system:serviceaccounts:{namespace}", "system:authenticated"]
    spec = {"user": f"system:serviceaccount:{namespace}:{account}", "groups": groups, "resourceAttributes": asked}
    review = {"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview", "spec": spec}
    return bool(api.create("/apis/authorization.k8s.io/v1/subjectaccessreviews", review)["status"]["allowed"])


LEASES = "leases.coordination.k8s.io"
GATEWAY = "gateway.networking.k8s.io"
GKE = "networking.gke.io"
RBAC = "rbac.authorization.k8s.io"

CONTROLLER_MAY = [
    *(f"{verb} gateways.{GATEWAY} *" for verb in ("get", "list", "watch")),
    *(f"{verb} gatewayclasses.{GATEWAY} *" for verb in ("get", "list", "watch")),
    *(f"{verb} gkeiproutes.{GKE} *" for verb in ("get", "list", "watch")),
    *(f"{verb} networks.{GKE} *" for verb in ("get", "list", "watch")),
    *(f"{verb} {what} *" for verb in ("get", "list", "watch") for what in ("pods", "namespaces")),
    "patch pods default",
    f"patch gateways/status.{GATEWAY} default",
    f"patch gkeiproutes/status.{GKE} default",
    *(f"{verb} {LEASES} default" for verb in ("get", "list", "watch", "create", "patch", "delete")),
    f"patch {LEASES} {SYSTEM} {ELECTION_LEASE}",
    *(f"create {what}.{RBAC} default" for what in ("roles", "rolebindings")),
    *(f"{verb} roles.{RBAC} default {SIDECAR_ROLE}" for verb in ("get", "patch", "delete")),
    *(f"{verb} rolebindings.{RBAC} default {SIDECAR_ROLE}" for verb in ("get", "patch", "delete")),
    "create events.events.k8s.io default",
    "patch events.events.k8s.io default",
]

CONTROLLER_MAY_NOT = [
    *(f"{verb} pods default" for verb in ("create", "delete", "deletecollection", "update")),
    *(f"{verb} pods/{sub} default" for verb, sub in (("patch", "status"), ("create", "exec"), ("create", "eviction"))),
    "patch pods/ephemeralcontainers default",
    "create pods/binding default",
    *(f"{verb} {what} default" for verb in ("get", "list") for what in ("secrets", "configmaps", "serviceaccounts")),
    "create serviceaccounts/token default",
    *(f"{verb} gateways.{GATEWAY} default" for verb in ("create", "patch", "update", "delete")),
    *(f"{verb} gkeiproutes.{GKE} default" for verb in ("create", "patch", "update", "delete")),
    *(f"{verb} networks.{GKE} *" for verb in ("create", "patch", "delete")),
    f"deletecollection {LEASES} default",
    *(f"{verb} roles.{RBAC} default {SIDECAR_ROLE}" for verb in ("escalate", "bind")),
    *(f"{verb} roles.{RBAC} default another" for verb in ("get", "patch", "update", "delete")),
    *(f"{verb} rolebindings.{RBAC} default another" for verb in ("get", "patch", "update", "delete")),
    *(f"{verb} clusterroles.{RBAC} *" for verb in ("get", "create", "patch", "bind", "escalate")),
    *(f"{verb} clusterrolebindings.{RBAC} *" for verb in ("create", "patch")),
    "patch validatingadmissionpolicies.admissionregistration.k8s.io *",
    "impersonate users *",
    "patch nodes *",
    "patch namespaces *",
    "get nodes *",
]


@pytest.mark.parametrize("request_", CONTROLLER_MAY)
def test_the_controller_may(world: World, request_: str) -> None:
    assert _may(world.api, SYSTEM, CONTROLLER_ACCOUNT, request_)


@pytest.mark.parametrize("request_", CONTROLLER_MAY_NOT)
def test_the_controller_may_not(world: World, request_: str) -> None:
    assert not _may(world.api, SYSTEM, CONTROLLER_ACCOUNT, request_)


# The sidecars' Role, which the controller grants ----------------------------------------------------------------------

SIDECAR_RULES = [
    {
        "apiGroups": ["coordination.k8s.io"],
        "resources": ["leases"],
        "resourceNames": ["holdfast-r", "holdfast-s"],
        "verbs": ["get", "watch", "update", "patch"],
    },
    # of Pods whose agents read their assignment by a watch
    {"apiGroups": [""], "resources": ["pods"], "resourceNames": ["a"], "verbs": ["get", "watch"]},
]


def _rbac(namespace: str) -> str:
    return f"/apis/rbac.authorization.k8s.io/v1/namespaces/{namespace}"


def _role(name: str, rules: list[dict[str, Any]]) -> dict[str, Any]:
    return {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": {"name": name}, "rules": rules}


def _binding(namespace: str, kind: str, role: str) -> dict[str, Any]:
    group = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Group", "name": f"system:serviceaccounts:{namespace}"}
    made = {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": {"name": SIDECAR_ROLE}}
    ref = {"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": role}
    return {**made, "roleRef": ref, "subjects": [group]}


@pytest.fixture
def controller(world: World) -> Iterator[ApiClient]:
    with contextlib.closing(world.api.as_token(world.token(SYSTEM, CONTROLLER_ACCOUNT))) as api:
        yield api


@pytest.fixture
def granted(world: World, controller: ApiClient, kube_namespace: str) -> str:
    """A namespace in which the controller has granted the sidecars' Role, and the API server's authorizer knows it."""
    controller.create(f"{_rbac(kube_namespace)}/roles", _role(SIDECAR_ROLE, SIDECAR_RULES))
    binding = _binding(kube_namespace, "Role", SIDECAR_ROLE)
    controller.create(f"{_rbac(kube_namespace)}/rolebindings", binding)
    # its caches of Roles and of bindings follow by watches of their own
    assert any(_may(world.api, kube_namespace, "default", f"get pods {kube_namespace} a") for _ in range(5000))
    return kube_namespace


SIDECAR_MAY = [
    "get pods a",
    "watch pods a",
    *(f"{verb} {LEASES} holdfast-{route}" for verb in ("get", "watch", "patch", "update") for route in ("r", "s")),
]
SIDECAR_MAY_NOT = [
    *(f"{verb} pods" for verb in ("get", "watch", "list", "create", "patch", "update", "delete")),
    *(f"{verb} pods b" for verb in ("get", "watch")),
    *(f"{verb} {LEASES}" for verb in ("get", "list", "watch", "patch", "update", "create", "delete")),
    *(f"{verb} {LEASES} my-operator" for verb in ("get", "watch", "patch", "update")),
    *(f"{verb} {LEASES} holdfast-r" for verb in ("list", "create", "delete")),
    f"patch gkeiproutes.{GKE}",
    "get secrets",
]


def test_the_sidecars_role_is_what_it_should_be(world: World, granted: str) -> None:
    answers = {}
    for request in SIDECAR_MAY + SIDECAR_MAY_NOT:
        verb, what, *name = request.split()
        answers[request] = _may(world.api, granted, "default", " ".join([verb, what, granted, *name]))
    assert answers == {request: request in SIDECAR_MAY for request in SIDECAR_MAY + SIDECAR_MAY_NOT}
    assert not _may(world.api, granted, "default", "get pods default a")


@pytest.fixture
def sidecar(world: World, granted: str) -> Iterator[ApiClient]:
    """A Pod's agent, with nothing but the Role that the controller has granted."""
    api = world.api
    account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "app"}}
    api.create(f"/api/v1/namespaces/{granted}/serviceaccounts", account)
    container = {"name": "app", "image": "app:1"}
    spec = {"schedulerName": "nobody", "serviceAccountName": "app", "automountServiceAccountToken": False}
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a"}, "spec": {**spec, "containers": [container]}}
    uid = api.create(f"/api/v1/namespaces/{granted}/pods", pod)["metadata"]["uid"]
    with contextlib.closing(api.as_token(world.token(granted, "app", ("a", uid)))) as own:
        yield own


def _watched(api: ApiClient, collection: str, name: str) -> dict[str, Any]:
    """The first event of a watch of one object, which is all there is within a second when nothing changes."""
    return api.get(collection, watch="true", fieldSelector=f"metadata.name={name}", timeoutSeconds="1")


@pytest.mark.usefixtures("quiet")
def test_a_sidecar_watches_its_pod_and_its_leases(granted: str, sidecar: ApiClient, controller: ApiClient) -> None:
    leases = f"/apis/coordination.k8s.io/v1/namespaces/{granted}/leases"
    controller.create(leases, contract_lease.create("r", granted, "", 10, addresses=()))
    assert _watched(sidecar, f"/api/v1/namespaces/{granted}/pods", "a")["object"]["metadata"]["name"] == "a"
    assert _watched(sidecar, leases, "holdfast-r")["object"]["metadata"]["name"] == "holdfast-r"
    assert sidecar.get(f"{leases}/holdfast-r")["kind"] == "Lease"


def test_a_sidecar_watches_no_other_leases(granted: str, sidecar: ApiClient) -> None:
    leases = f"/apis/coordination.k8s.io/v1/namespaces/{granted}/leases"
    for query in ({"fieldSelector": "metadata.name=my-operator"}, {}):
        with pytest.raises(ApiError) as caught:
            sidecar.get(leases, watch="true", **query)
        assert caught.value.code == 403


@pytest.mark.parametrize(
    "rule",
    [
        {"apiGroups": [""], "resources": ["secrets"], "verbs": ["get"]},
        {"apiGroups": [""], "resources": ["pods"], "verbs": ["delete"]},
        {"apiGroups": ["networking.gke.io"], "resources": ["gkeiproutes"], "verbs": ["patch"]},
        {"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]},
    ],
    ids=["secrets", "pods", "routes", "everything"],
)
def test_the_controller_grants_no_more_than_it_has(controller: ApiClient, granted: str, rule: dict[str, Any]) -> None:
    patch = {"rules": [*SIDECAR_RULES, rule]}
    with pytest.raises(ApiError) as caught:
        controller.patch(f"{_rbac(granted)}/roles/{SIDECAR_ROLE}", patch, MERGE)
    assert "attempting to grant RBAC permissions not currently held" in str(caught.value)


def test_the_controller_makes_nobody_an_admin(controller: ApiClient, kube_namespace: str) -> None:
    binding = _binding(kube_namespace, "ClusterRole", "cluster-admin")
    with pytest.raises(ApiError) as caught:
        controller.create(f"{_rbac(kube_namespace)}/rolebindings", binding)
    assert caught.value.code == 403


def test_the_controller_keeps_the_role(controller: ApiClient, granted: str) -> None:
    path = f"{_rbac(granted)}/roles/{SIDECAR_ROLE}"
    rules = copy.deepcopy(SIDECAR_RULES)
    rules[0]["resourceNames"] = ["holdfast-r", "holdfast-t"]
    assert controller.patch(path, {"rules": rules}, MERGE)["rules"] == rules
    controller.delete(f"{_rbac(granted)}/rolebindings/{SIDECAR_ROLE}")
    controller.delete(path)


# examples/seed: the guide's manifests, word for word ------------------------------------------------------------------

CIDR = "gke.networking.io/cidr"
BOTH = [{"value": "34.123.10.1/32", "type": CIDR}, {"value": "34.123.10.2/32", "type": CIDR}]
MULTI_NIC = {
    "networking.gke.io/default-interface": "eth0",
    "networking.gke.io/interfaces": (
        '[{"interfaceName":"eth0","network":"default"}, {"interfaceName":"eth1","network":"blue-network"}]'
    ),
}


def _guides_route(name: str, namespace: str, network: str, labels: dict[str, str], addresses: Any = BOTH) -> Any:
    spec = {
        "parentRefs": [{"name": "allowed-pod-ips", "namespace": "default"}],
        "addresses": addresses,
        "network": network,
        "reactionMode": "ReadyCondition",
        "podSelector": {"matchLabels": labels},
    }
    metadata = {"namespace": namespace, "name": name}
    return {"kind": "GKEIPRoute", "apiVersion": "networking.gke.io/v1", "metadata": metadata, "spec": spec}


def _guides_set(kind: str, name: str, template: dict[str, Any], **spec: Any) -> Any:
    containers = [{"name": "hello-app", "image": "us-docker.pkg.dev/google-samples/containers/gke/hello-app:1.0"}]
    labels = {"component": "proxy"}
    pods = {"metadata": {**template, "labels": labels}, "spec": {"containers": containers}}
    metadata = {"namespace": f"{name}-ns", "name": name}
    spec |= {"selector": {"matchLabels": labels}, "template": pods}
    return {"apiVersion": "apps/v1", "kind": kind, "metadata": metadata, "spec": spec}


GATEWAY_SPEC = {
    "gatewayClassName": "gke-persistent-regional-external-managed",
    "listeners": [
        {"name": "default", "port": 443, "protocol": "none", "allowedRoutes": {"namespaces": {"from": "All"}}}
    ],
    "addresses": BOTH,
}
DEPLOYMENT_ROUTE = _guides_route("my-pod-ips", "proxy-deploy-ns", "blue-network", {"component": "proxy"})
GUIDE = {
    "allowed-pod-ips.yaml": [
        {
            "kind": "Gateway",
            "apiVersion": "gateway.networking.k8s.io/v1beta1",
            "metadata": {"namespace": "default", "name": "allowed-pod-ips"},
            "spec": GATEWAY_SPEC,
        }
    ],
    "my-ip-route.yaml": [_guides_route("my-ip-route", "default", "default", {"component": "proxy"}, BOTH[:1])],
    "my-pod-ips-statefulset.yaml": [
        _guides_route(
            "my-pod-ips", "proxy-ss-ns", "blue-network", {"statefulset.kubernetes.io/pod-name": "proxy-ss-1"}
        ),
        _guides_set("StatefulSet", "proxy-ss", {"annotations": MULTI_NIC}, serviceName="proxy", replicas=3),
    ],
    "my-pod-ips-deployment.yaml": [DEPLOYMENT_ROUTE, _guides_set("Deployment", "proxy-deploy", {}, replicas=4)],
    "my-pod-ips-deployment-multi-nic.yaml": [
        DEPLOYMENT_ROUTE,
        _guides_set("Deployment", "proxy-deploy", {"annotations": MULTI_NIC}, replicas=4),
    ],
}


@pytest.mark.parametrize("name", GUIDE)
def test_the_guides_manifests_are_as_printed(name: str) -> None:
    text = (SEED / name).read_text(encoding="utf-8")
    assert text.isascii()
    assert list(yaml.safe_load_all(text)) == GUIDE[name]


def test_the_copy_has_the_commented_lines_and_no_other_change() -> None:
    printed = (SEED / "my-pod-ips-deployment.yaml").read_text().splitlines()
    copied = (SEED / "my-pod-ips-deployment-multi-nic.yaml").read_text().splitlines()
    changed = [(old, new) for old, new in zip(printed, copied, strict=True) if old != new]
    assert [old.replace("# ", "", 1).split("  <-")[0] for old, _ in changed] == [new for _, new in changed]
    assert len(changed) == 3


def test_the_folder_holds_nothing_else() -> None:
    assert {each.name for each in SEED.glob("*.yaml")} == {"00-namespaces.yaml", "01-network.yaml", *GUIDE}


def test_the_guides_manifests_are_accepted_unmodified(world: World) -> None:
    for namespace in ("proxy-ss-ns", "proxy-deploy-ns"):
        # another test's may be on its way out
        path = f"/api/v1/namespaces/{namespace}"
        world.api.wait(path, lambda found: found is None or found["status"]["phase"] == "Active", DEADLINE_S)
    world.kubectl("apply", "-f", str(SEED / "00-namespaces.yaml"))
    for manifest in sorted(SEED.glob("*.yaml")):
        lines = world.kubectl("apply", "--dry-run=server", "-f", str(manifest)).splitlines()
        assert len(lines) == len(list(yaml.safe_load_all(manifest.read_text())))
