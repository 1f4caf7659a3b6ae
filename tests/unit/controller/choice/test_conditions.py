"""Each reason of each condition, with its message, as a named row; and what else a status says."""

from __future__ import annotations

import msgspec
import pytest

from contract.names import CONTROLLER_NAME
from controller.choice.conditions import differs, stamped
from controller.choice.decide import plan_route
from controller.choice.gateways import class_status, gateway_status
from controller.choice.objects import GatewayClass, Route, RouteStatus, decode_route
from tests.unit.controller.kube_objects import (
    A1,
    A2,
    EXTERNAL,
    gateway,
    gateway_class,
    lease,
    namespace,
    network,
    pod,
    report,
    route,
    world,
)

KEY = ("default", "r")
SELECTOR = {"podSelector": {"matchLabels": {}}}
BLUE = {"network": "blue-network"}
BAD_KEY = {"podSelector": {"matchLabels": {"-x": "1"}}}
BAD_OPERATOR = {"podSelector": {"matchExpressions": [{"key": "a", "operator": "Like"}]}}
WITH_PARAMETERS = {"controllerName": CONTROLLER_NAME, "parametersRef": {"group": "x", "kind": "Y", "name": "z"}}
PARAMETERS_CLASS = msgspec.convert({"metadata": {"name": EXTERNAL}, "spec": WITH_PARAMETERS}, GatewayClass)
OURS_KIND, HTTP = {"group": "networking.gke.io", "kind": "GKEIPRoute"}, {"kind": "HTTPRoute"}
OTHER_CLASS = gateway_class("cilium", "io.cilium/gateway-controller")


def listener(**namespaces):
    return {"listeners": [{"name": "l", "allowedRoutes": {"namespaces": namespaces}}]}


def admitting(*kinds, name="l", port=443, **more):
    allowed = {"namespaces": {"from": "All"}, "kinds": list(kinds), **more}
    return {"name": name, "port": port, "protocol": "HTTP", "allowedRoutes": allowed}


def referring(*refs):
    return route(parentRefs=[{"name": "gw", **ref} for ref in refs])


def said(snap, kind, key=KEY):
    status = plan_route(snap, key).status
    assert status is not None
    found = next(each for each in status["conditions"] if each["type"] == kind)
    return found["status"], found["reason"], found["message"]


