"""Events for people: every change of who is chosen and of who holds, on the route and on both Pods. Pure.

An Event's name follows from the route's version, so that a controller that was killed between two writes and says it
again says nothing twice. Routes that are only followed get none: their status is another's.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any, Final

from contract.names import CONTROLLER_NAME

if TYPE_CHECKING:
    from controller.choice.objects import Pod, Route
    from controller.choice.snapshot import Snapshot

_NAME_MAX: Final = 200
_NOTE_MAX: Final = 1024


def events_for(snap: Snapshot, route: Route, desired: dict[str, Any]) -> list[dict[str, Any]]:
    """Give the Events that a new status of a route is worth; time and writer's name left out."""
    made: list[dict[str, Any]] = []
    old, new = next(iter(route.status.pods), ""), next(iter(desired["pods"]), "")
    what = ", ".join(each["address"] for each in desired["addresses"]) or "the addresses"
    if old != new:
        note = f"{_pod(new)} is the owner of {what}; before: {_pod(old)}"
        made += _told(snap, route, (old, new), "Chosen", note)
    was = {(each.pod, each.epoch) for each in route.status.addresses}
    now = {(each["pod"], each["epoch"]) for each in desired["addresses"]}
    if was != now and (now or was):
        before = max(was, key=lambda each: each[1], default=("", 0))
        after = max(now, key=lambda each: each[1], default=("", before[1]))
        if before != after and (before[0] or after[0]):
            note = f"{_pod(after[0])} holds {what}, epoch {after[1]}; before: {_pod(before[0])}, epoch {before[1]}"
            made += _told(snap, route, (before[0], after[0]), "Moved", note)
    return made + _accepted(route, desired)


def _accepted(route: Route, desired: dict[str, Any]) -> list[dict[str, Any]]:
    new = next(each for each in desired["conditions"] if each["type"] == "Accepted")
    old = next((each for each in route.status.conditions if each.type == "Accepted"), None)
    if old is not None and (old.reason, old.message) == (new["reason"], new["message"]):
        return []
    if new["status"] == "True" and " is ignored; " not in new["message"]:
        return []
    return [_event(route, _about_route(route), None, new["reason"], new["message"], warning=True)]


def _told(snap: Snapshot, route: Route, names: tuple[str, str], reason: str, note: str) -> list[dict[str, Any]]:
    space = route.metadata.namespace
    pods = [pod for name in names if name and (pod := snap.pods.get((space, name))) is not None]
    about = _about_route(route)
    told = [_event(route, about, _about_pod(pods[-1]) if pods else None, reason, note)]
    return told + [_event(route, _about_pod(pod), about, reason, f"{route.name}: {note}") for pod in pods]


def _event(
    route: Route,
    about: dict[str, str],
    related: dict[str, str] | None,
    reason: str,
    note: str,
    *,
    warning: bool = False,
) -> dict[str, Any]:
    seed = "|".join((route.metadata.uid, route.metadata.resource_version, about["uid"], reason, note))
    name = f"{about['name'][:_NAME_MAX]}.{hashlib.sha256(seed.encode()).hexdigest()[:16]}"
    event: dict[str, Any] = {
        "apiVersion": "events.k8s.io/v1",
        "kind": "Event",
        "metadata": {"name": name, "namespace": route.metadata.namespace},
        "reportingController": CONTROLLER_NAME,
        "action": "Assign",
        "reason": reason,
        "regarding": about,
        "note": note[:_NOTE_MAX],
        "type": "Warning" if warning else "Normal",
    }
    if related is not None:
        event["related"] = related
    return event


def _about_route(route: Route) -> dict[str, str]:
    return _reference("networking.gke.io/v1", "GKEIPRoute", route)


def _about_pod(pod: Pod) -> dict[str, str]:
    return _reference("v1", "Pod", pod)


def _reference(version: str, kind: str, found: Pod | Route) -> dict[str, str]:
    meta = found.metadata
    return {"apiVersion": version, "kind": kind, "namespace": meta.namespace, "name": meta.name, "uid": meta.uid}


def _pod(name: str) -> str:
    return f"Pod {name}" if name else "no Pod"
