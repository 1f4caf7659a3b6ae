"""A Pod's network namespace: its interfaces on the networks that its annotation asks for, and its addresses.

What a runtime and its network plugins do. A Pod's network namespace is registered with the witness before anything is
in it. Interfaces leave by removing their other end first, so that the kernel tells of their addresses' end at once.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING

from contract.names import DEFAULT_NETWORKS, INTERFACES
from lab import wiring
from lab.errors import LabError
from lab.wiring import Links
from lab.witness.witness import register
from lab.world.networks import address

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

_NAME_MAX = 60
_FIRST_HOST, _LAST_HOST = 10, 250
_CABLE = "pod"


@dataclass(frozen=True, slots=True)
class Sandbox:
    """A Pod's place on the network: {interface: address} and the node's ends of its cables."""

    netns: str
    interfaces: dict[str, str]
    cables: tuple[str, ...]

    @property
    def address(self) -> str:
        """The Pod's address on the default network."""
        return self.interfaces["eth0"]


def name_of(namespace: str, name: str) -> str:
    """Name a Pod's network namespace; a long name is cut and ends in a hash."""
    whole = f"pod-{namespace}-{name}"
    if len(whole) <= _NAME_MAX:
        return whole
    return f"{whole[: _NAME_MAX - 9]}-{hashlib.sha256(whole.encode()).hexdigest()[:8]}"


def interfaces_of(annotations: dict[str, str], networks: Sequence[str]) -> dict[str, int]:
    """Read which interfaces a Pod is to have: {name: number of the network}; eth0 on the default network always.

    Raises:
        LabError: the annotation is damaged, or names a network that is not there.
    """
    found = {"eth0": 0}
    text = annotations.get(INTERFACES, "[]")
    try:
        asked = [(str(each["interfaceName"]), str(each["network"])) for each in json.loads(text)]
    except (ValueError, TypeError, KeyError) as error:
        raise LabError(
            f"annotation {INTERFACES} is not a list of interfaceName and network ({error!r}): {text!r}"
        ) from error
    for name, network in asked:
        wanted = networks[0] if network in DEFAULT_NETWORKS else network
        if wanted not in networks:
            raise LabError(f"annotation {INTERFACES}: there is no network {network!r}; there are {', '.join(networks)}")
        number = networks.index(wanted)
        if name == "eth0" and number != 0:
            raise LabError(f"annotation {INTERFACES}: eth0 is on the default network, not on {network!r}")
        if number in found.values() and name not in found:
            raise LabError(f"annotation {INTERFACES}: the lab supports one interface on network {network!r}")
        found[name] = number
    return found


class Sandboxes:
    """Makes and removes the network namespaces of one node's Pods; this process is in the node's own."""

    def __init__(self, node: int, networks: Sequence[str], witness: Path) -> None:
        """Nothing is made yet.

        Args:
            node: the node's number.
            networks: their names; each has a bridge `br<number>` here.
            witness: the witness's control socket.
        """
        self._node = node
        self._networks = tuple(networks)
        self._witness = witness
        self._hosts = itertools.cycle(range(_FIRST_HOST, _LAST_HOST + 1))
        self._taken: set[int] = set()
        self._lock = threading.Lock()

    def make(self, namespace: str, name: str, uid: str, annotations: dict[str, str]) -> Sandbox:
        """Make a Pod's network namespace with its interfaces, up.

        Raises:
            LabError: the Pod asks for what is not there, or the kernel refuses.
        """
        wanted = interfaces_of(annotations, self._networks)
        netns = name_of(namespace, name)
        if wiring.exists(netns):  # an earlier Pod of this name was removed by force and still ends, on another node
            netns = f"{netns}-{uid[:8]}"
        host = self._take()
        wiring.create(netns)
        addresses = {interface: address(network, self._node, host) for interface, network in wanted.items()}
        sandbox = Sandbox(netns, addresses, tuple(f"{_CABLE}{host}-{network}" for network in wanted.values()))
        try:
            self._furnish(sandbox, wanted, host)
        except LabError:
            self.remove(sandbox)
            raise
        return sandbox

    def _furnish(self, sandbox: Sandbox, wanted: dict[str, int], host: int) -> None:
        register(self._witness, sandbox.netns)
        with Links() as node:
            for (interface, network), cable in zip(wanted.items(), sandbox.cables, strict=True):
                node.veth(cable, sandbox.netns, interface, f"02:{network:02x}:{self._node:02x}:{host:02x}:00:01")
                node.attach(cable, f"br{network}")
        with Links(sandbox.netns) as pod:
            for interface, own in sandbox.interfaces.items():
                pod.up(interface)
                pod.address(interface, f"{own}/16")
            # nothing leads out of the closed world; but a sidecar may ask for the default route's interface
            pod.route("0.0.0.0/0", "eth0")

    def remove(self, sandbox: Sandbox) -> None:
        """Remove a Pod's interfaces and its network namespace."""
        with Links() as node:
            for cable in sandbox.cables:
                node.remove(cable)
        wiring.delete(sandbox.netns)
        with self._lock:
            self._taken.discard(int(sandbox.cables[0].removeprefix(_CABLE).partition("-")[0]))

    def sweep(self, netns: Iterator[str]) -> None:
        """Remove what an earlier process of this node has left."""
        with Links() as node:
            for name in node.names():
                if name.startswith(_CABLE):
                    node.remove(name)
        for name in netns:
            wiring.delete(name)

    def _take(self) -> int:
        with self._lock:
            for host in itertools.islice(self._hosts, _LAST_HOST):
                if host not in self._taken:
                    self._taken.add(host)
                    return host
        raise LabError(f"node {self._node} has no address left: it has {len(self._taken)} Pods")
