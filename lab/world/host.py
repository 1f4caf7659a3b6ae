"""What the Pods of one node share, and where each of them has its things; the kubelet builds it for its workers.

It starts nothing and decides nothing: whoever has a Host knows a node, and not the kubelet that plays it.
"""

from __future__ import annotations

import datetime as dt
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from pathlib import Path

    from lab.api_client import ApiClient
    from lab.world.sandbox import Sandboxes


@dataclass(slots=True)
class Host:
    """One node as its Pods see it.

    Attributes:
        name: of the node.
        address: of the node on the default network.
        api: a client with the node's own user.
        ca_file: the certificate that Pods are to trust.
        service_env: the part of a Pod's environment that says where the API server is.
        sandboxes: makes and removes the Pods' network namespaces.
        sidecar_argv: what the sidecar's image would start.
        run_dir: what the world may read: in `pods` a record for each that runs, in `logs` what containers said.
        volumes: what only this node may read: tokens and control sockets.
    """

    name: str
    address: str
    api: ApiClient
    ca_file: Path
    service_env: dict[str, str]
    sandboxes: Sandboxes
    sidecar_argv: list[str]
    run_dir: Path
    volumes: Path
    _said: str = ""

    def say(self, about: str, what: str) -> None:
        """Write a line to the node's log, the same one only once in a row."""
        line = f"{about}: {what}"
        if line != self._said:
            sys.stderr.write(f"{dt.datetime.now(dt.UTC).isoformat()} {line}\n")
        self._said = line


@dataclass(frozen=True, slots=True)
class Place:
    """One Pod's place on its node; another Pod of the same name has another UID, and so another place."""

    host: Host
    namespace: str
    name: str
    uid: str

    @classmethod
    def of(cls, host: Host, pod: dict[str, Any]) -> Self:
        """The place of a Pod's object."""
        meta = pod["metadata"]
        return cls(host, meta["namespace"], meta["name"], meta["uid"])

    @property
    def full_name(self) -> str:
        """`<namespace>/<name>`."""
        return f"{self.namespace}/{self.name}"

    @property
    def path(self) -> str:
        """Where the API has its object, or another of its name."""
        return f"/api/v1/namespaces/{self.namespace}/pods/{self.name}"

    @property
    def record(self) -> Path:
        """The file by which the world knows of it."""
        return self.host.run_dir / "pods" / f"{self.namespace}_{self.name}.json"

    @property
    def volume(self) -> Path:
        """The directory of its service account's volume."""
        return self.host.volumes / self.uid

    def log(self, container: str) -> Path:
        """Where one of its containers' output goes."""
        return self.host.run_dir / "logs" / f"{self.namespace}_{self.name}_{container}.log"

    def control(self, number: int) -> Path:
        """The control socket of one of its containers, whose path must be short."""
        return self.host.volumes / f"{self.uid[:18]}-{number}.sock"

    def say(self, what: str) -> None:
        """Write a line about it to the node's log."""
        self.host.say(self.full_name, what)


def now() -> str:
    """The time as the API writes it."""
    return dt.datetime.now(dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
