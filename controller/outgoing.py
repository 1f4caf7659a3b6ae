"""Desired writes as requests to the API server. Pure: the time of day is passed in, and only people read it."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING, Any, Final

from contract.lease import micro_time
from contract.names import ASSIGNMENT, SIDECAR_ROLE
from controller.choice.conditions import stamp_conditions, stamped
from controller.choice.leases import LeaseAct, LeaseWrite
from controller.cluster.writer import Job, Request

if TYPE_CHECKING:
    from controller.choice.decide import Access
    from controller.choice.objects import Gateway, Key, Pod, Route

_LEASES: Final = "/apis/coordination.k8s.io/v1/namespaces/{}/leases"
_RBAC: Final = "/apis/rbac.authorization.k8s.io/v1/namespaces/{}"
_GATEWAY_API: Final = "/apis/gateway.networking.k8s.io/v1"


def lease_job(write: LeaseWrite, route: Key) -> Job:
    """Write a route's Lease."""
    space, name = write.key
    collection = _LEASES.format(space)
    match write.act:
        case LeaseAct.CREATE:
            request = Request("POST", collection, write.body)
        case LeaseAct.DELETE:
            request = Request("DELETE", f"{collection}/{name}", write.body, missing_ok=True)
        case _:
            request = Request("PATCH", f"{collection}/{name}", write.body)
    version = write.view.version if write.view is not None else ""
    told = f"GKEIPRoute {route[0]}/{route[1]}: {write.why}"
    return Job(("lease", space, name), (request,), told, version, write.act)


def pod_job(pod: Pod, text: str | None) -> Job:
    """Write a Pod's assignment; None: take the annotation away."""
    meta = pod.metadata
    body = {"metadata": {"uid": meta.uid, "annotations": {ASSIGNMENT: text}}}
    path = f"/api/v1/namespaces/{meta.namespace}/pods/{meta.name}"
    told = f"Pod {meta.namespace}/{meta.name}: annotation {ASSIGNMENT} {'set to ' + text if text else 'removed'}"
    return Job(
        ("pod", meta.namespace, meta.name),
        (Request("PATCH", path, body, missing_ok=True),),
        told,
        meta.resource_version,
    )


def status_job(route: Route, desired: dict[str, Any], now: dt.datetime) -> Job:
    """Write a route's status."""
    space, name = route.key
    body = {"metadata": {"uid": route.metadata.uid}, "status": stamped(desired, route, _second(now))}
    path = f"/apis/networking.gke.io/v1/namespaces/{space}/gkeiproutes/{name}/status"
    ready = next(each for each in desired["conditions"] if each["type"] == "Ready")
    told = f"GKEIPRoute {space}/{name}: Ready is {ready['status']}, {ready['reason']}: {ready['message']}"
    request = Request("PATCH", path, body, missing_ok=True)
    return Job(("status", space, name), (request,), told, route.metadata.resource_version)


def gateway_job(gateway: Gateway, status: dict[str, Any], now: dt.datetime) -> Job:
    """Write a Gateway's status."""
    key, meta, known = gateway.key, gateway.metadata, gateway.status
    listeners = {each["name"]: each.get("conditions", []) for each in known.get("listeners", [])}
    full = {
        **status,
        "conditions": _stamp(status["conditions"], known.get("conditions", []), now),
        "listeners": [
            {**each, "conditions": _stamp(each["conditions"], listeners.get(each["name"], []), now)}
            for each in status["listeners"]
        ],
    }
    path = f"{_GATEWAY_API}/namespaces/{key[0]}/gateways/{key[1]}/status"
    request = Request("PATCH", path, {"metadata": {"uid": meta.uid}, "status": full}, missing_ok=True)
    said = "; ".join(f"{each['type']} is {each['status']}, {each['reason']}" for each in status["conditions"])
    return Job(("gateway", *key), (request,), f"Gateway {key[0]}/{key[1]}: {said}", meta.resource_version)


