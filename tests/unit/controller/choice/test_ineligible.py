"""What a route whose matching Pods are all ineligible says of them."""

from __future__ import annotations

import itertools

import msgspec
import pytest

from contract.names import CONTAINER
from controller.choice.elect import judge
from controller.choice.ineligible import nobody
from controller.choice.objects import PodStatus
from tests.unit.controller.kube_objects import pod, route

BLUE = {"eth0": "default", "eth1": "blue-network"}
EXISTS = {"reactionMode": "Exists"}
ON_BLUE = {"network": "blue-network"}
ADD_GKE = "add an interface on that network to the annotation networking.gke.io/interfaces in the Pod's template"
ADD_MULTUS = "add the network to Multus' annotation k8s.v1.cni.cncf.io/networks in the Pod's template"
ADD = f"{ADD_GKE}, or, with Multus, the network to k8s.v1.cni.cncf.io/networks"
SAID = "ContainersNotReady: containers with unready status: [app]"
PROBES = "check the readiness probes and the containers' logs"
UNREADY, OFF_NETWORK = [pod(f"u{i}", i, ready=False) for i in range(9)], [pod(f"n{i}", i) for i in range(9)]
BAD_NAME = pod("bad", interfaces={"eth/1": "blue-network"})
ON_IT = {"interfaces": BLUE}
MIXED = [
    *OFF_NETWORK[:4],
    pod("d", 2, ready=False, **ON_IT),
    pod("e", 1, ready=False, **ON_IT),
    pod("f", deleting=True),
]
OFF = f"4 are not on network blue-network (n3, n2, n1 and 1 more): {ADD}"
DELETING = "1 is being deleted (f): wait for a new Pod, or create one"

NOBODY = [
    pytest.param(
        [],
        {},
        (),
        "no Pod in namespace default matches spec.podSelector (app=web): correct the Pods' labels or the route's "
        "spec.podSelector",
        id="no-pods",
    ),
    pytest.param(
        [pod("h", host_network=True)],
        {},
        (),
        "1 Pod matches, it uses the node's network: h; remove hostNetwork from the Pod's template, since the address "
        "would be the node's",
        id="host-network",
    ),
    pytest.param(
        [pod("a", agent="other"), pod("b", notes={CONTAINER: "mine"})],
        {},
        (),
        "2 Pods match, none has an agent: b, a (no container holdfast; no container mine); label the Pod's template "
        'holdfast.dev/inject: "true", or its namespace holdfast.dev/injection: enabled, or use holdfast inject, and '
        "create the Pods anew",
        id="no-agent",
    ),
    pytest.param(OFF_NETWORK[:1], ON_BLUE, (), f"1 Pod matches, it is not on network blue-network: n0; {ADD}", id="1"),
    pytest.param(
        OFF_NETWORK[:4],
        ON_BLUE,
        (),
        f"4 Pods match, none is on network blue-network: n3, n2, n1 and 1 more; {ADD}",
        id="none-on-the-network",
    ),
    pytest.param(
        [BAD_NAME],
        ON_BLUE,
        (),
        "1 Pod matches, it has an unreadable annotation: bad (networking.gke.io/interfaces[0].interfaceName: 'eth/1' "
        "is not a valid interface name); correct it in the Pod's template",
        id="unreadable",
    ),
    pytest.param(
        [pod("a", interfaces={"eth0": "default"}), *OFF_NETWORK[:1]],
        ON_BLUE,
        (),
        f"2 Pods match, none is on network blue-network: n0, a; {ADD_GKE}",
        id="the-annotation-of-this-cluster-is-GKE's",
    ),
    pytest.param(
        [pod("a", multus=[{"name": "cbr0", "interface": "eth0"}])],
        ON_BLUE,
        (),
        f"1 Pod matches, it is not on network blue-network: a; {ADD_MULTUS}",
        id="the-annotation-of-this-cluster-is-Multus'",
    ),
    pytest.param(
        [pod("a", multus=[{"name": "default/blue-network"}])],
        ON_BLUE,
        (),
        "1 Pod matches, it has an unreadable annotation: a (k8s.v1.cni.cncf.io/network-status[0].interface: is empty); "
        "Multus writes it: correct k8s.v1.cni.cncf.io/networks in the Pod's template, or what it refers to",
        id="unreadable-and-written-by-Multus",
    ),
    pytest.param(
        UNREADY[:3], {}, (), f"3 Pods match, none is Ready: u2, u1, u0 ({SAID}); {PROBES}", id="one-detail-told-once"
    ),
    pytest.param(
        [pod("a", ready=False, node="")],
        EXISTS,
        (),
        "1 Pod matches, it is not scheduled to a node: a; see kubectl describe pod",
        id="no-node",
    ),
    pytest.param(
        [pod("a", phase="Failed"), pod("b", phase="Succeeded")],
        {},
        (),
        "2 Pods match, all have ended: b, a (phase Failed; phase Succeeded); create a Pod that keeps running",
        id="ended",
    ),
    pytest.param(
        [pod("a")],
        {},
        ("uid-a",),
        "1 Pod matches, it is lost: a; check the container holdfast, which did not renew or take the Lease in time",
        id="lost",
    ),
    pytest.param(
        MIXED,
        ON_BLUE,
        (),
        f"7 Pods match, none can hold the addresses: {OFF}; 2 are not Ready (d, e: {SAID}): {PROBES}; {DELETING}",
        id="several-causes",
    ),
]