ACCEPTED = [
    pytest.param([route()], "Accepted", "attached to Gateway default/gw", id="Accepted"),
    pytest.param([route(**SELECTOR)], "InvalidLabels", "spec.podSelector is empty: select Pods", id="selector-empty"),
    pytest.param([route(**BAD_KEY)], "InvalidLabels", "-x=1 is not a valid label", id="label-key"),
    pytest.param([route(**BAD_OPERATOR)], "InvalidLabels", "'Like' is not an operator: use In, NotIn", id="operator"),
    pytest.param([route(parentRefs=[])], "MissingParentRefs", "name the Gateway", id="no-parents"),
    pytest.param(
        [route(parentRefs=[{"name": "nope"}])],
        "GatewayNotFound",
        "Gateway default/nope does not exist: create",
        id="gone",
    ),
    pytest.param(
        [route(), gateway(addresses=[{"type": "Hostname", "value": "x"}])],
        "GatewayNotAccepted",
        "Gateway default/gw is not accepted: none of its addresses can be used",
        id="gateway-not-accepted",
    ),
    pytest.param(
        [route(namespace="other"), gateway(**listener(**{"from": "Same"}))],
        "Unattachable",
        "no listener of Gateway default/gw allows routes from namespace other",
        id="listener-Same",
    ),
    pytest.param(
        [
            route(),
            gateway(**listener(**{"from": "Selector", "selector": {"matchLabels": {"a": "b"}}})),
            namespace("default"),
        ],
        "Unattachable",
        "no listener",
        id="listener-Selector",
    ),
    pytest.param(
        [referring({"sectionName": "other"})],
        "NoMatchingParent",
        "spec.parentRefs[0].sectionName: there is no listener 'other' (there are: l): correct Gateway default/gw, or",
        id="no-such-section",
    ),
    pytest.param(
        [referring({"port": 80}), gateway(listeners=[admitting(), admitting(name="m", port=444)])],
        "NoMatchingParent",
        "spec.parentRefs[0].port: no listener has port 80 (there are: 443, 444): correct",
        id="no-such-port",
    ),
    pytest.param(
        [referring({"sectionName": "l", "port": 444}), gateway(listeners=[admitting(), admitting(name="m", port=444)])],
        "NoMatchingParent",
        "spec.parentRefs[0].port: listener l has port 443, not 444",
        id="the-port-is-another-section's",
    ),
    pytest.param(
        [referring({"sectionName": "l", "port": 443})],
        "Accepted",
        "attached to Gateway default/gw",
        id="section-and-port",
    ),
    pytest.param(
        [referring({"sectionName": "other"}, {})],
        "Accepted",
        "attached to Gateway default/gw, but spec.parentRefs[0].sectionName: there is no listener 'other'",
        id="one-of-two-references-means-none",
    ),
    pytest.param(
        [referring({"name": "nope"}, {})],
        "Accepted",
        "attached to Gateway default/gw, but spec.parentRefs[0]: Gateway default/nope does not exist: create it",
        id="one-of-two-Gateways-is-missing",
    ),
    pytest.param(
        [route(parentRefs=[{"name": "gw", "group": "gateway.example.com"}])],
        "GatewayNotFound",
        "spec.parentRefs[0]: Gateway default/gw of group 'gateway.example.com' is not a Gateway: name a Gateway of",
        id="a-Gateway-of-another-group",
    ),
    pytest.param(
        [route(), gateway(listeners=[admitting(HTTP)])],
        "Unattachable",
        "no listener of Gateway default/gw allows routes of kind GKEIPRoute: "
        "add {group: networking.gke.io, kind: GKEIPRoute} to its spec.listeners[].allowedRoutes.kinds",
        id="listener-of-another-kind",
    ),
    pytest.param(
        [route(), gateway(listeners=[admitting({"kind": "GKEIPRoute"})])],
        "Unattachable",
        "allows routes of kind GKEIPRoute: add {group: networking.gke.io,",
        id="our-kind-of-another-group",
    ),
    pytest.param([route(), gateway(listeners=[admitting(HTTP, OURS_KIND)])], "Accepted", "attached", id="among-kinds"),
    pytest.param(
        [route(), gateway(listeners=[admitting(HTTP), admitting(name="m")])], "Accepted", "attached", id="any"
    ),
    pytest.param(
        [referring({"sectionName": "l"}), gateway(listeners=[admitting(HTTP), admitting(name="m")])],
        "Unattachable",
        "routes of kind GKEIPRoute",
        id="the-section-is-of-another-kind",
    ),
    pytest.param(
        [route(), gateway(listeners=[admitting(HTTP), admitting(name="m", namespaces={"from": "None"})])],
        "Unattachable",
        "allows routes from namespace default: correct its",
        id="one-by-kind-one-by-namespace",
    ),
    pytest.param(
        [route(), PARAMETERS_CLASS],
        "GatewayNotAccepted",
        f"GatewayClass {EXTERNAL}: spec.parametersRef is set, and holdfast has no parameters: remove it",
        id="a-class-with-parameters",
    ),
    pytest.param(
        [route(), gateway(infrastructure={"parametersRef": {"group": "x", "kind": "Y", "name": "z"}})],
        "GatewayNotAccepted",
        "Gateway default/gw is not accepted: spec.infrastructure.parametersRef is set, and holdfast has no parameters",
        id="a-Gateway-with-parameters",
    ),
    pytest.param(
        [route(loadBalancing={"healthCheckName": "hc"})],
        "LoadBalancingNotSupported",
        "spec.loadBalancing asks for several Pods with one address, and holdfast gives it to one Pod at a time:",
        id="load-balancing",
    ),
    pytest.param([route(loadBalancing={})], "LoadBalancingNotSupported", "remove it", id="load-balancing-empty"),
    pytest.param(
        [route(nodeSelector={"matchLabels": {"zone": "a"}})],
        "NodeSelectorNotSupported",
        "spec.nodeSelector is not supported: remove it, and select the Pods by spec.podSelector or place them by",
        id="node-selector",
    ),
    pytest.param([route(nodeSelector={"zone": "a"})], "NodeSelectorNotSupported", "remove it", id="node-labels"),
    pytest.param([route(nodeSelector={})], "Accepted", "attached", id="node-selector-of-all-nodes"),
    pytest.param(
        [route(allowGlobalAccess=False)],
        "Accepted",
        "attached to Gateway default/gw; spec.allowGlobalAccess has no effect: its network's routers",
        id="global-access",
    ),
    pytest.param(
        [route(haPolicy={"any": ["thing"]})],
        "Accepted",
        "spec.haPolicy has no effect: annotation holdfast.dev/lease-seconds says how soon a failover begins",
        id="HA-policy",
    ),
    pytest.param(
        [route(allowGlobalAccess=True, haPolicy={}, parentRefs=[])],
        "MissingParentRefs",
        "name the Gateway; spec.allowGlobalAccess has no effect",
        id="not-accepted-and-without-effect",
    ),
    pytest.param(
        [route(), gateway(gatewayClassName="cilium"), gateway_class(), OTHER_CLASS],
        "Unattachable",
        "has gatewayClassName 'cilium', which holdfast does not manage: use one of holdfast's GatewayClasses",
        id="foreign-class",
    ),
    pytest.param(
        [route("r", "default", "34.123.10.0/24")], "InvalidAddresses", "is a range; give one address", id="not-a-/32"
    ),
    pytest.param([route("r", "default", "34.123.10.300/32")], "InvalidAddresses", "is not an address", id="nonsense"),
    *(
        pytest.param(
            [route("r", "default", address), gateway(addresses=[{"value": block}])],
            "InvalidAddresses",
            f"spec.addresses[0]: {address} is reserved ({what}); use an address that a Pod can have",
            id=f"reserved-{address}",
        )
        for address, block, what in (
            ("0.0.0.0/32", "0.0.0.0/0", "this network"),
            ("0.1.2.3/32", "0.0.0.0/0", "this network"),
            ("127.0.0.1/32", "0.0.0.0/0", "loopback"),
            ("127.255.255.254/32", "0.0.0.0/0", "loopback"),
            ("224.0.0.1/32", "0.0.0.0/0", "multicast"),
            ("239.255.255.255/32", "0.0.0.0/0", "multicast"),
            ("255.255.255.255/32", "0.0.0.0/0", "broadcast"),
            ("::/128", "::/0", "unspecified"),
            ("::1/128", "::/0", "loopback"),
            ("ff02::1/128", "::/0", "multicast"),
        )
    ),
    *(
        pytest.param(
            [route("r", "default", address), gateway(addresses=[{"value": "0.0.0.0/0"}])],
            "Accepted",
            "attached",
            id=f"beside-what-is-reserved-{address}",
        )
        for address in ("1.0.0.0/32", "126.255.255.255/32", "128.0.0.0/32", "223.255.255.255/32", "240.0.0.1/32")
    ),
    pytest.param([route("r", "default", A1, A1)], "InvalidAddresses", "appears twice; remove one", id="twice"),
    pytest.param(
        [route("r", "default", "192.0.2.7/32")],
        "InvalidAddresses",
        "192.0.2.7/32 is not in the addresses of Gateway default/gw (34.123.10.1/32, 34.123.10.2/32): add it",
        id="not-in-the-gateway",
    ),
    pytest.param(
        [route(addresses=[{"type": "Hostname", "value": "x"}])],
        "InvalidAddresses",
        "spec.addresses[0]: type 'Hostname' is not supported",
        id="address-type",
    ),
    pytest.param(
        [route(created=5), route("older", created=1)],
        "AddressConflict",
        "34.123.10.1/32 belongs to the older GKEIPRoute default/older: use another",
        id="an-older-route-has-it",
    ),
    pytest.param(
        [route(), lease("other", owner="", holder="x", observed=report(A1))],
        "AddressConflict",
        "waiting for another route's Pod to release 34.123.10.1/32 (Lease default/holdfast-other); no action is needed",
        id="another-has-not-let-go",
    ),
    pytest.param([route(**BLUE)], "NetworkNotFound", "Network blue-network does not exist: create it", id="no-network"),
    pytest.param(
        [route(**BLUE), network(ready="False")],
        "NetworkNotReady",
        "blue-network is not Ready (Down): correct it",
        id="not-ready",
    ),
    pytest.param(
        [route(**BLUE), network(ready="True", params="False")],
        "NetworkNotReady",
        "Network blue-network is not ParamsReady (NoSubnet): correct the object that its spec.parametersRef names",
        id="its-parameters-are-not-ready",
    ),
    pytest.param([route(**BLUE), network(params="True")], "Accepted", "attached", id="its-parameters-are-ready"),
    pytest.param([route(**BLUE), network(ready=None)], "Accepted", "attached", id="network-that-says-nothing"),
    pytest.param(
        [route(notes={"holdfast.dev/lease-seconds": "61"})],
        "Accepted",
        "'61' is ignored; write a whole number from 1 to 60",
        id="lease-seconds",
    ),
    pytest.param(
        [route(notes={"holdfast.dev/selection": "Best"})], "Accepted", "write Newest or Sticky", id="selection"
    ),
    pytest.param([route(notes={"holdfast.dev/handover": "Now"})], "Accepted", "Exclusive or Overlap", id="handover"),
]


