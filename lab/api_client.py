"""A small synchronous client of the API server: requests, watches, and waiting for a state without polling.

For the lab and its tests; neither the controller nor the sidecar uses it. It sends what it is told and
retries nothing but a watch. One `ApiClient` may be used by many threads.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import select
import ssl
import threading
import time
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode, urlsplit

from lab.errors import ApiError, ApiUnreachable, WaitTimeout

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

Object = dict[str, Any]
Event = tuple[str, Object]

MERGE = "application/merge-patch+json"
_CONNECT_TIMEOUT_S = 5.0
_ANSWER_TIMEOUT_S = 30.0
_RECONNECT_PAUSE_S = 0.1
_WATCH_ENDS_S = 300
_UNREACHABLE = (OSError, http.client.HTTPException)


class ApiClient:
    """One user's way to one API server."""

    def __init__(self, server: str, ca_file: Path, token: str) -> None:
        """Nothing is connected yet.

        Args:
            server: ``https://address:port``.
            ca_file: certificates to trust, PEM.
            token: the user's bearer token.
        """
        self._server = server
        self.ca_file = ca_file
        self._token = token
        self._tls = ssl.create_default_context(cafile=str(ca_file))
        self._idle: list[http.client.HTTPSConnection] = []
        self._others: list[ApiClient] = []
        self._closed = threading.Event()

    def as_token(self, token: str) -> ApiClient:
        """The same server as another user; closed with this one."""
        other = ApiClient(self._server, self.ca_file, token)
        self._others.append(other)
        return other

    def close(self) -> None:
        """Close connections, and end all watches: each at its next event, or when the server ends."""
        self._closed.set()
        while self._idle:
            self._idle.pop().close()
        while self._others:
            self._others.pop().close()

    # requests --------------------------------------------------------------------------------------------------

    def get(self, path: str, **query: str) -> Object:
        """Read an object or a list, as the server gives it."""
        return self._request("GET", path, query=query)

    def list(self, path: str, **query: str) -> list[Object]:
        """Read the objects of a collection."""
        return list(self._request("GET", path, query=query)["items"])

    def create(self, path: str, body: Object, **query: str) -> Object:
        """Create an object in a collection."""
        return self._request("POST", path, body, query=query)

    def patch(self, path: str, patch: Object | Sequence[Object], content_type: str = MERGE, **query: str) -> Object:
        """Patch an object; a JSON merge patch unless said otherwise."""
        return self._request("PATCH", path, patch, content_type, query)

    def update(self, path: str, body: Object, **query: str) -> Object:
        """Replace an object."""
        return self._request("PUT", path, body, query=query)

    def delete(self, path: str, body: Object | None = None, **query: str) -> Object:
        """Delete an object; `body` may be DeleteOptions."""
        return self._request("DELETE", path, body, query=query)

    def _request(
        self,
        method: str,
        path: str,
        body: Any = None,
        content_type: str = "application/json",
        query: Mapping[str, str] | None = None,
    ) -> Object:
        target = f"{path}?{urlencode(query)}" if query else path
        connection = self._connection()
        try:
            payload = None if body is None else json.dumps(body)
            connection.request(method, target, payload, self._headers(content_type))
            response = connection.getresponse()
            text = response.read()
        except _UNREACHABLE as error:
            connection.close()
            raise ApiUnreachable(f"{method} {self._server}{target}: no answer: {error!r}") from error
        self._idle.append(connection)
        if self._closed.is_set():
            self.close()
        return _decoded(f"{method} {target}", response.status, text)

    def _headers(self, content_type: str) -> dict[str, str]:
        return {"Authorization": f"Bearer {self._token}", "Content-Type": content_type, "Accept": "application/json"}

    def _connection(self) -> http.client.HTTPSConnection:
        """An idle connection that the server has not closed meanwhile, or a new one."""
        while self._idle:
            try:
                connection = self._idle.pop()
            except IndexError:  # another thread was quicker
                break
            if connection.sock is not None and not select.select([connection.sock], [], [], 0)[0]:
                return connection
            connection.close()
        return self._new_connection(_ANSWER_TIMEOUT_S)

    def _new_connection(self, timeout_s: float) -> http.client.HTTPSConnection:
        where = urlsplit(self._server)
        return http.client.HTTPSConnection(str(where.hostname), where.port, timeout=timeout_s, context=self._tls)

    # watches ---------------------------------------------------------------------------------------------------

    def watch(self, path: str, *, timeout_s: float | None = None, **query: str) -> Iterator[Event]:
        """Follow a collection: first what there is, as ``ADDED``, then every change; survives the server's restart.

        Args:
            path: a collection.
            timeout_s: how long to follow it; None: until `close`.
            query: such as ``fieldSelector``.

        Yields:
            ``("ADDED" | "MODIFIED" | "DELETED", object)``.
        """
        for event in self._follow(path, None if timeout_s is None else time.monotonic() + timeout_s, query):
            if event is not None:
                yield event

    def _follow(self, path: str, deadline: float | None, query: Mapping[str, str]) -> Iterator[Event | None]:
        """As `watch`, and None whenever a list is complete."""
        known: dict[str, Object] = {}
        while not self._closed.is_set() and _left(deadline) > 0:
            try:
                answer = self.get(path, **query)
                yield from _differences(known, answer)
                yield None
                for kind, body in self._stream(path, answer["metadata"]["resourceVersion"], deadline, query):
                    _remember(known, kind, body)
                    yield kind, body
            except ApiUnreachable:
                self._closed.wait(_RECONNECT_PAUSE_S)
            except ApiError as error:
                if error.code not in {404, 410, 429, 500, 503}:
                    raise
                self._closed.wait(_RECONNECT_PAUSE_S)

    def _stream(
        self, path: str, version: str, deadline: float | None, query: Mapping[str, str]
    ) -> Iterator[tuple[str, Object]]:
        wanted = {**query, "watch": "1", "resourceVersion": version, "timeoutSeconds": str(_WATCH_ENDS_S)}
        connection = self._new_connection(_CONNECT_TIMEOUT_S)
        with contextlib.closing(connection):
            try:
                connection.request("GET", f"{path}?{urlencode(wanted)}", headers=self._headers("application/json"))
                response = connection.getresponse()
                if response.status != http.client.OK:
                    _decoded(f"watch {path}", response.status, response.read())
                while not self._closed.is_set():
                    if deadline is not None:
                        connection.sock.settimeout(max(_left(deadline), 0.001))
                    else:
                        connection.sock.settimeout(None)
                    line = response.readline()
                    if not line:
                        return
                    yield _event(path, json.loads(line))
            except TimeoutError:
                return
            except _UNREACHABLE as error:
                raise ApiUnreachable(f"watch {self._server}{path}: {error!r}") from error

    # waiting ---------------------------------------------------------------------------------------------------

    def wait(self, path: str, predicate: Callable[[Any], object], timeout_s: float, what: str = "") -> Any:
        """Wait until an object, or a collection's objects, are as wished.

        Args:
            path: of an object (`predicate` gets it, or None while there is none) or of a collection (it gets the list).
            predicate: asked for every state seen.
            timeout_s: how long to wait.
            what: what is waited for, for the message.

        Returns:
            What the predicate was satisfied with.

        Raises:
            WaitTimeout: it did not come about in time; shows the last state seen.
        """
        collection, name = _split(path)
        query = {"fieldSelector": f"metadata.name={name}"} if name else {}
        known: dict[str, Object] = {}
        complete = False
        for event in self._follow(collection, time.monotonic() + timeout_s, query):
            if event is None:
                complete = True
            else:
                _remember(known, *event)
            if not complete:
                continue
            state: Any = next(iter(known.values()), None) if name else list(known.values())
            if predicate(state):
                return state
        seen = json.dumps([_brief(each) for each in known.values()])[:2000]
        raise WaitTimeout(f"timed out after {timeout_s:g} s waiting for {what or path}; last seen at {path}: {seen}")


