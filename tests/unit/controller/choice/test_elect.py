"""Each rule of "Choosing the Pod" as a named row: who is eligible, why the others are not, who wins."""

from __future__ import annotations

import itertools

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.choice.elect import Verdict, judge, nobody, placement, winner
from controller.choice.objects import PodStatus
from tests.unit.controller.kube_objects import pod, route

BLUE = {"eth0": "default", "eth1": "blue-network"}
EXISTS = {"reactionMode": "Exists"}
ON_BLUE = {"network": "blue-network"}

VERDICTS = [
    pytest.param(pod("a"), {}, (), Verdict.ELIGIBLE, id="ready"),
    pytest.param(pod("a", ready=False), {}, (), Verdict.NOT_READY, id="ReadyCondition-not-ready"),
    pytest.param(pod("a", ready=False), EXISTS, (), Verdict.ELIGIBLE, id="Exists-does-not-ask-for-Ready"),
    pytest.param(pod("a", ready=False, node=""), EXISTS, (), Verdict.NO_NODE, id="Exists-without-node"),
    pytest.param(pod("a", deleting=True), {}, (), Verdict.DELETING, id="being-deleted-though-Ready"),
    pytest.param(pod("a", deleting=True), EXISTS, (), Verdict.DELETING, id="Exists-being-deleted"),
    pytest.param(pod("a", phase="Succeeded"), EXISTS, (), Verdict.ENDED, id="succeeded"),
    pytest.param(pod("a", phase="Failed"), EXISTS, (), Verdict.ENDED, id="failed"),
    pytest.param(pod("a"), ON_BLUE, (), Verdict.NOT_ON_NETWORK, id="not-on-the-network"),
    pytest.param(pod("a", interfaces=BLUE), ON_BLUE, (), Verdict.ELIGIBLE, id="on-the-network"),
    pytest.param(pod("a", interfaces={"e/1": "blue-network"}), ON_BLUE, (), Verdict.UNREADABLE, id="no-interface-name"),
    pytest.param(pod("a"), {}, ("uid-a",), Verdict.LOST, id="lost-though-Ready"),
    pytest.param(pod("a"), EXISTS, ("uid-a",), Verdict.LOST, id="Exists-lost"),
    pytest.param(pod("a"), {}, ("uid-b",), Verdict.ELIGIBLE, id="another-is-lost"),
    pytest.param(pod("a", ready=False), {}, ("uid-a",), Verdict.NOT_READY, id="lost-and-not-ready-says-the-latter"),
]


@pytest.mark.parametrize(("candidate", "spec", "lost", "verdict"), VERDICTS)
def test_who_is_eligible(candidate, spec, lost, verdict):
    assert judge(candidate, route(**spec), lost).verdict is verdict


OLD, NEW, TWIN = pod("old", 1, uid="u9"), pod("new", 2, uid="u1"), pod("twin", 2, uid="u2")

WINNERS = [
    pytest.param([OLD, NEW], "", False, "new", id="the-newest"),
    pytest.param([OLD, NEW], "u9", False, "new", id="the-newest-though-another-owns"),
    pytest.param([NEW, TWIN], "", False, "twin", id="tie-greatest-uid"),
    pytest.param([NEW, TWIN], "u1", False, "new", id="tie-present-owner-stays"),
    pytest.param([NEW, TWIN], "u9", False, "twin", id="tie-owner-is-neither"),
    pytest.param([OLD, NEW], "u9", True, "old", id="sticky-keeps-the-owner"),
    pytest.param([pod("old", 1, uid="u9", ready=False), NEW], "u9", True, "new", id="sticky-owner-not-eligible"),
    pytest.param([OLD, NEW], "", True, "new", id="sticky-without-owner"),
    pytest.param([OLD, pod("new", 2, uid="u1", ready=False)], "", False, "old", id="the-newest-eligible"),
    pytest.param([pod("old", 1, ready=False)], "uid-old", False, None, id="nobody"),
    pytest.param([], "", False, None, id="no-pods"),
]


