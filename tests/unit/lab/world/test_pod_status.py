"""What a node writes of a Pod, and how long it lets a container wait: named rows."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab.errors import LabError
from lab.world.pod_status import (
    BACK_OFF,
    CREATING,
    SIDECAR,
    Container,
    PodState,
    back_off_s,
    first_state,
    restarted,
    status,
)
from lab.world.probes import Probe, Readiness, ports
from lab.world.sandbox import interfaces_of, name_of

NOW, THEN = "2026-01-02T00:00:00Z", "2026-01-01T00:00:00Z"
RUNS = Container("app", "image", started=THEN, ready=True)
SIDE = Container(SIDECAR, SIDECAR, started=THEN, ready=True)
POD = PodState("uid", "10.200.1.1", THEN, address="10.200.1.10", apps=(RUNS,), sidecar=SIDE)
DEAD = replace(RUNS, started=None, ready=False, exit_code=137, ended=THEN)


def conditions(state: PodState, before=None) -> dict[str, str]:
    written = status(state, before or {}, NOW)["status"]
    return {each["type"]: each["status"] for each in written["conditions"]}


ROWS = {
    "before its network is there": (replace(POD, address="", apps=(Container("app", "image"),)), "Pending", "False"),
    "everything runs": (POD, "Running", "True"),
    "the app is not Ready": (replace(POD, apps=(replace(RUNS, ready=False),)), "Running", "False"),
    "the sidecar has ended": (
        replace(POD, sidecar=replace(SIDE, started=None, ready=False, exit_code=1)),
        "Running",
        "False",
    ),
    "no sidecar": (replace(POD, sidecar=None), "Running", "True"),
    "the app waits to be started again": (replace(POD, apps=(DEAD,)), "Running", "False"),
    "over, well": (replace(POD, apps=(replace(DEAD, exit_code=0, over=True),)), "Succeeded", "False"),
    "over, badly": (replace(POD, apps=(replace(DEAD, over=True),)), "Failed", "False"),
}


@pytest.mark.parametrize(("state", "phase", "ready"), ROWS.values(), ids=ROWS)
def test_phase_and_readiness(state, phase, ready):
    assert status(state, {}, NOW)["status"]["phase"] == phase
    found = conditions(state)
    assert (found["Ready"], found["ContainersReady"]) == (ready, ready)


def test_a_condition_that_stays_keeps_its_time():
    before = {"conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": THEN}]}
    found = {each["type"]: each for each in status(POD, before, NOW)["status"]["conditions"]}
    assert found["Ready"]["lastTransitionTime"] == THEN
    assert found["Initialized"]["lastTransitionTime"] == NOW


def test_what_is_not_ready_is_named():
    state = replace(POD, apps=(replace(RUNS, ready=False),))
    (ready,) = [each for each in status(state, {}, NOW)["status"]["conditions"] if each["type"] == "Ready"]
    assert ready["message"] == "containers with unready status: [app]"


def test_a_container_that_waits_says_why_and_how_it_ended():
    waiting = replace(DEAD, restarts=2, waiting=(BACK_OFF, "back-off 10s"))
    (container,) = status(replace(POD, apps=(waiting,)), {}, NOW)["status"]["containerStatuses"]
    assert container["state"] == {"waiting": {"reason": BACK_OFF, "message": "back-off 10s"}}
    assert container["lastState"]["terminated"]["exitCode"] == 137
    assert container["restartCount"] == 2


def test_a_patch_is_for_this_pod_only():
    assert status(POD, {}, NOW)["metadata"] == {"uid": "uid"}


BACK_OFFS = {
    "the first time at once": (0, 1.0, 0.0),
    "the second time": (1, 1.0, 10.0),
    "doubled": (3, 1.0, 40.0),
    "never more than": (30, 1.0, 300.0),
    "forgotten after ten minutes": (5, 600.0, 0.0),
}


@pytest.mark.parametrize(("restarts", "ran_s", "expected"), BACK_OFFS.values(), ids=BACK_OFFS)
def test_back_off(restarts, ran_s, expected):
    assert back_off_s(restarts, ran_s) == expected


def test_what_is_started_again_at_once_says_nothing_of_a_back_off():
    again, pause_s = restarted(DEAD, ran_s=1.0)
    assert (again.restarts, again.waiting[0], pause_s) == (1, CREATING, 0.0)


def test_what_waits_to_be_started_again_says_for_how_long():
    again, pause_s = restarted(replace(DEAD, restarts=1), ran_s=1.0)
    assert (again.restarts, pause_s) == (2, 10.0)
    assert again.waiting == (BACK_OFF, "back-off 10s restarting failed container=app")


# the beginning -------------------------------------------------------------------------------------------------


def pod(known=None, inits=("setup", SIDECAR)):
    spec = {"containers": [{"name": "app", "image": "image"}]}
    spec["initContainers"] = [{"name": each, "image": each} for each in inits]
    return {"metadata": {"uid": "uid"}, "spec": spec, "status": known or {}}


def test_a_new_pod_has_run_nothing():
    state = first_state(pod(), "10.200.1.1", NOW)
    new = (Container("app", "image"),)
    assert state == PodState("uid", "10.200.1.1", NOW, apps=new, sidecar=Container(SIDECAR, SIDECAR))


def test_a_pod_that_is_not_injected_has_no_sidecar():
    assert first_state(pod(inits=()), "10.200.1.1", NOW).sidecar is None


def test_after_a_power_cut_what_ran_has_ended_once_more():
    ran = {"name": "app", "restartCount": 1, "state": {"running": {"startedAt": THEN}}}
    waited = {"name": SIDECAR, "restartCount": 3, "state": {"waiting": {"reason": BACK_OFF}}}
    known = {"startTime": THEN, "containerStatuses": [ran], "initContainerStatuses": [waited]}
    state = first_state(pod(known=known), "10.200.1.1", NOW)
    assert state.started == THEN
    assert (state.app("app").restarts, state.app("app").exit_code) == (2, 255)
    assert state.sidecar is not None
    assert (state.sidecar.restarts, state.sidecar.exit_code) == (3, None)


# probes --------------------------------------------------------------------------------------------------------


def container(**fields):
    return {"name": "app", "image": "image", **fields}


def test_a_probe_is_read_with_the_kubelets_defaults():
    read = Probe.of(container(readinessProbe={"httpGet": {"port": 80}}), 8080)
    assert read == Probe(80, "/", delay_s=0, period_s=10, timeout_s=1, successes=1, failures=3)


def test_a_named_port_and_a_tcp_probe():
    spec = container(ports=[{"name": "web", "containerPort": 9000}], readinessProbe={"tcpSocket": {"port": "web"}})
    read = Probe.of(spec, 8080)
    assert read is not None
    assert (read.port, read.path) == (9000, None)
    assert ports(spec, 8080) == [9000]


def test_without_a_probe_the_app_is_asked_once():
    read = Probe.of(container(), 8080)
    assert read is not None
    assert (read.port, read.period_s) == (8080, None)


@pytest.mark.parametrize("spec", [container(readinessProbe={"exec": {"command": ["true"]}}), container()])
def test_where_nothing_can_be_asked_running_is_ready(spec):
    assert Probe.of(spec, None) is None


def test_thresholds_count_answers_in_a_row():
    probe = Probe(80, failures=3, successes=2)
    state = Readiness()
    said = []
    for good in (True, True, False, False, True, False, False, False):
        state = state.after(probe, good=good)
        said.append(state.ready)
    assert said == [False, True, True, True, True, True, True, False]
    assert state.after(probe, good=True, at_once=True).ready


# networks ------------------------------------------------------------------------------------------------------

NETWORKS = ("default", "blue-network")
NOTE = "networking.gke.io/interfaces"


def test_the_guides_annotation():
    note = '[{"interfaceName":"eth0","network":"default"}, {"interfaceName":"eth1","network":"blue-network"}]'
    assert interfaces_of({NOTE: note}, NETWORKS) == {"eth0": 0, "eth1": 1}


def test_without_one_there_is_eth0():
    assert interfaces_of({}, NETWORKS) == {"eth0": 0}


@pytest.mark.parametrize(
    ("note", "says"),
    [
        ("{", "not a list"),
        ('[{"network":"default"}]', "not a list"),
        ("[1]", "not a list"),
        ('[{"interfaceName":"eth1","network":"green"}]', "no network 'green'"),
        ('[{"interfaceName":"eth0","network":"blue-network"}]', "eth0 is on the default network"),
        ('[{"interfaceName":"eth1","network":"default"}]', "the lab supports one interface on network"),
    ],
)
def test_an_annotation_that_cannot_be_followed_says_why(note, says):
    with pytest.raises(LabError, match=says):
        interfaces_of({NOTE: note}, NETWORKS)


@given(st.text("abc-", min_size=1, max_size=63), st.text("abc-.", min_size=1, max_size=253))
def test_names_of_network_namespaces_are_short_and_their_own(namespace, name):
    assert len(name_of(namespace, name)) <= 60
    assert name_of(namespace, name) != name_of(namespace, f"{name}x")