@pytest.mark.parametrize(("objects", "reason", "part"), ACCEPTED)
def test_accepted(objects, reason, part):
    key = next(each.key for each in objects if isinstance(each, Route))
    status, found, message = said(world(*objects), "Accepted", key)
    assert (status == "True", found) == (reason == "Accepted", reason)
    assert part in message
    ready = said(world(*objects), "Ready", key)
    assert reason == "Accepted" or ready == (status, found, message)


A, B = pod("a", 1), pod("b", 2)
BY_A = {"owner": "uid-a", "holder": "uid-a", "transitions": 3}

PROGRESS = [
    pytest.param([], None, ("False", "NoPodsFound", "matches spec.podSelector (app=web)"), None, id="no-pods"),
    pytest.param(
        [pod("a", ready=False)], None, ("False", "NoPodsFound", "it is not Ready: a (Containers"), None, id="not-ready"
    ),
    pytest.param(
        [A],
        lease(lost=("uid-a",)),
        ("False", "NoPodsFound", "it is lost: a; check the container holdfast"),
        None,
        id="holder-lost",
    ),
    pytest.param(
        [A],
        lease(lost=("uid-a",), observed=report(A1, state="failed", message="no eth7")),
        (
            "False",
            "NoPodsFound",
            f"renew or take the Lease in time; the last owner reported: {A1}: no eth7",
        ),
        None,
        id="lost-and-why",
    ),
    pytest.param(
        [pod("a", ready=False)],
        lease(**BY_A, observed=report(A1)),
        ("False", "NoPodsFound", "Pod a still holds the Lease and is removing the addresses"),
        None,
        id="nobody-and-a-holder-that-lets-go",
    ),
    pytest.param(
        [pod("a", deleting=True)],
        lease(**BY_A, observed=report(A1)),
        ("False", "NoPodsFound", "keeps the addresses until another Pod can have them or its own containers have"),
        None,
        id="nobody-and-a-holder-that-ends",
    ),
    pytest.param(
        [pod("a", ready=False, unready=())],
        lease(**BY_A, observed=report(A1)),
        ("False", "NoPodsFound", "keeps the addresses until another Pod can have them or its own containers are"),
        None,
        id="nobody-and-a-holder-whose-node-is-not-ready",
    ),
    pytest.param(
        [A, B],
        lease(owner="uid-b", holder="uid-a", observed=report(A1)),
        ("False", "Mutated", "move to Pod b: waiting for Pod b to be prepared; Pod a keeps them"),
        None,
        id="under-way",
    ),
    pytest.param(
        [A, B],
        lease(owner="uid-b", holder="uid-a", prepared="uid-b"),
        ("False", "Mutated", "waiting for Pod a, the holder, to hand over"),
        None,
        id="under-way-and-prepared",
    ),
    pytest.param(
        [A], lease(**BY_A), ("False", "Mutated", "Pod a holds the Lease and is configuring"), None, id="just-taken"
    ),
    pytest.param(
        [A],
        lease(owner="uid-a"),
        ("Unknown", "NotReported", "read the log of its container holdfast"),
        None,
        id="not-reported",
    ),
    pytest.param(
        [A],
        lease(**BY_A, observed='{"v":9}'),
        ("Unknown", "NotReported", "version 9 is not supported"),
        None,
        id="version",
    ),
    pytest.param(
        [A],
        lease(owner="uid-a", observed=report(A1, state="failed", message="interface eth7 is not there")),
        ("False", "DPV2NotReady", "interface eth7 is not there"),
        ("False", "GCPNotReady", "eth7"),
        id="explained",
    ),
    pytest.param(
        [A],
        lease(**BY_A, observed=report(A1, state="failed", message="no such device")),
        ("False", "DPV2NotReady", "Pod a: 34.123.10.1/32: no such device"),
        ("False", "GCPNotReady", "has not announced"),
        id="failed",
    ),
    pytest.param(
        [A],
        lease(**BY_A, observed=report(A1, state="conflict", message="02:00:00:00:00:09 answers for it")),
        ("False", "DPV2NotReady", "answers for it"),
        ("False", "AddressInUse", "02:00:00:00:00:09 answers for it"),
        id="in-use",
    ),
    pytest.param(
        [A],
        lease(**BY_A, observed=report(A1, state="configured")),
        ("True", "DPV2Ready", "Pod a has 34.123.10.1/32 on eth0"),
        ("False", "GCPNotReady", "has not announced 34.123.10.1/32 yet"),
        id="configured",
    ),
    pytest.param(
        [A],
        lease(**BY_A, observed=report(A1, state="configured", message="no buffer space")),
        ("True", "DPV2Ready", "eth0"),
        ("False", "GCPFailed", "no buffer space"),
        id="announcement-failed",
    ),
    pytest.param(
        [A],
        lease(**BY_A, observed=report(A2)),
        ("False", "Mutated", "has not reported 34.123.10.1/32 yet"),
        None,
        id="address-not-in-the-report",
    ),
    pytest.param(
        [A],
        lease(**BY_A, observed=report(A1)),
        ("True", "DPV2Ready", "on eth0"),
        ("True", "GCPReady", "Pod a has announced 34.123.10.1/32"),
        id="ready",
    ),
]


