"""`python -m lab.chaos.redirect add|remove LINK IP PORT TO`: what comes in by LINK for IP:PORT goes to TO here.

One nftables rule (ip, nat, prerouting) by the sidecar's own netlink messages, so that the lab needs no `nft` on the
machine. The table is ``lab-redirect``; `remove` takes it away, whatever is in it.
"""

from __future__ import annotations

import socket
import struct
import sys
from typing import Final

from sidecar.kernel.netlink import ACK, CREATE, REQUEST, Message, NetlinkSocket, attribute, nested, number, text

TABLE: Final = "lab-redirect"
_CHAIN: Final = "in"
_NETLINK_NETFILTER: Final = 12
_NFTABLES: Final = 10 << 8
_NEWTABLE, _DELTABLE, _NEWCHAIN, _NEWRULE = (_NFTABLES | number_ for number_ in (0, 2, 3, 6))
_BATCH_BEGIN, _BATCH_END, _APPEND = 0x10, 0x11, 0x800
_IPV4: Final = 2
_PREROUTING, _BEFORE_FILTERS = 0, -100
_NETWORK, _TRANSPORT = 1, 2
_INPUT_NAME, _NAME_BYTES = 6, 16


def add(link: str, address: str, port: int, to: int) -> None:
    """Put the rule in place.

    Raises:
        KernelRefused: this kernel has no nat, or a capability is missing.
    """
    hook = nested(4, number(1, _PREROUTING), attribute(2, struct.pack("!i", _BEFORE_FILTERS)))
    chain = text(1, TABLE) + text(3, _CHAIN) + hook + text(7, "nat")
    expressions = (
        *(_expression("meta", number(1, 1), number(2, _INPUT_NAME)), _equal(link.encode().ljust(_NAME_BYTES, b"\0"))),
        *(_payload(_NETWORK, 9, 1), _equal(bytes([socket.IPPROTO_TCP]))),
        *(_payload(_NETWORK, 16, 4), _equal(socket.inet_aton(address))),
        *(_payload(_TRANSPORT, 2, 2), _equal(struct.pack("!H", port))),
        _expression("immediate", number(1, 1), nested(2, attribute(1, struct.pack("!H", to)))),
        _expression("redir", number(1, 1)),
    )
    rule = text(1, TABLE) + text(2, _CHAIN) + nested(4, *expressions)
    _commit(
        _message(_NEWTABLE, CREATE, text(1, TABLE)),
        _message(_NEWCHAIN, CREATE, chain),
        _message(_NEWRULE, CREATE | _APPEND, rule),
    )


def remove() -> None:
    """Take the table away with its rules.

    Raises:
        KernelRefused: it is not there.
    """
    _commit(_message(_DELTABLE, 0, text(1, TABLE)))


def _commit(*batch: Message) -> None:
    begin = Message(_BATCH_BEGIN, REQUEST, struct.pack("!BBH", socket.AF_UNSPEC, 0, _NFTABLES >> 8))
    kernel = NetlinkSocket(_NETLINK_NETFILTER)
    try:
        kernel.transact([begin, *batch, Message(_BATCH_END, REQUEST, begin.body)], "redirection of a port")
    finally:
        kernel.close()


def _message(kind: int, flags: int, body: bytes) -> Message:
    return Message(kind, REQUEST | ACK | flags, struct.pack("!BBH", _IPV4, 0, 0) + body)


def _expression(name: str, *parameters: bytes) -> bytes:
    return nested(1, text(1, name), nested(2, *parameters))


def _payload(base: int, offset: int, length: int) -> bytes:
    return _expression("payload", number(1, 1), number(2, base), number(3, offset), number(4, length))


def _equal(value: bytes) -> bytes:
    return _expression("cmp", number(1, 1), number(2, 0), nested(3, attribute(1, value)))


if __name__ == "__main__":
    if sys.argv[1] == "add":
        add(sys.argv[2], sys.argv[3], int(sys.argv[4]), int(sys.argv[5]))
    else:
        remove()
