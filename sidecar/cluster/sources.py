"""Source `watch`: this Pod's assignment and its routes' Leases, each by a watch that never gives up.

A source calls back with what it has seen; it may say the same thing twice and skip versions in between, since those who
listen compare states and do not count events. Source `downward` (`sidecar.cluster.downward`) calls back alike.
"""

from __future__ import annotations

import contextlib
import random
import time
from typing import TYPE_CHECKING, Final
from urllib.parse import quote

import msgspec

from contract.assignment import Assignment, decode_assignment
from contract.errors import ContractError
from contract.lease import LeaseView, decode_lease
from contract.names import ASSIGNMENT
from sidecar.errors import ApiError, Gone, NotFound

if TYPE_CHECKING:
    from collections.abc import Callable

    from sidecar.cluster.client import ApiClient
    from sidecar.cluster.identity import Identity
    from sidecar.journal import Journal

LEASE_S: Final = (45, 60)
"""How long the server is asked to keep a watch open; random, so that a thousand Pods do not come back at once. Whoever
waits for a Lease or holds it hears of it by other requests as well."""
ASSIGNMENT_S: Final = (8, 12)
"""The same for the assignment, of which nothing else tells: so long may a connection be deaf that something between has
forgotten, and the margin more."""
READ_MARGIN_S: Final = 2.0
READ_S: Final = 3.0
"""How long the answer is waited for that says what the object is now."""
BACKOFF_FIRST_S: Final = 0.1
BACKOFF_MAX_S: Final = 5.0

SHORT_S: Final = 1.0
"""A watch that the server ends sooner than this counts as a failure, so that no server can make us spin."""


class _Meta(msgspec.Struct, rename="camel"):
    uid: str = ""
    resource_version: str = ""
    annotations: dict[str, str] = {}


class _Object(msgspec.Struct):
    metadata: _Meta


class ObjectWatch:
    """One object, by name, for as long as this runs.

    It is read first, and then watched from what the server's cache has (version 0). A watch without a version would be
    one request less, but the server answers it with 500 where its etcd has no progress requests (before 3.4.31 and
    3.5.13). A watch from the version that was read would end with 410 where the object has not changed for long.

    Args:
        collection: path of its collection, as ``/api/v1/namespaces/default/pods``.
        seen: called with the object's JSON, or None when there is none.
        open_s: how long the server is asked to keep each watch open: at least, at most.
    """

    def __init__(
        self,
        api: ApiClient,
        collection: str,
        name: str,
        seen: Callable[[bytes | None], None],
        journal: Journal,
        *,
        open_s: tuple[int, int],
    ) -> None:
        self._open_s = open_s
        self._api = api
        self._collection = collection
        self._name = name
        self._seen = seen
        self._journal = journal
        self._version = ""
        self._told = 0
        self._failures = 0

    async def run(self) -> None:
        """Watch for ever; ends only by cancellation."""
        subject = f"watch of {self._collection.rsplit('/', 1)[1]} {self._name}"
        while True:
            began_s = time.monotonic()
            try:
                await self._watch_once()
                if time.monotonic() - began_s >= SHORT_S:
                    continue  # the server's own time-out: on from the last version, at once
            except Gone:
                self._version = ""
                if self._failures == 0:
                    self._failures = 1
                    continue
            except ApiError as error:
                # the version may be of no use any more, as one from before etcd was restored: only a read can tell
                self._version = ""
                self._journal.tell(subject, f"{error}; retrying")
            self._failures += 1
            # jitter over the whole pause: whoever lost the same server does not return in step
            pause_s = min(BACKOFF_MAX_S, BACKOFF_FIRST_S * 2 ** min(self._failures - 1, 10))
            await self._api.pause(pause_s * random.uniform(0.5, 1.0))  # noqa: S311 - not for secrets

    async def _watch_once(self) -> None:
        if not self._version:
            await self._read()
        timeout_s = random.randint(*self._open_s)  # noqa: S311 - not for secrets
        query = f"watch=true&allowWatchBookmarks=true&timeoutSeconds={timeout_s}"
        query += f"&fieldSelector=metadata.name%3D{quote(self._name)}&resourceVersion={quote(self._version or '0')}"
        events = self._api.watch(f"{self._collection}?{query}", timeout_s=timeout_s + READ_MARGIN_S)
        async with contextlib.aclosing(events):
            async for kind, raw in events:
                self._take(kind, raw)

    async def _read(self) -> None:
        try:
            raw = await self._api.request("GET", f"{self._collection}/{quote(self._name)}", timeout_s=READ_S)
        except NotFound:
            self._told = 0
            self._seen(None)
        else:
            self._told = int(_version(raw))
            self._seen(raw)

    def _take(self, kind: str, raw: bytes) -> None:
        self._failures = 0
        self._version = _version(raw)
        # the server's cache may be behind what was read, and it begins with what it has
        if kind == "BOOKMARK" or int(self._version) <= self._told:
            return
        self._told = int(self._version)
        self._seen(None if kind == "DELETED" else raw)


def _version(raw: bytes) -> str:
    """The object's resourceVersion: a number, and of one resource's the later is the greater (KEP-5504)."""
    return msgspec.json.decode(raw, type=_Object).metadata.resource_version


def lease_watch(
    api: ApiClient, namespace: str, name: str, seen: Callable[[LeaseView | None], None], journal: Journal
) -> ObjectWatch:
    """Watch a route's Lease."""
    where = f"Lease {namespace}/{name}"

    def decode(raw: bytes | None) -> None:
        try:
            seen(None if raw is None else decode_lease(raw, where))
        except ContractError as error:
            journal.tell(where, f"{error}; this version is ignored")

    collection = f"/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases"
    return ObjectWatch(api, collection, name, decode, journal, open_s=LEASE_S)


def assignment_watch(api: ApiClient, me: Identity, seen: Callable[[Assignment], None], journal: Journal) -> ObjectWatch:
    """Watch the assignment on this Pod; a damaged one changes nothing but the log."""
    where = f"Pod {me.namespace}/{me.name} annotation {ASSIGNMENT}"

    def decode(raw: bytes | None) -> None:
        meta = msgspec.json.decode(raw, type=_Object).metadata if raw else _Meta()
        if meta.uid != me.uid:
            # deleted, or a new Pod of the same name: nothing is ours to hold any more
            seen(Assignment())
            return
        text = meta.annotations.get(ASSIGNMENT, "")
        try:
            assignment = decode_assignment(text, where) if text else Assignment()
        except ContractError as error:
            journal.tell("assignment", f"{error}; the previous assignment stays in effect")
            return
        seen(assignment)

    collection = f"/api/v1/namespaces/{me.namespace}/pods"
    return ObjectWatch(api, collection, me.name, decode, journal, open_s=ASSIGNMENT_S)
