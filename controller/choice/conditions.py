"""What a route's status says: four conditions, the chosen Pod, and where each address is. Pure.

Times are left out here and put in by `stamped` when the status is written, so that a status differs only when it says
something else. Every message names the objects it is about and, where something is wrong, says what to do.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from contract.errors import ContractError
from contract.report import AddressReport, AddressState, Report, decode_report
from controller.choice.acceptance import Mode, Reason
from controller.choice.elect import Verdict
from controller.choice.gateways import FALSE, TRUE, UNKNOWN, condition, plain
from controller.choice.ineligible import nobody

if TYPE_CHECKING:
    from collections.abc import Iterable

    from contract.lease import LeaseView
    from controller.choice.acceptance import Acceptance
    from controller.choice.elect import Candidate
    from controller.choice.objects import AddressStatus, Route
    from controller.choice.snapshot import Snapshot

OURS = ("Accepted", "DPV2Ready", "GCPReady", "Ready")
_MESSAGE_MAX = 1000
"""Characters of a message that quotes a Pod's agent; docs/contract.md promises less than 1 KiB."""
_BY_NODE = (AddressState.CONFIGURED, AddressState.ANNOUNCED)


@dataclass(frozen=True, slots=True)
class Scene:
    """All that a status rests on.

    Attributes:
        chosen: who shall hold the route; None: nobody.
        view: the Lease as it is, not as it will be.
    """

    snap: Snapshot
    route: Route
    acceptance: Acceptance
    candidates: list[Candidate]
    chosen: Candidate | None
    view: LeaseView | None

    @property
    def holder(self) -> str:
        """UID of the present holder, ``""`` for none."""
        return self.view.holder if self.view is not None else ""

    def pod_name(self, uid: str) -> str:
        """The name of a Pod for people; of one that is gone, what the status called it, else its UID."""
        pod = self.snap.pod_by_uid.get(uid)
        if pod is not None:
            return pod.name
        epoch = self.view.transitions if self.view is not None else -1
        known = (each.pod for each in self.route.status.addresses if each.epoch == epoch and each.pod)
        return next(known, uid)


@dataclass(frozen=True, slots=True)
class _Finding:
    status: str
    reason: str
    message: str


def route_status(scene: Scene) -> dict[str, Any] | None:
    """Give the status the route is to have, times left out; None: it is not ours to write."""
    if scene.acceptance.mode is not Mode.OWN:
        return None
    report, unreadable = _report(scene.view)
    node, net = _node_and_net(scene, report, unreadable)
    reason = scene.acceptance.reason
    accepted = _Finding(TRUE if reason is Reason.ACCEPTED else FALSE, reason.value, scene.acceptance.message)
    failing = next((each for each in (accepted, node, net) if each.status != TRUE), None)
    ready = failing or _Finding(TRUE, "ProgrammingComplete", node.message)
    generation = scene.route.metadata.generation
    named = zip(OURS, (accepted, node, net, ready), strict=True)
    said = [condition(name, each.status, each.reason, each.message, generation) for name, each in named]
    foreign = [plain(each) for each in scene.route.status.conditions if each.type not in OURS]
    return {
        "pods": [scene.chosen.pod.name] if scene.chosen is not None else [],
        "addresses": _addresses(scene, report),
        "conditions": said + foreign,
    }


def _report(view: LeaseView | None) -> tuple[Report | None, str]:
    if view is None or not view.observed:
        return None, ""
    try:
        return decode_report(view.observed, f"{view.where} annotation holdfast.dev/observed"), ""
    except ContractError as error:
        return None, str(error)


# DPV2Ready and GCPReady -----------------------------------------------------------------------------------------


def _node_and_net(scene: Scene, report: Report | None, unreadable: str) -> tuple[_Finding, _Finding]:
    if not scene.acceptance.granted:
        return _not_accepted(scene)
    if scene.chosen is None:
        message = nobody(scene.candidates, scene.route)
        if scene.holder:
            message += f"; {_last(scene)}"
        elif report is not None:
            # the Lease is free: this is why its last owner did not take it
            message = f"{message}; the last owner reported: {_said(report)}"[:_MESSAGE_MAX]
        return (_Finding(FALSE, "NoPodsFound", message),) * 2
    if scene.holder != scene.chosen.uid:
        return _under_way(scene, scene.chosen, report)
    if unreadable:
        message = f"{unreadable}; run the same release of controller and sidecar"
        return (_Finding(UNKNOWN, "NotReported", message),) * 2
    if report is None:
        message = f"Pod {scene.chosen.pod.name} holds the Lease and is configuring the addresses"
        return (_Finding(FALSE, "Mutated", message),) * 2
    return _reported(scene, scene.chosen, report)


