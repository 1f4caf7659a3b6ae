"""The contract's formats: what is written is read again as it was, and what is bad is named by object and field."""

from __future__ import annotations

import contextlib
import datetime as dt
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contract import lease as writes
from contract.assignment import AddressEntry, Assignment, RouteEntry, decode_assignment, encode_assignment
from contract.errors import ContractError, UnknownVersion
from contract.lease import decode_lease
from contract.names import Handover, lease_name
from contract.report import AddressReport, AddressState, Fence, Report, decode_report, encode_report
from tests.unit.controller.kube_objects import A1, applied, lease

WHERE = "Pod default/web annotation x"
NOW = dt.datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=dt.UTC)

addresses = st.one_of(
    st.ip_addresses(v=4).map(lambda each: f"{each}/32"), st.ip_addresses(v=6).map(lambda each: f"{each}/128")
)
names = st.text("abcdefghijklmnopqrstuvwxyz0123456789-.", min_size=1, max_size=60)
interfaces = st.one_of(
    st.none(), st.text("abcdefgh0123456789._-@", min_size=1, max_size=15).filter(lambda n: n.strip("."))
)
pod_ips = st.none() | st.ip_addresses().map(str)
uids = st.one_of(st.just(""), st.uuids().map(str))


@st.composite
def assignments(draw):
    found = draw(st.lists(addresses, unique=True, max_size=8))
    routes = []
    while found:
        size = draw(st.integers(1, len(found)))
        mine, found = found[:size], found[size:]
        entries = tuple(AddressEntry(each, draw(interfaces), draw(pod_ips)) for each in mine)
        name = f"{draw(names)}-{len(routes)}"
        routes.append(RouteEntry(name, lease_name(name), draw(st.sampled_from(Handover)), entries))
    return Assignment(tuple(routes))


def test_where_an_address_goes_is_left_out_where_it_is_not_said():
    entries = (
        AddressEntry("10.0.0.1/32"),
        AddressEntry("10.0.0.2/32", "eth1"),
        AddressEntry("10.0.0.3/32", None, "10.1.1.2"),
    )
    text = encode_assignment(Assignment((RouteEntry("r", "holdfast-r", Handover.EXCLUSIVE, entries),)))
    said = json.loads(text)["routes"][0]["addresses"]
    assert [each.keys() - {"address"} for each in said] == [set(), {"interface"}, {"podIP"}]


@given(assignments())
def test_assignment_round_trip(assignment):
    text = encode_assignment(assignment)
    assert decode_assignment(text, WHERE) == assignment
    assert encode_assignment(decode_assignment(text, WHERE)) == text


reports = st.builds(
    Report,
    st.sampled_from(Fence),
    st.lists(st.builds(AddressReport, addresses, names, st.sampled_from(AddressState), st.text(max_size=80))).map(
        tuple
    ),
    st.integers(0, 60),
)


@given(reports)
def test_report_round_trip(report):
    text = encode_report(report)
    assert decode_report(text, WHERE) == report
    assert encode_report(decode_report(text, WHERE)) == text


def test_fields_that_are_not_known_are_tolerated():
    entry = {"route": "r", "lease": "l", "handover": "Exclusive", "addresses": [{"address": A1, "mtu": 9}], "colour": 1}
    found = decode_assignment(json.dumps({"v": 1, "routes": [entry], "more": []}), WHERE)
    assert found.routes[0].addresses == (AddressEntry(A1),)
    assert decode_report('{"v":1,"fence":"lifetime","addresses":[],"x":{}}', WHERE) == Report(Fence.LIFETIME, ())


def entry(**changes):
    good = {"route": "r", "lease": "l", "handover": "Exclusive", "addresses": [{"address": A1}]}
    return {"v": 1, "routes": [good | changes]}


