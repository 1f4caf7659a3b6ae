"""The same as `controller.injection.pod`, said to the API server itself: admission policies in CEL. Pure.

For those who want no webhook. Two MutatingAdmissionPolicies (admissionregistration.k8s.io/v1beta1: Kubernetes 1.34
with its feature gate on) add the agent, one to Pods that ask by their label, one to those that a GKEIPRoute selects:
the route is that policy's parameter. A ValidatingAdmissionPolicy refuses a Pod that asks and cannot have one, since a
mutating policy cannot refuse with a sentence. They are JSON patches, not apply configurations, since these cannot put
a container first in its list.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

from contract.names import CONTAINER, INJECT, INJECTION, SOURCE, SOURCE_VARIABLE, Source
from controller.injection.pod import ENABLED, MIRROR, NEVER_IN, STANDARD, TOO_STRICT
from controller.injection.sidecar import CONTAINER_NAME, VOLUME_NAME, Object, container, volume
from controller.injection.unfit import OS_LABEL

if TYPE_CHECKING:
    from controller.injection.sidecar import Settings

LABELLED: Final = "holdfast-inject-labelled"
SELECTED: Final = "holdfast-inject-selected"
_BETA: Final = "admissionregistration.k8s.io/v1beta1"
_STABLE: Final = "admissionregistration.k8s.io/v1"
_PART: Final = {"app.kubernetes.io/part-of": "holdfast"}
_FREE_KEYS: Final = frozenset({"requests", "limits"})
"""Fields whose keys are the user's: maps in CEL, not objects."""


class _Cel(str):
    """An expression, not a text."""

    __slots__ = ()


# What is asked of a Pod -----------------------------------------------------------------------------------------------

_VARIABLES: Final = {
    "labels": "object.metadata.?labels.orValue({})",
    "notes": "object.metadata.?annotations.orValue({})",
    "inits": "object.spec.?initContainers.orValue([])",
    "volumes": "object.spec.?volumes.orValue([])",
    "names": "variables.inits.map(c, c.name) + object.spec.containers.map(c, c.name)",
    "agent": f"'{CONTAINER_NAME}' in variables.names || "
    f"('{CONTAINER}' in variables.notes && variables.notes['{CONTAINER}'] in variables.names)",
}

_PROBLEMS: Final = (
    (
        "object.spec.?hostNetwork.orValue(false)",
        "spec.hostNetwork is true, so the address would be the node's: remove it",
    ),
    (
        "object.spec.?os.name.orValue('linux') != 'linux'",
        "spec.os.name is not linux, and holdfast needs Linux: set it to linux",
    ),
    (
        f"object.spec.?nodeSelector[?'{OS_LABEL}'].orValue('linux') != 'linux'",
        f'spec.nodeSelector["{OS_LABEL}"] is not linux, and holdfast needs Linux: set it to linux',
    ),
    (
        "object.spec.?securityContext.?windowsOptions.hasValue()",
        "spec.securityContext.windowsOptions is set, and holdfast needs Linux: remove it",
    ),
    (
        f"!(variables.notes[?'{SOURCE}'].orValue('{Source.DOWNWARD}') in {json.dumps(list(Source))})",
        f'metadata.annotations["{SOURCE}"] is not known: use {" or ".join(Source)}',
    ),
    (
        f"'{CONTAINER}' in variables.notes && !(variables.notes['{CONTAINER}'] in variables.names)",
        f'metadata.annotations["{CONTAINER}"] names no container of the Pod: correct it, or remove the annotation',
    ),
    (
        f"variables.volumes.exists(v, v.name == '{VOLUME_NAME}')",
        f"spec.volumes has a volume {VOLUME_NAME!r}, the name of the volume that is added: rename it",
    ),
)
"""What cannot work and what to do about it, as in `controller.injection.unfit`; asked where there is no agent."""

_SELECTS: Final = (
    "params.spec.podSelector.?matchLabels.orValue({}).size() + "
    "params.spec.podSelector.?matchExpressions.orValue([]).size() > 0 && "
    "params.spec.podSelector.?matchLabels.orValue({})"
    ".all(k, variables.labels[?k].orValue('') == params.spec.podSelector.matchLabels[k] && k in variables.labels) && "
    "params.spec.podSelector.?matchExpressions.orValue([]).all(e, "
    "e.operator == 'In' ? e.key in variables.labels && variables.labels[e.key] in e.?values.orValue([]) : "
    "e.operator == 'NotIn' ? !(e.key in variables.labels && variables.labels[e.key] in e.?values.orValue([])) : "
    "e.operator == 'Exists' ? e.key in variables.labels : "
    "e.operator == 'DoesNotExist' && !(e.key in variables.labels))"
)


def policies(settings: Settings) -> list[Object]:
    """Everything that is to be applied: three policies, each with its binding."""
    return [
        _mutating(LABELLED, _labelled_constraints({"key": INJECT, "operator": "In", "values": ["true"]}), settings),
        _binding("MutatingAdmissionPolicyBinding", _BETA, LABELLED),
        _validating(),
        _binding("ValidatingAdmissionPolicyBinding", _STABLE, LABELLED, validationActions=["Deny"]),
        _selecting(settings),
        _binding(
            "MutatingAdmissionPolicyBinding",
            _BETA,
            SELECTED,
            # no namespace: the routes of the Pod's own
            paramRef={"selector": {}, "parameterNotFoundAction": "Allow"},
        ),
    ]


