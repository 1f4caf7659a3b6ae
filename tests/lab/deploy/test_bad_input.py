"""Bad input on the whole way: it gets its condition and message, or is refused; a healthy route beside it goes on.

The healthy route is handed over between two Pods with real sidecars while each bad thing is there.
"""

from __future__ import annotations

import contextlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from contract.names import ASSIGNMENT, CONTROLLER_ACCOUNT, INTERFACES, SYSTEM_NAMESPACE
from lab.errors import ApiError, CommandError
from tests.lab.steps import BLUE, CIDR, EXTERNAL, NICS, Steps, own_addresses, steps_in

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lab.world.world import World

pytestmark = pytest.mark.lab

SPACE = "bad-input"


@dataclass
class Good:
    """A healthy route, and what is bad beside it."""

    steps: Steps
    holder: str = "a"
    spare: tuple[str, ...] = ()

    def goes_on(self) -> None:
        """The healthy route is handed over to the other Pod, and its new holder has it in its kernel."""
        self.holder = "b" if self.holder == "a" else "a"
        self.steps.change("good", podSelector={"matchLabels": {"name": self.holder}})
        self.steps.held_by(self.holder, route="good")
        self.steps.condition("Ready", "ProgrammingComplete", "good", part=f"Pod {self.holder} has")

    def stays(self, mark: float) -> None:
        """Its address has not been off its Pod meanwhile."""
        assert self.steps.removals(self.steps.addresses[0], mark) == []
        self.goes_on()


@pytest.fixture(scope="module")
def healthy(world: World) -> Iterator[Good]:
    world.create_namespace(SPACE)
    with steps_in(world, SPACE) as steps:
        steps.gateway(addresses=[{"type": CIDR, "value": "198.18.0.0/16"}])
        steps.gateway("narrow", addresses=[{"type": CIDR, "value": steps.addresses[0]}])
        steps.gateway("foreign", gatewayClassName="somebody-elses")
        steps.gateway("nonsense", addresses=[{"type": CIDR, "value": "not-an-address"}])
        steps.gateway("closed", listeners=[listener("Selector", {"matchLabels": {"no": "namespace"}})])
        steps.gateway("http", listeners=[listener("All", {}, kinds=[{"kind": "HTTPRoute"}])])
        steps.pod("a")
        steps.pod("b")
        steps.ready("a", "b")
        steps.route("good", podSelector={"matchLabels": {"name": "a"}})
        steps.held_by("a", route="good")
        yield Good(steps)
    world.api.delete(f"/api/v1/namespaces/{SPACE}")


def listener(allowed: str, selector: dict[str, Any], **rules: Any) -> dict[str, Any]:
    rule = {"namespaces": {"from": allowed, "selector": selector}, **rules}
    return {"name": "l", "port": 443, "protocol": "none", "allowedRoutes": rule}


@pytest.fixture
def good(healthy: Good) -> Iterator[Good]:
    healthy.spare = own_addresses()
    steps = healthy.steps
    yield healthy
    bad = [each["metadata"]["name"] for each in steps.api.list(steps.at("gkeiproutes"))]
    for name in bad:
        if name != "good":
            steps.delete("gkeiproutes", name)
            steps.until(f"the Lease of {name} to be gone", lambda name=name: steps.lease(name) is None)
    steps.nowhere(*healthy.spare)
    steps.one_holder()


def addresses(*values: str) -> dict[str, Any]:
    return {"addresses": [{"type": CIDR, "value": each} for each in values]}


# Refused by the schema -------------------------------------------------------------------------------------------