@pytest.mark.parametrize(("pods", "owner", "sticky", "name"), WINNERS)
def test_who_wins_in_any_order(pods, owner, sticky, name):
    for order in itertools.permutations(pods):
        found = winner([judge(each, route(), ()) for each in order], owner, sticky=sticky)
        assert (found.pod.name if found else None) == name


LOST_ON_N1 = pod("lost", 9, uid="u0", node="n1")
DOUBTS = [
    pytest.param([pod("new", 2, node="n1"), pod("old", 1, node="n2")], "", "old", id="another-node-first"),
    pytest.param([pod("new", 2, node="n1")], "", "new", id="better-than-nobody"),
    pytest.param([pod("new", 2, node="n1"), pod("old", 1, node="n2")], "uid-new", "new", id="the-holder-is-alive"),
    pytest.param([pod("new", 2, node="n2"), pod("old", 1, node="n2")], "", "new", id="others-by-age"),
]


@pytest.mark.parametrize(("pods", "holder", "name"), DOUBTS)
def test_the_node_of_a_lost_pod_is_doubted(pods, holder, name):
    judged = [judge(each, route(), ("u0",)) for each in (LOST_ON_N1, *pods)]
    for order in itertools.permutations(judged):
        found = winner(order, "", holder=holder)
        assert found is not None
        assert found.pod.name == name


PLACES = [
    pytest.param(pod("a"), "default", (True, None), id="default-network-left-open"),
    pytest.param(pod("a"), "pod-network", (True, None), id="default-network-by-its-old-name"),
    pytest.param(pod("a", interfaces=BLUE), "default", (True, "eth0"), id="default-network-named"),
    pytest.param(pod("a", interfaces=BLUE), "blue-network", (True, "eth1"), id="GKE-annotation"),
    pytest.param(
        pod("a", multus=[{"name": "kube-system/blue-network", "interface": "net1"}]),
        "blue-network",
        (True, "net1"),
        id="Multus-with-namespace",
    ),
    pytest.param(
        pod("a", interfaces={"eth9": "blue-network"}, multus=[{"name": "blue-network", "interface": "net1"}]),
        "blue-network",
        (True, "eth9"),
        id="GKE-before-Multus",
    ),
    pytest.param(pod("a", interfaces={"eth/1": "blue-network"}), "blue-network", (False, None), id="no-interface-name"),
]


@pytest.mark.parametrize(("candidate", "network", "expected"), PLACES)
def test_where_the_address_goes(candidate, network, expected):
    found = placement(candidate, network)
    assert (found.found, found.interface) == expected


ADD = "add an interface on that network to the annotation networking.gke.io/interfaces in the Pod's template"
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
        "1 Pod matches, it has an unreadable annotation: bad (networking.gke.io/interfaces: 'eth/1' is not a valid "
        "interface name); correct it in the Pod's template",
        id="unreadable",
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


@given(
    st.lists(st.tuples(st.integers(0, 2), st.booleans()), max_size=6), st.sampled_from(["", "u0", "u1"]), st.booleans()
)
def test_the_winner_is_eligible_and_no_eligible_one_is_newer(rows, owner, sticky):
    pods = [pod(f"p{i}", age, uid=f"u{i}", ready=ready) for i, (age, ready) in enumerate(rows)]
    judged = [judge(each, route(), ()) for each in pods]
    found = winner(judged, owner, sticky=sticky)
    eligible = [each for each in judged if each.eligible]
    assert (found is None) == (not eligible)
    if found is not None:
        newest = max(each.pod.metadata.creation_timestamp for each in eligible)
        assert found.eligible
        assert found.pod.metadata.creation_timestamp == newest or (sticky and found.uid == owner)
        assert winner(reversed(judged), owner, sticky=sticky) == found
