"""Installs the Gateway API's definitions and holdfast's manifests, and waits until the API server acts on them.

The files of deploy/base, which a user applies to a cluster, but for the controller's Deployment: the lab runs the
controller's program as a process (`lab.world.controllers`), with the same service account.
"""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from contract.names import ASSIGNMENT
from lab.errors import ApiError
from lab.world import injection
from lab.world.effect import WITHIN_S, until

if TYPE_CHECKING:
    from collections.abc import Iterable

    from lab.api_client import ApiClient

Object = dict[str, Any]

BASE = Path(__file__).resolve().parents[2] / "deploy" / "base"
_NOT_HERE = {"controller.yaml"}
# Of the Gateway API only what holdfast reads: a definition costs the API server some 50 ms.
_GATEWAY_API = ("gateway.networking.k8s.io_gatewayclasses.yaml", "gateway.networking.k8s.io_gateways.yaml")
_CRDS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def manifests(gateway_crds: Path) -> list[Object]:
    """Everything that is installed, read from its files."""
    files = [gateway_crds / name for name in _GATEWAY_API]
    listed = yaml.load((BASE / "kustomization.yaml").read_text(), Loader=_LOADER)["resources"]  # noqa: S506 - safe
    files += [BASE / name for name in listed if name not in _NOT_HERE]
    return [body for path in files for body in yaml.load_all(path.read_text(), Loader=_LOADER) if body]


def install(api: ApiClient, bodies: list[Object]) -> None:
    """Create everything and wait until it is in effect.

    Raises:
        ApiError: the API server refuses one of them.
        WaitTimeout: a definition or a policy does not come into effect.
    """
    crds = [body for body in bodies if body["kind"] == "CustomResourceDefinition"]
    early = [body for body in bodies if body["kind"] == "Namespace"]
    rest = [body for body in bodies if body not in crds and body not in early]
    names = _Resources(api)
    with ThreadPoolExecutor(max_workers=4) as pool:
        list(pool.map(lambda body: api.create(names.collection(body), body), crds + early))
        wanted = {body["metadata"]["name"] for body in crds}
        api.wait(_CRDS, lambda found: wanted <= _established(found), WITHIN_S, "definitions to be established")
        list(pool.map(lambda body: api.create(names.collection(body), body), rest))
    _until_effective(api, {body["metadata"]["name"] for body in rest if body["kind"] == "ValidatingAdmissionPolicy"})
    if any(body["metadata"]["name"] == injection.POLICY for body in rest):
        injection.wait(api)


def _established(crds: Iterable[Object]) -> set[str]:
    return {
        crd["metadata"]["name"]
        for crd in crds
        for condition in crd.get("status", {}).get("conditions") or []
        if condition["type"] == "Established" and condition["status"] == "True"
    }


class _Resources:
    """Which path a kind has, as the API server's discovery says."""

    def __init__(self, api: ApiClient) -> None:
        self._api = api
        self._known: dict[str, dict[str, tuple[str, bool]]] = {}

    def collection(self, body: Object) -> str:
        version = body["apiVersion"]
        root = f"/apis/{version}" if "/" in version else f"/api/{version}"
        if body["kind"] not in self._known.get(version, {}):
            # discovery learns of a definition some time after it is Established
            until(
                lambda: self._learns(version, root, body["kind"]),
                f"the API server does not serve {body['kind']} in {root}",
            )
        plural, namespaced = self._known[version][body["kind"]]
        return f"{root}/namespaces/{body['metadata']['namespace']}/{plural}" if namespaced else f"{root}/{plural}"

    def _learns(self, version: str, root: str, kind: str) -> bool:
        self._known[version] = self._served(root)
        return kind in self._known[version]

    def _served(self, root: str) -> dict[str, tuple[str, bool]]:
        try:
            found = self._api.get(root)["resources"]
        except ApiError as error:
            if error.code != HTTPStatus.NOT_FOUND:
                raise
            return {}
        return {r["kind"]: (r["name"], r["namespaced"]) for r in found if "/" not in r["name"]}


# Policies ------------------------------------------------------------------------------------------------------

_FORBIDDEN: dict[str, tuple[str, Object]] = {
    "holdfast-lease": (
        "/apis/coordination.k8s.io/v1/namespaces/kube-system/leases",
        {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": "holdfast-forbidden"}},
    ),
    "holdfast-assignment": (
        "/api/v1/namespaces/default/pods",
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": "forbidden", "annotations": {ASSIGNMENT: '{"v": 1, "routes": []}'}},
            "spec": {"containers": [{"name": "app", "image": "app"}]},
        },
    ),
}


def _until_effective(api: ApiClient, policies: set[str]) -> None:
    """Try each policy with a write that it forbids, until it is refused; the API server compiles policies some time
    after it has stored them, and says so by no event."""  # noqa: D205, D209
    began_s = time.monotonic()
    for policy in sorted(policies & _FORBIDDEN.keys()):
        until(partial(_refuses, api, policy), f"the policy {policy} did not come into effect", began_s)


def _refuses(api: ApiClient, policy: str) -> bool:
    path, body = _FORBIDDEN[policy]
    try:
        api.create(path, body, dryRun="All")
    except ApiError as error:
        return f"'{policy}'" in str(error)
    return False
