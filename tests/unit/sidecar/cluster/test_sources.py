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


def found(version, **metadata):
    body = json.dumps({"metadata": {"resourceVersion": str(version), **metadata}}).encode()
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)


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


async def follow(make, watches, read=None):
    """Run a watch until the script is over; give the server."""
    server = Server(watches, read or found(1))
    listener = await asyncio.start_server(server.serve, "127.0.0.1", 0)
    api = ApiClient(f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}", tls=None, token=lambda: "t")
    task = asyncio.create_task(make(api).run())
    try:
        await asyncio.wait_for(server.over.wait(), 10)
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


def watching(watches, read=None):
    """Give what was seen, the versions that were asked for, and the log."""
    log = io.StringIO()
    seen = []

    def note(raw):
        seen.append(None if raw is None else json.loads(raw)["metadata"]["resourceVersion"])

    make = lambda api: ObjectWatch(api, "/api/v1/things", "thing", note, Journal(log), open_s=(45, 60))  # noqa: E731
    server = asyncio.run(follow(make, watches, read))
    return seen, server.versions, log.getvalue()


def test_it_goes_on_from_the_last_version():
    first = HEAD + event("ADDED", 5) + event("MODIFIED", 7) + END
    seen, versions, _ = watching([first, HEAD + event("MODIFIED", 9) + END], found(4))
    assert seen == ["4", "5", "7", "9"]
    assert versions == ["0", "7", "9"]


def test_what_the_servers_cache_has_is_not_said_again_and_never_takes_back_what_was_read():
    cached = HEAD + event("ADDED", 5) + event("MODIFIED", 7) + event("MODIFIED", 8) + END
    seen, versions, _ = watching([cached], found(7))
    assert seen == ["7", "8"]
    assert versions == ["0", "8"]


def test_a_bookmark_moves_the_version_and_says_nothing():
    seen, versions, _ = watching([HEAD + event("ADDED", 5) + event("BOOKMARK", 80) + END], found(5))
    assert seen == ["5"]
    assert versions == ["0", "80"]


@pytest.mark.parametrize("gone", [HEAD + error(410) + END, status(410)])
def test_gone_means_from_the_beginning(gone):
    script = [HEAD + event("ADDED", 5) + END, gone, HEAD + event("ADDED", 6) + END]
    seen, versions, _ = watching(script, [found(5), found(6)])
    assert seen == ["5", "6"]
    assert versions == ["0", "5", "0", "6"]


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
def test_after_a_fault_it_reads_and_goes_on(fault):
    cut = fault + b"" if fault.endswith(END) or b"Content-Length" in fault else fault + b"\r\nX"
    script = [HEAD + event("ADDED", 5) + END, cut, HEAD + event("ADDED", 6) + event("MODIFIED", 8) + END]
    seen, versions, log = watching(script, [found(5), found(7)])
    assert seen == ["5", "7", "8"], "what the cache has is older than what was read"
    assert versions == ["0", "5", "0", "8"]
    assert "retrying" in log


def test_a_version_from_before_etcd_was_restored_is_given_up():
    script = [HEAD + event("ADDED", 500) + END, status(504), HEAD + event("ADDED", 20) + event("MODIFIED", 21) + END]
    seen, versions, _ = watching(script, [found(500), found(20)])
    assert seen == ["500", "20", "21"]
    assert versions == ["0", "500", "0", "21"]


def test_a_fault_that_goes_on_is_said_once():
    forbidden = [status(403)] * 5
    _, versions, log = watching([*forbidden, HEAD + event("ADDED", 5) + END])
    assert versions == ["0"] * 6 + ["5"]
    assert log.count("\n") == 1, log
    assert "watch of /api/v1/things: 403" in log


def test_deleted_is_nothing():
    seen, _, _ = watching([HEAD + event("ADDED", 5) + event("DELETED", 6) + event("ADDED", 7) + END], found(5))
    assert seen == ["5", None, "7"]


def test_an_absence_is_asked_for_once_and_said():
    seen, versions, _ = watching([], status(404))
    assert seen == [None]
    assert versions == ["0"]


def test_an_absence_is_asked_for_until_there_is_an_answer():
    cut = b"nonsense\r\n\r\n"
    seen, versions, _ = watching([], [status(500), status(429), cut, status(404)])
    assert seen == [None]
    assert versions == ["0"], "watched once it is known whether there is an object"


def assigned(pod, later=()):
    log, seen = io.StringIO(), []

    async def run():
        make = lambda api: assignment_watch(api, identity, seen.append, Journal(log))  # noqa: E731
        await follow(make, [HEAD + event("ADDED", 1, **pod) + b"".join(later) + END], found(1, **pod))

    identity = Identity("thing", "default", ME.uid, ME.server)
    asyncio.run(run())
    return seen, log.getvalue()


ENTRY = '{"route":"r","lease":"holdfast-r","handover":"Exclusive","addresses":[{"address":"34.123.10.1/32"}]}'
GOOD = {ASSIGNMENT: '{"v":1,"routes":[' + ENTRY + "]}"}


def test_the_assignment_is_read_and_its_absence_is_an_empty_one():
    seen, _ = assigned({"uid": ME.uid}, [event("MODIFIED", 2, uid=ME.uid, annotations=GOOD)])
    assert seen[0] == Assignment()
    assert [entry.route for entry in seen[1].routes] == ["r"]


@pytest.mark.parametrize(
    ("text", "told"),
    [("{", "truncated"), ('{"v":2,"routes":[]}', "version 2"), ('{"v":1,"routes":[{"route":7}]}', "routes[0].route")],
)
def test_a_damaged_assignment_is_told_and_changes_nothing(text, told):
    damaged = event("MODIFIED", 2, uid=ME.uid, annotations={ASSIGNMENT: text})
    seen, log = assigned({"uid": ME.uid, "annotations": GOOD}, [damaged])
    assert [entry.route for assignment in seen for entry in assignment.routes] == ["r"]
    assert told in log
    assert "Pod default/thing annotation holdfast.dev/assignment" in log


def test_a_namesake_is_not_this_pod():
    seen, _ = assigned({"uid": "another", "annotations": GOOD})
    assert seen == [Assignment()]


def test_a_lease_that_cannot_be_read_is_passed_over():
    log, seen = io.StringIO(), []
    fine = {"namespace": "default", "name": "thing", "uid": "u"}

    async def run():
        make = lambda api: lease_watch(api, "default", "thing", seen.append, Journal(log))  # noqa: E731
        await follow(make, [HEAD + event("MODIFIED", 2, **fine) + END], found(1, name="thing"))

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
