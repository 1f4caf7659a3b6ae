"""The fence's messages are those that `nft` sends for the same rules; what an unsupported kernel's answers become."""

import errno
import ipaddress
import socket
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.errors import FenceUnsupported, KernelRefused, NotPermitted
from sidecar.kernel import fence as fence_module
from sidecar.kernel import nftables
from sidecar.kernel.fence import Fence
from sidecar.kernel.netlink import refusal
from tests.unit.sidecar.kernel import captures
from tests.unit.sidecar.kernel.plain import attributes, fields, row, unflagged

ADDRESS = "34.123.10.1"
IPV6 = "2001:db8::10"
NEW_TABLE, NEW_CHAIN, NEW_RULE, DELETE_RULES = 0xA00, 0xA03, 0xA06, 0xA08
EQUAL, NOT_EQUAL, AT_LEAST = 0, 1, 5
IP, ARP, NETDEV, IP6 = 2, 3, 5, 10
EVERYWHERE = {NETDEV, ARP, IP}


PREFIX = struct.pack("=HHHHBxxx", 12, 4, 5, 2, 0)
"""NFTA_HOOK_DEVS with an empty NFTA_DEVICE_PREFIX: every interface, which kernels before 6.18 refuse."""


class Recorder:
    """In place of the netlink socket: keeps the batches, refuses as told."""

    def __init__(self, *_family_and_marshal):
        self.batches = []
        self.refuse = 0
        self.old = False

    def transact(self, batch, what):
        if self.old and any(PREFIX in message for message in batch):
            raise refusal(what, errno.EINVAL)
        self.batches.append(batch)
        if self.refuse:
            raise refusal(what, self.refuse)

    def close(self):
        self.batches.append([])


@pytest.fixture
def fence(monkeypatch):
    monkeypatch.setattr(fence_module, "NetlinkSocket", Recorder)
    return Fence()


@pytest.fixture
def old(fence):
    """The same on a kernel whose netdev chains are each on the interfaces that it names."""
    fence._socket.old = True
    return fence


def sent(fence):
    """What was sent last, as (type, flags, what follows the header)."""
    return [fields(message) for message in fence._socket.batches[-1]]


def every_message(fence):
    """All that was sent, as `sent` gives what was sent last."""
    return [fields(message) for batch in fence._socket.batches for message in batch]


def rules(fence):
    """The new rules sent last: (family, chain, [(expression's name, its parameters)])."""
    found = []
    for kind, _, body in sent(fence):
        if kind == NEW_RULE:
            read = attributes(body[4:])
            parts = [attributes(value) for _, value in row(read[4])]
            named = [(part[1].rstrip(b"\0").decode(), attributes(part[2])) for part in parts]
            found.append((body[0], read[2].rstrip(b"\0").decode(), named))
    return found


def deadlines(fence):
    """Those of the new rules that stand in a chain with a deadline."""
    return [(family, parts) for family, chain, parts in rules(fence) if chain.startswith("at-")]


def chains(fence):
    """The new chains sent last, as (family, name)."""
    return [(body[0], name(body)) for kind, _, body in sent(fence) if kind == NEW_CHAIN]


def name(body):
    return attributes(body[4:])[3].rstrip(b"\0").decode()


def expressions(message):
    return attributes(message[2][4:])[4]


def compared(expression):
    name, parameters = expression
    assert name == "cmp"
    return struct.unpack("!I", parameters[2])[0], attributes(parameters[3])[1]


def place(expression):
    name, parameters = expression
    assert name == "payload"
    return struct.unpack("!I", parameters[3])[0]


# byte for byte --------------------------------------------------------------------------------------------------


def test_the_chains_of_one_interface_are_those_that_nft_makes(old):
    old.until({ADDRESS: "eth1"}, captures.DEADLINE_NS)
    made = [each for each in sent(old) if each[0] == NEW_CHAIN]
    assert made == unflagged(captures.CHAINS)


def test_the_rules_for_ipv4_and_arp_are_those_that_nft_makes(fence):
    fence.until({ADDRESS: "eth1"}, captures.DEADLINE_NS)
    ours = [expressions(each) for each in sent(fence) if each[0] == NEW_RULE and each[2][0] == NETDEV]
    assert ours[2:] == [expressions(each) for each in unflagged(captures.RULES[:4])]