@pytest.mark.parametrize(("pods", "view", "node", "net"), PROGRESS)
def test_progress(pods, view, node, net):
    snap = world(route(), *pods, *([view] if view else []))
    found_node, found_net, ready = (said(snap, kind) for kind in ("DPV2Ready", "GCPReady", "Ready"))
    assert found_node[:2] == node[:2]
    assert node[2] in found_node[2]
    expected = net or node
    assert found_net[:2] == expected[:2]
    assert expected[2] in found_net[2]
    good = found_node[0] == found_net[0] == "True"
    assert ready[:2] == (
        ("True", "ProgrammingComplete") if good else (found_node if node[0] != "True" else found_net)[:2]
    )


@pytest.mark.parametrize(
    ("state", "kind", "message"),
    [
        ("failed", "DPV2Ready", f"Pod a: {A1}, {A2}: no such device"),
        ("conflict", "GCPReady", f"another host uses an address of Pod a: {A1}, {A2}: no such device"),
        ("configured", "GCPReady", f"Pod a could not announce {A1}, {A2}: no such device"),
        ("configured", "DPV2Ready", f"Pod a has {A1}, {A2} on eth0"),
    ],
)
def test_what_several_addresses_share_is_told_once(state, kind, message):
    asked = route("r", "default", A1, A2)
    view = lease(**BY_A, addresses=(A1, A2), observed=report(A1, A2, state=state, message="no such device"))
    assert said(world(asked, A, view), kind)[2] == message