def told(pods, asked, lost=()):
    return nobody([judge(each, asked, lost) for each in pods], asked)


@pytest.mark.parametrize(("pods", "spec", "lost", "message"), NOBODY)
def test_nobody_groups_the_pods_by_cause(pods, spec, lost, message):
    assert told(pods, route(**spec), lost) == message


def test_nobody_says_the_same_in_any_order():
    asked = route(**ON_BLUE)
    assert len({told(order, asked) for order in itertools.permutations(MIXED)}) == 1


def test_nobody_is_short_for_any_number_of_pods_with_the_longest_names():
    """The causes that do not fit are counted; a cause that is told is told whole."""

    def many(kind, **more):
        return [pod(f"{kind}{i}-".ljust(253, "x"), i, **more) for i in range(500)]

    gone = [pod(f"off{i}-".ljust(253, "x"), i) for i in range(501)]
    pods = [*many("dead", phase="Failed", **ON_IT), *many("dying", deleting=True), *many("unready", ready=False), *gone]
    asked = route(network="n".ljust(253, "n"))
    message = told(pods, asked)
    assert len(message) < 1024
    assert message.startswith("2001 Pods match, none can hold the addresses: 1001 are not on network nnn")
    assert message.endswith(" for other reasons")
    assert len(told(many("unready", ready=False), route())) < 1024


def test_nobody_tells_the_most_frequent_details_and_clips_them():
    details = [
        {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": f"{n} " + "long " * 99}
        for n in (3, 2, 2, 1)
    ]
    pods = [
        msgspec.structs.replace(
            pod(f"p{i}", i, node=""), status=msgspec.convert({"phase": "Pending", "conditions": [each]}, PodStatus)
        )
        for i, each in enumerate(details)
    ]
    message = told(pods, route(**EXISTS))
    assert "(Unschedulable: 2 long" in message
    assert "; Unschedulable: 1 long" in message
    assert "Unschedulable: 3" not in message
    assert "…; …); see kubectl describe pod" in message
    assert len(message) < 1024


def test_a_selector_of_any_length_is_clipped():
    wanted = {"matchExpressions": [{"key": "a", "operator": "In", "values": [f"v{i}" for i in range(999)]}]}
    message = told([], route(podSelector=wanted))
    assert "matches spec.podSelector (a In (v0, v1, " in message
    assert len(message) < 1024
