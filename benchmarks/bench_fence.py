"""How exactly does the kernel's deadline cut? For ARP, IPv4, IPv6, and frames that a process sends by AF_PACKET.

Two namespaces and three cables: the address is on the first, the second is there from the start, the third comes
anew before each deadline, and the fence is not told of it. One namespace has the address behind a fence; the other
asks for it by ARP and by ping all the time, on all cables, and the first also announces it by AF_PACKET. Told is when
the last frame of each kind came through, in microseconds after the deadline: below zero is before it, by about the
time between two frames. With ``--step-clock SECONDS`` the machine's wall clock is set forward, and then back, by so
much in the middle: for a machine that is nobody else's.
"""

from __future__ import annotations

import contextlib
import os
import socket
import struct
import subprocess
import sys
import time

from common import cable, figures, heading, inside

from lab.wiring import Links
from sidecar.kernel.fence import Fence
from sidecar.kernel.frames import arp_request

ROUNDS = 200
AHEAD_S, BEHIND_S, APART_S = 0.03, 0.01, 0.0001
ADDRESS, CLIENT = "192.0.2.10", "192.0.2.99"
ADDRESS6, CLIENT6 = "2001:db8::10", "2001:db8::99"
SECOND, LATER = "eth1", "eth2"
CABLES = {"eth0": "its interface", SECOND: "a second one", LATER: "one that came later"}
_TIMESTAMPNS = 35


def packet_socket() -> socket.socket:
    """An AF_PACKET socket for all interfaces with the kernel's timestamps."""
    made = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
    made.setsockopt(socket.SOL_SOCKET, _TIMESTAMPNS, 1)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
    made.setblocking(False)  # noqa: FBT003 - the library's own way
    return made


def echo_request(source: bytes, target: bytes) -> bytes:
    """An ICMP echo request as a frame."""
    icmp = struct.pack("!BBHHH", 8, 0, 0xFFFF - 0x0800 - 1 - 1, 1, 1)
    head = struct.pack(
        "!BBHHHBBH4s4s", 0x45, 0, 28, 1, 0, 64, 1, 0, socket.inet_aton(CLIENT), socket.inet_aton(ADDRESS)
    )
    total = sum(struct.unpack("!10H", head))
    total = (total & 0xFFFF) + (total >> 16)
    head = head[:10] + struct.pack("!H", ~((total & 0xFFFF) + (total >> 16)) & 0xFFFF) + head[12:]
    return target + source + b"\x08\0" + head + icmp


def icmp6(source: bytes, target: bytes, body: bytes) -> bytes:
    """An ICMPv6 message to the address as a frame; `body` has a checksum of zero (RFC 4443)."""
    ends = socket.inet_pton(socket.AF_INET6, CLIENT6) + socket.inet_pton(socket.AF_INET6, ADDRESS6)
    summed = ends + struct.pack("!II", len(body), 58) + body
    total = sum(struct.unpack(f"!{len(summed) // 2}H", summed))
    total = (total & 0xFFFF) + (total >> 16)
    checksum = ~((total & 0xFFFF) + (total >> 16)) & 0xFFFF
    head = struct.pack("!IHBB", 6 << 28, len(body), 58, 255) + ends
    return target + source + b"\x86\xdd" + head + body[:2] + struct.pack("!H", checksum) + body[4:]


def kind_of(frame: bytes) -> str | None:
    """What a frame that came through proves."""
    if frame[12:14] == b"\x86\xdd" and frame[22:38] == socket.inet_pton(socket.AF_INET6, ADDRESS6):
        return {129: "IPv6 (echo reply)", 136: "neighbour advertisement"}.get(frame[54])
    if frame[12:14] == b"\x08\x06" and frame[28:32] == socket.inet_aton(ADDRESS):
        return "announcement by AF_PACKET" if frame[38:42] == frame[28:32] else "ARP answer"
    if frame[12:14] == b"\x08\0" and frame[26:30] == socket.inet_aton(ADDRESS):
        return "IP (echo reply)"
    return None


def one_round(
    fence: Fence, holder: socket.socket, client: socket.socket, frames: dict[str, tuple[bytes, ...]]
) -> dict[str, float]:
    """Set a deadline, talk across it, and give when the last frame of each kind came, in us after it."""
    frames = {**frames, LATER: later()}
    deadline_ns = time.time_ns() + int(AHEAD_S * 1e9)
    fence.until({ADDRESS: "eth0", ADDRESS6: "eth0"}, deadline_ns)
    while time.time_ns() < deadline_ns + BEHIND_S * 1e9:
        for interface, (*questions, announcement) in frames.items():
            for question in questions:
                client.sendto(question, (interface, 0))
            with contextlib.suppress(OSError):  # ENOBUFS: cut off
                holder.sendto(announcement, (interface, 0))
        end = time.monotonic() + APART_S
        while time.monotonic() < end:
            pass
    last: dict[str, float] = {}
    while True:
        try:
            data, ancillary, _, address = client.recvmsg(256, 64)
        except BlockingIOError:
            return {kind: (at - deadline_ns) / 1000 for kind, at in last.items()}
        if address[2] != socket.PACKET_OUTGOING and (kind := kind_of(data)):
            seconds, nanoseconds = struct.unpack("@qq", ancillary[0][2])
            last[f"{kind}, {CABLES[address[0]]}"] = seconds * 10**9 + nanoseconds


