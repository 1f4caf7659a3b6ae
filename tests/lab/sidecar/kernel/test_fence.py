"""The fence against the real kernel: what is on the wire before and after a deadline."""

from __future__ import annotations

import select
import socket
import subprocess
import sys
import time

import pytest

from sidecar.kernel.fence import Fence as KernelFence
from sidecar.kernel.frames import arp_request
from sidecar.kernel.netlink import NetlinkSocket
from sidecar.kernel.nftables import NFPROTO_NETDEV, Nftables, drop, transaction
from tests.lab.sidecar.kernel.cable import (
    ADDRESS,
    OTHER,
    POD,
    S,
    echo_request,
    flush_ruleset,
    inside,
    live_until,
    mac,
    rule_count,
    who_has,
)


def test_at_the_deadline_arp_answers_ip_and_raw_frames_cease(cable, fence, tap, wire):
    pod, peer = cable
    pod.address("eth0", f"{ADDRESS}/32")
    deadline_ns = time.time_ns() + 300_000_000
    fence.until({ADDRESS: "eth0"}, deadline_ns)
    seen = live_until(deadline_ns + 200_000_000, tap, wire, mac(pod), mac(peer))
    for sign, times in seen.items():
        before = [at for at in times if at < deadline_ns]
        late_ms = [(at - deadline_ns) / 1e6 for at in times if at >= deadline_ns]
        assert len(before) > 20, f"{sign}: it was not alive before the deadline"
        # a frame checked just before the deadline may be stamped just after it
        assert not [ms for ms in late_ms if ms > 5], f"{sign} after the deadline: {late_ms}"


def test_what_comes_in_is_cut_as_well(cable, fence, tap):
    """A stopped app must not go on receiving either: the Pod counts what reaches its IP layer."""
    pod, peer = cable
    pod.address("eth0", f"{ADDRESS}/32")
    with inside(POD):
        heard = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
    heard.settimeout(0)
    request = echo_request(mac(peer), mac(pod), "10.9.0.2", ADDRESS)
    tap.send(request)
    assert select.select([heard], [], [], 2)[0], "before the deadline it comes in"
    heard.recv(256)
    fence.until({ADDRESS: "eth0"}, time.time_ns() - 1)
    tap.send(request)
    tap.send(echo_request(mac(peer), mac(pod), "10.9.0.2", "10.9.0.1"))
    assert select.select([heard], [], [], 2)[0], "the Pod's own address is not touched"
    assert heard.recv(256)[16:20] == socket.inet_aton("10.9.0.1")
    heard.close()


def test_a_renewed_deadline_replaces_the_old_one_without_a_gap(cable, fence, tap, wire):
    pod, peer = cable
    pod.address("eth0", f"{ADDRESS}/32")
    first_ns = time.time_ns() + 100_000_000
    fence.until({ADDRESS: "eth0"}, first_ns)
    fence.until({ADDRESS: "eth0"}, first_ns + 200_000_000)
    seen = live_until(first_ns + 150_000_000, tap, wire, mac(pod), mac(peer))
    for sign, times in seen.items():
        assert [at for at in times if at > first_ns + 100_000_000], f"{sign} ceased at the deadline that was replaced"
    assert rule_count() == 8


def test_the_deadline_outlives_the_process_that_set_it(cable, tap, wire):
    pod, peer = cable
    pod.address("eth0", f"{ADDRESS}/32")
    program = "import sys, time; from sidecar.kernel.fence import Fence; "
    program += f"Fence().until({{'{ADDRESS}': 'eth0'}}, int(sys.argv[1]))"
    deadline_ns = time.time_ns() + 2 * S
    with inside(POD):
        subprocess.run([sys.executable, "-c", program, str(deadline_ns)], check=True, timeout=20)
    assert time.time_ns() < deadline_ns, "this machine is too slow for the test's deadline"
    seen = live_until(deadline_ns + 100_000_000, tap, wire, mac(pod), mac(peer))
    assert all(times and max(times) < deadline_ns + 5_000_000 for times in seen.values())


