"""Placement against the real kernel: the order of things, and what the report says."""

from __future__ import annotations

import asyncio
import errno
import io
import select

from contract.assignment import AddressEntry, RouteEntry
from contract.names import Handover
from contract.report import Fence
from sidecar.clock import boottime
from sidecar.errors import FenceUnsupported, KernelRefused
from sidecar.journal import Journal
from sidecar.kernel.frames import arp_reply, arp_request
from sidecar.kernel.links import Monitor
from sidecar.kernel.nftables import NFPROTO_NETDEV
from sidecar.kernel.placement import Placement
from sidecar.protocol.events import Configure, Prepared, Unprepared
from tests.lab.sidecar.kernel.cable import (
    ADDRESS,
    OTHER,
    POD,
    all_rules,
    flush_chain,
    flush_ruleset,
    inside,
    ip,
    mac,
    rule_count,
    shown,
)


def entry(*items: tuple[str, str | None]) -> RouteEntry:
    found = tuple(AddressEntry(f"{address}/32", interface) for address, interface in items)
    return RouteEntry("r", "holdfast-r", Handover.EXCLUSIVE, found)


def placing(test):
    """Run a test with a Placement inside the Pod."""

    async def run():
        with inside(POD):
            placement = Placement(Journal(io.StringIO()))
            try:
                await placement.adopt()
                await test(placement)
            finally:
                placement.close()

    asyncio.run(run())


def for_s(route: RouteEntry, seconds: float) -> Configure:
    return Configure(route, boottime() + seconds)


def states(event) -> list[str]:
    return [report.state for report in event.reports]


def test_configured_means_fenced_standing_and_announced(cable, tap):
    own = mac(cable[0])
    route = entry((ADDRESS, "eth0"), (OTHER, None))

    async def test(placement):
        assert await placement.prepare(route) == Prepared(Fence.DEADLINE)
        done = await placement.configure(for_s(route, 5), frozenset())
        assert done.present == {f"{ADDRESS}/32", f"{OTHER}/32"}
        assert states(done) == ["announced", "announced"]
        assert [report.interface for report in done.reports] == ["eth0", "eth0"]
        assert rule_count() == 16
        heard = [frame for _, frame in tap.frames(1.0) if frame[12:14] == b"\x08\x06"]
        assert {arp_request(own, ADDRESS), arp_reply(own, OTHER)} <= set(heard)
        again = await placement.configure(for_s(route, 5), done.present)
        assert again == done
        assert not [frame for _, frame in tap.frames(0.05) if frame[12:14] == b"\x08\x06"], "renewed, not announced"
        removed = await placement.remove(done.present)
        assert removed.present == frozenset()
        assert shown() is None
        await placement.lift()
        assert rule_count() == 0

    placing(test)


def test_an_address_of_somebody_else_is_left_alone_and_the_others_go_on(cable):
    pod, _ = cable
    pod.address("eth0", f"{ADDRESS}/32")
    route = entry((ADDRESS, "eth0"), (OTHER, "eth0"))

    async def test(placement):
        done = await placement.configure(for_s(route, 5), frozenset())
        assert done.present == {f"{OTHER}/32"}
        assert states(done) == ["failed", "announced"]
        assert "not added by holdfast" in done.reports[0].message
        await placement.remove(frozenset({f"{ADDRESS}/32", f"{OTHER}/32"}))
        assert shown()["valid_life_time"] == 2**32 - 1

    placing(test)


def refuse(*_):
    raise KernelRefused("no memory", errno.ENOMEM)


def test_what_cannot_be_fenced_is_not_configured(cable, monkeypatch):  # noqa: ARG001
    route = entry((ADDRESS, "eth0"))

    async def test(placement):
        await placement.prepare(route)
        monkeypatch.setattr(placement._deadlines._fence, "until", refuse)
        done = await placement.configure(for_s(route, 5), frozenset())
        assert done.present == frozenset()
        assert states(done) == ["failed"]
        assert "the fence cannot be set" in done.reports[0].message
        assert shown() is None

    placing(test)


def test_a_fence_that_somebody_took_away_is_set_again_as_it_was(cable, monkeypatch):  # noqa: ARG001
    route = entry((ADDRESS, "eth0"))

    async def test(placement):
        await placement.prepare(route)
        done = await placement.configure(for_s(route, 5), frozenset())
        before = all_rules()
        flush_ruleset()
        assert all_rules() == []
        assert await placement.mend_fence()
        assert all_rules() == before
        flush_chain(NFPROTO_NETDEV, f"out-{ADDRESS}")
        assert all_rules() != before
        assert await placement.mend_fence()
        assert all_rules() == before, "what leads to the deadline is mended, too"
        flush_ruleset()
        with monkeypatch.context() as patch:
            patch.setattr(placement._deadlines._fence, "until", refuse)
            assert not await placement.mend_fence()
            assert (await placement.configure(for_s(route, 5), done.present)).fence == Fence.LIFETIME
        assert (await placement.configure(for_s(route, 5), done.present)).fence == Fence.DEADLINE
        assert all_rules() == before

    placing(test)


