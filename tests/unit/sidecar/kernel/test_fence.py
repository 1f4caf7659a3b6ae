"""The fence's messages are those that `nft` sends for the same rules; what an unsupported kernel's answers become."""

import errno
import socket
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.errors import FenceUnsupported, KernelRefused, NotPermitted
from sidecar.kernel import fence as fence_module
from sidecar.kernel.fence import Fence
from sidecar.kernel.netlink import refusal
from tests.unit.sidecar.kernel import captures
from tests.unit.sidecar.kernel.plain import attributes, fields, row, unflagged

ADDRESS = "34.123.10.1"
IPV6 = "2001:db8::10"
NEW_RULE, DELETE_RULES = 0xA06, 0xA08
EQUAL, AT_LEAST = 0, 5


class Recorder:
    """In place of the netlink socket: keeps the batches, refuses as told."""

    def __init__(self, *_family_and_marshal):
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


def sent(fence):
    """What was sent last, as (type, flags, what follows the header)."""
    return [fields(message) for message in fence._socket.batches[-1]]


def rules(fence):
    """The new rules sent last: (chain, [(expression's name, its parameters)])."""
    found = []
    for kind, _, body in sent(fence):
        if kind == NEW_RULE:
            read = attributes(body[4:])
            parts = [attributes(value) for _, value in row(read[4])]
            named = [(part[1].rstrip(b"\0").decode(), attributes(part[2])) for part in parts]
            found.append((read[2].rstrip(b"\0").decode(), named))
    return found


def compared(expression):
    name, parameters = expression
    assert name == "cmp"
    return struct.unpack("!I", parameters[2])[0], attributes(parameters[3])[1]


def place(expression):
    name, parameters = expression
    assert name == "payload"
    return struct.unpack("!I", parameters[3])[0]


# byte for byte --------------------------------------------------------------------------------------------------


def test_the_chains_are_those_that_nft_makes(fence):
    fence.until({ADDRESS: "eth1"}, captures.DEADLINE_NS)
    assert sent(fence)[2:4] == unflagged(captures.CHAINS)


def test_the_rules_for_ipv4_and_arp_are_those_that_nft_makes(fence):
    fence.until({ADDRESS: "eth1"}, captures.DEADLINE_NS)
    assert [each for each in sent(fence) if each[0] == NEW_RULE][:4] == unflagged(captures.RULES[:4])


def test_the_rules_for_ipv6_are_those_that_nft_makes(fence):
    fence.until({IPV6: "eth1"}, captures.DEADLINE_NS)
    of_nft = [attributes(body[4:])[4] for _, _, body in unflagged(captures.RULES[4:])]
    ours = [attributes(body[4:])[4] for kind, _, body in sent(fence) if kind == NEW_RULE]
    assert ours == of_nft * 2


def test_the_flush_and_the_edges_of_a_transaction_are_those_of_nft(fence):
    fence.until({ADDRESS: "eth1"}, 1)
    assert unflagged(captures.FLUSH)[0] in sent(fence)
    assert [sent(fence)[0], sent(fence)[-1]] == unflagged(captures.EDGES)


def test_the_last_change_of_a_transaction_and_it_alone_asks_for_an_answer(fence):
    fence.lift({ADDRESS: "eth1"})
    asking = [flags & 0x4 for _, flags, _ in sent(fence)]
    assert asking == [0, 0, 4, 0]


# what it says ---------------------------------------------------------------------------------------------------


@given(deadline_ns=st.integers(min_value=0, max_value=2**63 - 1))
def test_every_rule_compares_the_time_with_the_deadline(deadline_ns):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fence_module, "NetlinkSocket", Recorder)
        fence = Fence()
    fence.until({ADDRESS: "eth1"}, deadline_ns)
    assert len(rules(fence)) == 8
    for _, parts in rules(fence):
        names = [name for name, _ in parts]
        assert names == ["meta", "cmp", "payload", "cmp", "meta", "byteorder", "cmp", "immediate"]
        assert compared(parts[6]) == (AT_LEAST, struct.pack("!Q", deadline_ns))


@given(st.ip_addresses(v=4), st.from_regex(r"[a-zé][a-z0-9.@é-]{0,7}", fullmatch=True))
def test_whatever_address_and_interface_are_filled_into_the_forms(address, interface):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fence_module, "NetlinkSocket", Recorder)
        fence = Fence()
    fence.until({str(address): interface}, 1)
    chains = {f"{side}-{address}-{interface}" for side in ("in", "out")}
    assert {chain for chain, _ in rules(fence)} == chains
    assert all(compared(parts[3]) == (EQUAL, address.packed) for _, parts in rules(fence))


def test_rules_for_ipv6_cover_source_destination_and_neighbour_discovery(fence):
    fence.until({IPV6: "eth1"}, 1)
    for _, parts in rules(fence):
        assert compared(parts[1]) == (EQUAL, b"\x86\xdd")
        assert compared(parts[3]) == (EQUAL, bytes.fromhex("20010db8000000000000000000000010"))
    assert len(rules(fence)) == 6
    assert {place(parts[2]) for _, parts in rules(fence)} == {8, 24, 48}


def test_rules_cover_ipv4_and_arp_in_both_directions(fence):
    fence.until({ADDRESS: "eth1"}, 1)
    seen = set()
    for chain, parts in rules(fence):
        _, protocol = compared(parts[1])
        assert compared(parts[3]) == (EQUAL, socket.inet_aton(ADDRESS))
        seen.add((chain, protocol.hex(), place(parts[2])))
    places = [("0800", 12), ("0800", 16), ("0806", 14), ("0806", 24)]
    assert seen == {(f"{side}-{ADDRESS}-eth1", *each) for side in ("in", "out") for each in places}


def test_one_batch_replaces_all_rules_of_a_route(fence):
    fence.until({ADDRESS: "eth1", "34.123.10.2": "eth0"}, 1)
    assert len(fence._socket.batches) == 1
    kinds = [kind for kind, _, _ in sent(fence)]
    assert (kinds[0], kinds[-1]) == (0x10, 0x11), "begin and end of a transaction"
    # begin, table, then per address: two chains, their flushes, and four rules for each
    assert kinds[2:14] == [0xA03, 0xA03, DELETE_RULES, DELETE_RULES, *[NEW_RULE] * 8]
    assert kinds[14:26] == kinds[2:14]


def test_preparing_encodes_what_a_deadline_needs(fence, monkeypatch):
    fence.prepare({"34.123.10.77": "eth1"})
    monkeypatch.setattr(fence_module.nftables.Nftables, "_encode", lambda *_: pytest.fail("encoded on the way"))
    fence.until({"34.123.10.77": "eth1"}, 1)
    fence.lift({"34.123.10.77": "eth1"})


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
