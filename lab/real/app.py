"""The app of the images that real nodes run: answers HTTP on port 8080 of every address, `/healthz` for probes.

SIGUSR1 makes it fail, SIGUSR2 heals it, SIGTERM ends it. It stands in the image by itself, and so imports nothing of
ours; the lab's played nodes have `lab.world.app`.
"""

from __future__ import annotations

import os
import signal
import sys

# before all else: process 1 of a container is deaf to a SIGTERM that comes sooner, and then has 30 s to live
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))

from http import HTTPStatus  # noqa: E402
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer  # noqa: E402

PORT = 8080
_failing = False


class _Answer(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        """Say who answers, or that this app fails."""
        bad = _failing and self.path == "/healthz"
        body = f"{'failing' if bad else 'Hello'} from {os.uname().nodename}\n".encode()
        self.send_response(HTTPStatus.SERVICE_UNAVAILABLE if bad else HTTPStatus.OK)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def _set(*, failing: bool) -> None:
    global _failing  # noqa: PLW0603 - a signal's handler has nothing else to tell
    _failing = failing


def main() -> None:
    """Answer until SIGTERM."""
    signal.signal(signal.SIGUSR1, lambda *_: _set(failing=True))
    signal.signal(signal.SIGUSR2, lambda *_: _set(failing=False))
    ThreadingHTTPServer(("", PORT), _Answer).serve_forever()


if __name__ == "__main__":
    main()