def lay(name: str) -> tuple[bytes, ...]:
    """Lay another cable, and give the frames for it."""
    with Links("holder") as one, Links("client") as two:
        one.veth(name, "client", name)
        one.up(name)
        two.up(name)
    return frames_on(name)


def later() -> tuple[bytes, ...]:
    """The same for the one that comes when the fence stands."""
    with Links("holder") as one:
        one.remove(LATER)
    return lay(LATER)


def frames_on(name: str) -> tuple[bytes, ...]:
    """The client's questions, and the holder's announcement, on one cable."""
    with Links("holder") as one, Links("client") as two:
        macs = [bytes.fromhex(each.mac(name).replace(":", "")) for each in (one, two)]
    question = bytearray(arp_request(macs[1], CLIENT))
    question[38:42] = socket.inet_aton(ADDRESS)
    solicitation = b"\x87\0\0\0\0\0\0\0" + socket.inet_pton(socket.AF_INET6, ADDRESS6) + b"\1\1" + macs[1]
    return (
        bytes(question),
        echo_request(macs[1], macs[0]),
        icmp6(macs[1], macs[0], solicitation),
        icmp6(macs[1], macs[0], b"\x80\0\0\0\0\1\0\1"),
        arp_request(macs[0], ADDRESS),
    )


def drain(receiver: socket.socket) -> None:
    """Forget what has come until now."""
    try:
        while True:
            receiver.recv(1)
    except BlockingIOError:
        return


def main() -> None:
    """Print the figures."""
    with cable() as (one, two):
        one.address("eth0", f"{ADDRESS}/24")
        two.address("eth0", f"{CLIENT}/24")
        for end, own in ((one, ADDRESS6), (two, CLIENT6)):
            command = ["ip", "-n", str(end.name), "address", "add", f"{own}/64", "dev", "eth0", "nodad"]
            subprocess.run(command, check=True)
    frames = {"eth0": frames_on("eth0"), SECOND: lay(SECOND)}
    fence = inside("holder", Fence)
    fence.prepare({ADDRESS: "eth0", ADDRESS6: "eth0"})
    holder, client = inside("holder", packet_socket), inside("client", packet_socket)
    lateness: dict[str, list[float]] = {}
    for _ in range(ROUNDS):
        drain(client)
        for kind, late_us in one_round(fence, holder, client, frames).items():
            lateness.setdefault(kind, []).append(late_us)
    print(heading("How exactly the deadline cuts"))
    print("| last frame through, us after the deadline | p50 | p99 | most | n |\n|---|---|---|---|---|")
    for kind, values in sorted(lateness.items()):
        print(f"| {kind} | {figures(values)} |")
    if "--step-clock" in sys.argv:
        step_clock(float(sys.argv[sys.argv.index("--step-clock") + 1]), fence, client, frames["eth0"][0])


def step_clock(by_s: float, fence: Fence, client: socket.socket, question: bytes) -> None:
    """Set the clock in the middle of a deadline of 1 s, and tell when the fence cut, by a clock that nobody sets."""
    print(
        f"\nWith nobody to write the deadline again, the wall clock set by {by_s:g} s halfway to a deadline of 1 s:\n"
    )
    for sign in (1, -1):
        began = time.monotonic()
        fence.until({ADDRESS: "eth0"}, time.time_ns() + 10**9)
        drain(client)
        while time.monotonic() < began + 0.5:
            client.sendto(question, ("eth0", 0))
        time.clock_settime(time.CLOCK_REALTIME, time.time() + sign * by_s)
        stepped, last = time.monotonic(), 0.0
        while time.monotonic() < began + 1.5 + by_s:
            drain(client)
            client.sendto(question, ("eth0", 0))
            os.sched_yield()
            try:
                while True:
                    if kind_of(client.recv(256)) == "ARP answer":
                        last = time.monotonic()
            except BlockingIOError:
                pass
        time.clock_settime(time.CLOCK_REALTIME, time.time() - sign * by_s)
        cut = max(last, stepped) - began
        print(f"- set {'forward' if sign > 0 else 'back'}: cut {cut:.2f} s after it was written, instead of 1.00 s")


if __name__ == "__main__":
    main()
