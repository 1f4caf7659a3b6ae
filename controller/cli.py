"""The controller's command line: ``holdfast-controller run``.

Exit codes: 0 stopped by SIGTERM or SIGINT, the election Lease released; 1 internal error: one of its threads ended; 2
wrong usage, or the webhook's port is taken; 3 no access to an API server (no kubeconfig, not in a cluster, or
unreadable).
"""

from __future__ import annotations

import os
import queue
import signal
import socket
import sys
import threading
import uuid
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

from controller.cluster.election import Elector, is_election
from controller.cluster.kube import Kube
from controller.cluster.reflector import PATHS, Reflector, Trouble
from controller.cluster.writer import Writers, start
from controller.errors import NoAccess, ThreadEnded
from controller.injection.release import SIDECAR_IMAGE
from controller.injection.sidecar import Settings
from controller.journal import Journal
from controller.loop import Ask, Ended, Leading, Loop, Stop
from controller.outbox import Outbox

if TYPE_CHECKING:
    from collections.abc import Callable

    from controller.injection.service import Service

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
@click.option(
    "--webhook-port",
    type=click.IntRange(1, 65535),
    help="Port of the webhook that injects the sidecar (HTTPS: /mutate, /healthz, /readyz); default: no webhook.",
)
@click.option(
    "--webhook-certificate",
    type=click.Choice(["own", "given"]),
    default="own",
    show_default=True,
    help="Whether the controller makes the webhook's certificate, or something else (cert-manager) does.",
)
@click.option("--sidecar-image", default=SIDECAR_IMAGE, show_default=True, help="Image of the sidecar to inject.")
def run(
    kubeconfig: Path | None,
    identity: str,
    webhook_port: int | None,
    webhook_certificate: str,
    sidecar_image: str,
) -> NoReturn:
    """Run until SIGTERM. Log to standard error, one JSON line for each change."""
    webhook = _Wanted(webhook_port, webhook_certificate == "own", sidecar_image) if webhook_port else None
    sys.exit(_run(kubeconfig, identity, webhook))


@dataclass(frozen=True, slots=True)
class _Wanted:
    """The webhook that is asked for."""

    port: int
    own: bool
    image: str


def _run(kubeconfig: Path | None, identity: str, wanted: _Wanted | None) -> int:
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
    leads: list[Callable[[], None]] = []
    loop, elector, targets = _assemble(kube, journal, me, leads)
    stops: list[Callable[[], None]] = [targets.pop("stop").set]
    end = partial(loop.inbox.put, Stop())
    if wanted is not None:
        try:
            service = _webhook(wanted, kube, journal, elector, loop)
        except OSError as error:
            problem = os.strerror(error.errno or 0)
            journal.tell(f"--webhook-port {wanted.port}: {problem}; end what uses the port, or choose another", "error")
            return 2
        targets |= service.targets()
        leads.append(service.led)
        stops.append(service.stop)
        end = partial(service.drain, end)

    def ended(name: str, error: BaseException | None) -> None:
        loop.inbox.put(Ended(name, error))

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: end())
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
    for stop in stops:
        stop()
    elector.stop()
    released.wait(_JOIN_S)
    journal.tell("stopped", identity=me)
    return code


def _webhook(wanted: _Wanted, kube: Kube, journal: Journal, elector: Elector, loop: Loop) -> Service:
    from controller.injection.service import Service  # noqa: PLC0415 - 16 MB that only the webhook needs

    return Service(
        kube,
        journal,
        port=wanted.port,
        own=wanted.own,
        settings=Settings(wanted.image),
        may_write=elector.may_write,
        ask=lambda space, answer: loop.inbox.put(Ask(space, answer)),
    )


def _assemble(
    kube: Kube, journal: Journal, me: str, leads: list[Callable[[], None]]
) -> tuple[Loop, Elector, dict[str, Any]]:
    inbox: queue.SimpleQueue[Any] = queue.SimpleQueue()

    def changed(leading: bool) -> None:  # noqa: FBT001 - as the elector calls it
        inbox.put(Leading(leading))
        for told in leads:
            told()

    elector = Elector(
        kube.session(),
        me,
        changed,
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