def _last(scene: Scene) -> str:
    """What becomes of the addresses of a holder while no Pod is eligible."""
    name = scene.pod_name(scene.holder)
    kept = next((each for each in scene.candidates if each.keeps), None)
    if kept is None:
        return f"Pod {name} still holds the Lease and is removing the addresses"
    until = "have ended" if kept.verdict is Verdict.DELETING else "are not ready"
    return f"Pod {name} keeps the addresses until another Pod can have them or its own containers {until}"


def _not_accepted(scene: Scene) -> tuple[_Finding, _Finding]:
    if scene.holder:
        message = f"the route is not Accepted; Pod {scene.pod_name(scene.holder)} is removing its addresses"
        return (_Finding(FALSE, "Mutated", message),) * 2
    message = "the route is not Accepted, so no Pod has its addresses; see the condition Accepted"
    done = _Finding(FALSE, "CleanupComplete", "no Pod announces the route's addresses")
    return _Finding(FALSE, "DPV2NotReady", message), done


def _under_way(scene: Scene, chosen: Candidate, report: Report | None) -> tuple[_Finding, _Finding]:
    name, view = chosen.pod.name, scene.view
    if scene.holder:
        now = scene.pod_name(scene.holder)
        ready = view is not None and view.prepared == chosen.uid
        wait = f"Pod {now}, the holder, to hand over" if ready else f"Pod {name} to be prepared; Pod {now} keeps them"
        return (_Finding(FALSE, "Mutated", f"the addresses move to Pod {name}: waiting for {wait}"),) * 2
    if view is not None and view.owner == chosen.uid and report is not None:
        message = f"Pod {name} cannot take the Lease: {_said(report)}"
        return _Finding(FALSE, "DPV2NotReady", message), _Finding(FALSE, "GCPNotReady", message)
    message = (
        f"Pod {name} is the owner and has not taken the Lease yet; if this lasts, read the log of its container "
        f"{chosen.pod.agent_name}"
    )
    return (_Finding(UNKNOWN, "NotReported", message),) * 2


def _reported(scene: Scene, chosen: Candidate, report: Report) -> tuple[_Finding, _Finding]:
    states = {each.address: each for each in report.addresses}
    found = [(address, states.get(address)) for address in scene.acceptance.granted]
    name = chosen.pod.name
    return _on_node(name, found), _on_net(name, found)


def _on_node(name: str, found: list[tuple[str, AddressReport | None]]) -> _Finding:
    bad = [(a, each.message or each.state) for a, each in found if each and each.state not in _BY_NODE]
    if bad:
        return _Finding(FALSE, "DPV2NotReady", f"Pod {name}: {_by_cause(bad)}")
    missing = [a for a, each in found if each is None]
    if missing:
        return _Finding(FALSE, "Mutated", f"Pod {name} has not reported {', '.join(missing)} yet")
    where = _grouped((a, each.interface) for a, each in found if each)
    said = "; ".join(f"{', '.join(addresses)} on {interface}" for interface, addresses in where.items())
    return _Finding(TRUE, "DPV2Ready", f"Pod {name} has {said}")


def _on_net(name: str, found: list[tuple[str, AddressReport | None]]) -> _Finding:
    taken = [(a, each.message) for a, each in found if each and each.state is AddressState.CONFLICT]
    if taken:
        return _Finding(FALSE, "AddressInUse", f"another host uses an address of Pod {name}: {_by_cause(taken)}")
    failed = [(a, each.message) for a, each in found if each and _unannounced(each) and each.message]
    if failed:
        return _Finding(FALSE, "GCPFailed", f"Pod {name} could not announce {_by_cause(failed)}")
    missing = [a for a, each in found if each is None]
    if missing:
        return _Finding(FALSE, "Mutated", f"Pod {name} has not reported {', '.join(missing)} yet")
    rest = [a for a, each in found if each and each.state is not AddressState.ANNOUNCED]
    if rest:
        return _Finding(FALSE, "GCPNotReady", f"Pod {name} has not announced {', '.join(rest)} yet")
    return _Finding(TRUE, "GCPReady", f"Pod {name} has announced {', '.join(a for a, _ in found)}")


