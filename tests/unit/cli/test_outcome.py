"""The demo's verdict: it can say no."""

import io
import json

import pytest
from rich.console import Console

from cli import lines
from cli.outcome import STAGES, Outcome, summary
from cli.stage import NOBODY_BEFORE
from cli.view import PodRow, Silent, Terminal, View

GOOD = Outcome("rollout", "web-1", 3.14159, 0, {"announced": 9.87, "decided": 1.0})

VERDICTS = [
    pytest.param([GOOD], True, id="all as promised"),
    pytest.param([], False, id="nothing happened"),
    pytest.param([GOOD, Outcome("rollout", "web-1", 3.0, 1)], False, id="two holders for an instant"),
    pytest.param([Outcome("rollout", "", 3.0, 0, {}, ("nobody holds",)), GOOD], False, id="a broken expectation"),
]


@pytest.mark.parametrize(("outcomes", "good"), VERDICTS)
def test_verdict(outcomes, good):
    assert summary(outcomes)["ok"] is good


def test_json_has_the_stages_in_their_order_and_leaves_out_what_did_not_take_place(capsys):
    Silent().end([GOOD, Outcome("deployment", "web-0", None, 0)])
    told = json.loads(capsys.readouterr().out)
    assert told["two_holders"] == 0
    first, second = told["events"]
    assert first == {
        "name": "rollout",
        "pod": "web-1",
        "gap_ms": 3.1,
        "two_holders": 0,
        "times_ms": {"decided": 1.0, "announced": 9.9},
    }
    assert list(first["times_ms"]) == ["decided", "announced"]
    assert second["gap_ms"] is None


def test_plain_lines_name_what_was_not_as_promised():
    text = io.StringIO()
    view = View(Console(file=text, width=200))
    outcome = Outcome("pod deleted", "", 12.0, 2, {}, ("web-1 eth1 has not 34.123.10.1/32",))
    view.outcome(outcome)
    view.end([outcome])
    assert "pod deleted: nobody holds the addresses; two holders: 2 times" in text.getvalue()
    assert "NOT AS PROMISED: web-1 eth1 has not 34.123.10.1/32" in text.getvalue()
    assert "NOT AS PROMISED in 1 of 1 events" in text.getvalue()


# what people read -----------------------------------------------------------------------------------------------------

LONG = "proxy-deploy-5b7cd55d75-wdqzp"
ALL = Outcome("readiness lost", LONG, 17415.44, 0, {stage: 18322.31 + at for at, stage in enumerate(STAGES)})


def test_an_event_is_a_head_line_and_one_line_per_stage_in_the_order_of_time():
    times = {"decided": 432.84, "annotated": 441.1, "released": 46.3, "acquired": 692.4}
    assert lines.event(Outcome("pod deleted", "proxy-ss-1", 603.4, 0, times)) == [
        "  pod deleted: proxy-ss-1 holds the addresses; two holders: never",
        "    gap           603.4 ms               the client's longest wait for an answer",
        "    released       46.3 ms               the last holder no longer has them",
        "    decided       432.8 ms    +386.5 ms  the Lease names the next owner",
        "    annotated     441.1 ms      +8.3 ms  the owner's Pod is told its addresses",
        "    acquired      692.4 ms    +251.3 ms  the Lease names the new holder",
    ]


def test_what_was_not_measured_is_said_and_why():
    told = lines.event(Outcome("first assignment", "web-0", None, 0, {}, (), NOBODY_BEFORE))
    assert told[1] == "    gap        not measured: nobody held the addresses when it began"


def test_a_status_that_was_looked_at_is_no_move():
    assert lines.event(Outcome("status default/a NoPodsFound", "", None, 0, {}, ("in vain",))) == [
        "  status default/a NoPodsFound"
    ]


EVENTS = [
    pytest.param(ALL, id="every stage"),
    pytest.param(Outcome("first assignment", LONG, None, 0, ALL.times_ms, (), NOBODY_BEFORE), id="not measured"),
    pytest.param(Outcome("first assignment", LONG, 20000.0, 12, ALL.times_ms), id="two holders"),
]


@pytest.mark.parametrize("outcome", EVENTS)
def test_every_line_of_an_event_fits(outcome):
    told = lines.event(outcome)
    assert max(map(len, told)) <= lines.WIDTH
    assert "-wdqzp holds the addresses" in told[0]


CUTS = [
    pytest.param("proxy-ss-1", 10, "proxy-ss-1", id="what fits stays"),
    pytest.param("proxy-ss-1", 9, "prox…ss-1", id="one too long"),
    pytest.param(LONG, 18, "proxy-de…d75-wdqzp", id="the random end stays"),
]


@pytest.mark.parametrize(("name", "room", "shown"), CUTS)
def test_long_names_are_cut_in_their_middle(name, room, shown):
    assert lines.cut(name, room) == shown
    assert len(shown) <= room


def test_a_status_message_has_three_lines_at_most():
    told = lines.condition("ns/route", "Ready=NoPodsFound", "Pod a is not on the route's network; " * 9)
    assert told[0] == "  ns/route: Ready=NoPodsFound"
    assert (len(told), told[-1][-1], max(map(len, told)) <= lines.WIDTH) == (4, "…", True)


def test_a_status_without_a_message():
    assert lines.condition("ns/route", "Ready=Other", "") == ["  ns/route: Ready=Other"]


def test_no_heading_of_the_last_table_is_cut_on_80_columns():
    text = io.StringIO()
    View(Console(file=text, width=lines.WIDTH)).end([ALL])
    assert "…" not in text.getvalue()
    assert all(heading in text.getvalue() for heading in ("gap ms", "two holders", "released", "announced"))


def test_the_live_table_fits_a_terminal_of_80_columns():
    row = PodRow(f"proxy-deploy-ns/{LONG}", "node-1", ready=True, addresses=("34.123.10.1", "34.123.10.2"), holds="12")
    text = io.StringIO()
    Console(file=text, width=lines.WIDTH).print(Terminal(lambda: [row])._now())
    assert "proxy-deploy-ns…5b7cd55d75-wdqzp" in text.getvalue()
    assert "34.123.10.1 34.123.10.2" in text.getvalue()
