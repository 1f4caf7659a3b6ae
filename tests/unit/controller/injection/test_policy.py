"""The policies as text: they say what the function says, and the command prints them. The lab tries them."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import yaml
from click.testing import CliRunner

from cli.main import main
from contract.names import Source
from controller.injection import policy
from controller.injection.policy import LABELLED, SELECTED, policies
from controller.injection.sidecar import container, volume
from tests.unit.controller.injection.pods import SETTINGS, Object
from tests.unit.controller.injection.test_pod import REFUSED


def of(kind: str, name: str, settings: Any = SETTINGS) -> Object:
    found = [x for x in policies(settings) if (x["kind"], x["metadata"]["name"]) == (kind, name)]
    assert len(found) == 1
    return found[0]


def texts(value: Any) -> set[str]:
    if isinstance(value, dict):
        return set().union(*(texts(each) for each in value.values()), value)
    if isinstance(value, list):
        return set().union(*(texts(each) for each in value))
    return {str(value)}


def test_every_name_and_value_of_container_and_volume_is_in_both_policies() -> None:
    settings = replace(SETTINGS, image='mirror/"quoted":1', pull_policy="Never")
    wanted = texts([container(settings, Source.WATCH), volume()]) - {"watch", "True", "False", settings.image}
    for name in (LABELLED, SELECTED):
        spec = of("MutatingAdmissionPolicy", name, settings)["spec"]
        expression = spec["mutations"][0]["jsonPatch"]["expression"]
        assert [each for each in wanted if each not in expression] == []
        assert r'image: "mirror/\"quoted\":1"' in expression
        assert "value: variables.source" in expression


def test_the_default_source_is_that_of_the_settings() -> None:
    spec = of("MutatingAdmissionPolicy", LABELLED, replace(SETTINGS, source=Source.WATCH))["spec"]
    source = next(each["expression"] for each in spec["variables"] if each["name"] == "source")
    assert source.endswith(".orValue('watch')")


def test_a_pod_that_asks_must_not_run_without_and_one_that_is_selected_may() -> None:
    assert of("MutatingAdmissionPolicy", LABELLED)["spec"]["failurePolicy"] == "Fail"
    assert of("ValidatingAdmissionPolicy", LABELLED)["spec"]["failurePolicy"] == "Fail"
    assert of("MutatingAdmissionPolicy", SELECTED)["spec"]["failurePolicy"] == "Ignore"


def test_every_refusal_of_the_function_is_one_of_the_policys_but_for_what_is_not_in_a_new_pod() -> None:
    """A cause that is added to one of them is to be added to the other."""
    said = " ".join(check["message"] for check in of("ValidatingAdmissionPolicy", LABELLED)["spec"]["validations"])
    for name, (_, why) in REFUSED.items():
        field = re.sub(r"\[\d+\]\.name", "", why.split(" ")[0])
        assert (field in said) == (name != "ephemeral"), field
    assert len(policy._PROBLEMS) == len(REFUSED) - 1


def test_each_binding_names_its_policy() -> None:
    bodies = policies(SETTINGS)
    for body, binding in zip(bodies[::2], bodies[1::2], strict=True):
        assert binding["kind"] == f"{body['kind']}Binding"
        assert binding["spec"]["policyName"] == body["metadata"]["name"]
        assert binding["apiVersion"] == body["apiVersion"]


def test_the_command_prints_them() -> None:
    result = CliRunner().invoke(main, ["inject", "--policy", "--image", SETTINGS.image])
    assert result.exit_code == 0
    assert list(yaml.safe_load_all(result.stdout)) == policies(SETTINGS)


def test_files_and_policies_at_once_are_wrong_usage() -> None:
    result = CliRunner().invoke(main, ["inject", "--policy", "-f", "-"], input="")
    assert result.exit_code == 2
    assert "either -f FILE" in result.stderr
