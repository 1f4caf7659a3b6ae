"""Netlink messages taken apart by hand, so that the library that builds them is not what proves them right."""

import struct

_NESTED = 0x8000


def fields(message):
    """Take (type, flags, what follows the header) of one encoded message, and see that its length is right."""
    length, kind, flags, _, _ = struct.unpack_from("=IHHII", message)
    assert length == len(message)
    return kind, flags, message[16:]


def row(data):
    """Take a row of attributes apart: [(type, value)]."""
    found = []
    while data:
        length, kind = struct.unpack_from("=HH", data)
        assert 4 <= length <= len(data)
        found.append((kind, data[4:length]))
        data = data[length + (-length % 4) :]
    return found


def attributes(data):
    """The same as {type: value}."""
    return {kind & ~_NESTED: value for kind, value in row(data)}


def unflagged(captured):
    """Captured messages with NLA_F_NESTED taken off every attribute: the kernel takes both."""
    return [(kind, flags, body[:4] + _plain(body[4:])) for kind, flags, body in captured]


def _plain(data):
    done = b""
    for kind, value in row(data):
        below = _plain(value) if kind & _NESTED else value
        done += struct.pack("=HH", 4 + len(below), kind & ~_NESTED) + below + bytes(-len(below) % 4)
    return done
