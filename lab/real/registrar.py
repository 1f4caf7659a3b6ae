"""Where a real node's Pods become the world's: each network namespace gets its name in /run/netns and the witness.

The node's CNI plugin asks over a socket before anything is in a Pod's network namespace, and after all has left it.
"""

from __future__ import annotations

import contextlib
import json
import socket
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lab import wiring
from lab.errors import LabError
from lab.real import mounts
from lab.wiring import NAMED
from lab.witness.witness import register
from lab.world.sandbox import name_of

if TYPE_CHECKING:
    from collections.abc import Callable

Object = dict[str, Any]


class Registrar:
    """One node's."""

    def __init__(self, path: Path, witness: Path, inside: Callable[[], int]) -> None:
        """It answers when this returns.

        Args:
            path: its socket.
            witness: the witness's control socket.
            inside: gives the process id of the node's process 1.
        """
        self._witness = witness
        self._inside = inside
        self._lock = threading.Lock()
        self._pods: dict[str, Object] = {}
        self._door = socket.socket(socket.AF_UNIX)
        self._door.bind(str(path))
        self._door.listen(16)
        threading.Thread(target=self._serve, name="registrar", daemon=True).start()

    def pods(self) -> list[Object]:
        """The Pods' sandboxes that are there: `sandbox`, `namespace`, `name`, `uid`, `netns`."""
        with self._lock:
            return [dict(each) for each in self._pods.values()]

    def forget_all(self) -> None:
        """Let go of every network namespace: the node has lost its power."""
        with self._lock:
            while self._pods:
                wiring.delete(self._pods.popitem()[1]["netns"])

    def close(self) -> None:
        """Answer no more."""
        with contextlib.suppress(OSError):
            self._door.shutdown(socket.SHUT_RDWR)
        self._door.close()

    def _serve(self) -> None:
        while True:
            try:
                guest, _ = self._door.accept()
            except OSError:  # closed
                return
            with guest, guest.makefile("rwb") as lines:
                said = ""
                try:
                    self._answer(json.loads(lines.readline()))
                except (LabError, OSError, ValueError, KeyError) as error:
                    said = str(error) or repr(error)
                with contextlib.suppress(OSError):
                    lines.write(json.dumps({"error": said}).encode() + b"\n")
                    lines.flush()

    def _answer(self, request: Object) -> None:
        with self._lock:
            if request["do"] == "add":
                self._add(request)
            elif known := self._pods.pop(request["sandbox"], None):
                wiring.delete(known["netns"])

    def _add(self, request: Object) -> None:
        name = name_of(request["namespace"], request["name"])
        if wiring.exists(name):  # an earlier one of this name has not ended yet
            name = f"{name}-{request['sandbox'][:8]}"
        named = NAMED / name
        named.touch()
        try:
            # a network namespace may be mounted across mount namespaces; nothing else may
            mounts.bind(Path(f"/proc/{self._inside()}/root{request['netns']}"), named)
            register(self._witness, name)
        except LabError:
            wiring.delete(name)
            raise
        kept = ("sandbox", "namespace", "name", "uid")
        self._pods[request["sandbox"]] = {**{key: request[key] for key in kept}, "netns": name}