BAD_ASSIGNMENTS = [
    pytest.param("", "", id="nothing"),
    pytest.param("{", "", id="no-JSON"),
    pytest.param("[]", "", id="no-object"),
    pytest.param({"routes": []}, "v", id="no-version"),
    pytest.param({"v": 2, "routes": []}, "v", id="a-later-version"),
    pytest.param({"v": True, "routes": []}, "v", id="a-version-that-is-no-number"),
    pytest.param({"v": 1}, "", id="no-routes"),
    pytest.param({"v": 1, "routes": 7}, "routes", id="routes-of-another-type"),
    pytest.param(entry(route=""), "routes[0].route", id="no-name"),
    pytest.param(entry(lease=""), "routes[0].lease", id="no-lease"),
    pytest.param(entry(handover="Now"), "routes[0].handover", id="handover"),
    pytest.param(entry(addresses=[]), "routes[0].addresses", id="no-addresses"),
    pytest.param(entry(addresses=[{"address": "10.0.0.1"}]), "routes[0].addresses[0].address", id="no-prefix-length"),
    pytest.param(entry(addresses=[{"address": "10.0.0.0/8"}]), "routes[0].addresses[0].address", id="range"),
    pytest.param(entry(addresses=[{"address": "010.0.0.1/32"}]), "routes[0].addresses[0].address", id="leading-zero"),
    pytest.param(entry(addresses=[{"address": "FE80::1/128"}]), "routes[0].addresses[0].address", id="not-canonical"),
    pytest.param(entry(addresses=[{"address": A1}, {"address": A1}]), "routes[0].addresses[1].address", id="twice"),
    pytest.param(
        entry(addresses=[{"address": A1, "interface": "a/b"}]), "routes[0].addresses[0].interface", id="interface"
    ),
    pytest.param(
        entry(addresses=[{"address": A1, "podIP": "10.1.1.2/24"}]),
        "routes[0].addresses[0].podIP",
        id="no-plain-address",
    ),
    pytest.param(
        entry(addresses=[{"address": A1, "interface": "x" * 16}]),
        "routes[0].addresses[0].interface",
        id="long-interface",
    ),
    pytest.param(
        {"v": 1, "routes": [*entry()["routes"], *entry(addresses=[{"address": "10.0.0.1/32"}])["routes"]]},
        "routes[1].lease",
        id="one-lease-twice",
    ),
]


@pytest.mark.parametrize(("form", "field"), BAD_ASSIGNMENTS)
def test_a_bad_assignment_is_named(form, field):
    text = form if isinstance(form, str) else json.dumps(form)
    with pytest.raises(ContractError) as caught:
        decode_assignment(text, WHERE)
    assert (caught.value.where, caught.value.field) == (WHERE, field)
    assert str(caught.value).startswith(f"{WHERE}: {field}")


def test_an_unknown_version_says_to_upgrade():
    with pytest.raises(UnknownVersion, match=r"version 2 is not supported .* upgrade it"):
        decode_assignment('{"v":2}', WHERE)
    with pytest.raises(UnknownVersion):
        decode_report('{"v":"1"}', WHERE)


BAD_REPORTS = [
    pytest.param('{"v":1,"addresses":[]}', "", id="no-fence"),
    pytest.param('{"v":1,"fence":"wall","addresses":[]}', "fence", id="fence"),
    pytest.param(
        '{"v":1,"fence":"deadline","addresses":[{"address":"10.0.0.1/32","interface":"e","state":"up"}]}',
        "addresses[0].state",
        id="state",
    ),
    pytest.param(
        '{"v":1,"fence":"deadline","addresses":[{"address":"10.0.0.1","interface":"e","state":"failed"}]}',
        "addresses[0].address",
        id="address",
    ),
]


@pytest.mark.parametrize(("text", "field"), BAD_REPORTS)
def test_a_bad_report_is_named(text, field):
    with pytest.raises(ContractError) as caught:
        decode_report(text, WHERE)
    assert caught.value.field == field


@given(st.text(max_size=200))
def test_whatever_stands_there_it_is_read_or_named(text):
    for read in (decode_assignment, decode_report):
        with contextlib.suppress(ContractError):
            read(text, WHERE)


# The Lease ------------------------------------------------------------------------------------------------------

views = st.builds(
    lease,
    owner=uids,
    holder=uids,
    prepared=uids,
    lost=st.lists(st.uuids().map(str), max_size=3, unique=True).map(tuple),
    duration_s=st.integers(1, 60),
    transitions=st.integers(0, 9),
    observed=st.one_of(st.just(""), reports.map(encode_report)),
)


def changed(before, after):
    return {name for name in before.__struct_fields__ if getattr(before, name) != getattr(after, name)} - {"version"}


