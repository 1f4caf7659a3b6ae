"""Objects for the tests of what decides: short to write, complete enough to be decided on."""

from __future__ import annotations

import json
from typing import Any

import msgspec

from contract.lease import LeaseView, decode_lease
from contract.names import ASSIGNMENT, CONTROLLER_NAME, INTERFACES, NETWORK_STATUS
from contract.report import AddressReport, AddressState, Fence, Report, encode_report
from controller.choice.objects import Gateway, GatewayClass, Namespace, Network, Object, Pod, Route, decode
from controller.choice.snapshot import Snapshot

EXTERNAL = "gke-persistent-regional-external-managed"
FAST = "gke-persistent-fast-regional-external-managed"
A1, A2 = "34.123.10.1/32", "34.123.10.2/32"


def at(second: int) -> str:
    return f"2026-01-02T03:{second // 60:02}:{second % 60:02}Z"


def gateway_class(name: str = EXTERNAL, controller: str = CONTROLLER_NAME) -> GatewayClass:
    return msgspec.convert({"metadata": {"name": name}, "spec": {"controllerName": controller}}, GatewayClass)


def gateway(name: str = "gw", namespace: str = "default", **spec: Any) -> Gateway:
    full: dict[str, Any] = {
        "gatewayClassName": EXTERNAL,
        "listeners": [{"name": "l", "port": 443, "allowedRoutes": {"namespaces": {"from": "All"}}}],
        "addresses": [{"type": "gke.networking.io/cidr", "value": each} for each in (A1, A2)],
    }
    meta = {"name": name, "namespace": namespace, "generation": 1}
    return msgspec.convert({"metadata": meta, "spec": full | spec}, Gateway)


def route(
    name: str = "r",
    namespace: str = "default",
    *addresses: str,
    created: int = 0,
    notes: dict[str, str] | None = None,
    status: dict[str, Any] | None = None,
    **spec: Any,
) -> Route:
    full: dict[str, Any] = {
        "parentRefs": [{"name": "gw", "namespace": "default"}],
        "addresses": [{"type": "gke.networking.io/cidr", "value": each} for each in addresses or (A1,)],
        "podSelector": {"matchLabels": {"app": "web"}},
    }
    meta = {
        "name": name,
        "namespace": namespace,
        "uid": f"route-{namespace}-{name}",
        "generation": 1,
        "resourceVersion": "1",
        "creationTimestamp": at(created),
        "annotations": notes or {},
    }
    return msgspec.convert({"metadata": meta, "spec": full | spec, "status": status or {}}, Route)


def pod(
    name: str,
    created: int = 0,
    *,
    namespace: str = "default",
    uid: str = "",
    version: str = "1",
    ready: bool = True,
    node: str = "n1",
    phase: str = "Running",
    deleting: bool = False,
    labels: dict[str, str] | None = None,
    interfaces: dict[str, str] | None = None,
    multus: list[dict[str, str]] | None = None,
    assigned: str | None = None,
    host_network: bool = False,
    unready: tuple[str, ...] = ("app",),
    gates: dict[str, str] | None = None,
    notes: dict[str, str] | None = None,
    agent: str = "holdfast",
    source: str = "downward",
    pod_ip: str = "",
) -> Pod:
    """Make one; `unready` names the containers that keep it from being Ready, `gates` its gates with their status.

    `agent` is what the one that is its agent is called, `source` what its environment says of its source.
    """
    notes = dict(notes or {})
    if interfaces is not None:
        notes[INTERFACES] = json.dumps([{"interfaceName": k, "network": v} for k, v in interfaces.items()])
    if multus is not None:
        notes[NETWORK_STATUS] = json.dumps(multus)
    if assigned is not None:
        notes[ASSIGNMENT] = assigned
    meta = {
        "name": name,
        "namespace": namespace,
        "uid": uid or f"uid-{name}",
        "resourceVersion": version,
        "creationTimestamp": at(created),
        "labels": {"app": "web"} if labels is None else labels,
        "annotations": notes,
    }
    if deleting:
        meta["deletionTimestamp"] = at(59)
    condition = {"type": "Ready", "status": "True" if ready else "False"}
    if not ready:
        message = f"containers with unready status: [{' '.join(unready)}]"
        condition |= {"reason": "ContainersNotReady", "message": message}
    names = ("init", "holdfast", "app", "agent")
    said = [{"name": each, "ready": ready or each not in unready} for each in names]
    serving = {"type": "ContainersReady", "status": "True" if ready or not unready else "False"}
    passed = [serving] + [{"type": each, "status": what} for each, what in (gates or {}).items() if what]
    body = {
        "metadata": meta,
        "spec": {
            "nodeName": node,
            "hostNetwork": host_network,
            "readinessGates": [{"conditionType": each} for each in gates or {}],
            "initContainers": [
                {"name": "init", "image": "init:1", "env": [{"name": "A", "valueFrom": {"fieldRef": {}}}]},
                {"name": agent, "env": [{"name": "HOLDFAST_SOURCE", "value": source}] if source else []},
            ],
            "containers": [{"name": "app"}, {"name": "agent"}],
        },
        "status": {
            "phase": phase,
            **({"podIP": pod_ip, "podIPs": [{"ip": pod_ip}]} if pod_ip else {}),
            "conditions": [condition, *passed],
            "initContainerStatuses": said[:2],
            "containerStatuses": said[2:],
        },
    }
    return decode(msgspec.json.encode(body), Pod, "Pod")


