"""The controller's connections: one that died silently is noticed."""

import contextlib
import datetime as dt
import json
import ssl
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from kubernetes.config import incluster_config

from controller.cluster.kube import Kube
from controller.errors import Unreachable
from controller.injection.certificate import CA_CERT, CERT, KEY, self_signed

KEEPALIVE = "02"
"""What /proc/net/tcp says of a connection whose next timer is the keep-alive's (net/ipv4/tcp_ipv4.c)."""


class Answers(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self.server.peer = self.client_address
        self.send_response(200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, *_):
        """Nothing is logged."""


@pytest.fixture
def server():
    with ThreadingHTTPServer(("127.0.0.1", 0), Answers) as made:
        made.daemon_threads = True  # a connection that a failed test leaves open is waited for by nobody
        thread = threading.Thread(target=made.serve_forever)
        thread.start()
        yield made
        made.shutdown()
        thread.join()


def timer_of(port):
    """The kind of timer that runs for the connection from a local port, and in how many seconds it is due."""
    for line in Path("/proc/self/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        if int(fields[1].partition(":")[2], 16) == port:
            kind, _, due = fields[5].partition(":")
            return kind, int(due, 16) / 100
    raise AssertionError(f"no connection from port {port}")


def test_a_connection_that_is_idle_is_asked_whether_it_still_lives(server, tmp_path):
    url = f"http://127.0.0.1:{server.server_address[1]}"
    config = {
        "clusters": [{"name": "c", "cluster": {"server": url}}],
        "users": [{"name": "u", "user": {"token": "t"}}],
        "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
        "current-context": "x",
    }
    file = tmp_path / "kubeconfig"
    file.write_text(json.dumps(config))
    session = Kube(file).session()
    assert session.request("GET", "/readyz") == b"{}"
    kind, due_s = timer_of(server.peer[1])
    assert kind == KEEPALIVE
    assert due_s <= 5
    session._pool.clear()


def test_after_a_rotation_of_the_authority_a_new_connection_trusts_what_the_file_says_now(tmp_path, monkeypatch):
    """In a Pod, where the kubelet writes ca.crt anew."""
    old, new = (self_signed(("localhost",), dt.datetime.now(dt.UTC)) for _ in range(2))
    authority, token = tmp_path / "ca.crt", tmp_path / "token"
    authority.write_bytes(old[CA_CERT])
    token.write_text("t")
    monkeypatch.setattr(incluster_config, "SERVICE_CERT_FILENAME", str(authority))
    monkeypatch.setattr(incluster_config, "SERVICE_TOKEN_FILENAME", str(token))
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "localhost")
    with serving(old, tmp_path) as port:
        monkeypatch.setenv("KUBERNETES_SERVICE_PORT", str(port))
        session = Kube().session()
        assert session.request("GET", "/readyz") == b"{}"
    with serving(new, tmp_path, port):
        with pytest.raises(Unreachable, match="certificate verify failed"):
            session.request("GET", "/readyz")
        authority.write_bytes(old[CA_CERT] + new[CA_CERT])
        assert session.request("GET", "/readyz") == b"{}"


@contextlib.contextmanager
def serving(data, folder, port=0):
    """An API server with a certificate; each answer ends its connection."""
    for name in (CERT, KEY):
        (folder / name).write_bytes(data[name])
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(folder / CERT, folder / KEY)
    with ThreadingHTTPServer(("localhost", port), Closes) as made:
        made.daemon_threads = True
        made.socket = tls.wrap_socket(made.socket, server_side=True)
        thread = threading.Thread(target=made.serve_forever)
        thread.start()
        yield made.server_address[1]
        made.shutdown()
        thread.join()


class Closes(Answers):
    protocol_version = "HTTP/1.0"
