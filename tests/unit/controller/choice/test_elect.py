"""Each rule of "Choosing the Pod" as a named row: who is eligible, why the others are not, who wins."""

from __future__ import annotations

import itertools

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from contract.names import CONTAINER
from controller.choice.elect import Verdict, judge, winner
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
    pytest.param(pod("a", agent="other"), {}, (), Verdict.NO_AGENT, id="no-agent"),
    pytest.param(pod("a", agent="other"), EXISTS, (), Verdict.NO_AGENT, id="Exists-no-agent"),
    pytest.param(pod("a", notes={CONTAINER: "agent"}), {}, (), Verdict.ELIGIBLE, id="agent-of-another-name"),
    pytest.param(pod("a", notes={CONTAINER: "none"}), {}, (), Verdict.NO_AGENT, id="names-an-agent-that-is-not-there"),
    pytest.param(pod("a", host_network=True, agent="x"), {}, (), Verdict.HOST_NETWORK, id="not-injected-on-the-node"),
    pytest.param(pod("a", host_network=True), {}, (), Verdict.HOST_NETWORK, id="on-the-node's-network"),
    pytest.param(pod("a", host_network=True), EXISTS, (), Verdict.HOST_NETWORK, id="Exists-on-the-node's-network"),
    pytest.param(pod("a"), {}, ("uid-a",), Verdict.LOST, id="lost-though-Ready"),
    pytest.param(pod("a"), EXISTS, ("uid-a",), Verdict.LOST, id="Exists-lost"),
    pytest.param(pod("a"), {}, ("uid-b",), Verdict.ELIGIBLE, id="another-is-lost"),
    pytest.param(pod("a", ready=False), {}, ("uid-a",), Verdict.NOT_READY, id="lost-and-not-ready-says-the-latter"),
]


@pytest.mark.parametrize(("candidate", "spec", "lost", "verdict"), VERDICTS)
def test_who_is_eligible(candidate, spec, lost, verdict):
    assert judge(candidate, route(**spec), lost).verdict is verdict


AGENT = ("holdfast",)
GATE = "example.com/switched"
HOLDERS = [
    pytest.param({"unready": AGENT}, "uid-a", (), True, id="only-the-agent-is-started-anew"),
    pytest.param({"unready": AGENT}, "uid-b", (), False, id="another-holds"),
    pytest.param({"unready": AGENT}, "", (), False, id="nobody-holds"),
    pytest.param({"unready": AGENT}, "uid-a", ("uid-a",), False, id="its-lease-has-expired"),
    pytest.param({"unready": AGENT, "deleting": True}, "uid-a", (), False, id="it-is-being-deleted"),
    pytest.param({"unready": ()}, "uid-a", (), False, id="no-container-is-said-not-to-be-ready"),
    pytest.param({"unready": ("app",)}, "uid-a", (), False, id="the-app-is-not-ready"),
    pytest.param({"unready": ("holdfast", "app")}, "uid-a", (), False, id="the-app-is-not-ready-either"),
    pytest.param({"unready": ("holdfast", "init")}, "uid-a", (), False, id="an-init-container-has-not-ended"),
    pytest.param({"unready": AGENT, "gates": {GATE: "True"}}, "uid-a", (), True, id="its-gate-is-open"),
    pytest.param({"unready": AGENT, "gates": {GATE: "False"}}, "uid-a", (), False, id="its-gate-is-shut"),
    pytest.param({"unready": AGENT, "gates": {GATE: ""}}, "uid-a", (), False, id="its-gate-was-never-opened"),
    pytest.param(
        {"unready": ("agent",), "notes": {CONTAINER: "agent"}}, "uid-a", (), True, id="an-agent-of-another-name"
    ),
    pytest.param({"unready": AGENT, "notes": {CONTAINER: "agent"}}, "uid-a", (), False, id="not-the-agent's-name"),
]


@pytest.mark.parametrize(("how", "holder", "lost", "eligible"), HOLDERS)
def test_a_holder_keeps_what_it_has_while_its_agent_alone_is_not_ready(how, holder, lost, eligible):
    assert judge(pod("a", ready=False, **how), route(), lost, holder).eligible is eligible


def test_who_holds_has_an_agent_by_whatever_name():
    """Made before agents had a name: it keeps what it has, and no more than that."""
    found = pod("a", agent="mine")
    assert judge(found, route(), (), "uid-a").eligible
    assert judge(found, route(), (), "uid-b").verdict is Verdict.NO_AGENT
    assert judge(found, route(), ("uid-a",), "uid-a").verdict is Verdict.LOST
    assert judge(pod("a", agent="mine", ready=False), route(), (), "uid-a").verdict is Verdict.NOT_READY


def test_a_pod_that_its_nodes_fate_makes_not_ready_is_not_taken_for_one_whose_agent_restarts():
    body = pod("a", ready=False, unready=AGENT)
    marked = msgspec.structs.replace(body.status.conditions[0], reason="NodeNotReady")
    lost_node = msgspec.structs.replace(body, status=msgspec.structs.replace(body.status, conditions=(marked,)))
    assert judge(lost_node, route(), (), "uid-a").verdict is Verdict.NOT_READY


KEEPERS = [
    pytest.param({"deleting": True}, {}, True, id="its-containers-go-on"),
    pytest.param({"deleting": True, "ready": False}, {}, False, id="its-app-was-not-ready"),
    pytest.param({"deleting": True, "ready": False, "unready": AGENT}, {}, True, id="its-agent-is-started-anew"),
    pytest.param({"deleting": True, "phase": "Succeeded"}, {}, False, id="its-containers-have-ended"),
    pytest.param({"deleting": True, "ready": False}, EXISTS, True, id="Exists-asks-no-container"),
    pytest.param({"deleting": True, "phase": "Failed"}, EXISTS, False, id="Exists-its-containers-have-ended"),
    pytest.param({"deleting": True, "interfaces": {}}, ON_BLUE, False, id="it-is-not-on-the-network"),
    pytest.param({"ready": False, "unready": ()}, {}, True, id="called-not-Ready-for-its-nodes-sake"),
    pytest.param({"ready": False, "unready": AGENT, "gates": {GATE: "False"}}, {}, True, id="a-gate-and-the-agent"),
    pytest.param({"ready": False}, {}, False, id="its-app-is-not-ready"),
    pytest.param({"ready": False, "unready": ("app", "holdfast")}, {}, False, id="its-app-is-not-ready-either"),
    pytest.param({"host_network": True, "deleting": True}, {}, False, id="it-is-on-the-node's-network"),
    pytest.param({"deleting": True, "agent": "mine"}, {}, True, id="its-agent-has-another-name"),
    pytest.param({}, {}, False, id="an-eligible-one-is-chosen"),
]


@pytest.mark.parametrize(("how", "spec", "keeps"), KEEPERS)
def test_who_holds_keeps_what_it_has_for_as_long_as_its_containers_go_on(how, spec, keeps):
    found = pod("a", **how)
    assert judge(found, route(**spec), (), "uid-a").keeps is keeps
    assert not judge(found, route(**spec), ("uid-a",), "uid-a").keeps, "its Lease has expired"
    assert not judge(found, route(**spec), (), "uid-b").keeps, "another holds"
    assert not judge(found, route(**spec), ()).keeps, "nobody holds"


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
