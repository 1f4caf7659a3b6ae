"""What sets `arp_announce`, byte for byte as the kernel's inet_set_link_af reads it (net/ipv4/devinet.c)."""

import struct

from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg

from sidecar.kernel import links
from tests.unit.sidecar.kernel.plain import fields

IFLA_AF_SPEC, AF_INET, IFLA_INET_CONF, ARP_ANNOUNCE = 26, 2, 1, 18


def test_arp_announce_is_one_nested_attribute_of_the_interface(monkeypatch):
    batches = []
    ifinfmsg().encode()  # a class of the library that was used hands its attributes down to its subclasses

    class Recorder:
        def __init__(self, _family):
            pass

        def transact(self, batch, what):
            batches.append((batch, what))

        def close(self):
            batches.append("closed")

    monkeypatch.setattr(links, "NetlinkSocket", Recorder)
    links.set_arp_announce(7)
    ((message,), what), closed = batches
    kind, flags, body = fields(message)
    assert (kind, flags) == (16, 0x5), "RTM_NEWLINK, of what is there"
    setting = struct.pack("=HHI", 8, ARP_ANNOUNCE, 2)
    for nest in (IFLA_INET_CONF, AF_INET, IFLA_AF_SPEC):
        setting = struct.pack("=HH", 4 + len(setting), nest) + setting
    assert body == struct.pack("=BxHiII", 0, 0, 7, 0, 0) + setting
    assert "arp_announce=2 on interface 7" in what
    assert closed == "closed"
