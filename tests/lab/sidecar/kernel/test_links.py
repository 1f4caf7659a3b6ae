"""Links, what the kernel tells of them, and frames, against the real kernel."""

from __future__ import annotations

import errno
import select
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sidecar.clock import StepAlarm, boottime, realtime_ns
from sidecar.errors import KernelRefused
from sidecar.kernel.frames import Claim, arp_reply, arp_request
from sidecar.kernel.links import Monitor, set_arp_announce
from tests.lab.sidecar.kernel.cable import ADDRESS, OTHER, POD, S, inside, ip, mac


def test_arp_announce_by_netlink(cable):
    pod, _ = cable
    assert pod.arp_announce("eth0") == 0
    with inside(POD):
        set_arp_announce(socket.if_nametoindex("eth0"))
    assert pod.arp_announce("eth0") == 2
    with inside(POD), pytest.raises(KernelRefused, match="arp_announce=2"):
        set_arp_announce(9999)


def test_the_monitor_tells_of_links_and_removed_addresses(cable):
    pod, peer = cable
    with inside(POD):
        monitor = Monitor()
        index = socket.if_nametoindex("eth0")

    def news():
        assert select.select([monitor.fileno()], [], [], 2)[0]
        return monitor.read()

    pod.address("eth0", f"{ADDRESS}/32")
    assert not news().addresses_gone
    ip("addr", "del", f"{ADDRESS}/32", "dev", "eth0")
    assert news().addresses_gone == (ADDRESS,)
    peer.down("eth0")
    assert (index, False) in ups(news())
    peer.up("eth0")
    assert (index, True) in ups(news())
    monitor.close()


def ups(changes):
    return [(each.index, each.up) for each in changes.links]


def test_what_neighbours_and_switches_store_is_told_with_every_change(cable):  # noqa: ARG001
    with inside(POD):
        monitor = Monitor()
        index = socket.if_nametoindex("eth0")

    def stored():
        return [each.stored for each in monitor.read().links if each.index == index]

    ip("link", "set", "dev", "eth0", "txqueuelen", "500")
    before = stored()[-1]
    assert before[0] == bytes.fromhex(ip("-br", "link", "show", "eth0").split()[2].replace(":", ""))
    ip("link", "set", "dev", "eth0", "address", "02:aa:bb:cc:dd:05")
    assert stored()[-1] == (bytes.fromhex("02aabbccdd05"), *before[1:])
    ip("link", "add", "br0", "type", "bridge")
    ip("link", "set", "dev", "eth0", "master", "br0")
    with inside(POD):
        master = socket.if_nametoindex("br0")
    assert stored()[-1][-1] == master
    ip("link", "set", "dev", "eth0", "nomaster")
    assert stored()[-1][-1] is None
    monitor.close()


def test_frames_go_out_and_only_our_addresses_claims_come_in(cable, tap, wire):
    pod, peer = cable
    wire.listen_for([ADDRESS])
    frames = [arp_request(mac(pod), ADDRESS), arp_reply(mac(pod), ADDRESS)]
    wire.send("eth0", frames)
    assert [frame for _, frame in tap.frames(1.0)] == frames
    tap.send(arp_reply(mac(peer), OTHER))
    tap.send(arp_reply(mac(peer), ADDRESS))
    assert select.select([wire.fileno()], [], [], 2)[0]
    assert wire.claims() == [("eth0", Claim(ADDRESS, mac(peer)))]


def test_a_link_that_is_down_refuses_frames_and_the_socket_survives(cable, tap, wire):
    pod, peer = cable
    wire.listen_for([ADDRESS])
    pod.down("eth0")
    with pytest.raises(KernelRefused) as refused:
        wire.send("eth0", [arp_request(mac(pod), ADDRESS)])
    assert refused.value.errno == errno.ENETDOWN
    assert wire.claims() == []
    pod.up("eth0")
    tap.frames()
    tap.send(arp_reply(mac(peer), ADDRESS))
    assert select.select([wire.fileno()], [], [], 2)[0]
    assert wire.claims() == [("eth0", Claim(ADDRESS, mac(peer)))]


def test_the_two_clocks_agree_and_nobody_has_set_one():
    alarm = StepAlarm()
    left_ns = realtime_ns(boottime() + 5) - time.time_ns()
    assert 4.9 * S < left_ns <= 5 * S
    assert not alarm.rang()
    alarm.close()


def test_the_capabilities_that_are_missing_are_named(cable):  # noqa: ARG001
    program = "from sidecar.kernel.fence import Fence; Fence().prepare({'34.123.10.1': 'eth0'})"
    drop = "setpriv --bounding-set -all --inh-caps -all"
    if not Path("/usr/bin/setpriv").exists():
        pytest.skip("setpriv (util-linux) is not installed")
    command = [*drop.split(), sys.executable, "-c", program]
    with inside(POD):
        done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=20)
    assert done.returncode != 0
    assert "needs the capability NET_ADMIN" in done.stderr
