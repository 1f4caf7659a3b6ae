"""Which interface is on a network, by annotations as clusters have them: GKE's types, Multus' of several versions."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contract.decode import interface_name
from contract.names import DEFAULT_NETWORKS, INTERFACES, NETWORK_STATUS, NETWORKS_STATUS
from controller.choice.interfaces import placement
from tests.unit.controller.kube_objects import pod

GKE, ONE, MANY = INTERFACES, NETWORK_STATUS, NETWORKS_STATUS
OWN = {"name": "cbr0", "interface": "eth0", "ips": ["10.1.1.2"], "default": True, "dns": {}}
BLUE = {"interfaceName": "eth1", "network": "blue"}
NET1 = {"name": "default/blue", "interface": "net1"}
BARE = {"interfaceName": "eth0"}
OPEN, NONE = (True, None), (False, None)


def place(network, notes):
    return placement(pod("p", notes={key: as_text(value) for key, value in notes.items()}), network)


def as_text(value):
    return value if isinstance(value, str) else json.dumps(value)


STATED = [
    # GKE
    pytest.param("blue", "eth1", {GKE: [{"network": "default"}, BLUE]}, id="one-without-interfaceName-before-it"),
    pytest.param("blue", "eth1", {GKE: [BLUE, {"network": "blue"}]}, id="one-without-interfaceName-after-it"),
    pytest.param("blue", "eth1", {GKE: [{"network": "blue"}, BLUE]}, id="the-same-network-without-interfaceName"),
    pytest.param("default", "eth0", {GKE: [BARE, BLUE]}, id="network-left-out"),
    pytest.param("default", "eth0", {GKE: [{**BARE, "network": ""}, BLUE]}, id="network-empty"),
    pytest.param("default", "eth0", {GKE: [{**BARE, "network": None}, BLUE]}, id="network-null"),
    pytest.param("blue", "eth1", {GKE: [{**BARE, "network": None}, BLUE]}, id="network-null-beside-it"),
    pytest.param("default", "eth0", {GKE: [{**BARE, "network": "default"}]}, id="network-default"),
    pytest.param("default", "eth0", {GKE: [{**BARE, "network": "pod-network"}]}, id="network-pod-network"),
    pytest.param("pod-network", "eth0", {GKE: [{**BARE, "network": "default"}]}, id="asked-for-by-the-old-name"),
    pytest.param("default", "eth5", {GKE: [{"interfaceName": "eth5"}, BARE]}, id="the-first-of-several-of-one-network"),
    pytest.param("blue", "eth1", {GKE: [{"InterfaceName": "a", "Network": "b"}, BLUE]}, id="keys-in-Pascal-case"),
    pytest.param("blue", "eth1", {GKE: [{"INTERFACENAME": "eth1", "netWork": "blue"}]}, id="keys-in-any-case"),
    pytest.param("blue", "eth2", {GKE: '[{"network":"a","Network":"blue","interfaceName":"eth2"}]'}, id="the-last-key"),
    pytest.param(
        "default",
        "eth0",
        {GKE: [{"interfaceName": "eth1", "interface": "nic"}, BARE]},
        id="a-NetworkInterface-is-another",
    ),
    pytest.param(
        "blue",
        "eth2",
        {GKE: [{"interfaceName": "eth1", "interface": "nic"}, {**BLUE, "interfaceName": "eth2"}]},
        id="a-NetworkInterface-beside-it",
    ),
    pytest.param("default", "eth0", {GKE: [{**BARE, "interface": ""}]}, id="an-empty-reference-is-none"),
    pytest.param(
        "blue",
        "eth1",
        {GKE: [{**BARE, "default": True}, {**BLUE, "ipAddresses": ["10.0.0.2/24"], "macAddress": "02:00:00:00:00:01"}]},
        id="keys-that-we-do-not-know",
    ),
    pytest.param("blue", "eth1", {GKE: [{"interfaceName": 5, "network": "blue"}, BLUE]}, id="a-number-for-a-name"),
    pytest.param("blue", "eth1", {GKE: [{**BLUE, "interfaceName": "eth/1"}, BLUE]}, id="no-name-of-an-interface"),
    pytest.param("blue", "eth1", {GKE: ["text", 7, None, [], {}, {"network": {}}, BLUE]}, id="entries-of-any-kind"),
    pytest.param("blue", "eth1", {GKE: '[{"x":"\\ud800"},{"interfaceName":"eth1","network":"blue"}]'}, id="no-text"),
    pytest.param(
        "blue",
        "eth1",
        {GKE: '[{"x":%s,"y":1e999},{"interfaceName":"eth1","network":"blue"}]' % ("9" * 9999)},
        id="a-number-of-any-length",
    ),
    # Multus
    pytest.param("default", "eth0", {ONE: [NET1, OWN]}, id="Multus-says-which-is-the-Pod's-own"),
    pytest.param("pod-network", "eth0", {ONE: [OWN]}, id="Multus-and-the-old-name"),
    pytest.param(
        "default",
        "ovn-udn1",
        {ONE: [{"name": "ovn-kubernetes", "interface": "eth0"}, {**OWN, "interface": "ovn-udn1"}]},
        id="the-Pod's-own-is-not-the-first",
    ),
    pytest.param("default", "eth0", {ONE: [{**OWN, "interface": None}, OWN]}, id="the-first-own-has-no-interface"),
    pytest.param("blue", "net1", {ONE: [{"name": "default/blue", "dns": {}}, NET1]}, id="no-interface-as-with-DPDK"),
    pytest.param("blue", "net1", {ONE: [{"name": "a/blue", "interface": "net9"}, NET1]}, id="own-namespace-first"),
    pytest.param(
        "blue",
        "net8",
        {ONE: [{"name": "a/blue", "interface": "net9"}, {"name": "blue", "interface": "net8"}]},
        id="without-a-namespace-before-another's",
    ),
    pytest.param("blue", "net9", {ONE: [{"name": "a/blue", "interface": "net9"}]}, id="another-namespace's-alone"),
    pytest.param(
        "blue",
        "net9",
        {ONE: [{"name": "default/blue"}, {"name": "a/blue", "interface": "net9"}]},
        id="own-namespace's-cannot-be-used",
    ),
    pytest.param("blue", "net1", {ONE: [{"ips": ["10.1.1.2"], "default": True}, NET1]}, id="no-name-beside-it"),
    pytest.param("blue", "net1", {ONE: [{**OWN, "interface": None}, NET1]}, id="interface-null-beside-it"),
    pytest.param("blue", "net1", {ONE: [{"name": 3}, {"name": ["x"]}, NET1]}, id="names-of-any-kind"),
    pytest.param("blue", "net1", {ONE: [{"Name": "default/blue", "INTERFACE": "net1"}]}, id="Multus-in-any-case"),
    pytest.param("blue", "net1", {MANY: [OWN, NET1]}, id="the-old-plural-name-alone"),
    pytest.param("default", "eth0", {MANY: [OWN, NET1]}, id="the-Pod's-own-by-the-plural-name"),
    pytest.param("blue", "net1", {ONE: [NET1], MANY: [{**NET1, "interface": "net7"}]}, id="singular-before-plural"),
    pytest.param("blue", "net7", {ONE: "[", MANY: [{**NET1, "interface": "net7"}]}, id="plural-if-singular-is-broken"),
    pytest.param(
        "blue",
        "net1",
        {ONE: json.dumps([OWN, {**NET1, "mtu": 1500, "device-info": {"pci": {}}}], indent=1) + "\n"},
        id="a-block-with-device-info",
    ),
    # both
    pytest.param("blue", "eth1", {GKE: [BLUE], ONE: [NET1]}, id="GKE-before-Multus"),
    pytest.param("default", "eth7", {GKE: [{"interfaceName": "eth7"}], ONE: [OWN]}, id="GKE-before-Multus-for-the-own"),
    pytest.param("blue", "net1", {GKE: [{**BARE, "network": "pod-network"}], ONE: [NET1]}, id="GKE-has-only-the-own"),
    pytest.param("blue", "net1", {GKE: "{", ONE: [NET1]}, id="Multus-where-GKE's-is-broken"),
    pytest.param("default", "eth0", {GKE: [{"network": "default"}], ONE: [OWN]}, id="Multus-where-GKE's-has-no-name"),
]


@pytest.mark.parametrize(("network", "interface", "notes"), STATED)
def test_a_good_entry_is_found(network, interface, notes):
    found = place(network, notes)
    assert (found.found, found.interface, found.problem) == (True, interface, "")


UNSTATED = [
    pytest.param("default", {}, OPEN, "", id="nothing-is-said-of-the-own"),
    pytest.param("pod-network", {GKE: "null"}, OPEN, "", id="null"),
    pytest.param("default", {GKE: [BLUE], ONE: [NET1]}, OPEN, "", id="the-own-is-not-in-it"),
    pytest.param("default", {ONE: [{**OWN, "default": "true"}]}, OPEN, "", id="default-as-text-is-not-true"),
    pytest.param("default", {GKE: "[", ONE: "7"}, OPEN, "", id="broken-for-the-own"),
    pytest.param("blue", {}, NONE, "", id="no-annotation"),
    pytest.param("blue", {GKE: "[]", ONE: [OWN]}, NONE, "", id="not-in-it"),
    pytest.param(
        "blue", {ONE: [{"name": "blue/default", "interface": "net1"}]}, NONE, "", id="the-namespace-is-no-name"
    ),
    pytest.param("blue", {GKE: "[7"}, NONE, f"{GKE}: Expecting", id="not-JSON"),
    pytest.param("blue", {GKE: "[" * 100_000}, NONE, f"{GKE}: maximum recursion", id="nested-too-deep"),
    pytest.param("blue", {ONE: "{}"}, NONE, f"{ONE}: is not a list", id="not-a-list"),
    pytest.param(
        "blue", {GKE: [7, {"network": "blue"}]}, NONE, f"{GKE}[1].interfaceName: is empty", id="its-own-first"
    ),
    pytest.param("blue", {GKE: [7]}, NONE, f"{GKE}[0]: is not an object", id="an-odd-entry"),
    pytest.param("blue", {GKE: [{"network": 7}]}, NONE, f"{GKE}[0].network: is not a string", id="an-odd-network"),
    pytest.param("blue", {MANY: [{"name": {}}]}, NONE, f"{MANY}[0].name: is not a string", id="an-odd-name"),
    pytest.param(
        "blue",
        {ONE: [{**NET1, "interface": "a b"}]},
        NONE,
        f"{ONE}[0].interface: 'a b' is not a valid",
        id="a-bad-name",
    ),
    pytest.param("blue", {GKE: [{**BLUE, "interfaceName": "\ud800"}]}, NONE, f"{GKE}[0].interfaceName: ", id="no-text"),
    pytest.param("blue", {GKE: [{**BLUE, "interfaceName": "e\n"}]}, NONE, f"{GKE}[0].interfaceName: ", id="a-line-end"),
    pytest.param("blue", {GKE: [{**BLUE, "interfaceName": "e\0"}]}, NONE, f"{GKE}[0].interfaceName: ", id="a-NUL"),
    pytest.param(
        "blue", {GKE: [{"interface": "nic"}]}, NONE, f"{GKE}[0].interface: holdfast does not", id="a-NetworkInterface"
    ),
]


@pytest.mark.parametrize(("network", "notes", "expected", "problem"), UNSTATED)
def test_where_no_entry_is_good(network, notes, expected, problem):
    found = place(network, notes)
    assert (found.found, found.interface) == expected
    assert found.problem.startswith(problem)
    assert bool(found.problem) == bool(problem)


KEYS = st.sampled_from(["interfaceName", "InterfaceName", "network", "interface", "Interface", "name", "default"])
TEXT = st.text(max_size=6) | st.sampled_from(["default", "blue", "n/blue", "eth0", "", "\ud800", "e/1"])
LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | TEXT
JSON = st.recursive(
    LEAVES,
    lambda deeper: st.lists(deeper, max_size=3) | st.dictionaries(KEYS | TEXT, deeper, max_size=4),
    max_leaves=12,
)
ANNOTATION = st.builds(json.dumps, JSON | st.lists(st.dictionaries(KEYS, LEAVES, max_size=4), max_size=4)) | st.text()
ANNOTATIONS = st.dictionaries(st.sampled_from([GKE, ONE, MANY]), ANNOTATION)
NETWORKS = st.sampled_from(["default", "pod-network", "blue"])


@given(ANNOTATIONS, NETWORKS)
def test_whatever_stands_there_is_an_interface_or_a_sentence(notes, network):
    found = place(network, notes)
    if found.interface is not None:
        assert found.found
        assert interface_name(found.interface, "", "") == found.interface
    assert found.found or network not in DEFAULT_NETWORKS


@given(st.lists(JSON, max_size=4), st.lists(JSON, max_size=4), st.sampled_from([GKE, ONE, MANY]))
def test_a_good_entry_is_found_among_whatever_stands_beside_it(before, after, annotation):
    # of a network that nothing else names by chance
    good = {GKE: {"interfaceName": "good", "network": "only-here"}}.get(
        annotation, {"name": "default/only-here", "interface": "good"}
    )
    found = place("only-here", {annotation: [*before, good, *after]})
    assert (found.found, found.interface) == (True, "good")


@given(st.lists(JSON, max_size=4), ANNOTATIONS)
def test_a_pods_own_interface_is_found_among_whatever_stands_after_it(after, others):
    own = [{"interfaceName": "good"}, *after]
    assert place("default", {**others, GKE: own}).interface == "good"
