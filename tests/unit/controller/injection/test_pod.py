"""Who gets the agent, what is added, and what is refused: tables, and what holds for any Pod."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given

from contract.names import CONTAINER, INJECT, INJECTION, SOURCE, Source
from controller.choice.objects import Requirement, Selector
from controller.injection.pod import admit, inject, json_patch
from controller.injection.release import SIDECAR_IMAGE
from tests.unit.controller.injection.pods import ASKS, SETTINGS, Object, any_pods, pod

ENABLED = {INJECTION: "enabled"}
WEB = Selector(match_labels={"component": "web"})
NOT_DB = Selector(match_expressions=(Requirement("component", "NotIn", ("db",)),))
IS_WEB = {"component": "web"}

EXPECTED_CONTAINER = {
    "name": "holdfast",
    "image": "holdfast-sidecar:1",
    "restartPolicy": "Always",
    "args": ["run"],
    "env": [
        {"name": "POD_NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
        {"name": "POD_NAMESPACE", "valueFrom": {"fieldRef": {"fieldPath": "metadata.namespace"}}},
        {"name": "POD_UID", "valueFrom": {"fieldRef": {"fieldPath": "metadata.uid"}}},
        {"name": "HOLDFAST_SOURCE", "value": "downward"},
        {"name": "HOLDFAST_DIRECTORY", "value": "/var/run/secrets/holdfast.dev"},
    ],
    "resources": {"requests": {"cpu": "10m", "memory": "40Mi"}, "limits": {"memory": "64Mi"}},
    "securityContext": {
        "runAsUser": 0,
        "runAsNonRoot": False,
        "privileged": False,
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"], "add": ["NET_ADMIN", "NET_RAW"]},
        "seccompProfile": {"type": "RuntimeDefault"},
    },
    "terminationMessagePolicy": "FallbackToLogsOnError",
    "volumeMounts": [{"name": "holdfast", "mountPath": "/var/run/secrets/holdfast.dev", "readOnly": True}],
}


def environment(outcome_pod: Object) -> dict[str, str]:
    return {each["name"]: each.get("value", "") for each in outcome_pod["spec"]["initContainers"][0]["env"]}


# What is added ----------------------------------------------------------------------------------------------------


def test_the_sidecar_is_the_first_init_container_and_has_a_volume_of_its_own() -> None:
    mine = {"name": "setup", "image": "setup:1"}
    given_pod = pod(initContainers=[mine], volumes=[{"name": "data", "emptyDir": {}}])
    made = inject(given_pod, SETTINGS)
    assert (made.changed, made.refused, made.warning) == (True, None, None)
    assert made.pod["spec"]["initContainers"] == [EXPECTED_CONTAINER, mine]
    assert [each["name"] for each in made.pod["spec"]["volumes"]] == ["holdfast", "data"]
    sources = made.pod["spec"]["volumes"][0]["projected"]["sources"]
    assert sources[0] == {"serviceAccountToken": {"path": "token", "expirationSeconds": 3600}}
    assert sources[1]["configMap"]["name"] == "kube-root-ca.crt"
    files = {each["path"]: each["fieldRef"]["fieldPath"] for each in sources[2]["downwardAPI"]["items"]}
    assert files == {"namespace": "metadata.namespace", "annotations": "metadata.annotations"}


@pytest.mark.parametrize(
    ("note", "default", "source"),
    [
        (None, Source.DOWNWARD, "downward"),
        (None, Source.WATCH, "watch"),
        ("watch", Source.DOWNWARD, "watch"),
        ("downward", Source.WATCH, "downward"),
    ],
)
def test_the_annotation_chooses_the_source_before_the_settings(note: Any, default: Source, source: str) -> None:
    notes = {SOURCE: note} if note else None
    made = inject(pod(notes=notes), replace(SETTINGS, source=default))
    assert environment(made.pod)["HOLDFAST_SOURCE"] == source


def test_image_and_pull_policy_are_those_of_the_settings() -> None:
    made = inject(pod(), replace(SETTINGS, image="mirror/h@sha256:0", pull_policy="Never")).pod["spec"]
    assert made["initContainers"][0]["image"] == "mirror/h@sha256:0"
    assert made["initContainers"][0]["imagePullPolicy"] == "Never"


def test_the_image_is_that_of_the_installed_release() -> None:
    name, _, tag = SIDECAR_IMAGE.partition(":")
    assert name == "holdfast-sidecar"
    assert tag[0].isdigit()


# Who gets it --------------------------------------------------------------------------------------------------------

WHO = {
    "the label asks, in any namespace": (pod(labels=ASKS), {}, (), True, ""),
    "the label asks, and no route selects": (pod(labels=ASKS), ENABLED, (WEB,), True, ""),
    "a route selects, with injection": (pod(labels=IS_WEB), ENABLED, (WEB,), True, ""),
    "the second of two routes selects": (pod(labels={"component": "x"}), ENABLED, (WEB, NOT_DB), True, ""),
    "a route selects, without injection": (pod(labels=IS_WEB), {}, (WEB,), False, INJECTION),
    "a route selects, injection is not enabled": (pod(labels=IS_WEB), {INJECTION: "off"}, (WEB,), False, INJECTION),
    "injection, no route selects": (pod(labels={"component": "db"}), ENABLED, (WEB, NOT_DB), False, "no GKEIPRoute"),
    "injection, and there is no route": (pod(), ENABLED, (), False, "no GKEIPRoute"),
    "an empty selector selects nobody": (pod(), ENABLED, (Selector(),), False, "no GKEIPRoute"),
    "a route selects, the label forbids": (pod(labels=IS_WEB | {INJECT: "false"}), ENABLED, (WEB,), False, "is false"),
    "the label asks in kube-system": (pod(labels=ASKS, namespace="kube-system"), {}, (), False, "kube-system"),
    "the label asks in holdfast-system": (pod(labels=ASKS, namespace="holdfast-system"), {}, (), False, "holdfast-"),
    "a static Pod": (pod(labels=ASKS, notes={"kubernetes.io/config.mirror": "x"}), {}, (), False, "static Pod"),
    "nobody": (pod(), {}, (), False, f"no label {INJECT}=true"),
}  # fmt: skip


@pytest.mark.parametrize("row", WHO.values(), ids=WHO)
def test_who_gets_it(row: Any) -> None:
    given_pod, namespace_labels, selectors, gets, why = row
    outcome = admit(given_pod, namespace_labels, selectors, SETTINGS)
    assert (outcome.changed, outcome.refused, outcome.warning) == (gets, None, None)
    assert why in outcome.reason
    if not gets:
        assert outcome.pod == given_pod
        assert "shop/web-0" in outcome.reason or "-system/web-0" in outcome.reason


def test_in_a_namespace_of_the_system_not_even_a_wrong_label_is_refused() -> None:
    outcome = admit(pod(labels={INJECT: "yes"}, namespace="kube-system"), ENABLED, (), SETTINGS)
    assert (outcome.changed, outcome.refused) == (False, None)


def test_the_namespace_is_known_by_its_labels_where_the_pod_does_not_say_it() -> None:
    outcome = admit(pod(labels=ASKS, namespace=""), {"kubernetes.io/metadata.name": "kube-system"}, (), SETTINGS)
    assert not outcome.changed
    assert outcome.reason.startswith("Pod kube-system/web-0 gets no sidecar")


def test_a_pod_of_a_workload_has_the_beginning_of_a_name() -> None:
    made = pod()
    made["metadata"] = {"generateName": "web-5d-", "namespace": "shop"}
    assert inject(made, SETTINGS).reason == "Pod shop/web-5d-* gets the sidecar holdfast-sidecar:1"


# Users' own agents --------------------------------------------------------------------------------------------------

OWN = {
    "an init container": pod(initContainers=[{"name": "holdfast", "restartPolicy": "Always"}]),
    "a container": pod(containers=[{"name": "app"}, {"name": "holdfast"}]),
    "a container of another name": pod(containers=[{"name": "app"}, {"name": "mine"}], notes={CONTAINER: "mine"}),
    "with a volume of ours": pod(initContainers=[{"name": "holdfast"}], volumes=[{"name": "holdfast"}]),
}


@pytest.mark.parametrize("given_pod", OWN.values(), ids=OWN)
def test_an_agent_of_the_users_own_is_left_alone(given_pod: Object) -> None:
    given_pod["metadata"]["labels"] = ASKS
    outcome = admit(given_pod, {}, (), SETTINGS)
    assert (outcome.pod, outcome.changed, outcome.refused) == (given_pod, False, None)
    assert outcome.reason.endswith("already: nothing is added")


# Pod security standards ---------------------------------------------------------------------------------------------

STANDARD = "pod-security.kubernetes.io/enforce"


@pytest.mark.parametrize("standard", ["baseline", "restricted"])
def test_a_selected_pod_that_its_namespace_would_refuse_with_the_sidecar_runs_without(standard: str) -> None:
    namespace_labels = ENABLED | {STANDARD: standard}
    selected = admit(pod(labels=IS_WEB), namespace_labels, (WEB,), SETTINGS)
    assert (selected.changed, selected.refused) == (False, None)
    assert selected.warning is not None
    assert (
        f"Pod shop/web-0 gets no sidecar: its namespace enforces the Pod security standard '{standard}'"
        in selected.warning
    )
    own = pod(labels=IS_WEB, initContainers=[{"name": "holdfast"}])
    assert admit(own, namespace_labels, (WEB,), SETTINGS).warning is None
    assert admit(pod(labels=ASKS), namespace_labels, (), SETTINGS).changed
    assert admit(pod(labels=IS_WEB), ENABLED | {STANDARD: "privileged"}, (WEB,), SETTINGS).changed


# What cannot work ---------------------------------------------------------------------------------------------------

REFUSED = {
    "hostNetwork": (pod(hostNetwork=True), "spec.hostNetwork is true"),
    "os": (pod(os={"name": "windows"}), "spec.os.name is 'windows'"),
    "nodeSelector": (pod(nodeSelector={"kubernetes.io/os": "windows"}), 'spec.nodeSelector["kubernetes.io/os"]'),
    "windowsOptions": (
        pod(securityContext={"windowsOptions": {"hostProcess": True}}), "spec.securityContext.windowsOptions is set",
    ),
    "volume": (pod(volumes=[{"name": "a"}, {"name": "holdfast"}]), "spec.volumes[1].name is 'holdfast'"),
    "ephemeral": (pod(ephemeralContainers=[{"name": "holdfast"}]), "spec.ephemeralContainers[0].name"),
    "source": (pod(notes={SOURCE: "files"}), f'metadata.annotations["{SOURCE}"] is \'files\': use downward or watch'),
    "container": (pod(notes={CONTAINER: "gone"}), f"metadata.annotations[\"{CONTAINER}\"] names 'gone'"),
}  # fmt: skip


@pytest.mark.parametrize("row", REFUSED.values(), ids=REFUSED)
def test_what_cannot_work_is_refused_where_the_pod_asks_and_left_alone_where_a_route_does(row: Any) -> None:
    given_pod, why = row
    asks, selected = copy.deepcopy(given_pod), copy.deepcopy(given_pod)
    asks["metadata"]["labels"], selected["metadata"]["labels"] = ASKS, IS_WEB
    refused = admit(asks, {}, (), SETTINGS)
    assert (refused.pod, refused.changed) == (asks, False)
    assert refused.refused is not None
    assert refused.refused.startswith(f"Pod shop/web-0: {why}")
    left = admit(selected, ENABLED, (WEB,), SETTINGS)
    assert (left.pod, left.changed, left.refused, left.warning) == (selected, False, None, refused.refused)


@pytest.mark.parametrize(
    ("field", "value", "why"),
    [
        ("spec", None, "spec.containers is empty"),
        ("spec", [], "spec.containers is empty"),
        ("spec", "x", "spec is not an object"),
        ("spec", {"containers": "app"}, "spec.containers is not a list of objects"),
        ("spec", {"containers": [{"name": ["x"]}]}, "spec.containers has an item without a name"),
        ("spec", {"containers": [{"name": "a"}], "volumes": [1]}, "spec.volumes is not a list of objects"),
        ("spec", {"containers": [{"name": "a"}], "os": "linux"}, "spec.os is not an object"),
        ("metadata", "x", "metadata is not an object"),
        ("metadata", {"name": "p", "labels": {INJECT: True}}, "metadata.labels is not a map of strings"),
        ("metadata", {"name": "p", "labels": {INJECT: "yes"}}, f'metadata.labels["{INJECT}"] is \'yes\': use "true"'),
        ("metadata", {"name": "p", "annotations": []}, None),
    ],
)
def test_what_is_not_even_a_pod_is_refused_by_both(field: str, value: Any, why: str | None) -> None:
    given_pod = pod() | {field: value}
    for outcome in (inject(given_pod, SETTINGS), admit(given_pod, ENABLED, (NOT_DB,), SETTINGS)):
        assert (outcome.refused is not None) == (why is not None)
        assert (why or "") in (outcome.refused or "")


def test_a_message_says_where_in_which_object_the_template_is() -> None:
    outcome = inject(pod(hostNetwork=True), SETTINGS, name="Deployment shop/web", at="spec.template.")
    assert outcome.refused is not None
    assert outcome.refused.startswith("Deployment shop/web: spec.template.spec.hostNetwork is true")
    assert outcome.refused.endswith(f'or set the label {INJECT} to "false"')


FINE = {
    "shareProcessNamespace": {"shareProcessNamespace": True},
    "hostUsers": {"hostUsers": False},
    "a Job's restartPolicy": {"restartPolicy": "Never"},
    "as a user who is not root": {"securityContext": {"runAsUser": 1000, "runAsNonRoot": True}},
    "no token": {"automountServiceAccountToken": False},
    "os linux": {"os": {"name": "linux"}, "nodeSelector": {"kubernetes.io/os": "linux"}},
}


@pytest.mark.parametrize("spec", FINE.values(), ids=FINE)
def test_what_works_is_not_refused(spec: Object) -> None:
    assert inject(pod(**spec), SETTINGS).changed


# For any Pod --------------------------------------------------------------------------------------------------------


def applied(target: Object, patch: list[Object]) -> Object:
    """Do what RFC 6902 says for `add`, as far as these paths need it."""
    result = copy.deepcopy(target)
    for step in patch:
        assert step["op"] == "add"
        *parents, last = step["path"].strip("/").split("/")
        place: Any = result
        for each in parents:
            place = place[each]
        if isinstance(place, list):
            place.insert(len(place) if last == "-" else int(last), step["value"])
        else:
            place[last] = step["value"]
    return result


@given(any_pods())
def test_a_second_time_changes_nothing_and_the_input_stays(given_pod: Object) -> None:
    before = copy.deepcopy(given_pod)
    once = inject(given_pod, SETTINGS)
    assert given_pod == before
    twice = inject(once.pod, SETTINGS)
    assert twice.pod == once.pod
    if once.changed:
        assert (twice.changed, twice.refused) == (False, None)


@given(any_pods())
def test_the_sidecar_comes_first_and_nothing_of_the_users_is_lost(given_pod: Object) -> None:
    made = inject(given_pod, SETTINGS)
    if not made.changed:
        assert made.pod == given_pod
        return
    spec, old = dict(made.pod["spec"]), given_pod["spec"]
    first, *inits = spec.pop("initContainers")
    added, *volumes = spec.pop("volumes")
    assert (first["name"], added["name"]) == ("holdfast", "holdfast")
    assert inits == (old.get("initContainers") or [])
    assert volumes == (old.get("volumes") or [])
    assert spec == {key: value for key, value in old.items() if key not in ("initContainers", "volumes")}
    assert {**made.pod, "spec": old} == given_pod


@given(any_pods())
def test_the_patch_makes_of_the_one_the_other(given_pod: Object) -> None:
    made = inject(given_pod, SETTINGS)
    patch = json_patch(given_pod, made)
    assert applied(given_pod, patch) == made.pod
    assert bool(patch) == made.changed


@given(any_pods())
def test_nobody_gets_it_with_hostnetwork_or_the_label_false(given_pod: Object) -> None:
    labels = given_pod["metadata"].get("labels") or {}
    if given_pod["spec"].get("hostNetwork") or labels.get(INJECT) == "false":
        assert not admit(given_pod, ENABLED, (NOT_DB,), SETTINGS).changed
        assert not inject(given_pod, SETTINGS).changed
