"""The policies of `controller.injection.policy` on a real API server with its feature gate on.

What they make of a Pod is compared with what the pure function makes of it: both Pods go through the API server, which
fills in the same defaults. Pods are created for trial only (`dryRun`), so that none runs.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import pytest

from cli.manifest import documents
from contract.names import CONTAINER, INJECT, INJECTION, SOURCE
from controller.choice.objects import Requirement, Selector
from controller.injection.pod import STANDARD, admit, inject
from controller.injection.policy import policies
from controller.injection.sidecar import Settings
from lab.errors import ApiError
from lab.world import injection

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from lab.world.world import World

pytestmark = pytest.mark.lab

Object = dict[str, Any]

SETTINGS = Settings(image="holdfast-sidecar:policy")
ASKS = {INJECT: "true"}
SOON_S = 30.0
PROBE, OTHER = "policy-probe", "policy-other"


def pod(*, labels: Any = None, notes: Any = None, **spec: Any) -> Object:
    meta = {"name": "web-0", "labels": labels or {}, "annotations": notes or {}}
    containers = [{"name": "app", "image": "app:1"}]
    # without the token that the API server mounts by itself, since the volume has another name each time
    fixed = {"automountServiceAccountToken": False, "containers": containers}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": {**fixed, **spec}}


def tried(world: World, namespace: str, body: Object) -> Object:
    return world.api.create(f"/api/v1/namespaces/{namespace}/pods", body, dryRun="All", fieldValidation="Strict")


def until(what: str, holds: Callable[[], bool]) -> None:
    """Policies and their parameters come into effect some time after they are stored, and no event says so: ask."""
    deadline = time.monotonic() + SOON_S
    while not holds():
        assert time.monotonic() < deadline, f"{what}: not within {SOON_S:g} s"


def refusal(world: World, namespace: str, body: Object) -> str:
    """What the API server says against a Pod; nothing where it takes it."""
    try:
        tried(world, namespace, body)
    except ApiError as error:
        return str(error)
    return ""


def injects(world: World, labels: Object) -> bool:
    return "holdfast" in names(tried(world, PROBE, pod(labels=labels)))


def names(body: Object) -> list[str]:
    return [each["name"] for each in body["spec"].get("initContainers", [])]


@pytest.fixture(scope="module")
def installed(world: World) -> Iterator[World]:
    text = documents(policies(SETTINGS))
    with injection.off(world.api):
        world.apply(text)
        for name in (PROBE, OTHER):
            world.create_namespace(name)
        until("the validating policy", lambda: "ValidatingAdm" in refusal(world, PROBE, pod(labels={INJECT: "maybe"})))
        until("the mutating policy", lambda: not refusal(world, PROBE, pod(labels=ASKS)) and injects(world, ASKS))
        yield world
        world.kubectl("delete", "-f", "-", stdin=text)
        for name in (PROBE, OTHER):
            world.api.delete(f"/api/v1/namespaces/{name}")


@pytest.fixture
def space(installed: World, kube_namespace: str) -> str:  # noqa: ARG001 - the policies are to be there
    return kube_namespace


# The label ------------------------------------------------------------------------------------------------------------

INIT = {"name": "setup", "image": "setup:1"}
DATA = {"name": "data", "emptyDir": {}}
PODS = {
    "plain": pod(labels=ASKS),
    "with init containers and volumes": pod(labels=ASKS, initContainers=[INIT], volumes=[DATA]),
    "with two of each": pod(
        labels=ASKS, initContainers=[INIT, INIT | {"name": "b"}], volumes=[DATA, DATA | {"name": "b"}]
    ),
    "source watch": pod(labels=ASKS, notes={SOURCE: "watch"}),
    "another user": pod(labels=ASKS, securityContext={"runAsUser": 1000, "runAsNonRoot": True, "fsGroup": 2000}),
    "of a Job": pod(labels=ASKS, restartPolicy="Never", os={"name": "linux"}),
    "an agent of its own": pod(labels=ASKS, initContainers=[INIT | {"name": "holdfast", "restartPolicy": "Always"}]),
    "an agent of another name": pod(labels=ASKS, initContainers=[INIT | {"name": "mine"}], notes={CONTAINER: "mine"}),
    "an agent on the node's network": pod(labels=ASKS, initContainers=[INIT | {"name": "holdfast"}], hostNetwork=True),
    "forbidden": pod(labels={INJECT: "false"}),
    "not asked for": pod(),
    "not asked for, on the node's network": pod(hostNetwork=True),
}


@pytest.mark.parametrize("body", PODS.values(), ids=PODS)
def test_the_policy_makes_of_a_pod_what_the_function_makes_of_it(installed: World, space: str, body: Object) -> None:
    by_function = admit(body, {}, (), SETTINGS)
    assert by_function.refused is None
    by_policy = tried(installed, space, body)
    assert by_policy["spec"] == tried(installed, space, by_function.pod)["spec"]
    assert names(by_policy) == names(by_function.pod)


REFUSED = {
    "hostNetwork": (pod(labels=ASKS, hostNetwork=True), "spec.hostNetwork is true"),
    "os": (pod(labels=ASKS, os={"name": "windows"}), "spec.os.name is"),
    "nodeSelector": (
        pod(labels=ASKS, nodeSelector={"kubernetes.io/os": "windows"}),
        'spec.nodeSelector["kubernetes.io/os"] is',
    ),
    "windowsOptions": (
        pod(labels=ASKS, securityContext={"windowsOptions": {"runAsUserName": "x"}}),
        "spec.securityContext.windowsOptions is set",
    ),
    "volume": (pod(labels=ASKS, volumes=[DATA | {"name": "holdfast"}]), "rename it"),
    "source": (pod(labels=ASKS, notes={SOURCE: "files"}), f'metadata.annotations["{SOURCE}"] is'),
    "container": (pod(labels=ASKS, notes={CONTAINER: "gone"}), f'metadata.annotations["{CONTAINER}"] names'),
    "label": (pod(labels={INJECT: "yes"}), f'metadata.labels["{INJECT}"]'),
}


@pytest.mark.parametrize("row", REFUSED.values(), ids=REFUSED)
def test_what_the_function_refuses_the_policy_refuses_in_its_words(installed: World, space: str, row: Any) -> None:
    body, why = row
    assert why in (admit(body, {}, (), SETTINGS).refused or "")
    said = refusal(installed, space, body)
    assert "ValidatingAdmissionPolicy 'holdfast-inject-labelled'" in said
    assert why in said


def test_a_second_time_changes_nothing(installed: World, space: str) -> None:
    once = tried(installed, space, PODS["plain"])
    assert tried(installed, space, PODS["plain"] | {"spec": once["spec"]})["spec"] == once["spec"]


@pytest.mark.parametrize("namespace", ["kube-system", "holdfast-system"])
def test_in_a_namespace_of_the_system_nobody_gets_it(installed: World, namespace: str) -> None:
    account = f"/api/v1/namespaces/{namespace}/serviceaccounts/default"
    installed.api.wait(account, lambda found: found is not None, SOON_S)
    limits: Object = {"allowPrivilegeEscalation": False, "runAsNonRoot": True, "capabilities": {"drop": ["ALL"]}}
    limits["seccompProfile"] = {"type": "RuntimeDefault"}
    # as the Pod security standard of holdfast-system wants it
    body = pod(labels=ASKS, containers=[{"name": "app", "image": "app:1", "securityContext": limits}])
    assert names(tried(installed, namespace, body)) == []


# Routes ---------------------------------------------------------------------------------------------------------------


def route(name: str, selector: Object) -> Object:
    spec = {
        "parentRefs": [{"name": "g"}],
        "addresses": [{"type": "gke.networking.io/cidr", "value": "192.0.2.1/32"}],
        "podSelector": selector,
    }
    return {"apiVersion": "networking.gke.io/v1", "kind": "GKEIPRoute", "metadata": {"name": name}, "spec": spec}


EXPRESSIONS: list[Any] = [
    {"key": "tier", "operator": "In", "values": ["front", "edge"]},
    {"key": "colour", "operator": "NotIn", "values": ["red"]},
    {"key": "shop", "operator": "Exists"},
    {"key": "old", "operator": "DoesNotExist"},
]
MEETS = {"tier": "edge", "shop": ""}
SELECTORS = (
    Selector(match_labels={"component": "web"}),
    Selector(match_labels={"component": "web", "stage": "live"}),
    Selector(
        match_expressions=tuple(
            Requirement(each["key"], each["operator"], each.get("values", ())) for each in EXPRESSIONS
        )
    ),
)
LABELS = {
    "matchLabels": {"component": "web"},
    "matchLabels of two routes": {"component": "web", "stage": "live"},
    "another value": {"component": "db"},
    "matchExpressions": MEETS,
    "In, another value": MEETS | {"tier": "back"},
    "In, no such label": {"shop": ""},
    "NotIn, that value": MEETS | {"colour": "red"},
    "NotIn, another value": MEETS | {"colour": "blue"},
    "Exists, and it does not": {"tier": "edge"},
    "DoesNotExist, and it does": MEETS | {"old": "x"},
    "no labels": {},
    "selected, but forbidden": {"component": "web", INJECT: "false"},
}


@pytest.fixture(scope="module")
def routed(installed: World) -> Iterator[World]:
    """Three routes in a namespace with injection, and one in a namespace without."""
    api = installed.api
    api.patch(f"/api/v1/namespaces/{PROBE}", {"metadata": {"labels": {INJECTION: "enabled"}}})
    selectors = [
        {"matchLabels": SELECTORS[0].match_labels},
        {"matchLabels": SELECTORS[1].match_labels},
        {"matchExpressions": EXPRESSIONS},
    ]
    for i, selector in enumerate(selectors):
        api.create(f"/apis/networking.gke.io/v1/namespaces/{PROBE}/gkeiproutes", route(f"r{i}", selector))
    api.create(f"/apis/networking.gke.io/v1/namespaces/{OTHER}/gkeiproutes", route("r", selectors[0]))
    for labels in ({"component": "web"}, MEETS):
        until(f"the routes for {labels}", lambda labels=labels: injects(installed, labels))
    yield installed
    for namespace in (PROBE, OTHER):
        api.delete(f"/apis/networking.gke.io/v1/namespaces/{namespace}/gkeiproutes")


@pytest.mark.parametrize("labels", LABELS.values(), ids=LABELS)
def test_with_injection_those_that_a_route_selects_get_it(routed: World, labels: Object) -> None:
    body = pod(labels=labels)
    by_function = admit(body, {INJECTION: "enabled"}, SELECTORS, SETTINGS)
    by_policy = tried(routed, PROBE, body)
    assert by_policy["spec"] == tried(routed, OTHER, by_function.pod)["spec"]
    assert names(by_policy) == names(by_function.pod)


def test_the_node_s_network_and_a_wrong_annotation_are_left_alone(routed: World) -> None:
    for body in (
        pod(labels={"component": "web"}, hostNetwork=True),
        pod(labels={"component": "web"}, notes={SOURCE: "files"}),
    ):
        assert names(tried(routed, PROBE, body)) == []
        assert admit(body, {INJECTION: "enabled"}, SELECTORS, SETTINGS).warning


def test_where_the_pod_would_be_refused_with_it_a_selected_pod_runs_without(routed: World) -> None:
    space, labels = f"/api/v1/namespaces/{PROBE}", {"component": "web"}
    asks, selected = pod(labels=ASKS), pod(labels=labels)
    routed.api.patch(space, {"metadata": {"labels": {STANDARD: "baseline"}}})
    try:
        until("the standard", lambda: "PodSecurity" in refusal(routed, PROBE, asks))
        said = refusal(routed, PROBE, asks)
        assert 'container "holdfast" must not include "NET_ADMIN", "NET_RAW"' in said
        # the policy learns of the label by itself, a moment sooner or later
        until("the standard for the policy", lambda: not refusal(routed, PROBE, selected))
        assert names(tried(routed, PROBE, selected)) == []
        assert admit(selected, {INJECTION: "enabled", STANDARD: "baseline"}, SELECTORS, SETTINGS).warning
    finally:
        routed.api.patch(space, {"metadata": {"labels": {STANDARD: None}}})
    until("no standard", lambda: not refusal(routed, PROBE, asks) and injects(routed, labels))


def test_without_the_namespaces_label_a_route_alone_gives_nothing(routed: World) -> None:
    body = pod(labels={"component": "web"})
    assert names(tried(routed, OTHER, body)) == []
    assert not admit(body, {}, SELECTORS, SETTINGS).changed
    assert inject(body, SETTINGS).changed
