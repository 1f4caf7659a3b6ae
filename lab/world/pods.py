"""The world's hold on one Pod: what its kernel says, and what is done to its processes and links."""

from __future__ import annotations

import os
import signal
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lab.errors import CommandError, LabError
from lab.wiring import Links

if TYPE_CHECKING:
    from lab.world.nodes import NodeHandle

_COMMAND_S = 30.0


@dataclass(frozen=True, slots=True)
class PodHandle:
    """One Pod on one node; it stays this Pod, by UID, when another of the same name follows."""

    namespace: str
    name: str
    uid: str
    netns: str
    _on: NodeHandle

    @property
    def node(self) -> str:
        """The name of its node."""
        return self._on.name

    # what the kernel says --------------------------------------------------------------------------------------

    def addresses(self, ifname: str) -> set[str]:
        """The addresses of one of its interfaces, with prefix lengths."""
        with Links(self.netns) as links:
            return links.addresses(ifname)

    def arp_announce(self, ifname: str) -> int:
        """The arp_announce of one of its interfaces."""
        with Links(self.netns) as links:
            return links.arp_announce(ifname)

    @property
    def macs(self) -> frozenset[str]:
        """The MAC addresses of all its interfaces."""
        with Links(self.netns) as links:
            return frozenset(links.macs().values())

    # its processes ---------------------------------------------------------------------------------------------

    @property
    def sidecar_pid(self) -> int:
        """The process id of its sidecar.

        Raises:
            LabError: none is running.
        """
        pid = self._record()["sidecar_pid"]
        if not pid:
            raise LabError(f"Pod {self.namespace}/{self.name}: no sidecar is running")
        return int(pid)

    def kill_sidecar(self) -> None:
        """SIGKILL; the node starts it again."""
        os.kill(self.sidecar_pid, signal.SIGKILL)

    def pause_sidecar(self) -> None:
        """SIGSTOP."""
        os.kill(self.sidecar_pid, signal.SIGSTOP)

    def resume_sidecar(self) -> None:
        """SIGCONT."""
        os.kill(self.sidecar_pid, signal.SIGCONT)

    def fail_app(self) -> None:
        """Let its app answer readiness probes with a failure."""
        self._on.ask({"do": "fail-app", "pod": f"{self.namespace}/{self.name}"})

    def heal_app(self) -> None:
        """Let its app answer readiness probes well again."""
        self._on.ask({"do": "heal-app", "pod": f"{self.namespace}/{self.name}"})

    # its links -------------------------------------------------------------------------------------------------

    def link(self, ifname: str, *, up: bool) -> None:
        """Take one of its interfaces down, or up."""
        with Links(self.netns) as links:
            (links.up if up else links.down)(ifname)

    def run(self, argv: list[str]) -> str:
        """Run a command in its network namespace.

        Returns:
            Its standard output.

        Raises:
            CommandError: it failed.
        """
        command = ["nsenter", f"--net=/run/netns/{self.netns}", "--", *argv]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=_COMMAND_S)
        if done.returncode != 0:
            raise CommandError(
                f"`{' '.join(argv)}` in {self.netns} ended with {done.returncode}: {done.stderr.strip()}"
            )
        return done.stdout

    def _record(self) -> dict[str, Any]:
        record = self._on.pod(self.namespace, self.name)
        if record is None or record["uid"] != self.uid:
            raise LabError(f"Pod {self.namespace}/{self.name} ({self.uid}) no longer runs on {self.node}")
        return record


def handle(node: NodeHandle, namespace: str, name: str) -> PodHandle | None:
    """Take hold of a Pod; None when it does not run on this node."""
    record = node.pod(namespace, name)
    return PodHandle(namespace, name, record["uid"], record["netns"], node) if record else None