def test_an_old_deadline_set_late_is_past_already(cable, fence, tap, wire):
    pod, peer = cable
    pod.address("eth0", f"{ADDRESS}/32")
    fence.until({ADDRESS: "eth0"}, time.time_ns() - 60 * S)
    seen = live_until(time.time_ns() + 50_000_000, tap, wire, mac(pod), mac(peer))
    assert seen == {"echo reply": [], "ARP answer": [], "announcement": []}


def test_lifted_it_lets_the_pod_reach_the_new_holder(cable, fence, tap, wire):
    pod, peer = cable
    fence.until({ADDRESS: "eth0"}, time.time_ns() - 1)
    claim = who_has(mac(peer), ADDRESS, "10.9.0.1")
    tap.send(claim)
    assert not [frame for _, frame in tap.frames(0.05) if frame[38:42] == socket.inet_aton(ADDRESS)]
    fence.lift([ADDRESS])
    tap.send(claim)
    answers = [frame for _, frame in tap.frames(1.0) if frame[38:42] == socket.inet_aton(ADDRESS)]
    assert answers, "the Pod answers the new holder's ARP again"
    wire.send("eth0", [arp_request(mac(pod), ADDRESS)])
    assert tap.frames(1.0)


def test_what_somebody_else_does_to_the_rules_is_heard_and_what_we_do_is_not(fence):
    with inside(POD):
        monitor = fence.watch()
    fence.until({ADDRESS: "eth0"}, time.time_ns() + 60 * S)
    fence.lift([ADDRESS])
    assert not select.select([monitor.fileno()], [], [], 0)[0], "a handover wakes nobody"
    flush_ruleset()
    assert select.select([monitor.fileno()], [], [], 2)[0]
    assert monitor.touched()
    with inside(POD):
        other = Nftables("other", NFPROTO_NETDEV)
        netlink = NetlinkSocket(12)
    netlink.transact(transaction([other.new_table()]), "a table of somebody else")
    netlink.close()
    assert select.select([monitor.fileno()], [], [], 2)[0]
    assert not monitor.touched()
    monitor.close()


def chains_of(*addresses):
    """The chains on a kernel that can have one on all interfaces."""
    return {(family, f"{way}-{each}") for family in (2, 3, 5) for way in ("at", "in", "out") for each in addresses}


def test_preparing_does_not_touch_an_earlier_selfs_deadline(fence):
    fence.until({ADDRESS: "eth0"}, time.time_ns() + 60 * S)
    with inside(POD):
        again = KernelFence()
    again.prepare({ADDRESS: "eth0", OTHER: "eth0"})
    assert rule_count() == 8
    assert again.chains() == sorted(chains_of(ADDRESS, OTHER))
    again.close()


@pytest.mark.parametrize("on_all", [True, False])
def test_a_restarted_agent_keeps_what_stands_and_clears_the_rest(fence, on_all):
    fence._on_all = on_all
    fence.until({ADDRESS: "eth0", OTHER: "eth0"}, time.time_ns() + 60 * S)
    before = fence.chains()
    with inside(POD):
        again = KernelFence()
    again.adopt([OTHER])
    assert again.chains() == [each for each in before if OTHER in each[1]]
    assert rule_count() == 8
    again.close()


def test_what_an_earlier_version_left_would_cut_at_a_deadline_that_nobody_renews(fence):
    with inside(POD):
        netlink = NetlinkSocket(12)
    old = Nftables("holdfast", NFPROTO_NETDEV)
    made = [old.new_table(), old.new_base_chain(f"out-{ADDRESS}-eth0", "filter", 1, -500, "eth0")]
    netlink.transact(transaction([*made, old.new_rule(f"out-{ADDRESS}-eth0", [drop()])]), "an earlier version's")
    netlink.close()
    fence.adopt([ADDRESS])
    assert fence.chains() == []


def test_addresses_whose_names_begin_alike_are_told_apart(fence):
    fence.prepare({"34.123.10.1": "eth0", "34.123.10.11": "eth0"})
    fence.retire(["34.123.10.11"])
    assert fence.chains() == sorted(chains_of("34.123.10.11"))


def test_lifting_what_is_not_there_is_no_error(fence):
    fence.lift([ADDRESS])
    fence.retire([])
    assert fence.chains() == []