REFUSED = [
    pytest.param({"addresses": "198.18.0.1/32"}, "spec.addresses", id="addresses-as-text"),
    pytest.param({"addresses": [{"type": CIDR, "value": 7}]}, "spec.addresses[0].value", id="address-as-a-number"),
    pytest.param(addresses("198.18.0.1/32", "198.18.0.1/32"), "names the same address twice", id="twice"),
    pytest.param({"podSelector": {}}, "podSelector is empty", id="empty-selector"),
    pytest.param({"podSelector": {"matchLabels": {}}}, "podSelector is empty", id="empty-labels"),
    pytest.param({"podSelector": {"matchLabels": {"app": True}}}, "spec.podSelector.matchLabels.app", id="label-type"),
    pytest.param({"network": {"name": BLUE}}, "spec.network", id="network-as-a-map"),
    pytest.param({"reactionMode": "Always"}, "spec.reactionMode", id="unknown-mode"),
]


@pytest.mark.parametrize(("spec", "part"), REFUSED)
def test_what_cannot_mean_anything_is_refused_at_once(good, spec, part):
    with pytest.raises(ApiError) as refused:
        good.steps.route("bad", **spec)
    assert refused.value.code == 422
    assert part in str(refused.value)
    good.goes_on()


def test_kubectl_tells_a_user_the_same(good):
    manifest = (
        "apiVersion: networking.gke.io/v1\nkind: GKEIPRoute\n"
        f"metadata: {{name: bad, namespace: {SPACE}}}\n"
        "spec: {parentRefs: [{name: gw}], addresses: [{value: 7}], podSelector: {matchLabels: {app: web}}}\n"
    )
    with pytest.raises(CommandError, match=r"spec\.addresses\[0\]\.value"):
        good.steps.world.apply(manifest)
    good.goes_on()


# Told in the status ----------------------------------------------------------------------------------------------

TOLD = [
    pytest.param(
        {"parentRefs": []}, "MissingParentRefs", "spec.parentRefs is empty: name the Gateway", id="no-parents"
    ),
    pytest.param(
        {"parentRefs": [{"name": "gw", "sectionName": "other"}]},
        "NoMatchingParent",
        "spec.parentRefs[0].sectionName: there is no listener 'other'",
        id="section",
    ),
    pytest.param(
        {"parentRefs": [{"name": "http"}]},
        "Unattachable",
        f"no listener of Gateway {SPACE}/http allows routes of kind GKEIPRoute",
        id="another-kind",
    ),
    pytest.param(
        {"loadBalancing": {"healthCheckName": "hc"}}, "LoadBalancingNotSupported", "remove it", id="load-balancing"
    ),
    pytest.param({"nodeSelector": {"zone": "a"}}, "NodeSelectorNotSupported", "remove it", id="node-selector"),
    pytest.param(
        addresses("198.18.0.0/24"), "InvalidAddresses", "'198.18.0.0/24' is a range; give one address", id="range"
    ),
    pytest.param(addresses("203.0.113.7/31"), "InvalidAddresses", "is a range; give one address", id="not-a-32"),
    pytest.param(addresses("here"), "InvalidAddresses", "spec.addresses[0]: 'here' is not an address", id="nonsense"),
    pytest.param(addresses("198.18.0.1/33"), "InvalidAddresses", "is not an address", id="prefix-too-long"),
    pytest.param(addresses("224.0.0.5/32"), "InvalidAddresses", "is reserved (multicast)", id="multicast"),
    pytest.param(addresses("127.0.0.1/32"), "InvalidAddresses", "is reserved (loopback)", id="loopback"),
    pytest.param(addresses("0.1.2.3/32"), "InvalidAddresses", "is reserved (this network)", id="this-network"),
    pytest.param(addresses("255.255.255.255/32"), "InvalidAddresses", "is reserved (broadcast)", id="broadcast"),
    pytest.param(
        {"addresses": [{"type": "Hostname", "value": "x"}]},
        "InvalidAddresses",
        "'Hostname' is not supported",
        id="type",
    ),
    pytest.param(
        addresses("192.0.2.9/32"), "InvalidAddresses", "192.0.2.9/32 is not in the addresses of Gateway", id="not-given"
    ),
    pytest.param(
        {"parentRefs": [{"name": "missing"}]}, "GatewayNotFound", "does not exist: create it", id="no-gateway"
    ),
    pytest.param(
        {"parentRefs": [{"name": "gw", "kind": "Service", "group": ""}]},
        "GatewayNotFound",
        "is not a Gateway: name a Gateway",
        id="parent-no-gateway",
    ),
    pytest.param(
        {"parentRefs": [{"name": "foreign"}]},
        "Unattachable",
        "has gatewayClassName 'somebody-elses', which holdfast does not manage",
        id="foreign-class",
    ),
    pytest.param(
        {"parentRefs": [{"name": "nonsense"}]}, "GatewayNotAccepted", "none of its addresses can be used", id="gateway"
    ),
    pytest.param(
        {"parentRefs": [{"name": "closed"}]},
        "Unattachable",
        f"no listener of Gateway {SPACE}/closed allows routes from namespace {SPACE}",
        id="closed",
    ),
    pytest.param({"network": "nowhere"}, "NetworkNotFound", "Network nowhere does not exist: create it", id="network"),
    pytest.param(
        {"podSelector": {"matchLabels": {"-": "x"}}},
        "InvalidLabels",
        "-=x is not a valid label: correct it",
        id="label",
    ),
    pytest.param(
        {"podSelector": {"matchExpressions": [{"key": "app", "operator": "Like", "values": ["w"]}]}},
        "InvalidLabels",
        "'Like' is not an operator: use In, NotIn, Exists or DoesNotExist",
        id="operator",
    ),
    pytest.param(
        {"podSelector": {"matchExpressions": [{"key": "app", "operator": "In"}]}},
        "InvalidLabels",
        "In and NotIn need values",
        id="no-values",
    ),
]


