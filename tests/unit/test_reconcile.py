"""What the decision loop makes of the answers to its writes."""

import io

import pytest
from kube_objects import lease, pod, route, world

from controller.decide import LeaseAct
from controller.errors import Conflict, NotFound
from controller.log import Journal
from controller.reconcile import Loop
from controller.writer import Done, Job, Writers

KEY = ("default", "holdfast-r")


def loop():
    made = Loop(Writers(None, bool, print), Journal(io.StringIO()), "c0", lambda _view: None, lambda _view: False)
    made.snap = world(route(), pod("a"), lease(owner="uid-a", version="10"))
    return made


def failed(made, error, version):
    job = Job(("lease", *KEY), (), version=version, context=LeaseAct.NAME_OWNER)
    made._done(Done(job, None, error("PATCH", 404 if error is NotFound else 409, "said the server")))


GONE = [
    pytest.param(NotFound, "10", True, id="the version that was to be written"),
    pytest.param(NotFound, "9", False, id="a newer one has been seen since"),
    pytest.param(Conflict, "10", False, id="it is there, in another version"),
]


@pytest.mark.parametrize(("error", "version", "gone"), GONE)
def test_a_lease_that_is_not_there_is_forgotten_and_may_have_been_held(error, version, gone):
    made = loop()
    failed(made, error, version)
    assert (KEY not in made.snap.leases) is gone
    assert (KEY in made.snap.vanished) is gone
    assert not gone or not made.snap.vanished[KEY].final
