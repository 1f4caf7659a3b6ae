"""The one door to the `kubernetes` library, which is used as transport only: its configuration and its connections.

A `Session` belongs to one thread and keeps one connection alive. Bodies go out as they are and come back as bytes;
what is in them is for others to read. Nothing is retried here.
"""

from __future__ import annotations

import random
import socket
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlencode

import kubernetes
import msgspec
import urllib3
from kubernetes.config import ConfigException

from controller.errors import ApiError, NoAccess, Unreachable, from_status

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

MERGE: Final = "application/merge-patch+json"
STRATEGIC: Final = "application/strategic-merge-patch+json"
JSON: Final = "application/json"
CONNECT_TIMEOUT_S: Final = 3.0
ANSWER_TIMEOUT_S: Final = 5.0
LIST_TIMEOUT_S: Final = 60.0
PAGE: Final = 500
WATCH_SERVER_S: Final = (45, 60)
"""How long the server is asked to keep a watch open; random, so that watches do not all end together."""
WATCH_MARGIN_S: Final = 5.0
_ERRORS: Final = (urllib3.exceptions.HTTPError, OSError, msgspec.DecodeError)
"""No answer, or one that was cut off in the middle."""


class _Status(msgspec.Struct):
    code: int = 0
    reason: str = ""
    message: str = ""


class _ListMeta(msgspec.Struct, rename={"continue_": "continue", "version": "resourceVersion"}):
    version: str = ""
    continue_: str = ""


class _List(msgspec.Struct):
    metadata: _ListMeta
    items: list[msgspec.Raw] | None = None


class _Event(msgspec.Struct):
    type: str
    object: msgspec.Raw


# A watch is silent when all is well; a peer that has gone silently is noticed after 11 s by the kernel, not after a
# minute by the watch's own time-out. Nagle's algorithm stays off, as urllib3 has it.
_SOCKET_OPTIONS: Final = (
    (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1),
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 5),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 2),
    (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3),
)

# Made here, before there are threads: msgspec works a type out at its first use, and two threads that do that at once
# end the process with SIGSEGV.
_read_status = msgspec.json.Decoder(_Status).decode
_read_list = msgspec.json.Decoder(_List).decode
_read_event = msgspec.json.Decoder(_Event).decode


@dataclass(frozen=True, slots=True)
class Listed:
    """A whole collection and the version it is of."""

    items: list[msgspec.Raw]
    version: str


class Kube:
    """One API server and one identity; gives each thread a `Session` of its own."""

    def __init__(self, kubeconfig: Path | None = None) -> None:
        """Read the kubeconfig, or, without one, what a Pod is given.

        Raises:
            NoAccess: neither is there, or it cannot be read.
        """
        self._configuration = kubernetes.client.Configuration()
        try:
            if kubeconfig is not None:
                kubernetes.config.load_kube_config(str(kubeconfig), client_configuration=self._configuration)
            else:
                kubernetes.config.load_incluster_config(client_configuration=self._configuration)
        except (ConfigException, OSError) as error:
            advice = "set --kubeconfig PATH, or run in a Pod with a service account"
            raise NoAccess(f"{kubeconfig or 'in-cluster configuration'}: {error}; {advice}") from error
        # whoever calls decides about a second try; a connection belongs to one thread
        self._configuration.retries = urllib3.Retry(0, redirect=0)
        self._configuration.connection_pool_maxsize = 1
        self._configuration.socket_options = list(_SOCKET_OPTIONS)

    def session(self) -> Session:
        """Make a session for one thread; nothing is connected yet."""
        return Session(self._configuration)