@pytest.mark.parametrize(("spec", "reason", "part"), TOLD)
def test_what_is_wrong_is_told_and_nothing_is_configured(good, spec, reason, part):
    mark = good.steps.world.witness.mark()
    good.steps.route("bad", good.spare[0], **spec)
    good.steps.condition("Accepted", reason, "bad", part=part)
    good.steps.condition("Ready", reason, "bad", part=part)
    good.steps.condition("GCPReady", "CleanupComplete", "bad")
    assert good.steps.lease("bad") is None
    good.stays(mark)


def test_a_held_route_that_becomes_bad_lets_go_and_says_why(good):
    steps = good.steps
    mark = steps.world.witness.mark()
    steps.route("bad", good.spare[0])
    steps.held_by("b", good.spare[0], route="bad")
    steps.change("bad", **addresses("198.18.0.0/24"))
    steps.condition("Accepted", "InvalidAddresses", "bad", part="is a range")
    steps.until("its Lease to be gone", lambda: steps.lease("bad") is None)
    steps.nowhere(good.spare[0])
    good.stays(mark)


def test_a_network_that_is_not_ready_and_then_is(good):
    steps = good.steps
    steps.world.apply(
        "apiVersion: networking.gke.io/v1\nkind: Network\nmetadata: {name: red-network}\nspec: {type: L2}\n"
    )
    path = "/apis/networking.gke.io/v1/networks/red-network/status"
    said = {
        "type": "Ready",
        "reason": "NoSubnet",
        "message": "it has none",
        "lastTransitionTime": "2026-01-01T00:00:00Z",
    }
    steps.api.patch(path, {"status": {"conditions": [{**said, "status": "False"}]}})
    try:
        steps.route("bad", good.spare[0], network="red-network")
        told = steps.condition("Accepted", "NetworkNotReady", "bad")
        assert told == "Network red-network is not Ready (NoSubnet: it has none): correct it, see its status"
        good.goes_on()
        steps.api.patch(path, {"status": {"conditions": [{**said, "status": "True"}]}})
        steps.condition("Accepted", "Accepted", "bad")
        steps.condition("Ready", "NoPodsFound", "bad", part=" on network red-network: ")
        good.goes_on()
    finally:
        steps.api.delete("/apis/networking.gke.io/v1/networks/red-network")