@given(views, st.uuids().map(str))
def test_each_write_changes_its_own_part_and_carries_its_version(view, me):
    rows = {
        "take": (writes.take(view, me, NOW), {"holder", "transitions", "renew_time", "observed"}),
        "renew": (writes.renew(view, "report", NOW), {"renew_time", "observed"}),
        "prepare": (writes.prepare(view, me), {"prepared"}),
        "hand over": (writes.hand_over(view, me, NOW), {"holder", "transitions", "renew_time", "observed"}),
        "release": (writes.release(view, NOW), {"holder", "renew_time", "observed"}),
        "explain": (writes.explain(view, "why"), {"observed"}),
        "owner": (
            writes.name_owner(view, me, duration_s=5, lost=("x",), addresses=("y",)),
            {"owner", "prepared", "lost", "addresses", "duration_s"} | (set() if view.holder else {"observed"}),
        ),
        "free": (
            writes.free(view, me, duration_s=5, lost=("x",), addresses=("y",)),
            {"holder", "owner", "prepared", "lost", "addresses", "duration_s", "observed"},
        ),
    }
    for name, (patch, parts) in rows.items():
        after = applied(view, patch, 11)
        assert changed(view, after) <= parts, name
        assert patch["metadata"]["resourceVersion"] == view.version
        assert patch["metadata"]["uid"] == view.uid
        json.dumps(patch)


@given(views, st.uuids().map(str), st.booleans())
def test_a_controller_never_says_that_a_new_owner_is_prepared(view, owner, same):
    owner = view.owner if same else owner
    after = applied(view, writes.name_owner(view, owner, duration_s=view.duration_s, lost=(), addresses=()), 11)
    assert after.prepared in ("", view.prepared)
    if owner != view.owner:
        assert after.prepared in ("", owner)


@given(st.text("abc-", min_size=1, max_size=250), st.uuids().map(str), st.integers(1, 60))
def test_a_created_lease_is_read_back(route, owner, duration_s):
    body = writes.create(
        route, "default", owner, duration_s, addresses=("1.2.3.4/32", "::1/128"), holder="h", transitions=3
    )
    body["metadata"] |= {"uid": "u", "resourceVersion": "1"}
    found = decode_lease(body)
    assert (found.owner, found.holder, found.duration_s, found.transitions) == (owner, "h", duration_s, 3)
    assert found.addresses == ("1.2.3.4/32", "::1/128")
    assert found.name == lease_name(route)
    assert len(found.name) <= 253
    assert found.route == (route if len(route) <= 63 else "")


BAD_LEASES = [
    pytest.param({}, "", id="no-metadata"),
    pytest.param({"spec": {"leaseDurationSeconds": "9"}}, "spec.leaseDurationSeconds", id="duration-is-text"),
    pytest.param({"spec": {"leaseDurationSeconds": 0}}, "spec.leaseDurationSeconds", id="duration-is-nothing"),
    pytest.param({"metadata": {"name": 7}}, "metadata.name", id="name-is-a-number"),
]


@pytest.mark.parametrize(("change", "field"), BAD_LEASES)
def test_a_bad_lease_is_named(change, field):
    good = {"metadata": {"namespace": "n", "name": "holdfast-r", "uid": "u", "resourceVersion": "1"}}
    body = {key: good.get(key, {}) | change.get(key, {}) for key in {*good, *change}} if change else {}
    for raw in (body, json.dumps(body).encode()):
        with pytest.raises(ContractError) as caught:
            decode_lease(raw, "Lease n/holdfast-r")
        assert caught.value.field == field


def test_long_names_are_cut_and_stay_apart():
    one, two = "x" * 252 + "a", "x" * 252 + "b"
    assert lease_name("r") == "holdfast-r"
    assert len(lease_name(one)) == 253
    assert lease_name(one) != lease_name(two)


@pytest.mark.parametrize(
    ("holder", "before", "owner", "stays"),
    [("", "a", "b", False), ("", "a", "a", True), ("", "a", "", True), ("", "", "b", False), ("a", "a", "b", True)],
)
def test_a_new_owner_of_a_free_lease_does_not_inherit_the_last_ones_words(holder, before, owner, stays):
    view = lease(owner=before, holder=holder, observed="why")
    after = applied(view, writes.name_owner(view, owner, duration_s=view.duration_s, lost=(), addresses=()), 11)
    assert after.observed == ("why" if stays else "")