def test_the_rules_for_ipv6_are_those_that_nft_makes(fence):
    fence.until({IPV6: "eth1"}, captures.DEADLINE_NS)
    ours = [expressions(each) for each in sent(fence) if each[0] == NEW_RULE and each[2][0] == NETDEV]
    assert ours[2:] == [expressions(each) for each in unflagged(captures.RULES[4:])]


def test_the_flush_and_the_edges_of_a_transaction_are_those_of_nft(old):
    old.until({ADDRESS: "eth1"}, 1)
    assert unflagged(captures.FLUSH)[0] in sent(old)
    assert [sent(old)[0], sent(old)[-1]] == unflagged(captures.EDGES)


def test_the_last_change_of_a_transaction_and_it_alone_asks_for_an_answer(fence):
    fence.lift([ADDRESS])
    asking = [flags & 0x4 for _, flags, _ in sent(fence)]
    assert asking == [0, 0, 0, 4, 0]


# what it says ---------------------------------------------------------------------------------------------------


@given(deadline_ns=st.integers(min_value=0, max_value=2**63 - 1))
def test_every_rule_compares_the_time_with_the_deadline(deadline_ns):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fence_module, "NetlinkSocket", Recorder)
        fence = Fence()
    fence.until({ADDRESS: "eth1"}, deadline_ns)
    assert len(deadlines(fence)) == 8
    for family, parts in deadlines(fence):
        names = [name for name, _ in parts]
        of_protocol = ["meta", "cmp"] if family == NETDEV else []
        assert names == [*of_protocol, "payload", "cmp", "meta", "byteorder", "cmp", "immediate"]
        assert compared(parts[-2]) == (AT_LEAST, struct.pack("!Q", deadline_ns))


@given(st.ip_addresses(v=4), st.from_regex(r"[a-zé][a-z0-9.@é-]{0,7}", fullmatch=True))
def test_whatever_address_and_interface_are_filled_into_the_forms(address, interface):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fence_module, "NetlinkSocket", Recorder)
        fence = Fence()
    fence._socket.old = True
    fence.until({str(address): interface}, 1)
    assert {chain for _, chain, _ in rules(fence)} == {f"{side}-{address}-{interface}" for side in ("in", "out")}
    fence.until({str(address): interface}, 1)
    assert {chain for _, chain, _ in rules(fence)} == {f"at-{address}"}
    assert all(compared(parts[-5]) == (EQUAL, address.packed) for _, parts in deadlines(fence))


def test_rules_for_ipv6_cover_source_destination_and_neighbour_discovery(fence):
    fence.until({IPV6: "eth1"}, 1)
    for family in (NETDEV, IP6):
        of_family = [parts for each, parts in deadlines(fence) if each == family]
        assert {place(parts[-6]) for parts in of_family} == {8, 24, 48}
        for parts in of_family:
            assert compared(parts[-5]) == (EQUAL, bytes.fromhex("20010db8000000000000000000000010"))
    assert {family for family, _ in deadlines(fence)} == {NETDEV, IP6}


def test_rules_cover_ipv4_and_arp_in_every_family(fence):
    fence.until({ADDRESS: "eth1"}, 1)
    seen = set()
    for family, parts in deadlines(fence):
        protocol = compared(parts[1])[1].hex() if family == NETDEV else ""
        assert compared(parts[-5]) == (EQUAL, socket.inet_aton(ADDRESS))
        seen.add((family, protocol, place(parts[-6])))
    of_frames = {(NETDEV, "0800", 12), (NETDEV, "0800", 16), (NETDEV, "0806", 14), (NETDEV, "0806", 24)}
    assert seen == of_frames | {(ARP, "", 14), (ARP, "", 24), (IP, "", 12), (IP, "", 16)}


def test_both_directions_of_every_family_lead_to_the_deadline(fence):
    fence.until({ADDRESS: "eth1"}, 1)
    leading = set()
    for family, chain, parts in rules(fence):
        verdict = attributes(attributes(parts[-1][1][2])[2]) if parts[-1][0] == "immediate" else {}
        if struct.unpack("!i", verdict[1])[0] == -3:
            assert verdict[2] == f"at-{ADDRESS}\0".encode()
            leading.add((family, chain))
    assert leading == {(family, f"{side}-{ADDRESS}") for family in EVERYWHERE for side in ("in", "out")}


