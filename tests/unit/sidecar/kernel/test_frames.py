"""The frames, byte for byte against scapy, and the reader of foreign ones."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.kernel.frames import Claim, advertisement, arp_reply, arp_request, claims_filter, read_claim

MAC = bytes.fromhex("02420a0b0c0d")
MAC_TEXT = "02:42:0a:0b:0c:0d"
ADDRESS = "34.123.10.1"


@pytest.fixture(scope="module")
def layers():
    from scapy.layers import inet6, l2  # noqa: PLC0415 - slow to import: only where a test asks for it

    return l2, inet6


def test_gratuitous_request_is_what_scapy_builds(layers):
    l2, _ = layers
    expected = l2.Ether(src=MAC_TEXT, dst="ff:ff:ff:ff:ff:ff") / l2.ARP(
        op=1, hwsrc=MAC_TEXT, psrc=ADDRESS, hwdst="00:00:00:00:00:00", pdst=ADDRESS
    )
    assert arp_request(MAC, ADDRESS) == bytes(expected)


def test_gratuitous_reply_is_what_scapy_builds(layers):
    l2, _ = layers
    expected = l2.Ether(src=MAC_TEXT, dst="ff:ff:ff:ff:ff:ff") / l2.ARP(
        op=2, hwsrc=MAC_TEXT, psrc=ADDRESS, hwdst=MAC_TEXT, pdst=ADDRESS
    )
    assert arp_reply(MAC, ADDRESS) == bytes(expected)


@pytest.mark.parametrize("address", ["2001:db8::1", "fe80::ffff:ffff:ffff:ffff", "2001:db8:1:2:3:4:5:6"])
def test_advertisement_is_what_scapy_builds(layers, address):
    l2, inet6 = layers
    expected = (
        l2.Ether(src=MAC_TEXT, dst="33:33:00:00:00:01")
        / inet6.IPv6(src=address, dst="ff02::1", hlim=255)
        / inet6.ICMPv6ND_NA(R=0, S=0, O=1, tgt=address)
        / inet6.ICMPv6NDOptDstLLAddr(lladdr=MAC_TEXT)
    )
    assert advertisement(MAC, address) == bytes(expected)


@given(mac=st.binary(min_size=6, max_size=6), address=st.ip_addresses(v=4).map(str).filter(lambda a: a != "0.0.0.0"))
def test_reads_back_what_it_builds(mac, address):
    assert read_claim(arp_request(mac, address)) == Claim(address, mac)
    assert read_claim(arp_reply(mac, address)) == Claim(address, mac)


@given(st.binary(max_size=120))
def test_reading_anything_never_raises(frame):
    claim = read_claim(frame)
    assert claim is None or len(claim.mac) == 6


@pytest.mark.parametrize(
    ("name", "at", "value"),
    [
        ("not ARP", 12, b"\x08\x00"),
        ("another link type", 14, b"\x00\x06"),
        ("another protocol", 16, b"\x86\xdd"),
        ("long hardware address", 18, b"\x08"),
        ("reverse ARP", 20, b"\x00\x03"),
        ("a probe has no sender address", 28, bytes(4)),
    ],
)
def test_what_is_no_claim(name, at, value):
    frame = bytearray(arp_request(MAC, ADDRESS))
    frame[at : at + len(value)] = value
    assert read_claim(bytes(frame)) is None, name


def test_a_cut_frame_is_no_claim():
    assert read_claim(arp_request(MAC, ADDRESS)[:41]) is None


def run_filter(program, frame):
    """Interpret the few instructions that the filter uses."""
    accumulator, at = 0, 0
    while True:
        code, jump_true, jump_false, k = program[at]
        at += 1
        if code == 0x28:
            (accumulator,) = struct.unpack_from("!H", frame, k)
        elif code == 0x20:
            (accumulator,) = struct.unpack_from("!I", frame, k)
        elif code == 0x15:
            at += jump_true if accumulator == k else jump_false
        elif code == 0x06:
            return k
        else:
            raise AssertionError(hex(code))


def test_the_filter_passes_claims_of_these_addresses_only():
    program = claims_filter([ADDRESS, "34.123.10.2"])
    assert run_filter(program, arp_request(MAC, ADDRESS))
    assert run_filter(program, arp_reply(MAC, "34.123.10.2"))
    assert not run_filter(program, arp_request(MAC, "34.123.10.3"))
    assert not run_filter(program, bytes(12) + b"\x08\x00" + arp_request(MAC, ADDRESS)[14:])
    assert not run_filter(claims_filter([]), arp_request(MAC, ADDRESS))
