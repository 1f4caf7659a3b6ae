"""The real sidecar against the real API server and kernel; the controller's part is played here, write by write.

Pods are objects that no node takes; each has a network namespace of its own here, with eth0 on the default network and
eth1 on the second, and its sidecar runs with a token bound to it and no more rights than the controller would give.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from contract import lease as contract_lease
from contract.lease import LeaseView, decode_lease
from contract.names import ASSIGNMENT, CONTROLLER_ACCOUNT, SIDECAR_ROLE, SYSTEM_NAMESPACE, lease_name
from lab import wiring
from lab.wiring import Links
from sidecar.kernel.frames import arp_reply, arp_request
from tests.lab.sidecar.kernel.cable import flush_ruleset, rule_count

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from lab.api_client import ApiClient
    from lab.world.world import World

pytestmark = pytest.mark.lab

ADDRESS, SECOND, SIXTH = "34.123.10.1/32", "34.123.10.2/32", "2001:db8::1/128"
ROUTE = "my-route"
DURATION_S = 2
SOON_S = 30.0
ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")


class Ear:
    """Hears all ARP on the second network, and asks."""

    def __init__(self, netns: str) -> None:
        self._frames: list[tuple[float, bytes]] = []
        self._socket = _socket_inside(netns)
        self._socket.settimeout(0.1)
        with Links(netns) as there:
            self._mac = bytes.fromhex(there.mac("eth0").replace(":", ""))
        self._news = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._closed = True
        self._thread.join()
        self._socket.close()

    def _listen(self) -> None:
        while not self._closed:
            with contextlib.suppress(TimeoutError):
                frame = self._socket.recv(2048)
                with self._news:
                    self._frames.append((time.time(), frame[:42]))
                    self._news.notify_all()

    def wait(self, frame: bytes, since: float, timeout_s: float = SOON_S) -> float:
        """Wait for a frame; give its time."""

        def found() -> float:
            return next((at for at, one in self._frames if at >= since and one == frame), 0.0)

        with self._news:
            assert self._news.wait_for(found, timeout_s), f"not heard within {timeout_s} s: {frame.hex()}"
            return found()

    def last_answer(self, address: str, until: float) -> float:
        """Ask for an address every 5 ms until then; give the time of the last answer."""
        question = bytearray(arp_request(self._mac, "10.201.9.99"))
        question[38:42] = socket.inet_aton(address)
        while time.time() < until:
            self._socket.send(question)
            select.select([], [], [], 0.005)
        with self._news:
            answers = [at for at, one in self._frames if one[20:22] == b"\0\2" and one[28:32] == question[38:42]]
        return max(answers, default=0.0)


def _socket_inside(netns: str) -> socket.socket:
    """Open an ARP socket in another namespace: namespaces are per thread, and this thread ends at once."""
    opened: list[socket.socket] = []

    def open_it() -> None:
        import ctypes  # noqa: PLC0415

        fd = os.open(f"/run/netns/{netns}", os.O_RDONLY)
        assert ctypes.CDLL(None).setns(fd, 0x40000000) == 0
        os.close(fd)
        one = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x0806))
        one.bind(("eth0", 0x0806))
        opened.append(one)

    thread = threading.Thread(target=open_it)
    thread.start()
    thread.join()
    return opened[0]


@dataclass
class Pod:
    """One Pod: its object, its namespace, its sidecar."""

    stage: Stage
    name: str
    uid: str
    netns: str
    folder: Path
    process: subprocess.Popen[bytes] | None = None
    runs: int = 0

    def start(
        self, drain_s: float = 0.5, capabilities: str = "+net_admin,+net_raw", settings: dict[str, str] | None = None
    ) -> None:
        self.runs += 1
        environment = {
            "PATH": os.environ["PATH"],
            "POD_NAME": self.name,
            "POD_NAMESPACE": self.stage.namespace,
            "POD_UID": self.uid,
            "KUBERNETES_SERVICE_HOST": "10.200.0.1",
            "KUBERNETES_SERVICE_PORT": "6443",
            **(settings or {}),
        }
        program = f"{sys.executable} -m sidecar.cli run --drain-s {drain_s}"
        rights = f"setpriv --bounding-set=-all,{capabilities} --inh-caps=-all"
        script = f"mount --bind {self.folder} {ACCOUNT} && exec {rights} {program}"
        command = ["nsenter", f"--net=/run/netns/{self.netns}", "unshare", "--mount", "sh", "-c", script]
        with (self.folder / f"log.{self.runs}").open("wb") as log:
            self.process = subprocess.Popen(command, env=environment, stderr=log)

    def start_downward(self) -> None:
        self.start(settings={"HOLDFAST_SOURCE": "downward", "HOLDFAST_DIRECTORY": str(self.folder)})

    def annotated(self, *addresses: str, interface: str = "eth1") -> None:
        """The kubelet's part: the Pod's annotations in a file, replaced as a whole."""
        text = self.stage.assignment(*addresses, interface=interface)
        new = self.folder / "annotations.new"
        new.write_text(f'another="x\\ny"\n{ASSIGNMENT}={json.dumps(text)}')
        new.replace(self.folder / "annotations")

    def signal(self, number: signal.Signals) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    def ended(self) -> int:
        assert self.process is not None
        return self.process.wait(SOON_S)

    def kill(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait(SOON_S)

    def log(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.folder / f"log.{self.runs}").read_text().splitlines()]

    def addresses(self, interface: str = "eth1") -> set[str]:
        with Links(self.netns) as there:
            return {a for a in there.addresses(interface) if a.startswith("34.")}

    def mac(self, interface: str = "eth1") -> bytes:
        with Links(self.netns) as there:
            return bytes.fromhex(there.mac(interface).replace(":", ""))

    def ip(self, *arguments: str) -> None:
        subprocess.run(["ip", "-n", self.netns, *arguments], check=True, timeout=10)

    def both_forms(self) -> tuple[bytes, bytes]:
        bare = ADDRESS.partition("/")[0]
        return arp_request(self.mac(), bare), arp_reply(self.mac(), bare)


@dataclass
class Stage:
    """What the controller does, and what the test sees."""

    world: World
    namespace: str
    controller: ApiClient
    ear: Ear
    pods: dict[str, Pod] = field(default_factory=dict)

    @property
    def lease_path(self) -> str:
        name = lease_name(ROUTE)
        return f"/apis/coordination.k8s.io/v1/namespaces/{self.namespace}/leases/{name}"

    def create_lease(self, owner: Pod, *addresses: str) -> None:
        named = addresses or (ADDRESS, SECOND)
        made = contract_lease.create(ROUTE, self.namespace, owner.uid, DURATION_S, addresses=named)
        self.controller.create(self.lease_path.rpartition("/")[0], made)

    def own(self, owner: Pod | None) -> None:
        view, uid = self.lease(), owner.uid if owner else ""
        patch = contract_lease.name_owner(view, uid, duration_s=DURATION_S, lost=(), addresses=view.addresses)
        del patch["metadata"]["resourceVersion"]  # a test has no use for losing the race with a renewal
        self.controller.patch(self.lease_path, patch)

    def assign(self, pod: Pod, *addresses: str, interface: str = "eth1", text: str | None = None) -> None:
        text = self.assignment(*addresses, interface=interface) if text is None else text
        patch = {"metadata": {"uid": pod.uid, "annotations": {ASSIGNMENT: text}}}
        self.controller.patch(f"/api/v1/namespaces/{self.namespace}/pods/{pod.name}", patch)

    def assignment(self, *addresses: str, interface: str = "eth1") -> str:
        entries = [{"address": address, "interface": interface} for address in addresses]
        lease = self.lease_path.rpartition("/")[2]
        route = {"route": ROUTE, "lease": lease, "handover": "Exclusive", "addresses": entries}
        return json.dumps({"v": 1, "routes": [route] if addresses else []})

    def grant(self, *, pods: bool) -> None:
        """The Role of docs/contract.md, as the controller keeps it, with or without the right to read the two Pods."""
        self.world.api.patch(f"{_rbac(self.namespace)}/roles/{SIDECAR_ROLE}", {"rules": _rules(pods=pods)})

    def lease(self) -> LeaseView:
        return decode_lease(self.world.api.get(self.lease_path))

    def wait(self, wished: Callable[[LeaseView], object], what: str) -> LeaseView:
        body = self.world.api.wait(
            self.lease_path, lambda one: one is not None and wished(decode_lease(one)), SOON_S, what
        )
        return decode_lease(body)

    def wait_announced(self, pod: Pod) -> LeaseView:
        return self.wait(lambda v: v.holder == pod.uid and "announced" in v.observed, f"{pod.name} has announced")


def _pod_object(name: str) -> dict[str, Any]:
    spec = {
        "schedulerName": "nobody",
        "automountServiceAccountToken": False,
        "containers": [{"name": "app", "image": "app:1"}],
    }
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec}


def _rbac(namespace: str) -> str:
    return f"/apis/rbac.authorization.k8s.io/v1/namespaces/{namespace}"


def _rules(*, pods: bool) -> list[dict[str, Any]]:
    leases = {
        "apiGroups": ["coordination.k8s.io"],
        "resources": ["leases"],
        "resourceNames": [lease_name(ROUTE)],
        "verbs": ["get", "watch", "update", "patch"],
    }
    own = {"apiGroups": [""], "resources": ["pods"], "resourceNames": ["a", "b"], "verbs": ["get", "watch"]}
    return [leases, *([own] if pods else [])]


def _grant(world: World, namespace: str) -> None:
    rbac = _rbac(namespace)
    head = {"apiVersion": "rbac.authorization.k8s.io/v1", "metadata": {"name": SIDECAR_ROLE}}
    world.api.create(f"{rbac}/roles", {**head, "kind": "Role", "rules": _rules(pods=True)})
    ref = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": SIDECAR_ROLE}
    group = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Group", "name": f"system:serviceaccounts:{namespace}"}
    binding = {**head, "kind": "RoleBinding", "roleRef": ref, "subjects": [group]}
    world.api.create(f"{rbac}/rolebindings", binding)


@pytest.fixture(scope="module")
def quiet(world: World) -> Iterator[World]:
    """The world without its controllers, which would tidy away what has no route."""
    for controller in world.controllers:
        controller.kill()
    yield world
    for controller in world.controllers:
        controller.start()


def _plug(world: World, netns: str, network: int, link: str, cidr: str | None) -> str:
    port = f"{netns}-{network}"[-15:]
    world.networks.plug(port, netns, network, link, cidr)
    return port


@pytest.fixture
def stage(quiet: World, kube_namespace: str, tmp_path: Path) -> Iterator[Stage]:
    world = quiet
    ACCOUNT.mkdir(parents=True, exist_ok=True)
    _grant(world, kube_namespace)
    controller = world.api.as_token(world.token(SYSTEM_NAMESPACE, CONTROLLER_ACCOUNT))
    made, plugged = ["sc-ear", "sc-a", "sc-b"], []
    for netns in made:
        wiring.create(netns)
    plugged.append(_plug(world, "sc-ear", 1, "eth0", "10.201.9.99/16"))
    ear = Ear("sc-ear")
    stage = Stage(world, kube_namespace, controller, ear)
    for host, name in ((10, "a"), (11, "b")):
        plugged.append(_plug(world, f"sc-{name}", 0, "eth0", f"10.200.9.{host}/16"))
        plugged.append(_plug(world, f"sc-{name}", 1, "eth1", f"10.201.9.{host}/16"))
        uid = world.api.create(f"/api/v1/namespaces/{kube_namespace}/pods", _pod_object(name))["metadata"]["uid"]
        folder = tmp_path / name
        folder.mkdir()
        (folder / "token").write_text(world.token(kube_namespace, "default", (name, uid)))
        (folder / "ca.crt").write_bytes(world.control_plane.credentials.ca_file.read_bytes())
        stage.pods[name] = Pod(stage, name, uid, f"sc-{name}", folder)
    yield stage
    for pod in stage.pods.values():
        pod.kill()
    ear.close()
    controller.close()
    for netns in made:
        wiring.delete(netns)


@pytest.fixture
def a(stage: Stage) -> Pod:
    return stage.pods["a"]


@pytest.fixture
def b(stage: Stage) -> Pod:
    return stage.pods["b"]


@pytest.fixture
def held(stage: Stage, a: Pod) -> Pod:
    """Pod a holds the route."""
    stage.create_lease(a)
    stage.assign(a, ADDRESS)
    a.start()
    stage.wait_announced(a)
    return a


def test_assigned_it_configures_announces_and_reports(stage, a):
    stage.create_lease(a)
    a.start()
    began = time.time()
    stage.assign(a, ADDRESS, SECOND)
    view = stage.wait_announced(a)
    assert a.addresses("eth1") == {ADDRESS, SECOND}
    assert a.addresses("eth0") == set()
    with Links(a.netns) as there:
        assert (there.arp_announce("eth1"), there.arp_announce("eth0")) == (2, 0)
    first = [stage.ear.wait(form, began) for form in a.both_forms()]
    again = [stage.ear.wait(form, first[1] + 0.1) for form in a.both_forms()]
    assert again[0] - first[0] >= 1.1 - 0.02, "Linux neighbours may ignore a change within a second"
    report = json.loads(view.observed)
    assert report["fence"] == "deadline"
    assert report["durationSeconds"] == DURATION_S
    assert [one["state"] for one in report["addresses"]] == ["announced", "announced"]
    assert view.transitions == 1


def test_source_downward_goes_by_its_file_and_needs_no_right_to_read_pods(stage, a, b):
    stage.grant(pods=False)
    for pod in (a, b):
        pod.annotated()
        pod.start_downward()
    stage.create_lease(a)
    a.annotated(ADDRESS)
    stage.wait_announced(a)
    b.annotated(ADDRESS)
    stage.own(b)
    stage.wait_announced(b)
    assert (a.addresses(), b.addresses()) == (set(), {ADDRESS})
    stage.own(None)
    b.annotated()
    stage.wait(lambda view: not view.holder, "b has let go, since its entry is gone")
    assert b.addresses() == set()
    for pod in (a, b):
        pod.signal(signal.SIGTERM)
        assert pod.ended() == 0
        # asked to end 0.2 s after it let go at most: what was to follow is not missed, and not complained of
        assert not [line for line in pod.log() if "403" in line["message"]]


def test_an_ipv6_address_keeps_its_ipv4_companion_waiting_for_nothing(stage, a):
    stage.create_lease(a, ADDRESS, SIXTH)
    stage.assign(a, ADDRESS, SIXTH)
    a.start()
    view = stage.wait_announced(a)
    said = {each["address"]: each for each in json.loads(view.observed)["addresses"]}
    assert (said[ADDRESS]["state"], said[SIXTH]["state"]) == ("announced", "failed")
    assert "IPv6 is not supported yet" in said[SIXTH]["message"]
    assert a.addresses() == {ADDRESS}


def test_ipv6_alone_is_refused_with_its_reason(stage, a):
    stage.create_lease(a, SIXTH)
    stage.assign(a, SIXTH)
    a.start()
    view = stage.wait(lambda each: each.observed, "a has said why it takes nothing")
    assert not view.holder
    assert "IPv6 is not supported yet" in view.observed


def test_a_missing_interface_of_one_address_leaves_the_lease_to_a_pod_that_has_both(stage, a):
    stage.create_lease(a)
    entries = [{"address": ADDRESS, "interface": "eth1"}, {"address": SECOND, "interface": "eth7"}]
    route = {"route": ROUTE, "lease": stage.lease().name, "handover": "Exclusive", "addresses": entries}
    stage.assign(a, text=json.dumps({"v": 1, "routes": [route]}))
    a.start()
    view = stage.wait(lambda each: each.observed, "a has said why it takes nothing")
    assert not view.holder
    assert "this Pod has no interface eth7" in view.observed


def test_without_an_interface_it_takes_the_pods_first(stage, a):
    stage.create_lease(a)
    a.start()
    entry = {"route": ROUTE, "lease": stage.lease().name, "handover": "Exclusive", "addresses": [{"address": ADDRESS}]}
    stage.assign(a, text=json.dumps({"v": 1, "routes": [entry]}))
    stage.wait_announced(a)
    assert a.addresses("eth0") == {ADDRESS}
    assert a.addresses("eth1") == set()


def test_it_hands_over_to_a_prepared_owner(stage, held, b):
    b.start()
    stage.assign(b, ADDRESS)
    stage.own(b)
    view = stage.wait_announced(b)
    assert view.transitions == 2
    assert (held.addresses(), b.addresses()) == (set(), {ADDRESS})
    stage.ear.wait(b.both_forms()[0], 0)


def test_an_owner_that_is_not_prepared_gets_nothing(stage, held, b):
    stage.assign(b, ADDRESS)
    stage.own(b)
    before = stage.lease().renew_time
    view = stage.wait(lambda v: v.renew_time > before and v.owner == b.uid, "another renewal")
    assert view.holder == held.uid
    assert held.addresses() == {ADDRESS}
    b.start()
    stage.wait_announced(b)


def test_killed_and_restarted_it_goes_on_without_losing_the_address(stage, held):
    held.kill()
    held.start()
    before = stage.lease().renew_time
    view = stage.wait(lambda v: v.renew_time > before, "a renewal by the new process")
    assert (view.holder, view.transitions) == (held.uid, 1)
    assert held.addresses() == {ADDRESS}
    sentences = [line["message"] for line in held.log()]
    assert not [one for one in sentences if "removes" in one or "left by" in one], sentences


def test_killed_for_good_its_address_falls_silent_at_the_deadline(stage, held):
    held.kill()
    renewed = _seconds(stage.lease().renew_time)
    last = stage.ear.last_answer(ADDRESS.partition("/")[0], renewed + DURATION_S + 0.5)
    assert renewed < last <= renewed + DURATION_S + 0.02


def test_paused_beyond_its_lease_it_is_silenced_and_comes_back(stage, held):
    held.signal(signal.SIGSTOP)
    renewed = _seconds(stage.lease().renew_time)
    last = stage.ear.last_answer(ADDRESS.partition("/")[0], renewed + DURATION_S + 0.5)
    assert renewed < last <= renewed + DURATION_S + 0.02
    before = stage.lease().renew_time
    held.signal(signal.SIGCONT)
    stage.wait(lambda v: v.renew_time > before and "announced" in v.observed, "it holds again")
    assert held.addresses() == {ADDRESS}


def _seconds(stamp: str) -> float:
    import datetime as dt  # noqa: PLC0415

    return dt.datetime.fromisoformat(stamp).timestamp()


def test_a_flush_of_all_rules_is_mended_within_50_ms(stage, held):
    renewed = _seconds(stage.lease().renew_time)
    flush_ruleset(held.netns)
    until = time.monotonic() + 0.05
    while not rule_count(held.netns):
        assert time.monotonic() < until, "no rules after 50 ms"
    held.signal(signal.SIGSTOP)
    last = stage.ear.last_answer(ADDRESS.partition("/")[0], renewed + 2 * DURATION_S)
    stopped = _seconds(stage.lease().renew_time)
    held.signal(signal.SIGCONT)
    assert renewed <= stopped < last <= stopped + DURATION_S + 0.02, "it is the deadline that was flushed"


def test_a_foreign_removal_is_mended_and_announced(stage, held):
    began = time.time()
    stage.ear.wait(held.both_forms()[0], 0)
    held.ip("addr", "del", ADDRESS, "dev", "eth1")
    stage.ear.wait(held.both_forms()[1], began)
    assert held.addresses() == {ADDRESS}


def test_a_link_that_comes_back_is_announced_again(stage, held):
    with Links(held.netns) as there:
        there.down("eth1")
        began = time.time()
        there.up("eth1")
    stage.ear.wait(held.both_forms()[0], began)
    stage.ear.wait(held.both_forms()[1], began)
    assert held.addresses() == {ADDRESS}


def test_another_mac_of_an_interface_that_stays_up_is_announced_after_the_locktime(stage, held):
    before = stage.ear.wait(held.both_forms()[0], stage.ear.wait(held.both_forms()[0], 0) + 6.0)
    held.ip("link", "set", "dev", "eth1", "address", "02:aa:bb:cc:dd:05")
    assert held.mac() == bytes.fromhex("02aabbccdd05")
    for form in held.both_forms():
        # by the spread alone it would be 8.8 s
        assert stage.ear.wait(form, before) - before < 1.1 + 0.3


def test_a_foreign_claim_is_answered_and_reported(stage, held):
    began = time.time()
    stage.ear._socket.send(arp_reply(stage.ear._mac, ADDRESS.partition("/")[0]))
    stage.ear.wait(held.both_forms()[0], began)
    view = stage.wait(lambda v: "conflict" in v.observed, "the conflict in the report")
    assert stage.ear._mac.hex(":") in view.observed


def test_sigterm_releases_and_exits_with_0(stage, held):
    held.signal(signal.SIGTERM)
    assert held.ended() == 0
    view = stage.lease()
    assert (view.holder, view.observed) == ("", "")
    assert held.addresses() == set()


def test_sigterm_waits_for_a_successor(stage, a, b):
    stage.create_lease(a)
    for pod in (a, b):
        stage.assign(pod, ADDRESS)
    a.start(drain_s=30)
    stage.wait_announced(a)
    a.signal(signal.SIGTERM)
    b.start()
    stage.own(b)
    stage.wait_announced(b)
    assert a.ended() == 0
    assert (a.addresses(), b.addresses()) == (set(), {ADDRESS})


def test_an_entry_that_vanishes_means_let_go_now(stage, held):
    stage.own(None)
    stage.assign(held)
    stage.wait(lambda v: v.holder == "", "the release")
    assert held.addresses() == set()


def test_an_entry_that_vanishes_counts_once_the_pod_shall_hold_no_longer(stage, held):
    """Where the assignment lags, an older absence of the entry may be read after the Lease has been taken by it."""
    stage.assign(held)
    before = stage.lease().renew_time
    for _ in range(2):
        before = stage.wait(lambda v, last=before: v.renew_time > last, "another renewal").renew_time
    assert held.addresses() == {ADDRESS}
    stage.own(None)
    stage.wait(lambda v: v.holder == "", "the release")
    assert held.addresses() == set()


def test_an_interface_that_is_not_there_is_explained(stage, a):
    stage.create_lease(a)
    a.start()
    stage.assign(a, ADDRESS, interface="eth7")
    view = stage.wait(lambda v: v.observed, "an explanation")
    assert view.holder == ""
    (report,) = json.loads(view.observed)["addresses"]
    assert report["state"] == "failed"
    assert "no interface eth7 (it has: eth0, eth1)" in report["message"]
    stage.assign(a, ADDRESS)
    stage.wait_announced(a)


def test_an_interface_that_appears_later_is_taken(stage, a):
    stage.create_lease(a)
    a.start()
    stage.assign(a, ADDRESS, interface="eth2")
    stage.wait(lambda v: v.observed, "an explanation")
    _plug(stage.world, a.netns, 2, "eth2", None)
    stage.wait_announced(a)
    assert a.addresses("eth2") == {ADDRESS}


def test_a_damaged_assignment_changes_nothing_and_is_told(stage, held):
    before = stage.lease().renew_time
    stage.assign(held, text='{"v": 1, "routes": [{"route": 7}]}')
    for _ in range(2):
        before = stage.wait(lambda v, last=before: v.renew_time > last, "another renewal").renew_time
    assert stage.lease().holder == held.uid
    assert held.addresses() == {ADDRESS}
    (told,) = [line["message"] for line in held.log() if line["subject"] == "assignment"]
    assert "routes[0].route" in told


def test_an_address_that_leaves_the_route_leaves_the_interface(stage, held):
    stage.assign(held, SECOND)
    stage.wait(lambda v: "10.2/32" in v.observed and "announced" in v.observed, "the second address")
    assert held.addresses() == {SECOND}


@pytest.mark.parametrize(("given", "missing"), [("+net_raw", "NET_ADMIN"), ("+net_admin", "NET_RAW")])
def test_a_missing_capability_ends_with_4_and_is_named(a, given, missing):
    a.start(capabilities=given)
    assert a.ended() == 4
    assert f"the container needs the capability {missing}" in (a.folder / "log.1").read_text()


def test_an_api_server_that_hangs_beyond_the_lease_costs_the_address_and_no_longer(stage, held):
    server = stage.world.control_plane.api_server
    renewed = _seconds(stage.lease().renew_time)
    server.pause()
    try:
        last = stage.ear.last_answer(ADDRESS.partition("/")[0], renewed + 2 * DURATION_S)
    finally:
        began = time.time()
        server.resume()
    # a renewal may have come through between the reading and the pause
    assert last <= renewed + 4 / 3 * DURATION_S + 0.1
    at = stage.ear.wait(held.both_forms()[0], began)
    assert at - began < 1.0
    stage.wait(lambda v: "announced" in v.observed and _seconds(v.renew_time) >= began, "a renewal")
    assert held.addresses() == {ADDRESS}


def test_a_new_pod_of_the_same_name_is_not_this_one(stage, held):
    path = f"/api/v1/namespaces/{stage.namespace}/pods"
    stage.world.api.delete(f"{path}/a", {"gracePeriodSeconds": 0})
    stage.own(None)
    stage.wait(lambda v: v.holder == "", "the release")
    assert held.addresses() == set()
    successor = stage.world.api.create(path, _pod_object("a"))["metadata"]["uid"]
    stage.assign(Pod(stage, "a", successor, held.netns, held.folder), ADDRESS)
    before = stage.lease()
    stage.own(Pod(stage, "a", successor, held.netns, held.folder))
    after = stage.wait(lambda v: v.owner == successor, "the new owner")
    assert (after.holder, after.prepared, before.holder) == ("", "", "")
    assert held.addresses() == set()
