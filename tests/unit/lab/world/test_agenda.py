"""What a Pod's thread does next: news first, then what is due, each once. Nothing here waits: all is due at once."""

from __future__ import annotations

import pytest

from lab.world.agenda import Agenda

FAR_S = 3600.0


@pytest.fixture
def agenda() -> Agenda:
    return Agenda()


def done(agenda: Agenda, count: int) -> list[str]:
    return [agenda.next()() for _ in range(count)]


def test_news_comes_in_its_order_and_before_what_is_due(agenda):
    agenda.at("due", 0.0, lambda: "due")
    for word in ("one", "two"):
        agenda.put(lambda word=word: word)
    assert done(agenda, 3) == ["one", "two", "due"]


def test_what_is_due_first_is_done_first(agenda):
    agenda.at("later", -1.0, lambda: "later")
    agenda.at("sooner", -2.0, lambda: "sooner")
    agenda.at("far", FAR_S, lambda: "far")
    assert done(agenda, 2) == ["sooner", "later"]


def test_a_name_is_set_once_and_the_last_counts(agenda):
    agenda.at("name", -2.0, lambda: "first")
    agenda.at("name", -1.0, lambda: "second")
    agenda.at("other", 0.0, lambda: "other")
    assert done(agenda, 2) == ["second", "other"]


def test_what_is_dropped_is_not_done(agenda):
    agenda.at("name", -1.0, lambda: "dropped")
    agenda.at("other", 0.0, lambda: "other")
    agenda.drop("name")
    agenda.drop("what was never set")
    assert done(agenda, 1) == ["other"]