def test_why_an_owner_cannot_take_the_lease_is_told_once():
    asked = route("r", "default", A1, A2)
    view = lease(owner="uid-a", addresses=(A1, A2), observed=report(A1, A2, state="failed", message="no eth7"))
    assert said(world(asked, A, view), "DPV2Ready")[2] == f"Pod a cannot take the Lease: {A1}, {A2}: no eth7"


def test_what_the_last_owner_said_never_makes_a_message_too_long():
    told = report(A1, state="failed", message="x" * 5000)
    message = said(world(route(), A, lease(lost=("uid-a",), observed=told)), "DPV2Ready")[2]
    assert "the last owner reported: " in message
    assert len(message) < 1024


def test_cleanup():
    refused = route(**SELECTOR)
    assert said(world(refused), "DPV2Ready")[:2] == ("False", "DPV2NotReady")
    assert said(world(refused), "GCPReady")[:2] == ("False", "CleanupComplete")
    held = world(refused, A, lease(**BY_A, observed=report(A1)))
    assert said(held, "GCPReady")[:2] == ("False", "Mutated")
    assert "Pod a is removing its addresses" in said(held, "GCPReady")[2]


def test_a_route_that_cannot_be_read_says_which_field():
    raw = b'{"metadata":{"name":"r","namespace":"default"},"spec":{"podSelector":{"matchLabels":{"a":1}}}}'
    status, reason, message = said(world(decode_route(raw)), "Accepted")
    assert (status, reason) == ("False", "InvalidLabels")
    assert "spec.podSelector.matchLabels" in message
    raw = b'{"metadata":{"name":"r","namespace":"default"},"spec":{"addresses":[{"value":7}]}}'
    assert said(world(decode_route(raw)), "Accepted")[1] == "InvalidAddresses"


