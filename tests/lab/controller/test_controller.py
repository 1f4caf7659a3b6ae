"""The controller alone against a real API server: what it writes, and that no fault at any step changes the outcome.

Pods here are taken by no node; the test plays their kubelet (readiness) and their sidecars, these with real tokens
bound to the Pods, so that the policies hold for them too. The whole way, with real sidecars, is in the other files.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import itertools
import json
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest

from contract import lease as writes
from contract.assignment import decode_assignment
from contract.lease import LeaseView, decode_lease
from contract.names import ASSIGNMENT, CONTROLLER_ACCOUNT, ELECTION_LEASE, SYSTEM_NAMESPACE
from contract.report import AddressReport, AddressState, Fence, Report, encode_report
from lab.errors import ApiError
from lab.program import Program

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from lab.api_client import ApiClient
    from lab.world.world import World

pytestmark = pytest.mark.lab

SOON_S = 30.0
_numbers = itertools.count(1)
CIDR = "gke.networking.io/cidr"
EXTERNAL = "gke-persistent-regional-external-managed"


@dataclass
class Stage:
    """A namespace with a Gateway of its own addresses, and the hands of kubelet and sidecars."""

    world: World
    space: str
    addresses: tuple[str, ...]
    tokens: dict[str, ApiClient] = field(default_factory=dict)
    uids: dict[str, str] = field(default_factory=dict)

    @property
    def api(self) -> ApiClient:
        return self.world.api

    def at(self, sort: str, name: str = "") -> str:
        groups = {
            "gkeiproutes": "/apis/networking.gke.io/v1",
            "gateways": "/apis/gateway.networking.k8s.io/v1",
            "leases": "/apis/coordination.k8s.io/v1",
            "roles": "/apis/rbac.authorization.k8s.io/v1",
            "rolebindings": "/apis/rbac.authorization.k8s.io/v1",
            "events": "/apis/events.k8s.io/v1",
        }
        path = f"{groups.get(sort, '/api/v1')}/namespaces/{self.space}/{sort}"
        return f"{path}/{name}" if name else path

    # what a user does ----------------------------------------------------------------------------------------------

    def gateway(self, name: str = "gw", **spec: Any) -> None:
        full = {
            "gatewayClassName": EXTERNAL,
            "listeners": [{"name": "l", "port": 443, "protocol": "none"}],
            "addresses": [{"type": CIDR, "value": each} for each in self.addresses],
        }
        body = {"apiVersion": "gateway.networking.k8s.io/v1", "kind": "Gateway", "metadata": {"name": name}}
        self.api.create(self.at("gateways"), {**body, "spec": full | spec})

    def route(self, name: str = "r", *addresses: str, notes: dict[str, str] | None = None, **spec: Any) -> None:
        full = {
            "parentRefs": [{"name": "gw"}],
            "addresses": [{"type": CIDR, "value": each} for each in addresses or self.addresses[:1]],
            "podSelector": {"matchLabels": {"app": "web"}},
        }
        meta = {"name": name, "annotations": notes or {}}
        body = {"apiVersion": "networking.gke.io/v1", "kind": "GKEIPRoute", "metadata": meta, "spec": full | spec}
        self.api.create(self.at("gkeiproutes"), body)

    def pod(self, name: str, *, ready: bool = True) -> None:
        spec = {"schedulerName": "nobody", "containers": [{"name": "app", "image": "app:1"}]}
        meta = {"name": name, "labels": {"app": "web"}}
        made = self.api.create(self.at("pods"), {"metadata": meta, "spec": spec})
        self.uids[name] = uid = made["metadata"]["uid"]
        self.tokens[name] = self.api.as_token(self.world.token(self.space, "default", (name, uid)))
        if ready:
            self.ready(name)

    def ready(self, name: str, status: str = "True") -> None:
        condition = {"type": "Ready", "status": status, "reason": "ContainersNotReady" if status != "True" else ""}
        body = {"status": {"phase": "Running", "conditions": [condition]}}
        self.api.patch(self.at("pods", name) + "/status", body)

    # what a sidecar does -------------------------------------------------------------------------------------------

    def lease(self, route: str = "r") -> LeaseView:
        return decode_lease(self.api.get(self.at("leases", f"holdfast-{route}")))

    def write(self, who: str, change: Callable[[LeaseView], dict[str, Any]], route: str = "r") -> LeaseView:
        """Write as a Pod; tried again where another write, or the Role's arrival at the authorizer, came between."""
        deadline = time.monotonic() + SOON_S
        while True:
            try:
                path = self.at("leases", f"holdfast-{route}")
                return decode_lease(self.tokens[who].patch(path, change(self.lease(route))))
            except ApiError as error:
                admission = "holdfast-lease" in str(error)
                if error.code not in (403, 409) or admission or time.monotonic() > deadline:
                    raise

    def take(self, who: str, route: str = "r", *addresses: str) -> None:
        self.owned_by(who, route)
        self.write(who, lambda view: writes.take(view, self.uids[who], now()), route)
        self.report(who, route, *addresses)

    def report(self, who: str, route: str = "r", *addresses: str) -> None:
        said = encode_report(
            Report(
                Fence.DEADLINE,
                tuple(AddressReport(a, "eth0", AddressState.ANNOUNCED) for a in addresses or self.addresses[:1]),
            )
        )
        self.write(who, lambda view: writes.renew(view, said, now()), route)

    def hand_over(self, old: str, new: str) -> None:
        self.owned_by(new)
        self.write(new, lambda view: writes.prepare(view, self.uids[new]))
        self.write(old, lambda view: writes.hand_over(view, self.uids[new], now()))
        self.report(new)

    # what is waited for --------------------------------------------------------------------------------------------

    def owned_by(self, name: str, route: str = "r") -> LeaseView:
        uid = self.uids.get(name, "")
        return self.until_lease(lambda view: view.owner == uid, f"Pod {name} to be owner", route)

    def until_lease(
        self, wish: Callable[[LeaseView], object], what: str, route: str = "r", timeout_s: float = SOON_S
    ) -> LeaseView:
        path = self.at("leases", f"holdfast-{route}")
        found = self.api.wait(path, lambda o: o is not None and wish(decode_lease(o)), timeout_s, what)
        return decode_lease(found)

    def gone(self, sort: str, name: str) -> None:
        self.api.wait(self.at(sort, name), lambda o: o is None, SOON_S, f"{sort} {name} to be gone")

    def assigned(self, name: str, *routes: str) -> None:
        def has(pod: dict[str, Any] | None) -> bool:
            text = (pod or {}).get("metadata", {}).get("annotations", {}).get(ASSIGNMENT)
            found = decode_assignment(text, name).routes if text and text != "damaged" else ()
            return text != "damaged" and tuple(each.route for each in found) == routes

        self.api.wait(self.at("pods", name), has, SOON_S, f"Pod {name} to be assigned {routes}")

    def condition(self, kind: str, reason: str, route: str = "r", timeout_s: float = SOON_S) -> str:
        def has(found: dict[str, Any] | None) -> bool:
            return any(c["type"] == kind and c["reason"] == reason for c in conditions(found))

        found = self.api.wait(self.at("gkeiproutes", route), has, timeout_s, f"{kind} {reason} of {route}")
        return next(c["message"] for c in conditions(found) if c["type"] == kind)

    def final(self) -> dict[str, Any]:
        """Everything the controller has written, less times, versions and UIDs."""
        names = {uid: name for name, uid in self.uids.items()}
        view = self.lease()
        route = self.api.get(self.at("gkeiproutes", "r"))["status"]
        for each in [*route["conditions"], *route["addresses"]]:
            each.pop("lastTransitionTime", None)
            each.pop("since", None)
        pods = {pod["metadata"]["name"]: pod for pod in self.api.list(self.at("pods"))}
        return {
            "lease": [names.get(each, each) for each in (view.owner, view.holder, view.prepared, *view.lost)],
            "epoch": view.transitions,
            "status": json.loads(json.dumps(route).replace(self.space, "SPACE").replace(self.addresses[0], "ADDRESS")),
            "assigned": sorted(n for n, pod in pods.items() if ASSIGNMENT in pod["metadata"].get("annotations", {})),
            "role": self.api.get(self.at("roles", "holdfast-sidecar"))["rules"][0]["resourceNames"],
        }