def network(name: str = "blue-network", ready: str | None = "True", params: str | None = None) -> Network:
    conditions = [] if ready is None else [{"type": "Ready", "status": ready, "reason": "Down"}]
    conditions += [] if params is None else [{"type": "ParamsReady", "status": params, "reason": "NoSubnet"}]
    return msgspec.convert({"metadata": {"name": name}, "status": {"conditions": conditions}}, Network)


def namespace(name: str, **labels: str) -> Namespace:
    return msgspec.convert({"metadata": {"name": name, "labels": labels}}, Namespace)


def lease(route_name: str = "r", space: str = "default", **fields: Any) -> LeaseView:
    base = {"uid": f"lease-{space}-{route_name}", "version": "10", "route": route_name, "addresses": (A1,)}
    return LeaseView(**({"namespace": space, "name": f"holdfast-{route_name}"} | base | fields))


def report(*addresses: str, state: str = "announced", fence: Fence = Fence.DEADLINE, message: str = "") -> str:
    said = tuple(AddressReport(each, "eth0", AddressState(state), message) for each in addresses)
    return encode_report(Report(fence, said, 10))


def world(*objects: Object | LeaseView) -> Snapshot:
    """A snapshot with holdfast's class and a Gateway of it, unless others are given."""
    given: list[Object | LeaseView] = list(objects)
    if not any(isinstance(each, GatewayClass) for each in given):
        given.append(gateway_class())
    if not any(isinstance(each, Gateway) for each in given):
        given.append(gateway())
    return Snapshot.of(*given)


def applied(view: LeaseView | None, body: dict[str, Any], version: int) -> LeaseView:
    """A Lease after a merge patch or a creation, as the API server would give it back."""
    before: dict[str, Any] = {"metadata": {"uid": "fresh", "annotations": {}, "labels": {}}, "spec": {}}
    if view is not None:
        notes = {
            "owner": view.owner,
            "prepared": view.prepared,
            "observed": view.observed,
            "lost": ",".join(view.lost),
            "addresses": ",".join(view.addresses),
        }
        before = {
            "metadata": {
                "namespace": view.namespace,
                "name": view.name,
                "uid": view.uid,
                "labels": {"holdfast.dev/route": view.route},
                "annotations": {f"holdfast.dev/{key}": value for key, value in notes.items()},
            },
            "spec": {
                "holderIdentity": view.holder,
                "leaseDurationSeconds": view.duration_s,
                "leaseTransitions": view.transitions,
                "renewTime": view.renew_time or None,
            },
        }
    after = _merged(before, body)
    after["metadata"]["resourceVersion"] = str(version)
    return decode_lease(after)


def _merged(target: dict[str, Any], patch: dict[str, Any]) -> dict[str, Any]:
    made = dict(target)
    for key, value in patch.items():
        if value is None:
            made.pop(key, None)
        elif isinstance(value, dict):
            made[key] = _merged(made.get(key) or {}, value)
        else:
            made[key] = value
    return made
