"""`python -m lab.chaos.redirect add|remove LINK IP PORT TO`: what comes in by LINK for IP:PORT goes to TO here.

One nftables rule (ip, nat, prerouting) by the sidecar's nftables messages, so that the lab needs no `nft` on the
machine. The table is ``lab-redirect``; `remove` takes it away, whatever is in it.
"""

from __future__ import annotations

import socket
import struct
import sys
from typing import Final

from sidecar.kernel import nftables
from sidecar.kernel.netlink import NetlinkSocket
from sidecar.kernel.nftables import NETWORK_HEADER, NFPROTO_IPV4, TRANSPORT_HEADER, Cmp, Meta, Nftables, transaction

TABLE: Final = "lab-redirect"
_NFT: Final = Nftables(TABLE, NFPROTO_IPV4)
_NETLINK_NETFILTER: Final = 12
_CHAIN: Final = "in"
_PREROUTING, _BEFORE_FILTERS = 0, -100
_NAME_BYTES: Final = 16


def add(link: str, address: str, port: int, to: int) -> None:
    """Put the rule in place.

    Raises:
        KernelRefused: this kernel has no nat, or a capability is missing.
    """
    rule = [
        *(nftables.meta(Meta.NFT_META_IIFNAME), _equal(link.encode().ljust(_NAME_BYTES, b"\0"))),
        *(nftables.payload(NETWORK_HEADER, 9, 1), _equal(bytes([socket.IPPROTO_TCP]))),
        *(nftables.payload(NETWORK_HEADER, 16, 4), _equal(socket.inet_aton(address))),
        *(nftables.payload(TRANSPORT_HEADER, 2, 2), _equal(struct.pack("!H", port))),
        *(nftables.load(struct.pack("!H", to)), nftables.redirect()),
    ]
    chain = _NFT.new_base_chain(_CHAIN, "nat", _PREROUTING, _BEFORE_FILTERS)
    _commit(_NFT.new_table(), chain, _NFT.new_rule(_CHAIN, rule))


def remove() -> None:
    """Take the table away with its rules.

    Raises:
        KernelRefused: it is not there.
    """
    _commit(_NFT.delete_table())


def _commit(*changes: bytes) -> None:
    kernel = NetlinkSocket(_NETLINK_NETFILTER)
    try:
        kernel.transact(transaction(changes), "redirection of a port")
    finally:
        kernel.close()


def _equal(value: bytes) -> dict[str, object]:
    return nftables.compare(Cmp.NFT_CMP_EQ, value)


if __name__ == "__main__":
    if sys.argv[1] == "add":
        add(sys.argv[2], sys.argv[3], int(sys.argv[4]), int(sys.argv[5]))
    else:
        remove()