def class_job(name: str, version: str, status: dict[str, Any], known: list[dict[str, Any]], now: dt.datetime) -> Job:
    """Write a GatewayClass's status."""
    body = {"status": {"conditions": _stamp(status["conditions"], known, now)}}
    request = Request("PATCH", f"{_GATEWAY_API}/gatewayclasses/{name}/status", body, missing_ok=True)
    return Job(("class", "", name), (request,), f"GatewayClass {name}: Accepted is True", version)


def event_job(event: dict[str, Any], identity: str, now: dt.datetime) -> Job:
    """Create an Event; one that is there already has been told."""
    meta = event["metadata"]
    body = {**event, "eventTime": micro_time(now), "reportingInstance": identity[:128]}
    path = f"/apis/events.k8s.io/v1/namespaces/{meta['namespace']}/events"
    return Job(("event", meta["namespace"], meta["name"]), (Request("POST", path, body, there_ok=True),))


def access_job(space: str, access: Access) -> Job:
    """Keep a namespace's Role and RoleBinding: for what its sidecars must reach, or, for nothing, away with both."""
    roles, bindings = f"{_RBAC.format(space)}/roles", f"{_RBAC.format(space)}/rolebindings"
    if not access:
        requests: tuple[Request, ...] = tuple(
            Request("DELETE", f"{each}/{SIDECAR_ROLE}", missing_ok=True) for each in (bindings, roles)
        )
        return Job(("access", "", space), requests, context=access)
    role, binding = sidecar_role(access), sidecar_binding(space)
    requests = tuple(
        Request(
            "PATCH",
            f"{path}/{SIDECAR_ROLE}",
            {key: value for key, value in body.items() if key in ("rules", "subjects")},
            otherwise=Request("POST", path, body),
        )
        for path, body in ((roles, role), (bindings, binding))
    )
    what = (("write the Leases", access.leases), ("read the Pods", access.pods))
    allowed = " and ".join(f"{verb} {', '.join(names)}" for verb, names in what if names)
    told = f"Namespace {space}: service accounts may {allowed}"
    return Job(("access", "", space), requests, told, context=access)


def sidecar_role(access: Access) -> dict[str, Any]:
    """What sidecars need: the Leases of their namespace's routes, and those that watch their Pod that Pod, by name."""
    wanted = (
        ("coordination.k8s.io", "leases", access.leases, ["get", "watch", "update", "patch"]),
        ("", "pods", access.pods, ["get", "watch"]),
    )
    # a rule without names would be for all there are
    rules = [
        {"apiGroups": [group], "resources": [resource], "resourceNames": list(names), "verbs": verbs}
        for group, resource, names, verbs in wanted
        if names
    ]
    return {**_rbac("Role"), "rules": rules}


def sidecar_binding(space: str) -> dict[str, Any]:
    """To all service accounts of the namespace."""
    group = "rbac.authorization.k8s.io"
    subject = {"apiGroup": group, "kind": "Group", "name": f"system:serviceaccounts:{space}"}
    reference = {"apiGroup": group, "kind": "Role", "name": SIDECAR_ROLE}
    return {**_rbac("RoleBinding"), "roleRef": reference, "subjects": [subject]}


def _rbac(kind: str) -> dict[str, Any]:
    labels = {"app.kubernetes.io/part-of": "holdfast"}
    return {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": kind,
        "metadata": {"name": SIDECAR_ROLE, "labels": labels},
    }


def without_times(status: dict[str, Any]) -> dict[str, Any]:
    """A Gateway's status as it was read, in the shape in which one is decided."""
    listeners = [
        {**each, "conditions": [_timeless(c) for c in each.get("conditions", [])]}
        for each in status.get("listeners", [])
    ]
    return {
        "addresses": status.get("addresses", []),
        "conditions": [_timeless(each) for each in status.get("conditions", [])],
        "listeners": listeners,
    }


def _timeless(condition: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in condition.items() if key != "lastTransitionTime"}


def _stamp(desired: list[dict[str, Any]], known: list[dict[str, Any]], now: dt.datetime) -> list[dict[str, Any]]:
    old = {each["type"]: (each.get("status", ""), each.get("lastTransitionTime", "")) for each in known}
    return stamp_conditions(desired, old, _second(now))


def _second(now: dt.datetime) -> str:
    return now.astimezone(dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
