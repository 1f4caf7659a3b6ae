"""The lab's cables: the switch with a bridge per network, the control plane's and the controllers' places on it, nodes.

Addresses: network k is 10.(200+k).0.0/16; node N's Pods have 10.20k.N.10 and more, clients 10.20k.0.100, the API server
10.200.0.1. This process reaches the API server over a cable of its own (`lab0`), so that what a test asks never
shows on the Pods' networks, and what is done to these never cuts a test off.
"""

from __future__ import annotations

from lab import wiring
from lab.errors import LabError
from lab.wiring import Links

SWITCH = "switch"
CONTROL_PLANE = "cp"
API_ADDRESS = "10.200.0.1"
_OWN_ADDRESS = "10.199.0.2"
_OWN_LINK = "lab0"


def address(network: int, node: int, host: int) -> str:
    """An address on a network."""
    return f"10.{200 + network}.{node}.{host}"


class Networks:
    """The networks by name; the place of a name is its number."""

    def __init__(self, names: tuple[str, ...]) -> None:
        if not names or names[0] != "default":
            raise LabError(f"the first of the networks must be `default`, not {names[:1]}")
        self.names = names
        self._made: list[str] = []

    def number(self, name: str) -> int:
        """A network's number.

        Raises:
            LabError: there is no such network.
        """
        if name not in self.names:
            raise LabError(f"there is no network {name!r} in this lab: it has {', '.join(self.names)}")
        return self.names.index(name)

    def make(self) -> None:
        """Make the switch, the control plane's place on it, and this process' cable to the API server."""
        for name in (SWITCH, CONTROL_PLANE):
            self._create(name)
        with Links(SWITCH) as switch:
            for number in range(len(self.names)):
                switch.bridge(f"sw{number}")
        self.plug("cp", CONTROL_PLANE, 0, "eth0", f"{API_ADDRESS}/16")
        with Links() as here, Links(CONTROL_PLANE) as there:
            here.veth(_OWN_LINK, CONTROL_PLANE, _OWN_LINK)
            here.up(_OWN_LINK)
            there.up(_OWN_LINK)
            there.route(f"{_OWN_ADDRESS}/32", _OWN_LINK)
            here.address(_OWN_LINK, f"{_OWN_ADDRESS}/32")
            here.route(f"{API_ADDRESS}/32", _OWN_LINK, _OWN_ADDRESS)

    def remove(self) -> None:
        """Remove every namespace that was made here."""
        while self._made:
            wiring.delete(self._made.pop())
        with Links() as here:
            here.remove(_OWN_LINK)

    def plug(self, port: str, netns: str, network: int, link: str, cidr: str | None = None) -> None:
        """Lay a cable from a port of the switch to a link in a namespace."""
        with Links(SWITCH) as switch:
            switch.veth(port, netns, link)
            switch.attach(port, f"sw{network}")
        with Links(netns) as there:
            there.up(link)
            if cidr:
                there.address(link, cidr)

    def host(self, netns: str, port: str, network: int, host: int) -> str:
        """Make a namespace with one link on a network: a client or a controller's place.

        Returns:
            Its address.
        """
        self._create(netns)
        own = address(network, 0, host)
        self.plug(port, netns, network, "eth0", f"{own}/16")
        return own

    def node(self, number: int, *, bridged: bool = True) -> str:
        """Make a node's namespace: a bridge per network, each with a cable to the switch.

        Args:
            number: of the node.
            bridged: whether there are bridges; else the Pods are to be macvlans of the cables, as the node itself is.

        Returns:
            The namespace's name.
        """
        name = f"node-{number}"
        self._create(name)
        for network in range(len(self.names)):
            mac = f"02:00:00:0{network}:00:{number:02x}"
            self.plug(port(number, network), name, network, f"up{network}")
            with Links(name) as node:
                if bridged:
                    # a fixed address: else the bridge takes the lowest port's, which changes as Pods come and go
                    node.bridge(f"br{network}", mac=mac)
                    node.attach(f"up{network}", f"br{network}")
                else:
                    node.macvlan(f"br{network}", f"up{network}", mac=mac)
                node.address(f"br{network}", f"{address(network, number, 1)}/16")
        return name

    def _create(self, name: str) -> None:
        wiring.create(name)
        self._made.append(name)


def port(node: int, network: int) -> str:
    """The switch's port of a node on a network."""
    return f"n{node}-{network}"
