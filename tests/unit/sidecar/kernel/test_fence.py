"""The fence's messages as bytes: what stands in them, and what an unsupported kernel's answers become."""

import errno
import socket
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.errors import FenceUnsupported, KernelRefused, NotPermitted
from sidecar.kernel import fence as fence_module
from sidecar.kernel.fence import Fence
from sidecar.kernel.netlink import attribute, attributes, messages, nested, number, refusal, text

ADDRESS = "34.123.10.1"


class Recorder:
    """In place of the netlink socket: keeps the batches, refuses as told."""

    def __init__(self, _family):
        self.batches = []
        self.refuse = 0

    def transact(self, batch, what):
        self.batches.append(batch)
        if self.refuse:
            raise refusal(what, self.refuse)

    def close(self):
        self.batches.append([])


@pytest.fixture
def fence(monkeypatch):
    monkeypatch.setattr(fence_module, "NetlinkSocket", Recorder)
    return Fence()


def expressions(rule):
    """Read a NEWRULE's expressions as (name, its attributes)."""
    found = []
    data = attributes(rule.body[4:])[4]
    while data:
        (length,) = struct.unpack_from("=H", data)
        one = attributes(data[4:length])
        found.append((one[1].rstrip(b"\0").decode(), attributes(one[2])))
        data = data[length + (-length % 4) :]
    return found


def rules(fence):
    return [message for message in fence._socket.batches[-1] if message.kind == 0xA06]


def compared(expression):
    name, parameters = expression
    assert name == "cmp"
    return struct.unpack("!I", parameters[2])[0], attributes(parameters[3])[1]


@given(deadline_ns=st.integers(min_value=0, max_value=2**63 - 1))
def test_every_rule_compares_the_time_with_the_deadline(deadline_ns):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fence_module, "NetlinkSocket", Recorder)
        fence = Fence()
    fence.until({ADDRESS: "eth1"}, deadline_ns)
    assert len(rules(fence)) == 8
    for rule in rules(fence):
        names = [name for name, _ in expressions(rule)]
        assert names == ["meta", "cmp", "payload", "cmp", "meta", "byteorder", "cmp", "immediate"]
        assert compared(expressions(rule)[6]) == (5, struct.pack("!Q", deadline_ns))


def test_rules_for_ipv6_cover_source_destination_and_neighbour_discovery(fence):
    fence.until({"2001:db8::10": "eth1"}, 1)
    places = set()
    for rule in rules(fence):
        parts = expressions(rule)
        assert compared(parts[1]) == (0, b"\x86\xdd")
        assert compared(parts[3]) == (0, bytes.fromhex("20010db8000000000000000000000010"))
        places.add(struct.unpack("!I", parts[2][1][3])[0])
    assert len(rules(fence)) == 6
    assert places == {8, 24, 48}


def test_rules_cover_ipv4_and_arp_in_both_directions(fence):
    fence.until({ADDRESS: "eth1"}, 1)
    seen = set()
    for rule in rules(fence):
        chain = attributes(rule.body[4:])[2].rstrip(b"\0").decode()
        _, protocol = compared(expressions(rule)[1])
        payload = expressions(rule)[2][1]
        assert compared(expressions(rule)[3]) == (0, socket.inet_aton(ADDRESS))
        seen.add((chain, protocol.hex(), struct.unpack("!I", payload[3])[0]))
    places = [("0800", 12), ("0800", 16), ("0806", 14), ("0806", 24)]
    assert seen == {(f"{side}-{ADDRESS}-eth1", *place) for side in ("in", "out") for place in places}


def test_one_batch_replaces_all_rules_of_a_route(fence):
    fence.until({ADDRESS: "eth1", "34.123.10.2": "eth0"}, 1)
    (batch,) = fence._socket.batches
    kinds = [message.kind for message in batch]
    assert (kinds[0], kinds[-1]) == (0x10, 0x11), "begin and end of a transaction"
    # begin, table, then per address: two chains, and per chain the flush before its four rules
    assert kinds[2:14] == [0xA03, 0xA03, 0xA08, *[0xA06] * 4, 0xA08, *[0xA06] * 4]
    assert kinds[14:26] == kinds[2:14]


@pytest.mark.parametrize("number_", [errno.EOPNOTSUPP, errno.ENOENT, errno.EINVAL])
def test_a_kernel_without_the_rules_is_unsupported(fence, number_):
    fence._socket.refuse = number_
    with pytest.raises(FenceUnsupported, match=r"34\.123\.10\.1 on eth1"):
        fence.prepare({ADDRESS: "eth1"})


@pytest.mark.parametrize(("number_", "error"), [(errno.EPERM, NotPermitted), (errno.ENOMEM, KernelRefused)])
def test_other_refusals_are_not_taken_for_an_old_kernel(fence, number_, error):
    fence._socket.refuse = number_
    with pytest.raises(KernelRefused) as caught:
        fence.until({ADDRESS: "eth1"}, 1)
    assert type(caught.value) is error
    assert caught.value.errno == number_


def test_what_is_gone_is_as_good_as_lifted(fence):
    fence._socket.refuse = errno.ENOENT
    fence.lift({ADDRESS: "eth1"})
    fence._socket.refuse = errno.EINVAL
    with pytest.raises(FenceUnsupported):
        fence.lift({ADDRESS: "eth1"})


@given(st.dictionaries(st.integers(1, 0x3FFF), st.binary(max_size=40), max_size=6))
def test_attributes_are_read_as_written(wanted):
    data = b"".join(attribute(kind, value) for kind, value in wanted.items())
    assert len(data) % 4 == 0
    assert attributes(data) == wanted


@given(st.binary(max_size=64))
def test_reading_anything_ends(data):
    assert isinstance(attributes(data), dict)
    assert isinstance(list(messages(data)), list)


def test_nested_attributes_and_numbers():
    data = nested(4, number(1, 7), text(2, "eth0"))
    inner = attributes(attributes(data)[4])
    assert inner == {1: b"\0\0\0\x07", 2: b"eth0\0"}
