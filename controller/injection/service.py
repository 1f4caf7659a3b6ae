"""The webhook as one part of a replica: its server, the keeper of its certificate, and what these two follow."""

from __future__ import annotations

import datetime as dt
import threading
from typing import TYPE_CHECKING, Any, Final

from controller.cluster.reflector import Reflector
from controller.injection import certificate
from controller.injection.keeper import FOLLOWED, NAMES, Configuration, End, Keeper, Wake
from controller.injection.webhook import Webhook, listen

if TYPE_CHECKING:
    from collections.abc import Callable

    from controller.cluster.kube import Kube
    from controller.injection.sidecar import Settings
    from controller.injection.webhook import Asking
    from controller.journal import Journal

DRAIN_S: Final = 1.0
"""Longer than an API server that asks at all often takes to use each of its connections once more."""


class Service:
    """What `run --webhook-port` adds."""

    def __init__(
        self,
        kube: Kube,
        journal: Journal,
        *,
        port: int,
        own: bool,
        settings: Settings,
        may_write: Callable[[], bool],
        ask: Asking,
    ) -> None:
        """Open the port; nothing is served before the threads are started.

        Args:
            kube: the API server.
            journal: where changes and troubles are told.
            port: where the webhook listens.
            own: whether holdfast makes the certificate.
            settings: of what is added to a Pod.
            may_write: whether this replica leads, at this instant.
            ask: asks the thread that knows the cluster about a namespace.

        Raises:
            OSError: the port cannot be had.
        """
        shown = certificate.self_signed(NAMES, dt.datetime.now(dt.UTC))
        pair = shown[certificate.CERT], shown[certificate.KEY]
        self._webhook = Webhook(ask, settings, listen(port), pair)
        self._keeper = Keeper(kube.session(), may_write, self._webhook.use, journal, own)
        self._stop = threading.Event()
        # where something else makes the certificate, it also says whom to trust: nothing to read, and no right to it
        kinds: tuple[type[Any], ...] = tuple(kind for kind in FOLLOWED if own or kind is not Configuration)
        self._reflectors = {
            f"watch-{kind.__name__}": Reflector(
                kind, kube.session(), self._keeper.inbox.put, self._stop, FOLLOWED[kind]
            )
            for kind in kinds
        }

    def targets(self) -> dict[str, Callable[[], None]]:
        """Name the threads to start, with what each runs."""
        watches = {name: reflector.run for name, reflector in self._reflectors.items()}
        return {"webhook": self._webhook.run, "webhook-certificate": self._keeper.run, **watches}

    def led(self) -> None:
        """Whether this replica leads has changed."""
        self._keeper.inbox.put(Wake())

    def drain(self, then: Callable[[], None]) -> None:
        """Answer for `DRAIN_S` more, on each connection one request at most.

        Args:
            then: called afterwards, by another thread.
        """
        self._webhook.drain()
        timer = threading.Timer(DRAIN_S, then)
        timer.daemon = True
        timer.start()

    def stop(self) -> None:
        """End all of it."""
        self._stop.set()
        self._keeper.inbox.put(End())
        self._webhook.stop()
