"""`python -m lab.world.ping ADDRESS [SECONDS]`: ask once for an echo; exit code 0 when it is answered in time, else 1.

For tests in network namespaces, so that they need no `ping` on the machine. Needs a raw socket.
"""

from __future__ import annotations

import os
import socket
import struct
import sys
import time

_REQUEST, _REPLY = 8, 0
_AGAIN_S = 0.2


def answered(address: str, within_s: float) -> bool:
    """Whether an address answers; the question is asked again now and then."""
    identity = os.getpid() & 0xFFFF
    checksum = 0xFFFF - sum(divmod((_REQUEST << 8) + identity + 1, 0x10000))
    head = struct.pack("!BBHHH", _REQUEST, 0, checksum, identity, 1)
    deadline = time.monotonic() + within_s
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP) as raw:
        while (left_s := deadline - time.monotonic()) > 0:
            try:
                raw.sendto(head, (address, 0))
                raw.settimeout(min(left_s, _AGAIN_S))
                if _is_reply(raw.recv(2048), identity):
                    return True
            except OSError:  # no answer yet, or no way there
                continue
    return False


def _is_reply(packet: bytes, identity: int) -> bool:
    start = (packet[0] & 0x0F) * 4
    kind, _, _, theirs = struct.unpack_from("!BBHH", packet, start)
    return (kind, theirs) == (_REPLY, identity)


if __name__ == "__main__":
    sys.exit(0 if answered(sys.argv[1], float(sys.argv[2]) if len(sys.argv) > 2 else 3.0) else 1)
