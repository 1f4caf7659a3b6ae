"""Hears when somebody else changes our nftables tables, as `nft flush ruleset` does.

The kernel tells every commit (NFNLGRP_NFTABLES); what we do ourselves is left out by a filter in the kernel, so that no
handover wakes us twice. Not here: what is done about it.
"""

from __future__ import annotations

import ctypes
import errno
import socket
import struct
from typing import Any, Final

from pyroute2.netlink import NETLINK_NETFILTER
from pyroute2.netlink.marshal import Marshal
from pyroute2.netlink.nfnetlink import NFNL_SUBSYS_NFTABLES, nfgen_msg
from pyroute2.netlink.nfnetlink.nftsocket import (
    NFT_MSG_DELCHAIN,
    NFT_MSG_DELRULE,
    NFT_MSG_DELTABLE,
    NFT_MSG_NEWCHAIN,
    NFT_MSG_NEWRULE,
    NFT_MSG_NEWTABLE,
)

from sidecar.kernel.netlink import refusal

_GROUP: Final = 7
"""NFNLGRP_NFTABLES of include/uapi/linux/netfilter/nfnetlink.h."""
_SOL_NETLINK, _ADD_MEMBERSHIP = 270, 1
_SO_ATTACH_FILTER: Final = 26
_PORT_AT: Final = 12
"""Of the sender, in struct nlmsghdr; a commit's messages come together and are all of one."""
_MAX_DATAGRAM_BYTES: Final = 1 << 16
_KINDS: Final = (
    NFT_MSG_NEWTABLE,
    NFT_MSG_DELTABLE,
    NFT_MSG_NEWCHAIN,
    NFT_MSG_DELCHAIN,
    NFT_MSG_NEWRULE,
    NFT_MSG_DELRULE,
)


class _About(nfgen_msg):  # type: ignore[misc] # the library is not typed
    """Of all these messages the first attribute names the table."""

    nla_map = ((1, "TABLE", "asciiz"),)


class _NewsMarshal(Marshal):  # type: ignore[misc]
    msg_map: Final = {NFNL_SUBSYS_NFTABLES << 8 | kind: _About for kind in _KINDS}


class TamperMonitor:
    """The kernel's news about one table that others than the owner of a netlink port have made."""

    def __init__(self, table: str, own_port: int) -> None:
        """Begin to listen.

        Raises:
            NotPermitted: a capability is missing.
            KernelRefused: this kernel does not tell.
        """
        self._table = table
        self._marshal = _NewsMarshal()
        try:
            kind = socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
            self._socket = socket.socket(socket.AF_NETLINK, kind, NETLINK_NETFILTER)
            self._ignore(own_port)
            self._socket.bind((0, 0))  # the kernel tells nothing to a socket without a port
            self._socket.setsockopt(_SOL_NETLINK, _ADD_MEMBERSHIP, _GROUP)
        except OSError as error:
            raise refusal("monitor of nftables", error.errno or errno.EIO) from error

    def _ignore(self, port: int) -> None:
        # the filter loads in network order what stands in the message in the machine's
        there = int.from_bytes(struct.pack("=I", port), "big")
        steps = ((0x20, 0, 0, _PORT_AT), (0x15, 0, 1, there), (0x06, 0, 0, 0), (0x06, 0, 0, 0xFFFFFFFF))
        program = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *step) for step in steps))
        where = struct.pack("@HP", len(steps), ctypes.addressof(program))
        self._socket.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, where)

    def fileno(self) -> int:
        """The descriptor to wait on."""
        return self._socket.fileno()

    def close(self) -> None:
        """Stop listening."""
        self._socket.close()

    def touched(self) -> bool:
        """Read all that has come; whether the table was changed, or may have been among news that were lost."""
        touched = False
        while True:
            try:
                datagram = self._socket.recv(_MAX_DATAGRAM_BYTES)
            except BlockingIOError:
                return touched
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise refusal("monitor of nftables", error.errno or errno.EIO) from error
                touched = True
                continue
            touched = touched or any(map(self._ours, self._marshal.parse(datagram)))

    def _ours(self, message: Any) -> bool:
        return isinstance(message, _About) and message.get_attr("TABLE") == self._table