def now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)


def conditions(found: dict[str, Any] | None) -> list[dict[str, Any]]:
    return list((found or {}).get("status", {}).get("conditions", []))


@pytest.fixture
def stage(world: World, kube_namespace: str) -> Iterator[Stage]:
    number = next(_numbers)
    for controller in world.controllers:
        controller.start()
    stage = Stage(world, kube_namespace, (f"198.51.100.{number}/32", f"203.0.113.{number}/32"))
    yield stage
    for api in stage.tokens.values():
        api.close()


# The usual way --------------------------------------------------------------------------------------------------


def test_from_a_route_to_a_holder(stage):
    stage.gateway()
    stage.pod("a")
    stage.route()
    stage.owned_by("a")
    stage.assigned("a", "r")
    message = stage.condition("DPV2Ready", "NotReported")
    assert "read the log of its container holdfast" in message
    stage.take("a")
    assert stage.condition("Ready", "ProgrammingComplete") == f"Pod a has {stage.addresses[0]} on eth0"
    status = stage.api.get(stage.at("gkeiproutes", "r"))["status"]
    assert status["pods"] == ["a"]
    (address,) = status["addresses"]
    assert (address["pod"], address["epoch"], address["state"]) == ("a", 1, "announced")
    gateway = stage.api.get(stage.at("gateways", "gw"))["status"]
    assert {each["type"]: each["status"] for each in gateway["conditions"]} == {
        "Accepted": "True",
        "Programmed": "True",
    }
    assert gateway["listeners"][0]["attachedRoutes"] == 1