def test_where_the_addresses_are():
    snap = world(route(), A, lease(**BY_A, observed=report(A1)))
    plan = plan_route(snap, KEY)
    assert plan.status["pods"] == ["a"]
    assert plan.status["addresses"] == [
        {"address": A1, "pod": "a", "interface": "eth0", "epoch": 3, "state": "announced"}
    ]


def test_an_address_on_its_way_out_stays_in_sight():
    snap = world(route("r", "default", A2), A, lease(**BY_A, observed=report(A1)))
    assert [each["address"] for each in plan_route(snap, KEY).status["addresses"]] == [A2, A1]


def test_times_change_with_what_they_are_about_and_nothing_else_is_written():
    snap = world(route(), A, lease(**BY_A, observed=report(A1)))
    desired = plan_route(snap, KEY).status
    first = stamped(desired, snap.routes[KEY], "T1")
    assert {each["lastTransitionTime"] for each in first["conditions"]} == {"T1"}
    snap.put(msgspec.structs.replace(snap.routes[KEY], status=msgspec.convert(first, RouteStatus)))
    assert plan_route(snap, KEY).status is None
    snap.put(lease(**BY_A, observed=report(A1, state="configured")))
    second = stamped(plan_route(snap, KEY).status, snap.routes[KEY], "T2")
    times = {each["type"]: each["lastTransitionTime"] for each in second["conditions"]}
    assert times == {"Accepted": "T1", "DPV2Ready": "T1", "GCPReady": "T2", "Ready": "T2"}
    assert second["addresses"][0]["since"] == "T2"
    assert differs(desired, snap.routes[KEY]) is False


def test_other_writers_conditions_stay():
    theirs = {"type": "Audited", "status": "True", "reason": "Yes", "message": ""}
    snap = world(route(status={"conditions": [theirs]}))
    assert plan_route(snap, KEY).status["conditions"][-1]["type"] == "Audited"


# Gateways -------------------------------------------------------------------------------------------------------

OFFERS = [
    pytest.param(gateway(), "True", "Accepted", "True", "Programmed", id="good"),
    pytest.param(gateway(addresses=[]), "True", "Accepted", "False", "AddressNotAssigned", id="no-addresses"),
    pytest.param(
        gateway(addresses=[{"value": "10.0.0.0/8", "type": "gke.networking.io/cidr"}, {"value": "x"}]),
        "True",
        "Accepted",
        "False",
        "AddressNotUsable",
        id="one-bad-address-stops-no-other",
    ),
    pytest.param(
        gateway(addresses=[{"value": "127.0.0.0/8"}]), "False", "UnsupportedAddress", "False", "Invalid", id="reserved"
    ),
    pytest.param(
        gateway(addresses=[{"value": "10.0.0.0/8"}, {"value": "224.0.0.5"}]),
        "True",
        "Accepted",
        "False",
        "AddressNotUsable",
        id="one-reserved-address-stops-no-other",
    ),
    pytest.param(gateway(addresses=[{"value": "x"}]), "False", "UnsupportedAddress", "False", "Invalid", id="all-bad"),
]


