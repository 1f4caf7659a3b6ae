"""The demo's verdict: it can say no."""

import io
import json

import pytest
from rich.console import Console

from cli.outcome import Outcome, summary
from cli.view import Silent, View

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
    assert "pod deleted: nobody; client's gap 12.0 ms; two holders: 2" in text.getvalue()
    assert "NOT AS PROMISED: web-1 eth1 has not 34.123.10.1/32" in text.getvalue()
    assert "NOT AS PROMISED in 1 of 1 events" in text.getvalue()
