"""The source `watch` against a local server: what it asks for, what it says, and how it comes back."""

import asyncio
import contextlib
import io
import json
import re

import pytest

from contract.assignment import Assignment
from contract.names import ASSIGNMENT
from sidecar.cluster import sources
from sidecar.cluster.client import ApiClient
from sidecar.cluster.identity import Identity
from sidecar.cluster.sources import ObjectWatch, assignment_watch, lease_watch
from sidecar.journal import Journal

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"
ME = Identity("web-0", "default", "uid-1", "https://unused")
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
END = b"0\r\n\r\n"


def event(kind, version, **metadata):
    body = {"metadata": {"resourceVersion": str(version), **metadata}}
    line = json.dumps({"type": kind, "object": body}).encode() + b"\n"
    return b"%x\r\n%s\r\n" % (len(line), line)


def error(code):
    line = json.dumps({"type": "ERROR", "object": {"code": code, "message": "too old"}}).encode() + b"\n"
    return b"%x\r\n%s\r\n" % (len(line), line)


def status(code):
    body = json.dumps({"code": code, "message": "no"}).encode()
    return b"HTTP/1.1 %d X\r\nContent-Length: %d\r\n\r\n%s" % (code, len(body), body)


class Server:
    """Answers watches and reads from scripts; when these are over, watches stay open and the last read is repeated."""

    def __init__(self, watches, read):
        self.watches = list(watches)
        self.reads = [read] if isinstance(read, bytes) else list(read)
        self.versions = []
        self.over = asyncio.Event()
        self.connections = []

    async def serve(self, reader, writer):
        self.connections.append(asyncio.current_task())
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                if "watch=true" not in head:
                    writer.write(self.reads[0])
                    self.reads = self.reads[1:] or self.reads
                    continue
                assert "fieldSelector=metadata.name%3Dthing" in head
                assert "allowWatchBookmarks=true" in head
                found = re.search(r"resourceVersion=(\w+)", head)
                self.versions.append(found[1] if found else None)
                if not self.watches:
                    self.over.set()
                    writer.write(HEAD)
                    continue
                writer.write(self.watches.pop(0))
        writer.close()


async def follow(make, watches, read=OK, until=None):
    """Run a watch until the script is over; give the server."""
    server = Server(watches, read)
    listener = await asyncio.start_server(server.serve, "127.0.0.1", 0)
    api = ApiClient(f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}", ca_file=None, token=lambda: "t")
    task = asyncio.create_task(make(api).run())
    try:
        await asyncio.wait_for((until or server.over).wait(), 10)
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        api.close()
        listener.close()
        await asyncio.gather(*server.connections)
    return server


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch):
    monkeypatch.setattr(sources, "BACKOFF_FIRST_S", 0.001)
    monkeypatch.setattr(sources, "BACKOFF_MAX_S", 0.01)


def watching(watches, read=OK, until=None):
    """Give what was seen, the versions that were asked for, and the log."""
    log = io.StringIO()
    seen = []

    async def run():
        def note(raw):
            seen.append(None if raw is None else json.loads(raw)["metadata"]["resourceVersion"])
            if until is not None and len(seen) == until:
                enough.set()

        enough = asyncio.Event()
        make = lambda api: ObjectWatch(api, "/api/v1/things", "thing", note, Journal(log))  # noqa: E731
        return await follow(make, watches, read, enough if until else None)

    server = asyncio.run(run())
    return seen, server.versions, log.getvalue()


def test_it_goes_on_from_the_last_version():
    first = HEAD + event("ADDED", 5) + event("MODIFIED", 7) + END
    seen, versions, _ = watching([first, HEAD + event("MODIFIED", 9) + END])
    assert seen == ["5", "7", "9"]
    assert versions == [None, "7", "9"]


def test_a_bookmark_moves_the_version_and_says_nothing():
    seen, versions, _ = watching([HEAD + event("ADDED", 5) + event("BOOKMARK", 80) + END])
    assert seen == ["5"]
    assert versions == [None, "80"]


@pytest.mark.parametrize("gone", [HEAD + error(410) + END, status(410)])
def test_gone_means_from_the_beginning(gone):
    seen, versions, _ = watching([HEAD + event("ADDED", 5) + END, gone, HEAD + event("ADDED", 6) + END])
    assert seen == ["5", "6"]
    assert versions == [None, "5", None, "6"]