class Session:
    """Requests of one thread."""

    def __init__(self, configuration: Any) -> None:
        self._configuration = configuration
        self._pool = kubernetes.client.ApiClient(configuration).rest_client.pool_manager
        self._used_s = float("-inf")

    def idle_s(self) -> float:
        """How long nothing has gone over its connection."""
        return time.monotonic() - self._used_s

    def request(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        content_type: str = JSON,
        timeout_s: float = ANSWER_TIMEOUT_S,
    ) -> bytes:
        """Send one request and give the answer's body.

        Raises:
            ApiError: of the kind that the status says; `Unreachable` where there is no answer.
        """
        timeout = urllib3.Timeout(connect=CONNECT_TIMEOUT_S, read=timeout_s)
        payload = None if body is None else msgspec.json.encode(body)
        try:
            answer = self._pool.request(
                method, self._url(path), body=payload, headers=self._headers(content_type), timeout=timeout
            )
        except _ERRORS as error:
            raise Unreachable(f"{method} {path}", 0, str(error)) from error
        self._used_s = time.monotonic()
        data: bytes = answer.data
        if answer.status >= 400:
            raise _error(f"{method} {path}", answer.status, data)
        return data

    def list(self, path: str, name: str = "") -> Listed:
        """Read a whole collection, page by page; with a name, of it only the object of that name.

        Raises:
            ApiError: as `request`; `Gone` where a page came too late.
        """
        items: list[msgspec.Raw] = []
        query: dict[str, Any] = {"limit": PAGE, **_only(name)}
        while True:
            body = self.request("GET", f"{path}?{urlencode(query)}", timeout_s=LIST_TIMEOUT_S)
            try:
                page = _read_list(body)
            except msgspec.DecodeError as error:
                raise Unreachable(f"GET {path}", 0, f"the answer is not a list: {error}") from error
            items += page.items or []
            if not page.metadata.continue_:
                return Listed(items, page.metadata.version)
            query["continue"] = page.metadata.continue_

    def watch(self, path: str, version: str, name: str = "") -> Iterator[tuple[str, msgspec.Raw]]:
        """Follow a collection from a version until the server ends the watch; with a name, only that object.

        Yields:
            ``ADDED``, ``MODIFIED``, ``DELETED`` or ``BOOKMARK``, and the object.

        Raises:
            ApiError: as `request`; `Gone` where the version is too old.
        """
        server_s = random.randint(*WATCH_SERVER_S)  # noqa: S311 - not for secrets
        query = {"watch": "1", "allowWatchBookmarks": "true", "resourceVersion": version, "timeoutSeconds": server_s}
        query |= _only(name)
        timeout = urllib3.Timeout(connect=CONNECT_TIMEOUT_S, read=server_s + WATCH_MARGIN_S)
        what = f"watch {path}"
        try:
            answer = self._pool.request(
                "GET",
                self._url(f"{path}?{urlencode(query)}"),
                headers=self._headers(JSON),
                timeout=timeout,
                preload_content=False,
            )
            try:
                if answer.status >= 400:
                    raise _error(what, answer.status, answer.read())
                yield from _events(what, answer)
            finally:
                answer.close()
                answer.release_conn()
        except _ERRORS as error:
            raise Unreachable(what, 0, str(error)) from error

    def _url(self, path: str) -> str:
        return f"{self._configuration.host}{path}"

    def _headers(self, content_type: str) -> dict[str, str]:
        headers = {"Accept": JSON, "Content-Type": content_type, "User-Agent": "holdfast-controller"}
        # asked each time: a token in a Pod is replaced about every hour
        token = self._configuration.get_api_key_with_prefix("BearerToken")
        if token:
            headers["Authorization"] = token
        return headers


def _only(name: str) -> dict[str, str]:
    """RBAC's `resourceNames` allows a list and a watch that ask for no other object."""
    return {"fieldSelector": f"metadata.name={name}"} if name else {}


def _events(what: str, answer: Any) -> Iterator[tuple[str, msgspec.Raw]]:
    rest = b""
    for chunk in answer.stream(decode_content=False):
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            if not line:
                continue
            event = _read_event(line)
            if event.type == "ERROR":
                raise _error(what, 0, bytes(event.object))
            yield event.type, event.object


def _error(what: str, code: int, body: bytes) -> ApiError:
    try:
        status = _read_status(body)
    except msgspec.DecodeError:
        status = _Status(message=body[:200].decode(errors="replace"))
    return from_status(what, code or status.code or 500, status.reason, status.message)