def test_on_a_kernel_without_deadline_rules_the_lifetime_is_the_fence(cable, monkeypatch):  # noqa: ARG001
    route = entry((ADDRESS, "eth0"))

    def refuse(*_):
        raise FenceUnsupported("not supported", errno.EOPNOTSUPP)

    async def test(placement):
        monkeypatch.setattr(placement._deadlines._fence, "prepare", refuse)
        assert await placement.prepare(route) == Prepared(Fence.LIFETIME)
        done = await placement.configure(for_s(route, 5.4), frozenset())
        assert done.fence == Fence.LIFETIME
        assert shown()["valid_life_time"] == 5, "rounded down: the guard time covers only its lateness"
        short = await placement.configure(for_s(route, 0.5), done.present)
        assert "too short" in short.reports[0].message

    placing(test)


def test_an_address_moves_when_its_interface_changes(cable):  # noqa: ARG001
    async def test(placement):
        ip("link", "add", "eth1", "up", "type", "veth", "peer", "eth2")
        ip("link", "set", "eth2", "up")
        before = await placement.configure(for_s(entry((ADDRESS, "eth0")), 5), frozenset())
        await placement.refresh()
        await placement.configure(for_s(entry((ADDRESS, "eth1")), 5), before.present)
        assert shown() is None
        await placement.refresh()
        assert placement.placed == {f"{ADDRESS}/32": placement.links["eth1"].index}

    placing(test)


def test_a_default_route_that_changes_is_followed_at_the_next_renewal(cable):  # noqa: ARG001
    async def test(placement):
        ip("link", "add", "net1", "up", "type", "veth", "peer", "net2")
        ip("link", "set", "net2", "up")
        ip("route", "add", "default", "dev", "eth0")
        route = entry((ADDRESS, None))
        await placement.prepare(route)
        done = await placement.configure(for_s(route, 5), frozenset())
        assert [report.interface for report in done.reports] == ["eth0"]
        ip("route", "del", "default")
        done = await placement.configure(for_s(route, 5), done.present)
        assert [report.interface for report in done.reports] == ["eth0"], "without a default route it stays"
        ip("route", "add", "default", "dev", "net1")
        done = await placement.configure(for_s(route, 5), done.present)
        assert [report.interface for report in done.reports] == ["net1"]
        assert placement.placed == {f"{ADDRESS}/32": placement.links["net1"].index}
        ip("tuntap", "add", "dev", "tun0", "mode", "tun")
        ip("link", "set", "tun0", "up")
        ip("route", "replace", "default", "dev", "tun0")
        done = await placement.configure(for_s(route, 5), done.present)
        assert [report.interface for report in done.reports] == ["net1"], "never where there is no ARP"
        assert "the addresses stay on net1" in placement._journal._out.getvalue()

    placing(test)


def test_an_interface_without_arp_is_not_taken_though_it_is_named(cable):  # noqa: ARG001
    async def test(placement):
        ip("link", "set", "eth0", "arp", "off")
        told = await placement.prepare(entry((ADDRESS, "eth0")))
        assert isinstance(told, Unprepared)
        assert "eth0 has ARP turned off, and no address can be announced there" in told.reports[0].message

    placing(test)


def test_a_deadline_that_has_passed_configures_nothing(cable):  # noqa: ARG001
    async def test(placement):
        done = await placement.configure(for_s(entry((ADDRESS, "eth0")), -0.001), frozenset())
        assert done.present == frozenset()
        assert shown() is None

    placing(test)


def test_what_cannot_be_prepared_says_why_for_each_address(cable):  # noqa: ARG001
    async def test(placement):
        told = await placement.prepare(entry((ADDRESS, "eth7"), (OTHER, "eth0")))
        assert isinstance(told, Unprepared)
        assert states(told) == ["failed", "failed"]
        assert "no interface eth7 (it has: eth0)" in told.reports[0].message
        assert "not configured: another address" in told.reports[1].message

    placing(test)


def test_own_removals_are_told_from_those_of_others(cable):  # noqa: ARG001
    async def test(placement):
        with inside(POD):
            monitor = Monitor()

        def others():
            assert select.select([monitor.fileno()], [], [], 2)[0]
            changes = monitor.read()
            return placement.removed_by_others(changes.addresses_gone, overrun=changes.overrun)

        async def put():
            return (await placement.configure(for_s(entry((ADDRESS, "eth0"), (OTHER, "eth0")), 5), frozenset())).present

        await placement.remove(await put())
        assert not others()
        await put()
        ip("addr", "del", f"{ADDRESS}/32", "dev", "eth0")
        assert others()
        await placement.remove(frozenset({f"{ADDRESS}/32", f"{OTHER}/32"}))
        assert not others(), "one was gone already, and the other was removed by us"
        await put()
        await placement.remove(frozenset({f"{ADDRESS}/32"}))
        ip("addr", "del", f"{OTHER}/32", "dev", "eth0")
        assert others(), "of two that went, one was not removed by us"
        await put()
        await placement.remove(frozenset({f"{ADDRESS}/32"}))
        assert not placement.removed_by_others((), overrun=True)
        assert others(), "once some news was lost, nothing is taken for our own doing"
        monitor.close()

    placing(test)