def test_annotations_of_a_route_that_mean_nothing_are_named_and_have_no_effect(good):
    notes = {"holdfast.dev/lease-seconds": "soon", "holdfast.dev/selection": "Oldest", "holdfast.dev/handover": "Never"}
    good.steps.route("bad", good.spare[0], notes=notes)
    told = good.steps.condition("Accepted", "Accepted", "bad")
    for part in ("write a whole number from 1 to 60", "write Newest or Sticky", "write Exclusive or Overlap"):
        assert part in told
    good.steps.held_by("b", good.spare[0], route="bad")
    good.goes_on()


@pytest.mark.parametrize(
    "text", ["{", "7", '[{"interfaceName": "eth1"', json.dumps([{"interfaceName": 1, "network": BLUE}])]
)
def test_a_pod_whose_interfaces_cannot_be_read_is_named(good, text):
    steps = good.steps
    # it is on no node: that of a Pod changes what it asks of one, and a node refuses what it cannot read
    meta = {"name": "odd", "labels": {"app": "odd"}, "annotations": {INTERFACES: text}}
    spec = {"schedulerName": "nobody", "containers": [{"name": "app", "image": "app:1"}]}
    steps.api.create(steps.at("pods"), {"metadata": meta, "spec": spec})
    try:
        steps.route("bad", good.spare[0], podSelector={"matchLabels": {"app": "odd"}})
        steps.condition("Ready", "NoPodsFound", "bad", part=f"it has an unreadable annotation: odd ({INTERFACES}")
        good.goes_on()
    finally:
        steps.api.delete(steps.at("pods", "odd"), {"gracePeriodSeconds": 0})
        steps.until("odd to be gone", lambda: not steps.uid("odd"))


# The assignment --------------------------------------------------------------------------------------------------

UNREADABLE = [
    "damaged",
    "[]",
    '{"v": 2, "routes": []}',
    '{"v": 1, "routes": [{"route": 7}]}',
    json.dumps({"v": 1, "routes": [{"route": "good", "lease": "holdfast-good", "addresses": [{"address": "x"}]}]}),
]


@pytest.mark.parametrize("text", UNREADABLE)
def test_an_assignment_damaged_by_hand_is_restored_and_costs_no_address(good, text):
    """By the controller's own account: any other is refused."""
    mark = good.steps.world.witness.mark()
    damage(good, text)
    good.goes_on()
    assert len(good.steps.removals(good.steps.addresses[0], mark)) == 1  # that of this handover


@pytest.mark.parametrize("text", ["", '{"v": 1, "routes": []}'])
def test_an_entry_taken_away_by_hand_means_let_go_and_is_restored(good, text):
    damage(good, text)
    good.goes_on()


def damage(good: Good, text: str) -> None:
    """Write over the holder's assignment, and wait until it is as before."""
    steps = good.steps
    before, mark = note(good), steps.world.witness.mark()
    with contextlib.closing(as_controller(steps.world)) as api:
        api.patch(steps.at("pods", good.holder), {"metadata": {"annotations": {ASSIGNMENT: text}}})
    steps.until("the assignment to be restored", lambda: note(good) == before and text in versions(good, mark))


def as_controller(world: World):
    return world.api.as_token(world.token(SYSTEM_NAMESPACE, CONTROLLER_ACCOUNT))


def note(good: Good) -> str | None:
    return good.steps.pod_named(good.holder)["metadata"]["annotations"].get(ASSIGNMENT)


def versions(good: Good, since_s: float) -> set[str]:
    """All texts that the holder's assignment has had."""
    seen = [each.body["metadata"] for each in good.steps.ledger.since(since_s)]
    return {each["annotations"][ASSIGNMENT] for each in seen if ASSIGNMENT in each.get("annotations", {})}