def test_the_newest_wins_by_hand_over_and_both_pods_are_told(stage):
    stage.gateway()
    stage.pod("a")
    stage.route()
    stage.take("a")
    time_passes_in_whole_seconds(stage)
    stage.pod("b")
    stage.owned_by("b")
    stage.assigned("b", "r")
    stage.assigned("a", "r")
    assert "waiting for Pod b to be prepared; Pod a keeps them" in stage.condition("Ready", "Mutated")
    stage.hand_over("a", "b")
    stage.assigned("a")
    stage.condition("Ready", "ProgrammingComplete")

    def told(events: list[dict[str, Any]]) -> bool:
        about = {(e["regarding"]["kind"], e["regarding"]["name"], e["reason"]) for e in events}
        pods = {("Pod", name, reason) for name in ("a", "b") for reason in ("Chosen", "Moved")}
        return pods | {("GKEIPRoute", "r", "Chosen"), ("GKEIPRoute", "r", "Moved")} <= about

    stage.api.wait(stage.at("events"), told, SOON_S, "Events on the route and on both Pods")


def time_passes_in_whole_seconds(stage: Stage) -> None:
    """A newer Pod has a later creationTimestamp only in another second: create one until it has."""
    first = max(pod["metadata"]["creationTimestamp"] for pod in stage.api.list(stage.at("pods")))
    deadline = time.monotonic() + SOON_S
    while time.monotonic() < deadline:
        body = {"metadata": {"generateName": "clock-"}, "data": {}}
        if stage.api.create(stage.at("configmaps"), body)["metadata"]["creationTimestamp"] > first:
            return
    pytest.fail("the API server's clock stands still")


def test_readiness_lost_and_back(stage):
    stage.gateway()
    stage.pod("a")
    stage.route()
    stage.take("a")
    stage.ready("a", "False")
    stage.owned_by("nobody")
    stage.assigned("a")
    stage.write("a", lambda view: writes.release(view, now()))
    assert "it is not Ready: a (ContainersNotReady)" in stage.condition("Ready", "NoPodsFound")
    stage.ready("a")
    stage.take("a")
    stage.condition("Ready", "ProgrammingComplete")


