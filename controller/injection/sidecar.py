"""What is added to a Pod: one native sidecar and one volume, as plain JSON. Pure.

docs/contract.md describes both; the policy and the webhook add exactly this.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from contract.names import AGENT_CONTAINER, SOURCE_VARIABLE, Source

Object = dict[str, Any]

CONTAINER_NAME: Final = AGENT_CONTAINER
VOLUME_NAME: Final = "holdfast"
DIRECTORY: Final = "/var/run/secrets/holdfast.dev"
TOKEN_S: Final = 3600
"""How long a token is valid; the kubelet renews it in time."""


@dataclass(frozen=True, slots=True)
class Settings:
    """What may differ from one cluster to another.

    Attributes:
        image: the sidecar's image.
        source: where the agent has its assignment from, unless the Pod's annotation says otherwise.
        pull_policy: ``imagePullPolicy`` of the sidecar; empty: Kubernetes' default.
    """

    image: str
    source: Source = Source.DOWNWARD
    pull_policy: str = ""


def container(settings: Settings, source: Source) -> Object:
    """Describe the native sidecar: an init container that keeps running."""
    pull = {"imagePullPolicy": settings.pull_policy} if settings.pull_policy else {}
    return {
        "name": CONTAINER_NAME,
        "image": settings.image,
        **pull,
        "restartPolicy": "Always",
        "args": ["run"],
        "env": [
            _from_field("POD_NAME", "metadata.name"),
            _from_field("POD_NAMESPACE", "metadata.namespace"),
            _from_field("POD_UID", "metadata.uid"),
            {"name": SOURCE_VARIABLE, "value": source.value},
            {"name": "HOLDFAST_DIRECTORY", "value": DIRECTORY},
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
        "volumeMounts": [{"name": VOLUME_NAME, "mountPath": DIRECTORY, "readOnly": True}],
    }


def volume() -> Object:
    """Describe the volume with the agent's own token, so that the app gets none by it."""
    return {
        "name": VOLUME_NAME,
        "projected": {
            "sources": [
                {"serviceAccountToken": {"path": "token", "expirationSeconds": TOKEN_S}},
                {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
                {
                    "downwardAPI": {
                        "items": [
                            {"path": "namespace", "fieldRef": {"fieldPath": "metadata.namespace"}},
                            {"path": "annotations", "fieldRef": {"fieldPath": "metadata.annotations"}},
                        ]
                    }
                },
            ]
        },
    }


def _from_field(name: str, path: str) -> Object:
    return {"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}}
