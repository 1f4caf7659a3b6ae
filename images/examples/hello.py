"""Says hello by HTTP on port 8080: `hello.py` on every address that the Pod has or gets, `hello.py ADDRESS` on one."""

from __future__ import annotations

import os
import signal
import sys

# before all else: process 1 of a container is deaf to a SIGTERM that comes sooner
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))

from http.server import BaseHTTPRequestHandler  # noqa: E402
from socketserver import ThreadingTCPServer  # noqa: E402

PORT = 8080


class Server(ThreadingTCPServer):
    """Unlike HTTPServer it asks no DNS server for its own name."""

    allow_reuse_address = True
    daemon_threads = True


class Hello(BaseHTTPRequestHandler):
    """Answers every GET with one line."""

    def text(self) -> str:
        """What it says."""
        return f"Hello from {os.uname().nodename}"

    def do_GET(self) -> None:
        """Say it."""
        body = f"{self.text()}\n".encode()
        self.send_response(200)
        self.send_header("Content-Type", "text/plain")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing of probes."""


if __name__ == "__main__":
    Server(("".join(sys.argv[1:2]), PORT), Hello).serve_forever()