def test_a_route_that_goes_takes_everything_along_but_not_before_its_holder_lets_go(stage):
    stage.gateway()
    stage.pod("a")
    stage.route()
    stage.take("a")
    stage.api.delete(stage.at("gkeiproutes", "r"))
    stage.owned_by("nobody")
    stage.assigned("a")
    assert stage.lease().holder == stage.uids["a"]
    stage.write("a", lambda view: writes.release(view, now()))
    stage.gone("leases", "holdfast-r")
    stage.gone("roles", "holdfast-sidecar")
    stage.gone("rolebindings", "holdfast-sidecar")


def test_a_free_lease_deleted_by_hand_is_made_again_with_the_next_epoch(stage):
    stage.gateway()
    stage.pod("a")
    stage.route()
    old = stage.owned_by("a")
    stage.api.delete(stage.at("leases", "holdfast-r"))
    new = stage.until_lease(lambda view: view.uid != old.uid, "a new Lease")
    assert (new.holder, new.owner, new.transitions) == ("", stage.uids["a"], old.transitions + 1)


# Expiry ---------------------------------------------------------------------------------------------------------


def test_a_silent_holder_is_lost_after_duration_and_guard_and_found_again(stage):
    stage.gateway()
    stage.pod("b")
    stage.pod("a")
    stage.route(notes={"holdfast.dev/lease-seconds": "1", "holdfast.dev/selection": "Sticky"})
    view = stage.until_lease(lambda v: v.owner, "an owner")
    holder, other = ("a", "b") if view.owner == stage.uids["a"] else ("b", "a")
    assert view.duration_s == 1
    stage.take(holder)
    sent = time.monotonic()
    stage.report(holder)
    freed = stage.until_lease(lambda v: not v.holder, "the Lease to be free")
    waited = time.monotonic() - sent
    assert 1.1 <= waited < 1.6, waited
    assert (freed.owner, freed.lost) == (stage.uids[other], (stage.uids[holder],))
    stage.assigned(holder, "r")
    stage.write(holder, lambda v: writes.prepare(v, stage.uids[holder]))
    found = stage.until_lease(lambda v: not v.lost, "the lost Pod to be found")
    assert found.owner == stage.uids[other]


def test_an_owner_that_does_not_take_a_free_lease_is_lost_after_ten_seconds(stage):
    stage.gateway()
    stage.pod("a")
    stage.route()
    began = time.monotonic()
    stage.owned_by("a")
    view = stage.until_lease(lambda v: v.lost, "the owner to be lost", timeout_s=30.0)
    assert time.monotonic() - began >= 9.9
    assert (view.owner, view.lost) == ("", (stage.uids["a"],))
    assert "it is lost: a; check the container holdfast" in stage.condition("Ready", "NoPodsFound")


# Bad input ------------------------------------------------------------------------------------------------------

BAD = [
    pytest.param(
        {"addresses": [{"type": CIDR, "value": "198.51.100.0/24"}]}, "InvalidAddresses", "is a range", id="range"
    ),
    pytest.param({"addresses": [{"type": CIDR, "value": "x"}]}, "InvalidAddresses", "not an address", id="nonsense"),
    pytest.param(
        {"addresses": [{"type": CIDR, "value": "192.0.2.9/32"}]},
        "InvalidAddresses",
        "not in the addresses of",
        id="other",
    ),
    pytest.param({"parentRefs": [{"name": "no"}]}, "GatewayNotFound", "does not exist: create it", id="no-gateway"),
    pytest.param(
        {"parentRefs": [{"name": "foreign"}]}, "Unattachable", "which holdfast does not manage", id="foreign-class"
    ),
    pytest.param({"network": "nowhere"}, "NetworkNotFound", "Network nowhere does not exist", id="no-network"),
    pytest.param(
        {"podSelector": {"matchLabels": {"-": "x"}}}, "InvalidLabels", "is not a valid label: correct it", id="labels"
    ),
]


@pytest.mark.parametrize(("spec", "reason", "part"), BAD)
def test_a_bad_route_is_told_why_and_others_go_on(stage, spec, reason, part):
    stage.gateway()
    stage.gateway("foreign", gatewayClassName="somebody-elses")
    stage.route("bad", stage.addresses[1], **spec)
    assert part in stage.condition("Accepted", reason, "bad")
    assert stage.condition("Ready", reason, "bad")
    stage.pod("a")
    stage.route()
    stage.take("a")
    stage.condition("Ready", "ProgrammingComplete")
    with pytest.raises(ApiError):
        stage.lease("bad")