@pytest.mark.parametrize(
    "fault",
    [
        status(500),
        status(403),
        status(429),
        HEAD + b"5\r\n<htm\n\r\n" + END,
        HEAD + event("MODIFIED", 6)[:-20],
        b"nonsense\r\n\r\n",
    ],
)
def test_after_a_fault_it_comes_back_where_it_was(fault):
    cut = fault + b"" if fault.endswith(END) or b"Content-Length" in fault else fault + b"\r\nX"
    seen, versions, log = watching([HEAD + event("ADDED", 5) + END, cut, HEAD + event("MODIFIED", 8) + END])
    assert seen == ["5", "8"]
    assert versions == [None, "5", "5", "8"]
    assert "retrying" in log


def test_a_fault_that_goes_on_is_said_once():
    forbidden = [status(403)] * 5
    _, versions, log = watching([*forbidden, HEAD + event("ADDED", 5) + END])
    assert versions == [None] * 6 + ["5"]
    assert log.count("\n") == 1, log
    assert "watch of /api/v1/things: 403" in log


def test_deleted_is_nothing():
    seen, _, _ = watching([HEAD + event("ADDED", 5) + event("DELETED", 6) + event("ADDED", 7) + END])
    assert seen == ["5", None, "7"]


def test_an_absence_is_asked_for_once_and_said():
    seen, versions, _ = watching([], read=status(404), until=1)
    assert seen == [None]
    assert versions == [None]


def test_an_absence_is_asked_for_until_there_is_an_answer():
    cut = b"nonsense\r\n\r\n"
    seen, versions, _ = watching([], read=[status(500), status(429), cut, status(404)], until=1)
    assert seen == [None]
    assert versions == [None], "the watch was well all the time"


def assigned(pods):
    log, seen = io.StringIO(), []

    async def run():
        make = lambda api: assignment_watch(api, identity, seen.append, Journal(log))  # noqa: E731
        await follow(make, [HEAD + b"".join(pods) + END])

    identity = Identity("thing", "default", ME.uid, ME.server)
    asyncio.run(run())
    return seen, log.getvalue()


ENTRY = '{"route":"r","lease":"holdfast-r","handover":"Exclusive","addresses":[{"address":"34.123.10.1/32"}]}'
GOOD = {ASSIGNMENT: '{"v":1,"routes":[' + ENTRY + "]}"}


def test_the_assignment_is_read_and_its_absence_is_an_empty_one():
    seen, _ = assigned([event("ADDED", 1, uid=ME.uid), event("MODIFIED", 2, uid=ME.uid, annotations=GOOD)])
    assert seen[0] == Assignment()
    assert [entry.route for entry in seen[1].routes] == ["r"]


@pytest.mark.parametrize(
    ("text", "told"),
    [("{", "truncated"), ('{"v":2,"routes":[]}', "version 2"), ('{"v":1,"routes":[{"route":7}]}', "routes[0].route")],
)
def test_a_damaged_assignment_is_told_and_changes_nothing(text, told):
    damaged = event("MODIFIED", 2, uid=ME.uid, annotations={ASSIGNMENT: text})
    seen, log = assigned([event("ADDED", 1, uid=ME.uid, annotations=GOOD), damaged])
    assert len(seen) == 1
    assert told in log
    assert "Pod default/thing annotation holdfast.dev/assignment" in log


def test_a_namesake_is_not_this_pod():
    seen, _ = assigned([event("ADDED", 1, uid="another", annotations=GOOD)])
    assert seen == [Assignment()]


def test_a_lease_that_cannot_be_read_is_passed_over():
    log, seen = io.StringIO(), []
    fine = {"namespace": "default", "name": "thing", "uid": "u"}

    async def run():
        make = lambda api: lease_watch(api, "default", "thing", seen.append, Journal(log))  # noqa: E731
        await follow(make, [HEAD + event("ADDED", 1, name="thing") + event("MODIFIED", 2, **fine) + END])

    asyncio.run(run())
    assert [view.version for view in seen] == ["2"]
    assert "this version is ignored" in log.getvalue()


def test_the_journal_says_a_thing_once():
    log = io.StringIO()
    journal = Journal(log)
    for sentence in ("up", "up", "down", "up"):
        journal.tell("link", sentence)
    journal.forget("link")
    journal.tell("link", "up")
    lines = [json.loads(line) for line in log.getvalue().splitlines()]
    assert [line["message"] for line in lines] == ["up", "down", "up", "up"]
    assert set(lines[0]) == {"time", "subject", "message"}