def test_nobody_else_writes_an_assignment(good):
    steps = good.steps
    with pytest.raises(ApiError, match="only holdfast's controller writes the annotation"):
        steps.api.patch(steps.at("pods", good.holder), {"metadata": {"annotations": {ASSIGNMENT: "damaged"}}})
    good.goes_on()


def test_an_interface_that_is_not_there_is_explained_and_taken_when_it_is_named_right(good):
    """Said after the Pod's start: its node has made what it named then."""
    steps = good.steps
    steps.pod("odd", labels={"app": "odd"})
    steps.ready("odd")
    try:
        wrong = NICS.replace("eth1", "eth7")
        steps.api.patch(steps.at("pods", "odd"), {"metadata": {"annotations": {INTERFACES: wrong}}})
        steps.route("bad", good.spare[0], podSelector={"matchLabels": {"app": "odd"}})
        for kind, reason in (("DPV2Ready", "DPV2NotReady"), ("GCPReady", "GCPNotReady"), ("Ready", "DPV2NotReady")):
            steps.condition(kind, reason, "bad", part="no interface eth7 (it has: eth0, eth1)")
        steps.nowhere(good.spare[0])
        good.goes_on()
        steps.api.patch(steps.at("pods", "odd"), {"metadata": {"annotations": {INTERFACES: NICS}}})
        steps.held_by("odd", good.spare[0], route="bad")
    finally:
        remove(steps, "odd")


def remove(steps: Steps, pod: str) -> None:
    steps.delete("pods", pod)
    steps.until(f"{pod} to be gone", lambda: not steps.uid(pod))


def test_an_interface_that_is_not_there_takes_nothing_from_who_has_the_address(good):
    """A new owner that cannot prepare gets nothing: its predecessor goes on."""
    steps = good.steps
    mark = steps.world.witness.mark()
    steps.route(
        "bad",
        good.spare[0],
        podSelector={"matchExpressions": [{"key": "name", "operator": "In", "values": ["b", "odd"]}]},
    )
    steps.held_by("b", good.spare[0], route="bad")
    steps.pod("odd", labels={"app": "odd", "name": "not-yet"})
    try:
        steps.ready("odd")
        # once its interfaces are made, and by the same write by which it becomes the newest of the route's Pods
        odd = {"labels": {"name": "odd"}, "annotations": {INTERFACES: NICS.replace("eth1", "eth7")}}
        steps.api.patch(steps.at("pods", "odd"), {"metadata": odd})
        steps.condition("Ready", "Mutated", "bad", part="Pod odd to be prepared; Pod b keeps them")
        assert steps.places(good.spare[0]) == {(steps.world.pod(SPACE, "b").netns, "eth1")}
    finally:
        remove(steps, "odd")
    steps.held_by("b", good.spare[0], route="bad")
    assert steps.removals(good.spare[0], mark) == []
    good.goes_on()


# The Gateway -----------------------------------------------------------------------------------------------------


def test_a_gateway_with_one_bad_address_goes_on_with_the_others_and_says_so(good):
    steps = good.steps
    given = [{"type": CIDR, "value": good.spare[0]}, {"type": CIDR, "value": "not-an-address"}]
    steps.gateway("half", gatewayClassName=EXTERNAL, addresses=given)
    steps.route("bad", good.spare[0], parentRefs=[{"name": "half"}])
    steps.held_by("b", good.spare[0], route="bad")

    def told(gateway: dict[str, Any] | None) -> bool:
        said = (gateway or {}).get("status", {}).get("conditions", [])
        return any(each["type"] == "Programmed" and "not-an-address" in each["message"] for each in said)

    steps.api.wait(steps.at("gateways", "half"), told, 30.0, "the Gateway to name its bad address")
    steps.delete("gateways", "half")
    steps.condition("Accepted", "GatewayNotFound", "bad")
    good.goes_on()
