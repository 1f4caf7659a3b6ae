"""Addresses against the real kernel."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import time

import pytest

from sidecar.errors import InterfaceMissing, KernelRefused
from sidecar.kernel.addresses import Addresses, lifetime_s
from tests.lab.sidecar.kernel.cable import ADDRESS, POD, inside, ip, shown


@contextlib.asynccontextmanager
async def addresses():
    with inside(POD):
        found = Addresses()
        try:
            yield found
        finally:
            found.close()


def test_an_address_is_marked_mortal_and_adds_no_route(cable):  # noqa: ARG001
    async def test():
        async with addresses() as found:
            index = (await found.links())["eth0"].index
            await found.add(ADDRESS, index, 7)
            assert await found.marked() == {ADDRESS: index}
            info = shown()
            assert (info["prefixlen"], info["scope"], info["noprefixroute"]) == (32, "global", True)
            assert 6 <= info["valid_life_time"] <= 7
            assert info["preferred_life_time"] == info["valid_life_time"]
            await found.renew(ADDRESS, index, 20)
            assert 19 <= shown()["valid_life_time"] <= 20
            await found.delete(ADDRESS, index)
            assert shown() is None
            await found.delete(ADDRESS, index)  # gone is gone

    asyncio.run(test())


def test_what_others_put_there_is_not_ours(cable):
    pod, _ = cable
    pod.address("eth0", f"{ADDRESS}/32")

    async def test():
        async with addresses() as found:
            assert await found.marked() == {}
            index = (await found.links())["eth0"].index
            with pytest.raises(KernelRefused, match="is on this interface already") as refused:
                await found.add(ADDRESS, index, 7)
            assert refused.value.errno == errno.EEXIST
            assert shown()["valid_life_time"] == 2**32 - 1

    asyncio.run(test())


def test_removal_is_fast(cable):  # noqa: ARG001
    async def test():
        async with addresses() as found:
            index = (await found.links())["eth0"].index
            took_s = []
            for _ in range(20):
                await found.add(ADDRESS, index, 60)
                began_s = time.perf_counter()
                await found.delete(ADDRESS, index)
                took_s.append(time.perf_counter() - began_s)
            assert sorted(took_s)[10] < 0.002

    asyncio.run(test())


def test_the_interface_of_the_default_route_else_the_first(cable):  # noqa: ARG001
    async def test():
        async with addresses() as found:
            assert await found.default_interface() == "eth0"
            ip("link", "add", "net1", "up", "type", "veth", "peer", "net2")
            ip("route", "add", "default", "dev", "net1")
            assert await found.default_interface() == "net1"
            ip("link", "del", "net1")
            ip("link", "del", "eth0")
            with pytest.raises(InterfaceMissing, match="no default route"):
                await found.default_interface()

    asyncio.run(test())


def test_the_pods_ip_before_a_default_route_that_a_vpn_has_taken(cable):  # noqa: ARG001
    async def test():
        async with addresses() as found:
            ip("tuntap", "add", "dev", "tun0", "mode", "tun")
            ip("link", "set", "tun0", "up")
            ip("addr", "add", "10.8.0.2/24", "dev", "tun0")
            ip("route", "add", "default", "dev", "tun0")
            assert await found.default_interface("10.9.0.1") == "eth0"
            with pytest.raises(InterfaceMissing, match="the default route is by tun0, which is no Ethernet interface"):
                await found.default_interface()
            with pytest.raises(InterfaceMissing, match="the Pod's IP address is on tun0"):
                await found.default_interface("10.8.0.2")
            ip("addr", "add", "fd00::5/64", "dev", "eth0", "nodad")
            assert await found.default_interface("FD00:0::5") == "eth0"

    asyncio.run(test())


def test_of_several_next_hops_the_first_that_knows_arp(cable):  # noqa: ARG001
    async def test():
        async with addresses() as found:
            ip("link", "add", "net1", "up", "type", "veth", "peer", "net2")
            ip("link", "set", "net2", "up")
            ip("addr", "add", "10.7.0.1/24", "dev", "net1")
            ip("route", "add", "default", "nexthop", "via", "10.7.0.2", "nexthop", "via", "10.9.0.2")
            assert await found.default_interface() == "net1"
            ip("link", "set", "net1", "arp", "off")
            assert await found.default_interface() == "eth0"

    asyncio.run(test())


@pytest.mark.parametrize(
    ("left_s", "only_fence", "expected"),
    [
        (9.99, True, 10),
        (9.90, True, 9),
        (1.98, True, 2),
        (0.99, True, 1),
        (0.90, True, 0),
        (9.10, False, 10),
        (0.01, False, 1),
        (10.0, False, 10),
    ],
)
def test_lifetimes_are_rounded_to_the_safe_side(left_s, only_fence, expected):
    assert lifetime_s(left_s, only_fence=only_fence) == expected
