"""How late does the lifetime of an address end it, where the kernel has no deadline rules, and beside them?

Addresses with lifetimes that the agent would choose, at all phases of a second, on an interface of a namespace; when
each goes is told by the kernel's own notification. Lateness against the lifetime is the kernel's own (check_lifetime in
net/ipv4/devinet.c rounds its next look up to a whole second); against the deadline it has the agent's rounding in it.
"""

from __future__ import annotations

import asyncio
import random
import select
import socket
import struct
import sys
import time

from common import cable, heading, inside, percentile
from pyroute2.netlink.rtnl import RTM_DELADDR, RTMGRP_IPV4_IFADDR
from pyroute2.netlink.rtnl.marshal import MarshalRtnl

from sidecar.clock import boottime
from sidecar.kernel.addresses import Addresses, lifetime_s

ROUNDS = int(sys.argv[1]) if len(sys.argv) > 1 else 600
APART_S = 0.02
LEFT_S = (1.2, 6.0)
_marshal = MarshalRtnl()


def listener() -> socket.socket:
    """A socket that is told of addresses that go."""
    made = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
    made.bind((0, RTMGRP_IPV4_IFADDR))
    return made


def gone(told: socket.socket, pause_s: float) -> dict[str, float]:
    """Wait so long, and give which addresses went, and when."""
    found: dict[str, float] = {}
    end_s = time.monotonic() + pause_s
    while (left_s := end_s - time.monotonic()) > 0:
        if not select.select([told], [], [], left_s)[0]:
            break
        data, at_s = told.recv(1 << 16), boottime()
        for message in _marshal.parse(data):
            if message["header"]["type"] == RTM_DELADDR:
                found[message.get_attr("IFA_LOCAL")] = at_s
    return found


def main() -> None:
    """Print the figures."""
    with cable():
        pass
    addresses: Addresses = inside("holder", Addresses)
    told: socket.socket = inside("holder", listener)
    index = asyncio.run(addresses.links())["eth0"].index
    chance = random.Random(1)  # noqa: S311 - to be repeated
    began: dict[str, tuple[float, float, int]] = {}
    went: dict[str, float] = {}
    for number in range(ROUNDS):
        address = socket.inet_ntoa(struct.pack("!I", 0xC6120000 + number + 1))
        left_s = chance.uniform(*LEFT_S)
        valid_s = lifetime_s(left_s, only_fence=number % 2 == 0)
        asyncio.run(addresses.add(address, index, valid_s))
        began[address] = (boottime(), left_s, valid_s)
        went |= gone(told, APART_S)
    went |= gone(told, LEFT_S[1] + 3)
    assert went.keys() == began.keys(), f"{len(began) - len(went)} addresses did not go"
    late: dict[str, list[float]] = {}
    for number, (address, (at_s, left_s, valid_s)) in enumerate(began.items()):
        kind = "the only fence" if number % 2 == 0 else "behind a deadline rule"
        late.setdefault("its lifetime", []).append(went[address] - at_s - valid_s)
        late.setdefault(f"the deadline, {kind}", []).append(went[address] - at_s - left_s)
    print(heading("How late an address's lifetime ends it"))
    print("| s after | least | p50 | p99 | most | n |\n|---|---|---|---|---|---|")
    for kind, values in sorted(late.items(), reverse=True):
        told_s = (
            f"{min(values):.2f} | {percentile(values, 0.5):.2f} | {percentile(values, 0.99):.2f} | {max(values):.2f}"
        )
        print(f"| {kind} | {told_s} | {len(values)} |")


if __name__ == "__main__":
    main()
