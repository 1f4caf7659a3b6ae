"""Steps of the tests of the whole way: what a user does, what is waited for, and what kernels and wire must say.

Nothing is believed that holdfast says of itself: Leases and statuses only tell when to look. Each `Steps` has addresses
of its own, so that no test waits for what another has left behind.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import json
import subprocess
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from contract.errors import ContractError
from contract.names import INTERFACES, SIDECAR_ROLE
from contract.report import AddressState, decode_report
from lab.witness.kernel_events import AddressEvent, FenceEvent, SpaceGone
from lab.witness.ledger import LEASES, PODS, ROUTES, Ledger, names_lease

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from contract.lease import LeaseView
    from lab.api_client import ApiClient
    from lab.world.pods import PodHandle
    from lab.world.world import World

SOON_S = 30.0
"""Every deadline that is not itself what a test is about: a machine of two cores may be busy."""
CIDR = "gke.networking.io/cidr"
EXTERNAL = "gke-persistent-regional-external-managed"
FAST = "gke-persistent-fast-regional-external-managed"
BLUE = "blue-network"
NICS = json.dumps([{"interfaceName": "eth0", "network": "default"}, {"interfaceName": "eth1", "network": BLUE}])
_GROUPS = {
    "gkeiproutes": "/apis/networking.gke.io/v1",
    "gateways": "/apis/gateway.networking.k8s.io/v1",
    "leases": "/apis/coordination.k8s.io/v1",
    "deployments": "/apis/apps/v1",
}
_numbers = itertools.count(1)

Body = dict[str, Any]


@functools.cache
def ledger_of(world: World) -> Ledger:
    """One ledger for all tests of a world: its watches last as long as it does."""
    return Ledger(world.api)


def own_addresses() -> tuple[str, ...]:
    """Three addresses that nobody else has."""
    number = next(_numbers)
    return tuple(f"198.18.{number}.{host}/32" for host in (1, 2, 3))


def network(name: str) -> str:
    return f"apiVersion: networking.gke.io/v1\nkind: Network\nmetadata: {{name: {name}}}\nspec: {{type: L3}}\n"


@dataclass
class Steps:
    """One namespace and the addresses that move in it."""

    world: World
    ledger: Ledger
    space: str
    addresses: tuple[str, ...] = field(default_factory=own_addresses)
    ifname: str = "eth1"
    plain: str = "eth0"
    """An interface without any persistent address; empty: there is none."""
    mark: float = field(default_factory=time.time)
    beside: Body = field(default_factory=dict)
    """What the specs of the Pods that are made here have beside their app."""

    @property
    def api(self) -> ApiClient:
        return self.world.api

    @property
    def role(self) -> str:
        """Where the API has the Role of the namespace's sidecars."""
        return f"/apis/rbac.authorization.k8s.io/v1/namespaces/{self.space}/roles/{SIDECAR_ROLE}"

    def at(self, sort: str, name: str = "") -> str:
        path = f"{_GROUPS.get(sort, '/api/v1')}/namespaces/{self.space}/{sort}"
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
            "network": BLUE,
        }
        meta = {"name": name, "annotations": notes or {}}
        body = {"apiVersion": "networking.gke.io/v1", "kind": "GKEIPRoute", "metadata": meta, "spec": full | spec}
        self.api.create(self.at("gkeiproutes"), body)

    def change(self, name: str = "r", **spec: Any) -> None:
        self.api.patch(self.at("gkeiproutes", name), {"spec": spec})

    def pod(
        self,
        name: str,
        *,
        node: str = "",
        notes: dict[str, str] | None = None,
        labels: dict[str, str] | None = None,
        grace_s: int = 2,
    ) -> None:
        """Create a Pod, in a later second than all others of the namespace: it is the newest."""
        self.tick()
        meta = {
            "name": name,
            "labels": {"app": "web", "name": name, **(labels or {})},
            "annotations": {INTERFACES: NICS, **(notes or {})},
        }
        spec = self._pod_spec() | {"terminationGracePeriodSeconds": grace_s} | ({"nodeName": node} if node else {})
        self.api.create(self.at("pods"), {"metadata": meta, "spec": spec})

    def deployment(self, replicas: int) -> None:
        labels = {"app": "web"}
        template = {"metadata": {"labels": labels, "annotations": {INTERFACES: NICS}}, "spec": self._pod_spec()}
        spec = {"replicas": replicas, "selector": {"matchLabels": labels}, "template": template}
        self.api.create(self.at("deployments"), {"metadata": {"name": "web"}, "spec": spec})

    def _pod_spec(self) -> Body:
        return {"terminationGracePeriodSeconds": 2, "containers": [{"name": "app", "image": "app:1"}], **self.beside}

    def delete(self, sort: str, name: str) -> None:
        self.api.delete(self.at(sort, name))

    def tick(self) -> None:
        """Wait until the API server gives another second to what is created than to the newest Pod there is.

        Its clock has no event: it is asked, with a deadline.
        """
        newest = max((each["metadata"]["creationTimestamp"] for each in self.api.list(self.at("pods"))), default="")
        body, pause, deadline = {"metadata": {"name": "clock"}}, threading.Event(), time.monotonic() + SOON_S
        while time.monotonic() < deadline:
            made = self.api.create(self.at("configmaps"), body, dryRun="All")
            if made["metadata"]["creationTimestamp"] > newest:
                return
            pause.wait(0.05)
        raise AssertionError("the API server's clock stands still")

    # what the API says ---------------------------------------------------------------------------------------------

    def pod_named(self, name: str) -> Body:
        return self.ledger.current(PODS, f"{self.space}/{name}")

    def uid(self, name: str) -> str:
        return str(self.pod_named(name).get("metadata", {}).get("uid", ""))

    def pods(self) -> list[Body]:
        return self.ledger.all(PODS, self.space)

    def lease(self, route: str = "r") -> LeaseView | None:
        return self.ledger.lease(f"{self.space}/holdfast-{route}")

    def until(self, what: str, wish: Callable[[], object], within_s: float = SOON_S) -> None:
        self.ledger.wait(what, lambda: bool(wish()), within_s)

    def until_lease(self, what: str, wish: Callable[[LeaseView], object], route: str = "r") -> LeaseView:
        def right() -> bool:
            view = self.lease(route)
            return view is not None and bool(wish(view))

        self.until(f"Lease of {route}: {what}", right)
        found = self.lease(route)
        assert found is not None
        return found

    def ready(self, *names: str) -> None:
        self.until(f"{names} to be Ready", lambda: all(is_ready(self.pod_named(name)) for name in names))

    def condition(self, kind: str, reason: str, route: str = "r", within_s: float = SOON_S, part: str = "") -> str:
        """Wait for a condition with this reason, and with this part in its message.

        Returns:
            Its message.
        """

        def found() -> Body:
            return next(
                (each for each in self.status(route).get("conditions", []) if each["type"] == kind),
                {"reason": "", "message": ""},
            )

        try:
            self.until(
                f"{route}: {kind} {reason}",
                lambda: found()["reason"] == reason and part in found()["message"],
                within_s,
            )
        except Exception as error:
            error.add_note(f"it says: {json.dumps(self.status(route), indent=1)}")
            raise
        return str(found()["message"])

    def status(self, route: str = "r") -> Body:
        return dict(self.ledger.current(ROUTES, f"{self.space}/{route}").get("status", {}))

    def entry(self, pod: str, route: str = "r") -> bool:
        """Whether a Pod's assignment names a route."""
        body = self.pod_named(pod)
        return bool(body) and names_lease(body, f"{self.space}/holdfast-{route}")

    # who holds -----------------------------------------------------------------------------------------------------

    def held_by(
        self, who: str | Callable[[Body], object], *addresses: str, route: str = "r", within_s: float = SOON_S
    ) -> PodHandle:
        """Wait until the right Pod holds, and look into the kernels.

        Args:
            who: a Pod's name, or what is asked of the Pod that holds.
            addresses: exactly those that it must have told the network of; the first one when left out.
            route: the route's name.
            within_s: how long to wait.
        """
        wanted = frozenset(addresses or self.addresses[:1])
        wish = (lambda pod: pod["metadata"]["name"] == who) if isinstance(who, str) else who
        what = who if isinstance(who, str) else "the right Pod"
        try:
            self.until(f"{what} holds {sorted(wanted)}", lambda: self._settled(route, wanted, wish), within_s)
        except Exception as error:
            error.add_note(f"Lease: {self.lease(route)}; status: {json.dumps(self.status(route), indent=1)}")
            raise
        view = self.lease(route)
        assert view is not None
        handle = self.handle(view.holder)
        self.only_on(handle, wanted)
        return handle

    def _settled(self, route: str, wanted: frozenset[str], wish: Callable[[Body], object]) -> bool:
        view = self.lease(route)
        if view is None or not view.holder or view.holder != view.owner or not view.observed:
            return False
        pod = next((each for each in self.pods() if each["metadata"]["uid"] == view.holder), None)
        if pod is None or not wish(pod):
            return False
        try:
            said = decode_report(view.observed, view.where).addresses
        except ContractError:
            return False
        return {each.address for each in said if each.state is AddressState.ANNOUNCED} == wanted

    def handle(self, uid: str) -> PodHandle:
        name = next(each["metadata"]["name"] for each in self.pods() if each["metadata"]["uid"] == uid)
        return self.world.pod(self.space, name)

    # what kernels and wire say -------------------------------------------------------------------------------------

    def only_on(self, handle: PodHandle, wanted: frozenset[str]) -> None:
        """The addresses stand on the one interface of the one Pod; arp_announce is 2 there and nowhere else."""
        assert wanted <= handle.addresses(self.ifname)
        for address in wanted:
            assert self.places(address) == {(handle.netns, self.ifname)}, address
        assert handle.arp_announce(self.ifname) == 2
        if self.plain not in ("", self.ifname):
            assert handle.arp_announce(self.plain) != 2

    def places(self, address: str, *, silent: bool = False) -> set[tuple[str, str]]:
        """Network namespaces and interfaces on which an address stands now, as the kernels told the witness.

        Args:
            address: with its prefix length.
            silent: whether those count that a deadline in the kernel silences already; their address goes a bit later.
        """
        found: dict[tuple[str, int], set[str]] = {}
        deadlines: dict[tuple[str, int], float | None] = {}
        for event in self.world.witness.events():
            place = (event.netns, event.space)
            match event:
                case AddressEvent() if event.address == bare(address):
                    interfaces = found.setdefault(place, set())
                    (interfaces.add if event.added else interfaces.discard)(event.interface)
                case FenceEvent() if event.address == bare(address):
                    deadlines[place] = event.deadline_s
                case SpaceGone():
                    found.pop(place, None)
        now_s = time.time()
        return {
            (place[0], interface)
            for place, interfaces in found.items()
            for interface in interfaces
            if silent or (deadlines.get(place) or now_s) >= now_s
        }

    def renewed(self, route: str = "r", times: int = 2) -> None:
        """Wait until the holder has renewed so often: what it has been told since has had its time."""
        last = self.lease(route).renew_time
        for _ in range(times):
            last = self.until_lease("a renewal", lambda view, last=last: view.renew_time > last, route).renew_time

    def nowhere(self, *addresses: str) -> None:
        for address in addresses or self.addresses:
            assert self.places(address, silent=True) == set(), address

    def removals(self, address: str, since_s: float) -> list[AddressEvent]:
        return [e for e in self.world.witness.kernel(since_s) if e.address == bare(address) and not e.added]

    def first_on(self, handle: PodHandle, address: str, since_s: float) -> float:
        """When a Pod's kernel first got an address after a time."""
        return min(
            e.time_s
            for e in self.world.witness.kernel(since_s)
            if e.address == bare(address) and e.added and e.netns == handle.netns
        )

    def announced(self, handle: PodHandle, address: str, since_s: float) -> None:
        """Both forms of gratuitous ARP came from the Pod, and from nobody else since it has the address."""
        self.announced_again(handle, address, since_s)
        macs, sender = handle.macs, bare(address)
        began = self.first_on(handle, address, since_s)
        frames = [f for f in self.world.witness.frames(began) if f.gratuitous and f.sender_ip == sender]
        assert {f.sender_mac for f in frames} <= macs
        assert {f.source_mac for f in frames} <= macs

    def announced_again(self, handle: PodHandle, address: str, since_s: float) -> None:
        macs, sender = handle.macs, bare(address)
        for kind in ("arp-request", "arp-reply"):
            self.world.witness.wait_frame(
                lambda f, kind=kind: f.kind == kind and f.gratuitous and f.sender_ip == sender and f.sender_mac in macs,
                SOON_S,
                since_s,
            )

    def let_go(self, route: str = "r") -> None:
        """Wait until a route's Lease is gone; then no kernel has its addresses."""
        self.until(f"the Lease of {route} to be gone", lambda: self.lease(route) is None)
        self.nowhere()

    def one_holder(self) -> None:
        """No instant had two, and nobody spoke for what another held."""
        assert self.world.witness.two_holders(self.mark) == []
        mine = {bare(each) for each in self.addresses}
        assert [f for f in self.world.witness.false_speakers(self.mark) if f.sender_ip in mine] == []


@contextlib.contextmanager
def steps_in(world: World, space: str) -> Iterator[Steps]:
    """Steps in a namespace; afterwards no instant had two holders, and its routes and addresses are gone."""
    world.apply(network(BLUE))
    for controller in world.controllers:
        controller.start()
    steps = Steps(world, ledger_of(world), space)
    yield steps
    world.api.delete(steps.at("gkeiproutes"))
    steps.until("all Leases to be gone", lambda: not steps.ledger.all(LEASES, space))
    steps.nowhere()
    steps.one_holder()


def is_ready(pod: Body) -> bool:
    conditions = pod.get("status", {}).get("conditions", [])
    return any(each["type"] == "Ready" and each["status"] == "True" for each in conditions)


def bare(address: str) -> str:
    return address.partition("/")[0]


def neighbour(netns: str, address: str) -> str:
    """The MAC address that a host's neighbour table has for an address, or nothing."""
    command = ["nsenter", f"--net=/run/netns/{netns}", "ip", "-json", "neigh", "show", bare(address)]
    said = subprocess.run(command, capture_output=True, text=True, check=True, timeout=SOON_S).stdout
    return next((str(each.get("lladdr", "")) for each in json.loads(said or "[]")), "")
