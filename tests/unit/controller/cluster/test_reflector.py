"""The watch loop against a server that breaks off, forgets, refuses and sends nonsense, as a real one seldom does."""

from __future__ import annotations

import json
import queue
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

import kubernetes
import pytest
import urllib3

from controller.choice.objects import Pod
from controller.cluster.kube import Session
from controller.cluster.reflector import Listed, Reflector, Seen, Trouble

SOON_S = 5.0


def body(name, version, **fields):
    return {"metadata": {"name": name, "namespace": "n", "uid": name, "resourceVersion": str(version)}, **fields}


def listed(*items, version=10, more=""):
    return "list", {"metadata": {"resourceVersion": str(version), "continue": more}, "items": list(items)}


def watched(*events, cut=b""):
    lines = [json.dumps({"type": kind, "object": each}).encode() + b"\n" for kind, each in events]
    return "watch", (lines, cut)


def refused(code, reason="Forbidden"):
    return "status", (code, {"kind": "Status", "code": code, "reason": reason, "message": "no"})


GONE = {"kind": "Status", "code": 410, "reason": "Expired", "message": "too old resource version"}


class Script(BaseHTTPRequestHandler):
    """Answers as the test has written it down, one answer for each request, and then keeps silent."""

    protocol_version = "HTTP/1.1"

    def do_GET(self):
        server = self.server
        server.asked.put({key: values[0] for key, values in parse_qs(urlsplit(self.path).query).items()})
        try:
            sort, what = server.answers.get_nowait()
        except queue.Empty:
            server.over.wait(SOON_S)
            self.close_connection = True
            return
        if sort == "watch":
            self._watch(*what)
            return
        code, found = what if sort == "status" else (200, what)
        raw = json.dumps(found).encode()
        self.send_response(code)
        self.send_header("Content-Length", str(len(raw)))
        self.end_headers()
        self.wfile.write(raw)

    def _watch(self, lines, cut):
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for line in [*lines, cut] if cut else lines:
            self.wfile.write(f"{len(line):x}\r\n".encode() + line + b"\r\n")
        if cut:
            self.close_connection = True
        else:
            self.wfile.write(b"0\r\n\r\n")

    def log_message(self, *_):
        return


@pytest.fixture
def follow():
    """Start a reflector of Pods against a script; gives the inbox and what the server was asked."""
    undo = []

    def start(*answers):
        server = ThreadingHTTPServer(("127.0.0.1", 0), Script)
        server.daemon_threads, server.block_on_close = True, False
        server.answers, server.asked, server.over = queue.SimpleQueue(), queue.SimpleQueue(), threading.Event()
        for each in answers:
            server.answers.put(each)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        configuration = kubernetes.client.Configuration(host=f"http://127.0.0.1:{server.server_port}")
        configuration.retries = urllib3.Retry(0, redirect=0)
        inbox, stop = queue.SimpleQueue(), threading.Event()
        session = Session(configuration)
        thread = threading.Thread(target=Reflector(Pod, session, inbox.put, stop).run, daemon=True)
        thread.start()

        def end():
            stop.set()
            server.over.set()
            server.shutdown()
            server.server_close()
            thread.join(SOON_S)
            assert not thread.is_alive()

        undo.append(end)
        return inbox, server.asked

    yield start
    for each in undo:
        each()


def take(inbox, count):
    """The next items, less the notes that all is well again."""
    found = []
    while len(found) < count:
        item = inbox.get(timeout=SOON_S)
        if item != Trouble("/api/v1/pods", ""):
            found.append(item)
    return found


def test_pages_then_events_then_on_from_the_last_bookmark(follow):
    inbox, asked = follow(
        listed(body("a", 1), more="next"),
        listed(body("b", 2), version=10),
        watched(("MODIFIED", body("a", 11)), ("BOOKMARK", {"metadata": {"resourceVersion": "15"}})),
        watched(("DELETED", body("b", 16))),
    )
    all_, changed, gone = take(inbox, 3)
    assert isinstance(all_, Listed)
    assert ([each.name for each in all_.items], all_.version) == (["a", "b"], "10")
    assert (changed.item.name, changed.gone) == ("a", False)
    assert (gone.item.name, gone.gone) == ("b", True)
    queries = [asked.get(timeout=SOON_S) for _ in range(4)]
    assert [each.get("continue") for each in queries[:2]] == [None, "next"]
    assert [each["resourceVersion"] for each in queries[2:]] == ["10", "15"]
    assert all(
        each["allowWatchBookmarks"] == "true" and 45 <= int(each["timeoutSeconds"]) <= 60 for each in queries[2:]
    )


@pytest.mark.parametrize(
    "answer",
    [pytest.param(watched(("ERROR", GONE)), id="in-the-stream"), pytest.param(refused(410, "Expired"), id="at-once")],
)
def test_too_old_a_version_means_a_new_list(follow, answer):
    inbox, _ = follow(listed(body("a", 1)), answer, listed(body("b", 20), version=20))
    first, second = take(inbox, 2)
    assert [each.name for each in first.items] == ["a"]
    assert [each.name for each in second.items] == ["b"]


def test_a_watch_cut_in_the_middle_of_a_line_goes_on_from_the_last_whole_one(follow):
    inbox, asked = follow(
        listed(version=10),
        watched(("ADDED", body("a", 11)), cut=b'{"type":"ADDED","object":{"metadata":{"na'),
        watched(("ADDED", body("b", 12))),
    )
    found = take(inbox, 4)
    assert [each.item.name for each in found if isinstance(each, Seen)] == ["a", "b"]
    assert any(isinstance(each, Trouble) and "no answer" in each.text for each in found)
    assert [asked.get(timeout=SOON_S).get("resourceVersion") for _ in range(3)] == [None, "10", "11"]


def test_an_object_that_cannot_be_read_is_named_and_stops_no_other(follow):
    bad = body("bad", 3, spec={"nodeName": 7})
    inbox, _ = follow(listed(bad, body("a", 1)), watched(("ADDED", bad), ("ADDED", body("b", 12))))
    found = take(inbox, 4)
    troubles = [each for each in found if isinstance(each, Trouble)]
    assert [each.subject for each in troubles] == ["Pod n/bad"] * 2
    assert "spec.nodeName: Expected `str`, got `int`" in troubles[0].text
    assert [each.name for each in found[1].items] == ["a"]
    assert found[3].item.name == "b"


@pytest.mark.parametrize(
    ("answer", "advice"),
    [
        pytest.param(refused(403), "apply deploy/base/rbac.yaml", id="forbidden"),
        pytest.param(refused(404, "NotFound"), "install the CRDs", id="not-installed"),
        pytest.param(refused(503, "ServiceUnavailable"), "503: no", id="not-ready"),
        pytest.param(("list", "nonsense"), "not a list", id="nonsense"),
    ],
)
def test_a_list_that_fails_says_what_to_do_and_is_tried_again(follow, answer, advice):
    inbox, _ = follow(answer, listed(body("a", 1)))
    trouble, all_ = take(inbox, 2)
    assert advice in trouble.text
    assert [each.name for each in all_.items] == ["a"]
    assert inbox.get(timeout=SOON_S) == Trouble("/api/v1/pods", "")