def test_the_younger_of_two_routes_waits_until_the_older_is_gone_and_has_let_go(stage):
    stage.gateway()
    stage.pod("a")
    stage.route("first")
    stage.take("a", "first")
    stage.route("second")
    assert "belongs to the older GKEIPRoute" in stage.condition("Accepted", "AddressConflict", "second")
    stage.api.delete(stage.at("gkeiproutes", "first"))
    stage.api.wait(
        stage.at("gkeiproutes", "second"),
        lambda o: any("waiting for another route's Pod to release" in c["message"] for c in conditions(o)),
        SOON_S,
        "the second to wait",
    )
    stage.write("a", lambda view: writes.release(view, now()), "first")
    stage.take("a", "second")
    stage.condition("Ready", "ProgrammingComplete", "second")


@pytest.mark.parametrize("text", ["damaged", '{"v":1,"routes":[]}'])
def test_a_damaged_assignment_is_restored(stage, text):
    stage.gateway()
    stage.pod("a")
    stage.route()
    stage.assigned("a", "r")
    as_controller = stage.api.as_token(stage.world.token(SYSTEM_NAMESPACE, CONTROLLER_ACCOUNT))
    with contextlib.closing(as_controller):
        as_controller.patch(stage.at("pods", "a"), {"metadata": {"annotations": {ASSIGNMENT: text}}})
    stage.assigned("a", "r")


# Faults ---------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def killed_at_write(stage: Stage, number: int) -> Iterator[threading.Event]:
    """SIGKILL the controller as soon as the API server shows its n-th write in this namespace, and start it again."""
    hit, count, lock = threading.Event(), itertools.count(1), threading.Lock()
    controller = stage.world.controllers[0]
    sorts = ("leases", "pods", "gkeiproutes", "roles", "rolebindings")
    before = {body["metadata"]["resourceVersion"] for sort in sorts for body in stage.api.list(stage.at(sort))}

    def follow(sort: str) -> None:
        for _, body in stage.api.watch(stage.at(sort), timeout_s=20.0):
            fields = body["metadata"].get("managedFields", [])
            last = max(fields, key=lambda each: each["time"], default={})
            old = body["metadata"]["resourceVersion"] in before or hit.is_set()
            if old or not last.get("manager", "").startswith("holdfast-controller"):
                continue
            with lock:
                if next(count) == number:
                    controller.kill()
                    hit.set()

    for sort in sorts:
        threading.Thread(target=follow, args=(sort,), daemon=True).start()
    try:
        yield hit
    finally:
        hit.set()  # whatever comes after this is not to be killed
        controller.start()


@pytest.mark.parametrize("number", range(1, 6))
def test_killed_between_any_two_writes_it_ends_in_the_same_state(stage, number):
    stage.gateway()
    with killed_at_write(stage, number) as hit:
        stage.pod("a")
        stage.route()
        assert hit.wait(SOON_S), f"there was no write number {number}"
    stage.take("a")
    stage.assigned("a", "r")
    stage.condition("Ready", "ProgrammingComplete")
    assert stage.final() == {
        "lease": ["a", "a", ""],
        "epoch": 1,
        "assigned": ["a"],
        "role": ["holdfast-r"],
        "status": {
            "pods": ["a"],
            "addresses": [{"address": "ADDRESS", "pod": "a", "epoch": 1, "interface": "eth0", "state": "announced"}],
            "conditions": [
                ready("Accepted", "Accepted", "attached to Gateway SPACE/gw"),
                ready("DPV2Ready", "DPV2Ready", "Pod a has ADDRESS on eth0"),
                ready("GCPReady", "GCPReady", "Pod a has announced ADDRESS"),
                ready("Ready", "ProgrammingComplete", "Pod a has ADDRESS on eth0"),
            ],
        },
    }


