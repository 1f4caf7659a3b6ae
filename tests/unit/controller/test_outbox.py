"""One write per object at a time; what was refused waits for its time, or for its object's next version."""

import pytest

from controller.choice.impact import Impact
from controller.cluster.writer import Job, Writers
from controller.errors import Conflict, Unreachable
from controller.outbox import BACKOFF_FIRST_S, BACKOFF_MAX_S, STALE_S, Outbox

IDENT = ("lease", "default", "holdfast-r")
TOUCHED = Impact({("default", "r")})


@pytest.fixture
def outbox():
    return Outbox(Writers(None, bool, print))


def job(version="1"):
    return Job(IDENT, (), version=version)


def fail(outbox, error, now, version="1"):
    assert outbox.send(job(version), TOUCHED, now)
    outbox.failed(job(version), error("PATCH", 0, "said the server"), outbox.answered(job(version)), now)


def test_a_second_write_about_one_object_waits_for_the_first(outbox):
    assert outbox.send(job(), TOUCHED, 0.0)
    assert not outbox.send(job("2"), TOUCHED, 0.0)
    assert outbox.answered(job()).routes == TOUCHED.routes
    assert outbox.send(job("2"), TOUCHED, 0.0)


def test_only_what_an_address_waits_for_is_urgent(outbox):
    outbox.send(job(), TOUCHED, 0.0, hot=False)
    assert not outbox.urgent
    outbox.answered(job())
    outbox.send(job(), TOUCHED, 0.0)
    assert outbox.urgent
    outbox.answered(job())
    assert not outbox.urgent


def test_after_a_conflict_another_version_goes_at_once_and_the_same_one_waits(outbox):
    fail(outbox, Conflict, 10.0)
    assert outbox.next_s() == 10.0 + STALE_S
    assert not outbox.send(job("1"), TOUCHED, 10.5)
    assert outbox.send(job("2"), TOUCHED, 10.5)


def test_what_waited_is_decided_again_once_when_its_time_has_come(outbox):
    fail(outbox, Conflict, 10.0)
    assert not outbox.wake(10.9)
    assert outbox.wake(11.0).routes == TOUCHED.routes
    assert not outbox.wake(12.0)
    assert outbox.next_s() is None
    assert outbox.send(job("1"), TOUCHED, 11.0)


def test_pauses_grow_to_a_limit_and_success_forgets_them(outbox):
    now, pauses = 0.0, []
    for _ in range(12):
        fail(outbox, Unreachable, now)
        pauses.append(outbox.next_s() - now)
        now = outbox.next_s()
        outbox.wake(now)
    assert pauses[0] <= 2 * BACKOFF_FIRST_S
    assert all(BACKOFF_MAX_S / 2 <= pause <= BACKOFF_MAX_S for pause in pauses[-3:])
    outbox.succeeded(job())
    fail(outbox, Unreachable, now)
    assert outbox.next_s() - now <= 2 * BACKOFF_FIRST_S


def test_a_new_leader_tries_everything_at_once(outbox):
    fail(outbox, Unreachable, 0.0)
    outbox.forget_failures()
    assert outbox.send(job(), TOUCHED, 0.0)
