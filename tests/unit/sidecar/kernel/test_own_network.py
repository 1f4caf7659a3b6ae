"""Which interface is on the Pod's own network: the order, and what is never taken."""

from __future__ import annotations

import pytest

from sidecar.errors import InterfaceMissing
from sidecar.kernel.addresses import Link
from sidecar.kernel.own_network import Hop, own_interface

NO_ARP = "has ARP turned off"
ETH0, ETH1, NET1 = (Link(index, name, b"", True, False) for index, name in ((2, "eth0"), (3, "eth1"), (4, "net1")))  # noqa: FBT003
TUN0 = Link(5, "tun0", b"", False, False, "is no Ethernet interface")  # noqa: FBT003
QUIET0 = Link(2, "eth0", b"", True, False, NO_ARP)  # noqa: FBT003


def by(link: Link, metric: int = 0, place: int = 0, *, down: bool = False) -> Hop:
    return Hop(metric, down, place, link.index)


FOUND = [
    pytest.param([ETH0, ETH1], [ETH0], [by(ETH1)], "", "eth0", id="the-Pod's-IP-before-the-default-route"),
    pytest.param([ETH0, ETH1], [ETH1], [], "eth0", "eth1", id="the-Pod's-IP-before-what-was-before"),
    pytest.param([ETH0, TUN0], [ETH0], [by(TUN0)], "", "eth0", id="a-VPN-has-the-default-route"),
    pytest.param([ETH0, TUN0], [TUN0, ETH0], [], "", "eth0", id="on-two-and-one-can-be-used"),
    pytest.param([ETH0, ETH1], [NET1], [by(ETH1)], "", "eth1", id="on-one-that-is-gone"),
    pytest.param([ETH0, ETH1], [], [by(ETH1)], "", "eth1", id="the-default-route"),
    pytest.param([ETH0, ETH1], [], [by(ETH0, 200), by(ETH1, 100)], "", "eth1", id="the-least-metric"),
    pytest.param([ETH0, ETH1], [], [by(ETH0), by(ETH1, 0, 1)], "", "eth0", id="the-first-of-several-next-hops"),
    pytest.param([ETH0, ETH1], [], [by(ETH0, down=True), by(ETH1, 0, 1)], "", "eth1", id="the-first-is-down"),
    pytest.param([ETH0, ETH1], [], [by(ETH0, 1, down=True), by(ETH1, 2)], "", "eth0", id="metric-before-being-up"),
    pytest.param([ETH0, TUN0], [], [by(TUN0), by(ETH0, 0, 1)], "", "eth0", id="the-first-knows-no-ARP"),
    pytest.param([ETH0, TUN0], [], [by(TUN0, 1), by(ETH0, 2)], "", "eth0", id="a-second-default-route"),
    pytest.param([ETH0, ETH1], [], [by(NET1), by(ETH1)], "", "eth1", id="a-next-hop-that-is-gone"),
    pytest.param([ETH0, ETH1], [], [by(ETH1)], "eth0", "eth1", id="the-default-route-is-followed"),
    pytest.param([ETH0, ETH1], [], [], "eth1", "eth1", id="no-default-route-for-a-while"),
    pytest.param([ETH0, ETH1], [], [], "", "eth0", id="no-default-route-ever"),
    pytest.param([ETH0, ETH1], [], [], "net1", "eth0", id="what-was-before-is-gone"),
    pytest.param([QUIET0, ETH1], [], [], "eth1", "eth1", id="what-was-before-if-the-first-has-no-ARP"),
]


@pytest.mark.parametrize(("links", "own", "hops", "before", "name"), FOUND)
def test_the_interface(links, own, hops, before, name):
    there = {link.index: link for link in links}
    for order in (hops, hops[::-1]):
        assert own_interface(there, [link.index for link in own], order, before) == name


MISSING = [
    pytest.param(
        [ETH0, TUN0], [TUN0], [by(ETH0)], "IP address is on tun0, which is no Ethernet interface", id="Pod-IP"
    ),
    pytest.param([TUN0], [], [by(TUN0)], "the default route is by tun0, which is no Ethernet interface", id="default"),
    pytest.param([QUIET0], [], [], f"there is no default route, and there is eth0, which {NO_ARP}", id="the-first"),
    pytest.param([ETH1], [], [], "no default route and no interface eth0", id="none"),
]


@pytest.mark.parametrize(("links", "own", "hops", "part"), MISSING)
def test_no_interface_without_ethernet_and_arp(links, own, hops, part):
    with pytest.raises(InterfaceMissing) as missing:
        own_interface({link.index: link for link in links}, [link.index for link in own], hops)
    assert part in str(missing.value)
    assert "name the interface in the Pod's annotation networking.gke.io/interfaces" in str(missing.value)