@pytest.mark.parametrize(("found", "accepted", "why", "programmed", "why_not"), OFFERS)
def test_gateway(found, accepted, why, programmed, why_not):
    status = gateway_status(world(found, route(), route("s", "other")), found)
    conditions = {each["type"]: (each["status"], each["reason"]) for each in status["conditions"]}
    assert conditions == {"Accepted": (accepted, why), "Programmed": (programmed, why_not)}
    assert status["listeners"][0]["attachedRoutes"] == 2
    assert status["listeners"][0]["supportedKinds"] == [{"group": "networking.gke.io", "kind": "GKEIPRoute"}]


@pytest.mark.parametrize(
    ("kinds", "supported", "resolved", "attached"),
    [
        pytest.param((), [OURS_KIND], "ResolvedRefs", 1, id="none-is-any"),
        pytest.param((OURS_KIND,), [OURS_KIND], "ResolvedRefs", 1, id="ours"),
        pytest.param((HTTP, OURS_KIND), [OURS_KIND], "InvalidRouteKinds", 1, id="ours-and-another"),
        pytest.param((HTTP,), [], "InvalidRouteKinds", 0, id="another"),
        pytest.param(({"kind": "GKEIPRoute"},), [], "InvalidRouteKinds", 0, id="of-another-group"),
    ],
)
def test_a_listener_says_which_kinds_it_admits(kinds, supported, resolved, attached):
    found = gateway(listeners=[admitting(*kinds), admitting(name="other")])
    status, other = gateway_status(world(found, route()), found)["listeners"]
    refs = next(each for each in status["conditions"] if each["type"] == "ResolvedRefs")
    assert (status["supportedKinds"], refs["reason"], status["attachedRoutes"]) == (supported, resolved, attached)
    assert ("HTTPRoute" in refs["message"]) == (HTTP in kinds)
    assert (other["supportedKinds"], other["attachedRoutes"]) == ([OURS_KIND], 1)


def test_a_class_or_gateway_with_parameters_is_not_accepted():
    assert class_status(PARAMETERS_CLASS)["conditions"][0] == {
        "type": "Accepted",
        "status": "False",
        "reason": "InvalidParameters",
        "message": "spec.parametersRef is set, and holdfast has no parameters: remove it",
        "observedGeneration": 0,
    }
    conditions = gateway_status(world(PARAMETERS_CLASS, gateway()), gateway())["conditions"]
    assert [(each["status"], each["reason"]) for each in conditions] == [
        ("False", "InvalidParameters"),
        ("False", "Invalid"),
    ]


def test_a_gateway_tells_what_several_addresses_share_once():
    found = gateway(addresses=[{"type": "Hostname", "value": each} for each in "xy"])
    message = gateway_status(world(found), found)["conditions"][0]["message"]
    assert message == (
        "none of its addresses can be used: spec.addresses[0], spec.addresses[1]: type 'Hostname' is not supported; "
        "use gke.networking.io/cidr or IPAddress"
    )


def test_addresses_that_wait_for_one_lease_are_told_together():
    asked = route("r", "default", A1, A2)
    other = lease("other", owner="", holder="x", addresses=(A1, A2), observed=report(A1, A2))
    assert said(world(asked, other), "Accepted")[2] == (
        f"waiting for another route's Pod to release {A1}, {A2} (Lease default/holdfast-other); no action is needed"
    )


def test_attached_routes_counts_whom_the_listener_admits():
    found = gateway(**listener(**{"from": "Same"}))
    assert gateway_status(world(found, route(), route("s", "other")), found)["listeners"][0]["attachedRoutes"] == 1


def test_gateways_and_classes_of_others_are_not_written():
    for controller in ("networking.gke.io/persistent-ip-controller", "io.cilium/gateway-controller"):
        theirs = gateway_class(EXTERNAL, controller)
        assert gateway_status(world(theirs, gateway()), gateway()) is None
        assert class_status(theirs) is None
    assert class_status(gateway_class())["conditions"][0]["reason"] == "Accepted"
