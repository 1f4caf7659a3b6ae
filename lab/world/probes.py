"""Readiness probes as a Pod's spec has them: what is asked, how often, and what the answers mean.

`Probe.of` and `Readiness` are pure; `ask` is the one that speaks. `httpGet` and `tcpSocket` are asked as the kubelet
does, from the node over the network. Not done: `exec` and `grpc` (the stand-in app has no commands; such a container
counts as Ready when it runs), liveness and startup probes.
"""

from __future__ import annotations

import http.client
import socket
from dataclasses import dataclass, replace
from typing import Any, Final

DEFAULT_PORT: Final = 8080


@dataclass(frozen=True, slots=True)
class Probe:
    """A readiness probe.

    Attributes:
        path: of `httpGet`; None: `tcpSocket`.
        period_s: None: asked once at the start, and when the app has been told to change.
    """

    port: int
    path: str | None = "/"
    delay_s: float = 0
    period_s: float | None = None
    timeout_s: float = 1
    successes: int = 1
    failures: int = 1

    @classmethod
    def of(cls, container: dict[str, Any], default_port: int | None) -> Probe | None:
        """Read a container's readiness probe.

        Args:
            container: from the Pod's spec.
            default_port: where the stand-in app listens when the container names no port; None: nowhere.

        Returns:
            None when there is nothing to ask: Ready when it runs.
        """
        spec = container.get("readinessProbe")
        if spec is None:
            listens = ports(container, default_port)
            return cls(listens[0]) if listens else None
        action = spec.get("httpGet") or spec.get("tcpSocket")
        if action is None:
            return None
        return cls(
            port=_port(container, action["port"]),
            path=spec["httpGet"].get("path", "/") if "httpGet" in spec else None,
            delay_s=spec.get("initialDelaySeconds", 0),
            period_s=spec.get("periodSeconds", 10),
            timeout_s=spec.get("timeoutSeconds", 1),
            successes=spec.get("successThreshold", 1),
            failures=spec.get("failureThreshold", 3),
        )


@dataclass(frozen=True, slots=True)
class Readiness:
    """What the answers so far mean; a container is not Ready before its probe has said so."""

    ready: bool = False
    in_a_row: int = 0
    last: bool | None = None

    def after(self, probe: Probe, *, good: bool, at_once: bool = False) -> Readiness:
        """Take one more answer; `at_once`: it counts without waiting for the threshold."""
        in_a_row = self.in_a_row + 1 if good == self.last else 1
        wanted = probe.successes if good else probe.failures
        counts = at_once or in_a_row >= wanted
        return replace(self, ready=good if counts else self.ready, in_a_row=in_a_row, last=good)


def ports(container: dict[str, Any], default_port: int | None) -> list[int]:
    """Where a container's stand-in app listens: TCP ports of the spec and its probe, else the default one."""
    found = [port["containerPort"] for port in container.get("ports") or [] if port.get("protocol", "TCP") == "TCP"]
    spec = container.get("readinessProbe") or {}
    if action := spec.get("httpGet") or spec.get("tcpSocket"):
        found.append(_port(container, action["port"]))
    if not found and default_port is not None:
        found.append(default_port)
    return sorted(set(found))


def _port(container: dict[str, Any], port: int | str) -> int:
    if isinstance(port, int):
        return port
    named = [each["containerPort"] for each in container.get("ports") or [] if each.get("name") == port]
    return int(named[0]) if named else DEFAULT_PORT


def ask(probe: Probe, address: str) -> bool:
    """Ask once; any answer from 200 to 399 is good, as is a connection where no path is asked for."""
    try:
        if probe.path is None:
            with socket.create_connection((address, probe.port), probe.timeout_s):
                return True
        connection = http.client.HTTPConnection(address, probe.port, timeout=probe.timeout_s)
        try:
            connection.request("GET", probe.path)
            return http.client.OK <= connection.getresponse().status < http.client.BAD_REQUEST
        finally:
            connection.close()
    except (OSError, http.client.HTTPException):
        return False