def _selecting(settings: Settings) -> Object:
    constraints = _labelled_constraints({"key": INJECT, "operator": "NotIn", "values": ["false"]})
    constraints["namespaceSelector"]["matchLabels"] = {INJECTION: ENABLED}
    # the Pod would be refused with its agent, and so it is to run without
    lax = {"key": STANDARD, "operator": "NotIn", "values": list(TOO_STRICT)}
    constraints["namespaceSelector"]["matchExpressions"].append(lax)
    policy = _mutating(SELECTED, constraints, settings, selects=_SELECTS)
    policy["spec"] |= {
        "failurePolicy": "Ignore",
        "paramKind": {"apiVersion": "networking.gke.io/v1", "kind": "GKEIPRoute"},
    }
    return policy


def _mutating(name: str, constraints: Object, settings: Settings, selects: str = "true") -> Object:
    fit = "\n|| ".join(f"({problem})" for problem, _ in _PROBLEMS)
    variables = _VARIABLES | {
        "source": f"variables.notes[?'{SOURCE}'].orValue('{settings.source}')",
        "wanted": f"!('{MIRROR}' in variables.notes) && !variables.agent\n&& ({selects})\n&& !({fit})",
    }
    spec = {
        "failurePolicy": "Fail",
        "reinvocationPolicy": "Never",
        "matchConstraints": constraints,
        "variables": _named(variables),
        "mutations": [{"patchType": "JSONPatch", "jsonPatch": {"expression": _patch(settings)}}],
    }
    return {"apiVersion": _BETA, "kind": "MutatingAdmissionPolicy", "metadata": _meta(name), "spec": spec}


def _validating() -> Object:
    """A Pod that asks must not run without: what is wrong with it is said in the words of the command."""
    either = f'metadata.labels["{INJECT}"] must be "true" or "false": correct it'
    checks = [{"expression": f"variables.labels['{INJECT}'] == 'true'", "message": either}]
    checks += [
        {"expression": f"variables.agent || !({problem})", "message": f'{said}, or set the label {INJECT} to "false"'}
        for problem, said in _PROBLEMS
    ]
    missing = f"the Pod asks for a sidecar and got none: apply the MutatingAdmissionPolicy {LABELLED} and its binding"
    checks += [{"expression": "variables.agent", "message": missing}]
    spec = {
        "failurePolicy": "Fail",
        "matchConstraints": _labelled_constraints(
            {"key": INJECT, "operator": "Exists"}, {"key": INJECT, "operator": "NotIn", "values": ["false"]}
        ),
        "matchConditions": [
            {"name": "not-static", "expression": f"!('{MIRROR}' in object.metadata.?annotations.orValue({{}}))"}
        ],
        "variables": _named(_VARIABLES),
        "validations": checks,
    }
    return {"apiVersion": _STABLE, "kind": "ValidatingAdmissionPolicy", "metadata": _meta(LABELLED), "spec": spec}


def _labelled_constraints(*expressions: Object) -> Object:
    names = {"key": "kubernetes.io/metadata.name", "operator": "NotIn", "values": list(NEVER_IN)}
    rule = {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"]}
    return {
        "resourceRules": [rule],
        "namespaceSelector": {"matchExpressions": [names]},
        "objectSelector": {"matchExpressions": list(expressions)},
    }


def _binding(kind: str, version: str, name: str, **spec: Any) -> Object:
    return {"apiVersion": version, "kind": kind, "metadata": _meta(name), "spec": {"policyName": name, **spec}}


def _meta(name: str) -> Object:
    return {"name": name, "labels": dict(_PART)}


def _named(variables: dict[str, str]) -> list[Object]:
    return [{"name": name, "expression": expression} for name, expression in variables.items()]


# What is added, in CEL ------------------------------------------------------------------------------------------------


def _patch(settings: Settings) -> str:
    sidecar = container(settings, settings.source)
    for each in sidecar["env"]:
        if each["name"] == SOURCE_VARIABLE:
            each["value"] = _Cel("variables.source")
    steps = [
        _list_if_none("initContainers", "inits"),
        _step("/spec/initContainers/0", _cel(sidecar, "Object.spec.initContainers")),
        _list_if_none("volumes", "volumes"),
        _step("/spec/volumes/0", _cel(volume(), "Object.spec.volumes")),
    ]
    return "variables.wanted ?\n" + " +\n".join(steps) + "\n: []\n"


def _list_if_none(field: str, variable: str) -> str:
    return f"(variables.{variable}.size() > 0 ? [] : {_step(f'/spec/{field}', '[]')})"


def _step(path: str, value: str) -> str:
    return f'[JSONPatch{{op: "add", path: "{path}", value: {value}}}]'


def _cel(value: Any, kind: str, depth: int = 1) -> str:
    """Write JSON as CEL; what stands in a field of an object has the type that is called by the field's path."""
    pad = "  " * depth
    if isinstance(value, _Cel):
        return str(value)
    if isinstance(value, list):
        return f"[{', '.join(_cel(each, kind, depth) for each in value)}]"
    if not isinstance(value, dict):
        return json.dumps(value)
    if kind.rpartition(".")[2] in _FREE_KEYS:
        return json.dumps(value)
    fields = [f"{pad}{name}: {_cel(each, f'{kind}.{name}', depth + 1)}" for name, each in value.items()]
    return f"{kind}{{\n" + ",\n".join(fields) + f"\n{pad[2:]}}}"
