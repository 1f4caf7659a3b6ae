"""The guide's manifests with the sidecar in their Pods, as docs/contract.md says what injection adds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from lab.real.images import SIDECAR

SEED = Path(__file__).resolve().parents[2] / "examples" / "seed"
DIRECTORY = "/var/run/secrets/holdfast.dev"
_ACCOUNT = "/var/run/secrets/kubernetes.io/serviceaccount"

Body = dict[str, Any]


def inject(spec: Body) -> Body:
    """Give a Pod's spec with the sidecar, first of its init containers."""
    first = [_sidecar(), *spec.get("initContainers", [])]
    return {**spec, "initContainers": first, "volumes": [*spec.get("volumes", []), _volume()]}


def guide(name: str, **changes: Any) -> str:
    """One of the guide's manifests with the sidecar in every Pod's template.

    Args:
        name: of the file.
        changes: fields of the spec of its Deployment or StatefulSet that are to be other ones.
    """
    bodies = list(yaml.safe_load_all((SEED / name).read_text()))
    for body in bodies:
        if "template" in body.get("spec", {}):
            template = body["spec"]["template"]
            template["spec"] = inject(template["spec"])
            body["spec"] |= changes
    return yaml.safe_dump_all(bodies)


def _field(path: str) -> Body:
    return {"valueFrom": {"fieldRef": {"fieldPath": path}}}


def _sidecar() -> Body:
    return {
        "name": "holdfast",
        "image": SIDECAR,
        "args": ["run"],
        "restartPolicy": "Always",
        "env": [
            {"name": "POD_NAME", **_field("metadata.name")},
            {"name": "POD_NAMESPACE", **_field("metadata.namespace")},
            {"name": "POD_UID", **_field("metadata.uid")},
            {"name": "HOLDFAST_SOURCE", "value": "watch"},
            {"name": "HOLDFAST_DIRECTORY", "value": DIRECTORY},
        ],
        "securityContext": {
            "runAsUser": 0,
            "runAsNonRoot": False,
            "privileged": False,
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"], "add": ["NET_ADMIN", "NET_RAW"]},
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "resources": {"requests": {"cpu": "10m", "memory": "40Mi"}, "limits": {"memory": "64Mi"}},
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": [{"name": "holdfast", "mountPath": each, "readOnly": True} for each in (DIRECTORY, _ACCOUNT)],
    }


def _volume() -> Body:
    files = [{"path": key, "fieldRef": {"fieldPath": f"metadata.{key}"}} for key in ("namespace", "annotations")]
    sources = [
        {"serviceAccountToken": {"path": "token", "expirationSeconds": 3600}},
        {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
        {"downwardAPI": {"items": files}},
    ]
    return {"name": "holdfast", "projected": {"sources": sources}}