def _unannounced(each: AddressReport) -> bool:
    return each.state is AddressState.CONFIGURED


def _said(report: Report) -> str:
    """Why an owner does not take the Lease, in its own words."""
    said = _by_cause((each.address, each.message or each.state) for each in report.addresses)
    return said or "see the log of its container holdfast"


def _by_cause(told: Iterable[tuple[str, str]]) -> str:
    """Tell each cause once, after all the addresses that have it."""
    return "; ".join(f"{', '.join(addresses)}: {why}" for why, addresses in _grouped(told).items())


def _grouped(told: Iterable[tuple[str, str]]) -> dict[str, list[str]]:
    """The addresses by what is said of them, both in the order given."""
    found: dict[str, list[str]] = {}
    for address, said in told:
        found.setdefault(said, []).append(address)
    return found


# status.addresses -----------------------------------------------------------------------------------------------


def _addresses(scene: Scene, report: Report | None) -> list[dict[str, Any]]:
    view, states = scene.view, {each.address: each for each in report.addresses} if report is not None else {}
    if view is not None and view.holder:
        # what another may still have stays in sight until it is let go of
        leaving = list(states) if report is not None else [each.address for each in scene.route.status.addresses]
        shown = dict.fromkeys((*scene.acceptance.granted, *leaving))
    else:
        shown = dict.fromkeys(scene.acceptance.granted)
    if view is None:
        # a Lease that has vanished was perhaps held: what was known of it is all that is known
        return [_unstamped(each) for each in scene.route.status.addresses] if shown else []
    pod = scene.pod_name(view.holder) if view.holder else ""
    return [_address(address, pod, view.transitions, states.get(address)) for address in shown]


def _address(address: str, pod: str, epoch: int, said: AddressReport | None) -> dict[str, Any]:
    found: dict[str, Any] = {"address": address, "pod": pod, "epoch": epoch}
    if said is not None:
        found |= {"interface": said.interface, "state": said.state.value, "message": said.message}
    return {key: value for key, value in found.items() if value != "" or key == "pod"}


def _unstamped(each: AddressStatus) -> dict[str, Any]:
    found = {
        "address": each.address,
        "pod": each.pod,
        "epoch": each.epoch,
        "interface": each.interface,
        "state": each.state,
        "message": each.message,
    }
    return {key: value for key, value in found.items() if value != "" or key == "pod"}


# times ----------------------------------------------------------------------------------------------------------


def differs(desired: dict[str, Any], route: Route) -> bool:
    """Whether a route's status says anything else than it should."""
    now = route.status
    present = {
        "pods": list(now.pods),
        "addresses": [_unstamped(each) for each in now.addresses],
        "conditions": [plain(each) for each in now.conditions],
    }
    return desired != present


def stamped(desired: dict[str, Any], route: Route, now: str) -> dict[str, Any]:
    """Put the times in: a condition's changes with its status, an address's with its Pod, epoch or state."""
    known = {each.address: each for each in route.status.addresses}
    addresses = []
    for each in desired["addresses"]:
        old = known.get(each["address"])
        same = old is not None and (old.pod, old.epoch, old.state) == (
            each["pod"],
            each["epoch"],
            each.get("state", ""),
        )
        addresses.append({**each, "since": old.since if same and old is not None and old.since else now})
    old_conditions = {each.type: (each.status, each.last_transition_time or "") for each in route.status.conditions}
    return {
        **desired,
        "addresses": addresses,
        "conditions": stamp_conditions(desired["conditions"], old_conditions, now),
    }


def stamp_conditions(
    desired: list[dict[str, Any]], known: dict[str, tuple[str, str]], now: str
) -> list[dict[str, Any]]:
    """Put the times into conditions, each of which keeps its time while it keeps its status."""
    made = []
    for each in desired:
        status, since = known.get(each["type"], ("", ""))
        made.append({**each, "lastTransitionTime": since if status == each["status"] and since else now})
    return made
