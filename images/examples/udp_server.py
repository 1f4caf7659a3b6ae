"""Answers datagrams from one address that need not be there yet: `udp_server.py ADDRESS`, port 9000.

IP_FREEBIND lets a socket bind an address that the Pod does not have. What it answers comes from that address, as
clients expect: a socket bound to no address would answer from the interface's first one.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys

PORT = 9000
IP_FREEBIND = 15  # <linux/in.h>; the socket module has no name for it


def main(address: str) -> None:
    """Answer until SIGTERM."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.setsockopt(socket.IPPROTO_IP, IP_FREEBIND, 1)
        server.bind((address, PORT))
        while True:
            data, client = server.recvfrom(2048)
            with contextlib.suppress(OSError):  # the address has gone on meanwhile: its next holder answers
                server.sendto(f"{os.uname().nodename} got {data.decode(errors='replace')}".encode(), client)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    main(sys.argv[1])
