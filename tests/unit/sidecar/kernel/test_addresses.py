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


def link(*attributes):
    """An interface as the kernel tells of it: type, flags and attributes as bytes."""
    body = struct.pack("=BxHiII", 0, 1, 7, 0x41, 0)
    for kind, value in attributes:
        body += struct.pack("=HH", 4 + len(value), kind) + value + bytes(-len(value) % 4)
    told = struct.pack("=IHHII", 16 + len(body), RTM_NEWLINK, 0, 1, 0) + body
    (message,) = addresses.RouteMarshal().parse(told)
    assert message["header"]["error"] is None
    return addresses._link(message)


def test_an_interface_is_read():
    read = link((IFLA_ADDRESS, b"\2\0\0\0\0\1"), (IFLA_IFNAME, b"eth1\0"), (4, struct.pack("=I", 1500)))
    assert (read.index, read.name, read.mac, read.up, read.loopback) == (7, "eth1", b"\2\0\0\0\0\1", True, False)


@pytest.mark.parametrize("address", [bytes(4), bytes(16), bytes(20), b""], ids=["ipip", "ip6tnl", "infiniband", "none"])
def test_an_interface_with_another_kind_of_address_has_no_mac_address(address):
    assert link((IFLA_IFNAME, b"tunl0\0"), (IFLA_ADDRESS, address)).mac == b""


def test_an_interface_without_any_address_is_read():
    assert link((IFLA_IFNAME, b"ppp0\0")).mac == b""
