"""The world's hold on its nodes: start, power off and on, cut from a network and join it again.

What a node *does* is `lab.world.kubelet`, a process of its own for each; here is what is done *to* it.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import shlex
import signal
import socket
import sys
import time
from typing import TYPE_CHECKING, Any

from lab import wiring
from lab.errors import LabError
from lab.program import Program
from lab.wiring import Links
from lab.world.credentials import node_user
from lab.world.networks import SWITCH, port

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from lab.world.credentials import Credentials
    from lab.world.networks import Networks

_ANSWER_S = 10.0
_END_S = 5.0


class NodeHandle:
    """One node as the world sees it."""

    def __init__(
        self,
        number: int,
        *,
        networks: Networks,
        credentials: Credentials,
        folder: Path,
        logs: Path,
        sidecar: Sequence[str] = (),
    ) -> None:
        """Make its network namespace; it is started by `start`.

        Args:
            number: of the node; credentials have a token for so many (`control_plane.NODE_NUMBERS`).
            networks: which it is plugged into, all of them.
            credentials: where its kubeconfig is written.
            folder: in which it gets a directory of its own name.
            logs: where its log goes.
            sidecar: the command that its Pods' sidecars are; ours when left out.
        """
        self.name = f"node-{number}"
        self.number = number
        self.run_dir = folder / self.name
        (self.run_dir / "pods").mkdir(parents=True)
        self._networks = networks
        self._logs = logs
        self._sidecar = sidecar
        self.netns = self._make_netns()
        self.program = self._make_program(credentials.kubeconfig(self.name, credentials.token(node_user(self.name))))

    def _make_netns(self) -> str:
        return self._networks.node(self.number)

    def _make_program(self, kubeconfig: Path) -> Program:
        argv = [sys.executable, "-m", "lab.world.kubelet", "--name", self.name, "--kubeconfig", str(kubeconfig)]
        argv += ["--run-dir", str(self.run_dir), "--networks", ",".join(self._networks.names)]
        if self._sidecar:
            argv += ["--sidecar", shlex.join(self._sidecar)]
        return Program(self.name, argv, self._logs / f"{self.name}.log", self.netns)

    def start(self) -> None:
        """Start the process that plays the kubelet."""
        self.program.start()

    def stop(self) -> None:
        """End it for good; what it leaves ends with the world."""
        self.program.kill()

    # faults ----------------------------------------------------------------------------------------------------

    def power_off(self) -> None:
        """Cut its cables and kill everything on it at once; its Pods' network namespaces go, as in a power cut."""
        self._cables(up=False)
        records = self.pods()
        with contextlib.ExitStack() as stack:
            ends = [_pidfd(stack, pid) for record in records for pid in (record["sidecar_pid"], *record["app_pids"])]
            self.program.kill()
            for end in filter(None, ends):
                with contextlib.suppress(ProcessLookupError):
                    signal.pidfd_send_signal(end, signal.SIGKILL)
            _until_ended([end for end in ends if end])
        for record in records:
            wiring.delete(record["netns"])
        for left in (self.run_dir / "pods").iterdir():
            left.unlink()

    def power_on(self) -> None:
        """Start it again; it finds its Pods by asking the API server."""
        self._cables(up=True)
        self.start()

    def cut(self, network: str) -> None:
        """Take it off a network: its port leaves the switch's bridge, its links stay up."""
        with Links(SWITCH) as switch:
            switch.detach(port(self.number, self._networks.number(network)))

    def join(self, network: str) -> None:
        """Put it back on a network."""
        number = self._networks.number(network)
        with Links(SWITCH) as switch:
            switch.attach(port(self.number, number), f"sw{number}")

    def _cables(self, *, up: bool) -> None:
        for network in self._networks.names:
            (self.join if up else self.cut)(network)

    # its Pods --------------------------------------------------------------------------------------------------

    def pods(self) -> list[dict[str, Any]]:
        """What the node has written about the Pods that run on it."""
        found = []
        for path in sorted((self.run_dir / "pods").glob("*.json")):
            with contextlib.suppress(FileNotFoundError):  # it ended just now
                namespace, _, name = path.stem.partition("_")
                found.append({**json.loads(path.read_text()), "namespace": namespace, "name": name})
        return found

    def pod(self, namespace: str, name: str) -> dict[str, Any] | None:
        """What the node has written about one Pod; None when it does not run here."""
        try:
            record: dict[str, Any] = json.loads((self.run_dir / "pods" / f"{namespace}_{name}.json").read_text())
        except FileNotFoundError:
            return None
        return record

    def ask(self, request: dict[str, Any]) -> dict[str, Any]:
        """Ask the node's process to do something to one of its Pods.

        Raises:
            LabError: it refused or does not answer.
        """
        with socket.socket(socket.AF_UNIX) as control:
            control.settimeout(_ANSWER_S)
            try:
                control.connect(str(self.run_dir / "control.sock"))
                control.sendall(json.dumps(request).encode() + b"\n")
                answer: dict[str, Any] = json.loads(control.makefile("rb").readline())
            except (OSError, ValueError) as error:
                raise LabError(
                    f"{self.name} does not answer {request}: {error!r}; its log: {self.program.log}"
                ) from error
        if not answer.get("ok"):
            raise LabError(f"{self.name} refused {request}: {answer}")
        return answer


def _pidfd(stack: contextlib.ExitStack, pid: int | None) -> int | None:
    if not pid:
        return None
    try:
        end = os.pidfd_open(pid)
    except ProcessLookupError:
        return None
    stack.callback(os.close, end)
    return end


def _until_ended(pidfds: list[int]) -> None:
    deadline = time.monotonic() + _END_S
    for each in pidfds:
        if not select.select([each], [], [], max(deadline - time.monotonic(), 0))[0]:
            raise LabError("a process of a node did not end after its power was cut")
