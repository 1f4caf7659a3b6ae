"""`holdfast demo`: the guide's own manifests on a real API server, and an address that follows the Pod out.

Every event has an expectation; the exit code is 0 only when all of them were met.
"""

from __future__ import annotations

import datetime as dt
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import click

from cli.outcome import summary
from cli.stage import Stage
from cli.view import PodRow, Silent, Terminal, View
from lab import closed
from lab.api_client import is_ready
from lab.binaries import find
from lab.cli import prepare
from lab.errors import LabError
from lab.witness.ledger import PODS, Ledger, assignment
from lab.world.world import World

_DEPLOYMENT = "/apis/apps/v1/namespaces/proxy-deploy-ns/deployments/proxy-deploy"
EXIT_BROKEN = 1
EXIT_NO_LAB = 2


@click.command()
@click.option("--json", "as_json", is_flag=True, help="One JSON document on standard output, and nothing else.")
@click.option("--plain", is_flag=True, help="Plain lines even on a terminal.")
def demo(*, as_json: bool, plain: bool) -> None:
    r"""Show the main job working: the guide's manifests, a real API server, two nodes, a client that keeps pinging.

    \b
    Exit codes: 0 everything was as promised
                1 something was not; the output says what
                2 the lab could not be started; the message says what to do
    """
    try:
        if not closed.is_closed():
            prepare()
            closed.enter([sys.executable, "-m", "cli.main", *sys.argv[1:]])
        sys.exit(_run(as_json=as_json, plain=plain))
    except LabError as error:
        click.echo(f"holdfast demo: {error}", err=True)
        sys.exit(EXIT_NO_LAB)


def _run(*, as_json: bool, plain: bool) -> int:
    binaries = find()
    with (
        tempfile.TemporaryDirectory(prefix="holdfast-demo-") as state,
        World(nodes=2, networks=("default", "blue-network"), binaries=binaries, state=Path(state)) as world,
    ):
        ledger = Ledger(world.api)
        view = _view(ledger, as_json=as_json, plain=plain)
        stage = Stage(world, view, ledger)
        with view:
            _introduction(stage)
            _statefulset(stage)
            _conflicts(stage)
            _deployment(stage)
        view.end(stage.outcomes)
        return 0 if summary(stage.outcomes)["ok"] else EXIT_BROKEN


def _view(ledger: Ledger, *, as_json: bool, plain: bool) -> View:
    if as_json:
        return Silent()
    if plain or not sys.stdout.isatty():
        return View()
    return Terminal(lambda: [_row(ledger, pod) for pod in ledger.everything(PODS)])


def _row(ledger: Ledger, pod: dict[str, Any]) -> PodRow:
    meta = pod["metadata"]
    leases = [ledger.lease(f"{meta['namespace']}/{entry.lease}") for entry in assignment(pod).routes]
    held = [lease for lease in leases if lease is not None and lease.holder == meta["uid"]]
    names = {entry.lease: entry.addresses for entry in assignment(pod).routes}
    addresses = tuple(a.address.split("/")[0] for lease in held for a in names[lease.name])
    epoch = " ".join(str(lease.transitions) for lease in held)
    return PodRow(
        f"{meta['namespace']}/{meta['name']}", pod["spec"].get("nodeName", ""), is_ready(pod), addresses, epoch
    )


# The story ------------------------------------------------------------------------------------------------------


def _introduction(stage: Stage) -> None:
    stage.view.say(
        "Two nodes, a real API server and holdfast's controller are up, in network namespaces without a way out. A "
        "client on blue-network pings 34.123.10.1 every millisecond. For each event: who holds the addresses, the "
        "client's gap, and the stages: how long after the cause, and how long after the stage before."
    )