def is_ready(body: Object | None) -> bool:
    """Whether an object (a Pod, a Node, a route) has the condition Ready, and it is True; there may be none."""
    conditions = (body or {}).get("status", {}).get("conditions") or []
    return any(each["type"] == "Ready" and each["status"] == "True" for each in conditions)


def _left(deadline: float | None) -> float:
    return float("inf") if deadline is None else deadline - time.monotonic()


def _decoded(what: str, status: int, text: bytes) -> Object:
    try:
        body: Object = json.loads(text)
    except ValueError:
        body = {"message": text.decode(errors="replace")}
    if status >= http.client.BAD_REQUEST:
        raise ApiError(what, status, body)
    return body


def _event(path: str, event: Object) -> tuple[str, Object]:
    if event["type"] == "ERROR":
        raise ApiError(f"watch {path}", int(event["object"].get("code", 500)), event["object"])
    return event["type"], event["object"]


def _key(body: Object) -> str:
    return f"{body['metadata'].get('namespace', '')}/{body['metadata']['name']}"


def _remember(known: dict[str, Object], kind: str, body: Object) -> None:
    if kind == "DELETED":
        known.pop(_key(body), None)
    else:
        known[_key(body)] = body


def _differences(known: dict[str, Object], answer: Object) -> Iterator[tuple[str, Object]]:
    """What a list says that is not yet known; brings `known` up to date."""
    kind = str(answer.get("kind", "")).removesuffix("List")
    items = {_key(item): {"apiVersion": answer.get("apiVersion"), "kind": kind, **item} for item in answer["items"]}
    for key in known.keys() - items.keys():
        yield "DELETED", known.pop(key)
    for key, item in items.items():
        before = known.get(key)
        if before is None or before["metadata"]["resourceVersion"] != item["metadata"]["resourceVersion"]:
            known[key] = item
            yield ("ADDED" if before is None else "MODIFIED"), item


def _split(path: str) -> tuple[str, str]:
    """A collection's path and an object's name, or ``""`` for a collection."""
    parts = path.strip("/").split("/")
    rest = parts[2:] if parts[0] == "api" else parts[3:]
    in_namespace = rest[0] == "namespaces" and len(rest) > 2
    depth = len(rest) - 2 if in_namespace else len(rest)
    return (path, "") if depth == 1 else (path.rpartition("/")[0], parts[-1])


def _brief(body: Object) -> Object:
    return {
        "name": _key(body),
        "annotations": body["metadata"].get("annotations", {}),
        "status": body.get("status", body.get("spec")),
    }