@pytest.mark.parametrize("number", range(1, 5))
def test_killed_in_the_middle_of_a_hand_over_it_ends_in_the_same_state(stage, number):
    """Writes 1 to 4: owner, entry and status for the new Pod, and one of those when it holds."""
    stage.gateway()
    stage.pod("a")
    stage.route()
    stage.take("a")
    stage.condition("Ready", "ProgrammingComplete")
    time_passes_in_whole_seconds(stage)
    stage.pod("b", ready=False)
    with killed_at_write(stage, number) as hit:
        stage.ready("b")
        if number < 4:
            assert hit.wait(SOON_S), f"there was no write number {number}"
            stage.world.controllers[0].start()
        stage.hand_over("a", "b")
        assert hit.wait(SOON_S), f"there was no write number {number}"
    stage.assigned("b", "r")
    stage.assigned("a")
    stage.condition("Ready", "ProgrammingComplete")
    assert stage.final()["lease"] == ["b", "b", "b"]  # owner, holder, prepared
    assert stage.final()["epoch"] == 2


def ready(kind: str, reason: str, message: str) -> dict[str, Any]:
    return {"type": kind, "status": "True", "reason": reason, "message": message, "observedGeneration": 1}


def test_the_api_server_restarted(stage):
    stage.gateway()
    stage.pod("a")
    stage.route()
    stage.take("a")
    stage.condition("Ready", "ProgrammingComplete")
    stage.world.control_plane.api_server.kill()
    stage.world.control_plane.api_server.start()
    stage.world.control_plane.wait_ready().close()
    stage.ready("a", "False")
    stage.until_lease(lambda view: not view.owner, "nobody to be owner", timeout_s=20.0)


def leader(stage: Stage, wish: Callable[[str], bool], timeout_s: float = SOON_S) -> str:
    path = f"/apis/coordination.k8s.io/v1/namespaces/{SYSTEM_NAMESPACE}/leases/{ELECTION_LEASE}"
    found = stage.api.wait(path, lambda o: o is not None and wish(o["spec"]["holderIdentity"]), timeout_s, "a leader")
    return str(found["spec"]["holderIdentity"])


@pytest.fixture
def second(stage: Stage) -> Iterator[Program]:
    """Another replica of the controller, from the same place on the network."""
    first = stage.world.controllers[0]
    leader(stage, lambda name: name.startswith("ctl-0"))
    argv = [*first.argv[: first.argv.index("--identity") + 1], "ctl-second"]
    replica = Program("controller-second", argv, stage.world.logs / "controller-second.log", first.netns, first.env)
    replica.start()
    yield replica
    replica.kill()
    first.start()


@pytest.mark.parametrize(
    ("end", "within_s"), [pytest.param("kill", 6.5, id="killed"), pytest.param("stop", 1.5, id="sigterm")]
)
def test_of_two_replicas_the_other_goes_on(stage, second, end, within_s):
    stage.gateway()
    stage.route()
    wait_for_line(second.log, "all watches are synced")
    getattr(stage.world.controllers[0], end)()
    began = time.monotonic()
    assert leader(stage, lambda name: name.startswith("ctl-second")).startswith("ctl-second")
    assert time.monotonic() - began < within_s
    stage.pod("a")
    stage.take("a")
    stage.condition("Ready", "ProgrammingComplete")


def test_a_paused_leader_writes_nothing_when_it_goes_on(stage, second):
    stage.gateway()
    stage.route()
    wait_for_line(second.log, "all watches are synced")
    first = stage.world.controllers[0]
    first.pause()
    try:
        leader(stage, lambda name: name.startswith("ctl-second"))
        stage.pod("a")
        stage.take("a")
    finally:
        first.resume()
    wait_for_line(first.log, "this replica is a standby")
    assert leader(stage, bool).startswith("ctl-second")
    stage.condition("Ready", "ProgrammingComplete")


def wait_for_line(log: Any, text: str) -> None:
    """Wait for a sentence in a log; a file has no event to wait on, so this looks again and again, with a deadline."""
    deadline, pause = time.monotonic() + SOON_S, threading.Event()
    while time.monotonic() < deadline:
        if text in log.read_text():
            return
        pause.wait(0.02)
    pytest.fail(f"{log} never says {text!r}:\n{log.read_text()[-2000:]}")