@pytest.mark.parametrize(
    ("address", "family", "asked"),
    [
        (ADDRESS, ARP, [(6, EQUAL, b"\0\1"), (24, EQUAL, None), (14, NOT_EQUAL, None)]),
        (IPV6, IP6, [(6, EQUAL, bytes([58])), (40, EQUAL, bytes([135])), (48, EQUAL, None)]),
    ],
)
def test_before_the_deadline_only_the_interface_that_the_address_is_on_hears_who_asks(fence, address, family, asked):
    fence.prepare({address: "eth1"})
    (parts,) = [p for of, chain, p in rules(fence) if (of, chain) == (family, f"in-{address}") and len(p) > 1]
    assert compared(parts[1]) == (NOT_EQUAL, b"eth1".ljust(16, b"\0"))
    packed = ipaddress.ip_address(address).packed
    said = [(place(parts[at]), *compared(parts[at + 1])) for at in range(2, len(parts) - 1, 2)]
    assert said == [(at, how, packed if what is None else what) for at, how, what in asked]


def test_one_batch_replaces_all_rules_of_a_route(fence):
    places = {ADDRESS: "eth1", "34.123.10.2": "eth0"}
    fence.prepare(places)
    fence.until(places, 1)
    assert len(fence._socket.batches) == 2
    kinds = [kind for kind, _, _ in sent(fence)]
    assert (kinds[0], kinds[-1]) == (0x10, 0x11), "begin and end of a transaction"
    # of each address: what was in the chain of each family, and what is to be
    assert kinds[1:-1] == [*[DELETE_RULES] * 3, *[NEW_RULE] * 8] * 2


def test_what_was_not_prepared_is_made_in_the_same_transaction_before_it_is_filled(fence):
    fence.until({ADDRESS: "eth1"}, 1)
    assert len(fence._socket.batches) == 1
    assert set(chains(fence)) == {(of, f"{way}-{ADDRESS}") for of in EVERYWHERE for way in ("at", "in", "out")}
    fence.until({ADDRESS: "eth0"}, 1)
    assert chains(fence), "on another interface, other interfaces are to be quiet"


def test_what_somebody_has_taken_away_is_made_again_by_the_next_deadline(fence):
    fence.prepare({ADDRESS: "eth1"})
    transact = fence._socket.transact

    def gone(_batch, what):
        fence._socket.transact = transact
        raise refusal(what, errno.ENOENT)

    fence._socket.transact = gone
    fence.until({ADDRESS: "eth1"}, 1)
    assert len(deadlines(fence)) == 8
    assert chains(fence)


def test_the_netdev_chains_are_on_all_interfaces_where_the_kernel_can(fence):
    fence.prepare({ADDRESS: "eth1"})
    hooked = [body for kind, _, body in sent(fence) if kind == NEW_CHAIN and body[0] == NETDEV and PREFIX in body]
    assert [name(body) for body in hooked] == [f"in-{ADDRESS}", f"out-{ADDRESS}"]
    fence.cover({"eth0": 1, "eth1": 2})
    assert len(fence._socket.batches) == 1, "there is nothing to do"


def test_else_each_interface_has_its_own_and_a_new_one_gets_them(old):
    old.cover({"eth0": 1, "eth1": 2})
    old.prepare({ADDRESS: "eth1"})
    assert hooked_names(old) == {f"{side}-{ADDRESS}-{name}" for side in ("in", "out") for name in ("eth0", "eth1")}
    old._socket.batches.clear()
    old.cover({"eth0": 1, "eth1": 2})
    assert hooked_names(old) == set()
    old.cover({"eth0": 3, "eth1": 2, "eth2": 4})
    assert hooked_names(old) == {f"{side}-{ADDRESS}-{name}" for side in ("in", "out") for name in ("eth0", "eth2")}


def hooked_names(fence):
    made = [body for kind, _, body in every_message(fence) if kind == NEW_CHAIN and body[0] == NETDEV]
    return {name(body) for body in made} - {f"at-{ADDRESS}", f"tr-{ADDRESS}"}


def test_preparing_encodes_what_a_deadline_needs(fence, monkeypatch):
    fence.prepare({"34.123.10.77": "eth1"})
    monkeypatch.setattr(nftables.Nftables, "_encode", lambda *_: pytest.fail("encoded on the way"))
    fence.until({"34.123.10.77": "eth1"}, 1)
    fence.lift(["34.123.10.77"])


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
    fence.lift([ADDRESS])
    fence._socket.refuse = errno.EINVAL
    with pytest.raises(FenceUnsupported):
        fence.lift([ADDRESS])
