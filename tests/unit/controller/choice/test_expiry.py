"""When a Lease has run out: what is a sign of life, how long a holder may be silent, what a new leader knows."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contract.names import UNTAKEN_S
from contract.report import Fence, Report, encode_report
from controller.choice.expiry import Expiry, life_sign, patience_s, vacancy_sign
from tests.unit.controller.kube_objects import A1, lease, report

HELD = {"holder": "a", "owner": "a", "renew_time": "t1"}

PATIENCE = [
    pytest.param({"observed": report(A1)}, 10.1, id="kernel-deadline"),
    pytest.param({"observed": report(A1, fence=Fence.LIFETIME)}, 11.3, id="lifetime-only"),
    pytest.param({}, 11.3, id="no-report"),
    pytest.param({"observed": "{"}, 11.3, id="report-that-cannot-be-read"),
    pytest.param({"observed": report(A1), "duration_s": 2}, 10.1, id="holder-still-counts-with-the-longer-duration"),
    pytest.param({"observed": report(A1), "duration_s": 30}, 30.1, id="controller-has-made-it-longer"),
    pytest.param({"observed": encode_report(Report(Fence.DEADLINE, ())), "duration_s": 1}, 1.1, id="duration-unsaid"),
]


@pytest.mark.parametrize(("fields", "seconds"), PATIENCE)
def test_patience(fields, seconds):
    assert patience_s(lease(**HELD | fields)) == pytest.approx(seconds)


SIGNS = [
    pytest.param({"renew_time": "t2"}, True, id="renewTime"),
    pytest.param({"transitions": 1}, True, id="epoch"),
    pytest.param({"holder": "b"}, True, id="holder"),
    pytest.param({"uid": "another"}, True, id="another-Lease-of-that-name"),
    pytest.param({"observed": report(A1, fence=Fence.LIFETIME)}, False, id="report"),
    pytest.param({"prepared": "b"}, False, id="prepared"),
    pytest.param({"owner": "b"}, False, id="owner"),
    pytest.param({"lost": ("c",)}, False, id="lost"),
    pytest.param({"version": "99"}, False, id="version"),
]


@pytest.mark.parametrize(("change", "alive"), SIGNS)
def test_what_is_a_sign_of_life(change, alive):
    expiry = Expiry()
    expiry.observe(lease(**HELD), 0.0)
    later = lease(**HELD | change)
    expiry.observe(later, 5.0)
    assert expiry.expired(11.29) == frozenset()
    assert (life_sign(later) in expiry.expired(11.3)) is not alive
    assert life_sign(later) in expiry.expired(16.3)


def test_an_untaken_lease():
    expiry = Expiry()
    free = lease(owner="a")
    expiry.observe(free, 0.0)
    expiry.observe(lease(owner="a", observed=report(A1, state="failed"), version="11"), 5.0)
    assert expiry.untaken(UNTAKEN_S - 0.01) == frozenset()
    assert expiry.untaken(UNTAKEN_S) == {vacancy_sign(free)}
    expiry.observe(lease(owner="b"), 9.0)
    assert expiry.untaken(18.9) == frozenset()
    expiry.observe(lease(owner="b", lost=("b",)), 12.0)
    assert expiry.next_at(12.0) is None


def test_next_at_is_the_first_that_is_not_due():
    expiry = Expiry()
    assert expiry.next_at(0.0) is None
    expiry.observe(lease("r1", **HELD), 0.0)
    expiry.observe(lease("r2", **HELD, duration_s=2), 0.0)
    assert expiry.next_at(0.0) == pytest.approx(3.3)
    assert expiry.next_at(3.4) == pytest.approx(11.3)
    expiry.forget(("default", "holdfast-r1"))
    assert expiry.next_at(3.4) is None


@given(st.lists(st.tuples(st.floats(0.01, 20), st.sampled_from(["renew", "note", "free", "take"])), max_size=20))
def test_never_before_its_time(steps):
    """Whatever happens, a holder is called expired only when nothing that counts changed for its patience."""
    expiry, now, last, view, renewals = Expiry(), 0.0, 0.0, lease(**HELD), 1
    expiry.observe(view, now)
    for pause_s, step in steps:
        now += pause_s
        assert (life_sign(view) in expiry.expired(now)) == (bool(view.holder) and now >= last + patience_s(view))
        renewals += 1
        fields = {"note": {"prepared": f"p{renewals}"}, "free": {"holder": ""}}.get(step, {"renew_time": str(renewals)})
        if step == "take":
            fields = {"holder": "a", "transitions": view.transitions + 1}
        kept = {"holder": view.holder, "renew_time": view.renew_time, "transitions": view.transitions}
        before = view
        view = lease(**HELD | kept | fields)
        if life_sign(view) != life_sign(before):
            last = now
        expiry.observe(view, now)
