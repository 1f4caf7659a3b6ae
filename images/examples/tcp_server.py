"""Waits for its address, then serves there: `tcp_server.py ADDRESS`, HTTP on port 8080."""

from __future__ import annotations

import errno
import sys
import time

from hello import PORT, Hello, Server


def listening(address: str) -> Server:
    """Listen on an address as soon as the Pod has it."""
    while True:
        try:
            return Server((address, PORT), Hello)
        except OSError as error:
            if error.errno != errno.EADDRNOTAVAIL:
                raise
            time.sleep(0.1)


if __name__ == "__main__":
    listening(sys.argv[1]).serve_forever()
