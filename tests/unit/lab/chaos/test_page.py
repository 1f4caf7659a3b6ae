"""The page of `make chaos`: it needs nothing from elsewhere, and a broken promise is never shown as kept."""

from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser
from xml.etree import ElementTree as ET

import pytest

from lab.chaos.faults import FAULTS, named
from lab.chaos.page import Case, page
from lab.chaos.storm import AT_ONCE, schedule
from lab.chaos.trial import Trial
from lab.witness.client import Gap
from lab.witness.frames import Frame
from lab.witness.judge import Overlap, Tenure

FAULT = named("holder's sidecar stopped, long")
FRAME = Frame(101.0, "n1-1", "arp-request", "02:00:00:00:00:01", "192.0.2.1", "192.0.2.1", "02:00:00:00:00:01")
GOOD = Trial(
    fault=FAULT.name,
    lease_s=2,
    struck_s=100.0,
    healed_s=103.5,
    settled_s=104.0,
    vacant_s=0.15,
    gap_s=0.14,
    overlaps=(),
    false=(),
    neighbour=True,
    tenures=(Tenure("pod-a", 1, 90.0, 102.0), Tenure("pod-<b>", 2, 102.15, None)),
    gaps=(Gap(102.0, 140.0, 140, 0.0, ended=True),),
    frames=(FRAME,),
    versions=((102.1, "", "b"), (102.12, "b", "b")),
    trouble="",
)
BROKEN = {
    "two holders": replace(GOOD, overlaps=(Overlap(101.0, 101.1, "192.0.2.1", ("a", "b")),)),
    "a false frame": replace(GOOD, false=(FRAME,)),
    "never settled": replace(GOOD, trouble="the Lease is <nobody's>"),
    "a wrong neighbour table": replace(GOOD, neighbour=False),
}
LATE = {
    "on nobody for too long": replace(GOOD, vacant_s=5.0),
    "too long a gap": replace(GOOD, gap_s=5.0),
}


class _Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []

    def handle_starttag(self, tag, attrs):
        assert not {"src", "href"} & {name for name, _ in attrs}
        if tag != "meta":
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_it_is_one_well_formed_page_without_anything_from_elsewhere():
    text = page([Case(GOOD, FAULT), Case(GOOD, None, ("0.1 s: a fault",))], "a machine")
    tags = _Tags()
    tags.feed(text)
    assert tags.open == []
    assert not re.search(r"https?://|url\(|@import|<script|<link", text)
    for drawing in re.findall(r"<svg.*?</svg>", text, re.DOTALL):
        ET.fromstring(drawing)  # noqa: S314 - our own text
    assert "pod-<b>" not in text


@pytest.mark.parametrize("trial", BROKEN.values(), ids=BROKEN.keys())
def test_a_broken_promise_is_shown_as_such(trial):
    case = Case(trial, FAULT)
    assert case.broken
    text = page([Case(GOOD, FAULT), case], "")
    assert "Promise broken in 1;" in text
    assert "Bad cases: 1" in text
    assert text.count("<details open>") == 1


@pytest.mark.parametrize("trial", LATE.values(), ids=LATE.keys())
def test_a_bound_that_was_exceeded_is_a_bad_case_and_no_broken_promise(trial):
    case = Case(trial, FAULT)
    assert not case.broken
    assert case.late
    assert "Promise broken in 0; longer than the bound in 1" in page([case], "")


def test_what_kept_its_bounds_is_no_bad_case():
    assert Case(GOOD, FAULT).bad == ""
    assert "Bad cases: 0" in page([Case(GOOD, FAULT)], "")


def test_a_fault_may_put_its_own_frames_on_the_wire_and_no_more():
    late = named("announcement late")
    assert late.forged == 1
    assert not Case(replace(GOOD, false=(FRAME,)), late).broken
    assert Case(replace(GOOD, false=(FRAME, FRAME)), late).broken


# The catalogue and its storms ------------------------------------------------------------------------------------


def test_names_are_of_one_fault_each():
    assert len({fault.name for fault in FAULTS}) == len(FAULTS)
    assert all(named(fault.name) is fault for fault in FAULTS)


def test_bounds_are_no_shorter_for_a_longer_fault_or_lease():
    for fault in FAULTS:
        assert fault.vacant_s(2, 3) <= fault.vacant_s(2, 30)
        assert fault.gap_bound_s(2, 3) <= fault.gap_bound_s(2, 30)
        assert fault.vacant_s(2, 0.1) >= 0


def test_a_seed_means_one_schedule():
    assert list(schedule(7, 60, 2)) == list(schedule(7, 60, 2))
    assert list(schedule(7, 60, 2)) != list(schedule(8, 60, 2))


@pytest.mark.parametrize("seed", range(20))
def test_a_storm_has_few_faults_at_a_time_and_ends_in_time(seed):
    strikes = list(schedule(seed, 60, 2))
    assert len(strikes) > 10
    assert all(strike.fault.stackable for strike in strikes)
    assert all(strike.at_s + strike.lasts_s <= 60 for strike in strikes)
    for strike in strikes:
        under_way = [s for s in strikes if s.at_s <= strike.at_s < s.at_s + s.lasts_s]
        assert len(under_way) <= AT_ONCE