def _statefulset(stage: Stage) -> None:
    stage.namespace, stage.route = "proxy-ss-ns", "my-pod-ips"
    stage.view.say(
        "A StatefulSet and a GKEIPRoute (examples/seed): the route selects the Pod proxy-ss-1 for 34.123.10.1 and "
        "34.123.10.2 on blue-network."
    )
    stage.apply("00-namespaces.yaml", "01-network.yaml", "allowed-pod-ips.yaml")
    stage.event("first assignment", lambda: stage.apply("my-pod-ips-statefulset.yaml"), lambda _uid: True, within_s=20)
    first = stage.holder_uid()
    stage.view.say("We delete that Pod. The StatefulSet creates another of the same name, which takes the addresses.")
    stage.event("pod deleted", lambda: stage.delete_pod(first), lambda uid: uid != first, client=True, within_s=20)


def _conflicts(stage: Stage) -> None:
    stage.view.say(
        "Two more routes claim the same addresses. The oldest route keeps them; the others report a conflict."
    )
    stage.apply("my-ip-route.yaml", "my-pod-ips-deployment.yaml")
    stage.status("default/my-ip-route", "Accepted", "AddressConflict")
    stage.status("proxy-deploy-ns/my-pod-ips", "Accepted", "AddressConflict")
    stage.view.say(
        "We delete the two older routes. The third gets the addresses, but its Deployment's Pods are not on "
        "blue-network: its status names them and says what to do."
    )
    stage.world.kubectl("delete", "gkeiproute", "-n", "default", "my-ip-route")
    stage.world.kubectl("delete", "-f", str(stage.seed("my-pod-ips-statefulset.yaml")), "--wait=false")
    stage.status("proxy-deploy-ns/my-pod-ips", "Ready", "NoPodsFound")


def _deployment(stage: Stage) -> None:
    stage.namespace, stage.route = "proxy-deploy-ns", "my-pod-ips"
    stage.view.say("We add that annotation to the Deployment. The newest of its four Pods becomes the holder.")
    multi_nic = "my-pod-ips-deployment-multi-nic.yaml"
    stage.event("deployment", lambda: stage.apply(multi_nic), stage.is_newest_of(4), within_s=20)
    stage.view.say(
        "A rollout replaces all four Pods: a handover to the newest Ready Pod, each time there is a newer one."
    )
    before = stage.uids()
    stage.event("rollout", lambda: _restart(stage), stage.is_newest_of(4, without=before), client=True, within_s=30)
    stage.view.say("We scale the Deployment to five. The new Pod is the newest: another handover.")
    stage.event("scaled up", lambda: _scale_up(stage, 5), stage.is_newest_of(5), client=True, within_s=20)
    first = stage.holder_uid()
    stage.view.say("The holder is no longer Ready: handover to the next Pod. Then it is Ready again: handover back.")
    stage.event("readiness lost", stage.handle(first).fail_app, lambda uid: uid != first, client=True, within_s=10)
    stage.event("readiness back", stage.handle(first).heal_app, lambda uid: uid == first, client=True, within_s=10)
    stage.view.say(
        "The holder's node loses power, so nothing can be handed over. Failover: another Pod takes the addresses once "
        "the Lease of 10 s has run out."
    )
    node = stage.handle(first).node
    off = stage.world.node(node).power_off
    stage.event("node dead", off, lambda uid: stage.node_of(uid) not in ("", node), client=True, within_s=20)


def _scale_up(stage: Stage, replicas: int) -> None:
    # a Pod's creation has whole seconds, and of several as new the present owner stays: so not within the same second
    newest = dt.datetime.fromisoformat(stage.newest())
    time.sleep(max(0.0, newest.timestamp() + 1 - time.time()))
    stage.world.api.patch(f"{_DEPLOYMENT}/scale", {"spec": {"replicas": replicas}})


def _restart(stage: Stage) -> None:
    stamp = dt.datetime.now(dt.UTC).isoformat()
    note = {"spec": {"template": {"metadata": {"annotations": {"kubectl.kubernetes.io/restartedAt": stamp}}}}}
    stage.world.api.patch(_DEPLOYMENT, note)
