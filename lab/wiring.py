"""Network namespaces, links and addresses: the lab's only door to pyroute2.

Namespaces are named as `ip netns` does it (files in /run/netns), so that `ip -n NAME` and `ip netns exec NAME` work.
Everything here is for a closed world; nothing here knows Pods or nodes.
"""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from pyroute2 import IPRoute, NetlinkError, netns

from lab.errors import LinkError

if TYPE_CHECKING:
    from collections.abc import Iterator

NAMED = Path("/run/netns")
_UNUSABLE = 0x01 | 0x20
"""NUD_INCOMPLETE, NUD_FAILED: a neighbour's entry without an address in it."""


def create(name: str) -> None:
    """Make a named network namespace, with its loopback up.

    Raises:
        LinkError: there is one of that name.
    """
    if (NAMED / name).exists():
        raise LinkError(f"network namespace {name} exists already")
    netns.create(name)
    with Links(name) as links:
        links.up("lo")


def delete(name: str) -> None:
    """Remove a named network namespace, with its links once no process is in it; nothing happens if there is none."""
    with contextlib.suppress(FileNotFoundError):
        netns.remove(name)


def exists(name: str) -> bool:
    """Whether there is a network namespace of that name."""
    return (NAMED / name).exists()


class Links:
    """The links of one network namespace; None is the one this process is in."""

    def __init__(self, name: str | None = None) -> None:
        self.name = name

    def __enter__(self) -> Self:
        """Open a netlink socket in that namespace.

        Raises:
            LinkError: there is no such namespace.
        """
        if self.name is not None and not exists(self.name):
            raise LinkError(f"there is no network namespace {self.name}")
        self._route = IPRoute(netns=self.name) if self.name else IPRoute()
        return self

    def __exit__(self, *_: object) -> None:
        self._route.close()

    # making and removing ---------------------------------------------------------------------------------------

    def bridge(self, name: str, mac: str | None = None) -> None:
        """Make a bridge that forwards at once, without spanning tree, and bring it up."""
        # a fixed address where one is given: else it takes the lowest port's, which changes as ports come and go
        address = {"address": mac} if mac else {}
        with self._doing(f"add bridge {name}"):
            self._route.link(
                "add", ifname=name, kind="bridge", br_stp_state=0, br_forward_delay=0, br_mcast_snooping=0, **address
            )
        self.up(name)

    def veth(self, name: str, peer_netns: str, peer_name: str, peer_mac: str | None = None) -> None:
        """Make a cable: one end here, the other in another namespace; both are down."""
        peer: dict[str, Any] = {"ifname": peer_name, "net_ns_fd": str(NAMED / peer_netns)}
        if peer_mac:
            peer["address"] = peer_mac
        with self._doing(f"add veth {name} to {peer_netns}/{peer_name}"):
            self._route.link("add", ifname=name, kind="veth", peer=peer)

    def macvlan(self, name: str, parent: str, mac: str) -> None:
        """Make a macvlan that hears its siblings, and bring it up."""
        with self._doing(f"add macvlan {name} on {parent}"):
            index = self._index(parent)
            self._route.link("add", ifname=name, kind="macvlan", macvlan_mode="bridge", link=index, address=mac)
        self.up(name)

    def remove(self, name: str) -> None:
        """Remove a link; nothing happens if there is none."""
        if self._route.link_lookup(ifname=name):
            with self._doing(f"remove {name}"):
                self._route.link("del", index=self._index(name))

    # changing --------------------------------------------------------------------------------------------------

    def up(self, name: str) -> None:
        """Bring a link up."""
        self._set(name, state="up")

    def down(self, name: str) -> None:
        """Take a link down."""
        self._set(name, state="down")

    def attach(self, port: str, bridge: str) -> None:
        """Make a link a port of a bridge, up; a port of another bridge moves."""
        self._set(port, master=self._index(bridge), state="up")

    def detach(self, port: str) -> None:
        """Take a port off its bridge; its link stays up, so that it can be used again at once."""
        # a link that was down needs up to a second (the kernel's link watch) before it carries frames again
        self._set(port, master=0)

    def isolate(self, port: str, *, on: bool) -> None:
        """Isolated ports of a bridge do not hear each other."""
        with self._doing(f"isolate {port}"):
            self._route.brport("set", index=self._index(port), isolated=int(on))

    def address(self, name: str, cidr: str) -> None:
        """Add an address, such as ``10.200.0.1/16``."""
        address, _, length = cidr.partition("/")
        with self._doing(f"add {cidr} to {name}"):
            self._route.addr("add", index=self._index(name), address=address, prefixlen=int(length))

    def route(self, destination: str, name: str, source: str | None = None) -> None:
        """Add a route to what is directly reachable over a link."""
        source_address = {"prefsrc": source} if source else {}
        with self._doing(f"route {destination} over {name}"):
            self._route.route("add", dst=destination, oif=self._index(name), scope=253, **source_address)

    def _set(self, name: str, **change: object) -> None:
        with self._doing(f"set {name} {change}"):
            self._route.link("set", index=self._index(name), **change)

    # asking ----------------------------------------------------------------------------------------------------

    def names(self) -> list[str]:
        """All links."""
        return [link.get("ifname") for link in self._route.get_links()]

    def addresses(self, name: str) -> set[str]:
        """A link's IPv4 and IPv6 addresses with their prefix lengths, as the kernel has them."""
        found = self._route.get_addr(index=self._index(name))
        return {f"{a.get('address')}/{a['prefixlen']}" for a in found}

    def neighbour(self, address: str) -> str | None:
        """The MAC address that this host would send to for an address; None: it does not know one now."""
        entries = self._route.get_neighbours(dst=address)
        usable = [each for each in entries if not each["state"] & _UNUSABLE]
        return str(usable[0].get("lladdr")) if usable else None

    def mac(self, name: str) -> str:
        """A link's MAC address."""
        return str(self._link(name).get("address"))

    def macs(self) -> dict[str, str]:
        """The MAC addresses of all links but the loopback."""
        return {n.get("ifname"): n.get("address") for n in self._route.get_links() if n.get("ifname") != "lo"}

    def arp_announce(self, name: str) -> int:
        """A link's arp_announce."""
        settings = self._link(name).get_nested("IFLA_AF_SPEC", "AF_INET")
        return int(settings["arp_announce"])

    def _link(self, name: str) -> Any:
        return self._route.link("get", index=self._index(name))[0]

    def _index(self, name: str) -> int:
        found = self._route.link_lookup(ifname=name)
        if not found:
            raise LinkError(f"there is no link {name} in network namespace {self.name or '(own)'}")
        return int(found[0])

    @contextlib.contextmanager
    def _doing(self, what: str) -> Iterator[None]:
        try:
            yield
        except NetlinkError as error:
            raise LinkError(f"network namespace {self.name or '(own)'}: cannot {what}: {error}") from error
