"""The controller's command line: ``holdfast-controller run``.

Exit codes: 0 stopped by SIGTERM or SIGINT, the election Lease released; 1 internal error: one of its threads ended; 2
wrong usage; 3 no access to an API server (no kubeconfig, not in a cluster, or unreadable).
"""

from __future__ import annotations

import queue
import signal
import socket
import sys
import threading
import uuid
from pathlib import Path
from typing import Any, NoReturn

import click

from controller.cluster.election import Elector, is_election
from controller.cluster.kube import Kube
from controller.cluster.reflector import PATHS, Reflector, Trouble
from controller.cluster.writer import Writers, start
from controller.errors import NoAccess, ThreadEnded
from controller.journal import Journal
from controller.loop import Ended, Leading, Loop, Stop
from controller.outbox import Outbox

_JOIN_S = 3.0
_SWITCH_S = 0.0005


@click.group()
def main() -> None:
    """Choose the owner of each GKEIPRoute and manage its Lease."""


@main.command(
    epilog="Exit codes: 0 stopped by a signal, 1 internal error, 2 wrong usage, 3 no access to an API server."
)
@click.option(
    "--kubeconfig",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Path of a kubeconfig file; default: the Pod's service account.",
)
@click.option("--identity", default="", help="Name of this replica in leader election; default: the host name.")
def run(kubeconfig: Path | None, identity: str) -> NoReturn:
    """Run until SIGTERM. Log to standard error, one JSON line for each change."""
    sys.exit(_run(kubeconfig, identity))


def _run(kubeconfig: Path | None, identity: str) -> int:
    # a thread that decodes a long list is not to keep the one that writes a Lease waiting (default: 5 ms each time)
    sys.setswitchinterval(_SWITCH_S)
    journal = Journal()
    try:
        kube = Kube(kubeconfig)
    except NoAccess as error:
        journal.tell(str(error), "error")
        return 3
    # another for each process: one that was restarted must not take itself for its former self
    me = f"{identity or socket.gethostname()}_{uuid.uuid4().hex[:8]}"
    loop, elector, targets = _assemble(kube, journal, me)
    stop_reflectors = targets.pop("stop")

    def ended(name: str, error: BaseException | None) -> None:
        loop.inbox.put(Ended(name, error))

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: loop.inbox.put(Stop()))
    journal.tell("started", identity=me)
    for name, target in targets.items():
        start(name, target, ended)
    released = threading.Event()

    def election_ended(name: str, error: BaseException | None) -> None:
        released.set()
        ended(name, error)

    start("election", elector.run, election_ended)
    try:
        loop.run()
        code = 0
    except ThreadEnded as error:
        journal.tell(str(error), "error")
        code = 1
    stop_reflectors.set()
    elector.stop()
    released.wait(_JOIN_S)
    journal.tell("stopped", identity=me)
    return code


def _assemble(kube: Kube, journal: Journal, me: str) -> tuple[Loop, Elector, dict[str, Any]]:
    inbox: queue.SimpleQueue[Any] = queue.SimpleQueue()
    elector = Elector(
        kube.session(),
        me,
        lambda leading: inbox.put(Leading(leading)),
        lambda text: inbox.put(Trouble("election", text)),
    )
    writers = Writers(kube, elector.may_write, inbox.put)
    loop = Loop(Outbox(writers), journal, me, elector.observe, is_election, inbox)
    stop = threading.Event()
    targets: dict[str, Any] = {"stop": stop, **dict(writers.targets())}
    for kind in PATHS:
        reflector = Reflector(kind, kube.session(), loop.inbox.put, stop)
        targets[f"watch-{kind.__name__}"] = reflector.run
    return loop, elector, targets


if __name__ == "__main__":
    main()
