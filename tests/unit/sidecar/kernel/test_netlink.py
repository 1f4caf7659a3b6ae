"""Batches on their way to the kernel and answers on their way back."""

import errno
import os
import struct

import pytest
from pyroute2.netlink.rtnl.ifaddrmsg import ifaddrmsg

from sidecar.errors import KernelRefused, NotPermitted
from sidecar.kernel import netlink
from sidecar.kernel.addresses import RouteMarshal
from sidecar.kernel.netlink import NetlinkSocket, answered, refusal
from tests.unit.sidecar.kernel.plain import fields

ONE = struct.pack("=IHHII", 20, 0xA03, 0x401, 0, 0) + b"abcd"
TWO = struct.pack("=IHHII", 16, 0xA06, 0x5, 0, 0)


def answer(sequence, number, request=ONE):
    """What the kernel says of a request: struct nlmsgerr, with the request behind it."""
    body = struct.pack("=i", -number) + request[:16]
    return struct.pack("=IHHII", 16 + len(body), 2, 0, sequence, 0) + body


class Kernel:
    """In place of the socket: keeps what is sent, says what it is told to say."""

    def __init__(self):
        self.sent = []
        self.says = []

    def send(self, datagram):
        self.sent.append(datagram)

    def recv(self, _size, _flags=0):
        if self.says:
            said = self.says.pop(0)
            if isinstance(said, OSError):
                raise said
            return said
        raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))

    def setsockopt(self, *_):
        pass


@pytest.fixture
def kernel(monkeypatch):
    kernel = Kernel()
    monkeypatch.setattr(netlink.socket, "socket", lambda *_: kernel)
    return kernel


def test_a_batch_is_one_datagram_with_rising_sequence_numbers(kernel):
    socket = NetlinkSocket(12)
    for first in (1, 3):
        kernel.says = [answer(first + 1, 0)]
        socket.transact([ONE, TWO], "x")
        sequences = [struct.unpack_from("=I", kernel.sent[-1], at + 8)[0] for at in (0, len(ONE))]
        assert sequences == [first, first + 1]
        assert len(kernel.sent[-1]) == len(ONE) + len(TWO)
    assert struct.unpack_from("=I", ONE, 8) == (0,), "what is kept encoded stays as it is"


def test_asking_for_an_answer_changes_that_flag_alone():
    kind, flags, body = fields(answered(ONE))
    assert (kind, flags, body) == (0xA03, 0x405, b"abcd")
    assert answered(TWO) == TWO


def test_the_refusal_of_a_message_that_asked_for_no_answer_is_told(kernel):
    kernel.says = [answer(1, errno.ENOENT), answer(2, 0)]
    with pytest.raises(KernelRefused, match="the rules: No such file") as caught:
        NetlinkSocket(12).transact([ONE, TWO], "the rules")
    assert caught.value.errno == errno.ENOENT
    assert kernel.says == [], "the rest of the answers is not left to the next batch"


def test_the_first_of_two_refusals_is_told(kernel):
    kernel.says = [answer(1, errno.EEXIST) + answer(2, errno.EINVAL, TWO)]
    with pytest.raises(KernelRefused) as caught:
        NetlinkSocket(12).transact([answered(ONE), TWO], "x")
    assert caught.value.errno == errno.EEXIST


def test_late_answers_to_an_earlier_batch_are_passed_over(kernel):
    socket = NetlinkSocket(12)
    kernel.says = [answer(1, 0)]
    socket.transact([TWO], "x")
    kernel.says = [answer(1, errno.EBUSY), answer(2, 0)]
    socket.transact([TWO], "x")


OVERRUN = OSError(errno.ENOBUFS, os.strerror(errno.ENOBUFS))


def test_a_batch_whose_answer_had_no_room_is_sent_again(kernel):
    kernel.says = [OVERRUN]

    def send(datagram):
        kernel.sent.append(datagram)
        if len(kernel.sent) == 2:
            kernel.says = [answer(1, errno.EBUSY), answer(2, 0)]

    kernel.send = send
    NetlinkSocket(12).transact([TWO], "x")
    assert len(kernel.sent) == 2


def test_what_never_has_room_is_an_error_and_no_endless_loop(kernel):
    def send(datagram):
        kernel.sent.append(datagram)
        kernel.says = [OVERRUN]

    kernel.send = send
    with pytest.raises(KernelRefused, match="x: No buffer space") as caught:
        NetlinkSocket(12).transact([TWO], "x")
    assert caught.value.errno == errno.ENOBUFS
    assert len(kernel.sent) == 3


def test_no_answer_is_an_error_and_not_a_hang(kernel):
    kernel.says = []
    with pytest.raises(KernelRefused, match="x: Resource temporarily unavailable"):
        NetlinkSocket(12).transact([TWO], "x")


NEW_ADDRESS, GET_ADDRESS, DONE, INTERRUPTED = 20, 22, 3, 0x10


def listing(sequence, *indexes, flags=0x2):
    """A list of addresses as the kernel sends it, each by the index of its interface."""
    bodies = [(NEW_ADDRESS, struct.pack("=BBBBi", 2, 32, 0, 0, index)) for index in indexes]
    bodies.append((DONE, bytes(4)))
    return b"".join(struct.pack("=IHHII", 16 + len(body), kind, flags, sequence, 0) + body for kind, body in bodies)


def listed(kernel, *says):
    kernel.says = list(says)
    found = NetlinkSocket(0, RouteMarshal()).dump(ifaddrmsg(), GET_ADDRESS, "list of addresses")
    assert kernel.says == []
    return [message["index"] for message in found]


def test_a_list_that_changed_while_it_was_read_is_asked_for_again(kernel):
    assert listed(kernel, listing(1, 7, 8)) == [7, 8]
    assert listed(kernel, listing(1, 7, flags=INTERRUPTED), listing(2, 7, 8)) == [7, 8]


def test_a_list_that_had_no_room_is_asked_for_again(kernel):
    kernel.says = [listing(1, 7)[:-20], OVERRUN]

    def send(datagram):
        kernel.sent.append(datagram)
        if len(kernel.sent) == 2:
            kernel.says = [listing(2, 7, 8)]

    kernel.send = send
    found = NetlinkSocket(0, RouteMarshal()).dump(ifaddrmsg(), GET_ADDRESS, "list of addresses")
    assert [message["index"] for message in found] == [7, 8]


def test_a_list_that_changes_all_the_time_is_what_any_reading_of_it_showed(kernel):
    says = [listing(number, number % 2, flags=INTERRUPTED) for number in range(1, 9)]
    assert set(listed(kernel, *says)) == {0, 1}


def test_what_is_left_of_an_earlier_list_is_passed_over(kernel):
    assert listed(kernel, listing(0, 9) + listing(1, 7)) == [7]


def test_another_user_than_root_is_told_that_capabilities_do_not_count_for_it(monkeypatch):
    monkeypatch.setattr(netlink.os, "geteuid", lambda: 1000)
    assert "UID 1000" in str(refusal("AF_PACKET socket", errno.EPERM, "NET_RAW"))
    assert "runAsUser: 0" in str(refusal("AF_PACKET socket", errno.EPERM, "NET_RAW"))


@pytest.mark.parametrize("number", [errno.EPERM, errno.EACCES])
def test_a_missing_capability_is_named(number, monkeypatch):
    monkeypatch.setattr(netlink.os, "geteuid", lambda: 0)
    error = refusal("fence", number)
    assert isinstance(error, NotPermitted)
    assert "NET_ADMIN" in str(error)
