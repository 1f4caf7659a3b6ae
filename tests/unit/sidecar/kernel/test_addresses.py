"""Address messages are what `ip` sends, but for our mark; and interfaces of every kind are read."""

import asyncio
import struct

import pytest

from sidecar.kernel import addresses
from sidecar.kernel.addresses import MARK, Addresses
from tests.unit.sidecar.kernel import captures
from tests.unit.sidecar.kernel.plain import fields

ADDRESS = "34.123.10.1"
RTM_NEWLINK, IFLA_ADDRESS, IFLA_IFNAME = 16, 1, 3
RTM_NEWROUTE, RTA_OIF, RTA_GATEWAY, RTA_PRIORITY, RTA_MULTIPATH = 24, 4, 5, 6, 9
MARKED = struct.pack("=HHB3x", 5, 11, MARK)
"""IFA_PROTO, which `ip` of that version cannot set."""


class Recorder:
    def __init__(self, *_family_and_marshal):
        self.sent = []

    def transact(self, batch, _what):
        self.sent += batch


@pytest.fixture
def sent(monkeypatch):
    """Everything that is sent, as (type, flags, what follows the header)."""
    recorder = Recorder()
    monkeypatch.setattr(addresses, "NetlinkSocket", lambda *_: recorder)
    return lambda: [fields(message) for message in recorder.sent]


def kept(capture):
    kind, flags, body = capture
    return kind, flags, body + MARKED


def test_add_renew_and_delete_are_what_ip_sends(sent):
    async def change():
        placed = Addresses()
        await placed.add(ADDRESS, 3, 9)
        await placed.renew(ADDRESS, 3, 10)
        await placed.delete(ADDRESS, 3)

    asyncio.run(change())
    add, replace, delete = captures.ADDRESS
    assert sent() == [kept(add), kept(replace), delete]


def told(kind, body, *attributes):
    """A message of the kernel's: type, body, and attributes as bytes."""
    for number, value in attributes:
        body += struct.pack("=HH", 4 + len(value), number) + value + bytes(-len(value) % 4)
    (message,) = addresses.RouteMarshal().parse(struct.pack("=IHHII", 16 + len(body), kind, 0, 1, 0) + body)
    assert message["header"]["error"] is None
    return message


def link(*attributes, hardware=1, flags=0x41):
    return addresses._link(told(RTM_NEWLINK, struct.pack("=BxHiII", 0, hardware, 7, flags, 0), *attributes))


def test_an_interface_is_read():
    read = link((IFLA_ADDRESS, b"\2\0\0\0\0\1"), (IFLA_IFNAME, b"eth1\0"), (4, struct.pack("=I", 1500)))
    assert (read.index, read.name, read.mac, read.up, read.loopback) == (7, "eth1", b"\2\0\0\0\0\1", True, False)


@pytest.mark.parametrize("address", [bytes(4), bytes(16), bytes(20), b""], ids=["ipip", "ip6tnl", "infiniband", "none"])
def test_an_interface_with_another_kind_of_address_has_no_mac_address(address):
    assert link((IFLA_IFNAME, b"tunl0\0"), (IFLA_ADDRESS, address)).mac == b""


def test_an_interface_without_any_address_is_read():
    assert link((IFLA_IFNAME, b"ppp0\0")).mac == b""


@pytest.mark.parametrize(
    ("hardware", "flags", "why"),
    [
        pytest.param(1, 0x1043, "", id="Ethernet"),
        pytest.param(1, 0x1002, "", id="Ethernet-down"),
        pytest.param(772, 0x49, "is the loopback interface", id="loopback"),
        pytest.param(65534, 0x10D1, "is no Ethernet interface", id="tun"),
        pytest.param(512, 0x51, "is no Ethernet interface", id="ppp"),
        pytest.param(32, 0x1043, "is no Ethernet interface", id="InfiniBand"),
        pytest.param(1, 0x1053, "is a point-to-point interface", id="point-to-point"),
        pytest.param(1, 0x10C3, "has ARP turned off", id="ipvlan-in-layer-3"),
    ],
)
def test_an_interface_without_ethernet_and_arp_is_unfit(hardware, flags, why):
    assert link((IFLA_IFNAME, b"x\0"), hardware=hardware, flags=flags).unfit == why


def number(value):
    return struct.pack("=I", value)


def hop(index, flags=0):
    gateway = struct.pack("=HH", 8, RTA_GATEWAY) + bytes((10, 0, 0, index))
    return struct.pack("=HBBi", 8 + len(gateway), flags, 0, index) + gateway


def hops(*attributes, bits=0, table=254, kind=1, flags=0):
    header = struct.pack("=BBBBBBBBI", 2, bits, 0, 0, table, 3, 0, kind, flags)
    return [
        (each.metric, each.down, each.index)
        for each in addresses._default_hops(told(RTM_NEWROUTE, header, *attributes))
    ]


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        pytest.param(hops((RTA_OIF, number(3))), [(0, False, 3)], id="one"),
        pytest.param(hops((RTA_OIF, number(3)), (RTA_PRIORITY, number(100))), [(100, False, 3)], id="metric"),
        pytest.param(hops((RTA_OIF, number(3)), flags=16), [(0, True, 3)], id="link-down"),
        pytest.param(
            hops((RTA_MULTIPATH, hop(4) + hop(3, 17)), (RTA_PRIORITY, number(7))),
            [(7, False, 4), (7, True, 3)],
            id="two",
        ),
        pytest.param(hops((RTA_OIF, number(3)), bits=24), [], id="not-default"),
        pytest.param(hops((RTA_OIF, number(3)), table=255), [], id="another-table"),
        pytest.param(hops(kind=7), [], id="unreachable"),
        pytest.param(hops(), [], id="no-interface"),
    ],
)
def test_next_hops_of_the_default_route_are_read(found, expected):
    assert found == expected
