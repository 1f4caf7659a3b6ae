"""What a Pod stands in: its network namespace with the interfaces it asks for, and the files a kubelet mounts.

Interfaces are read from the annotation `networking.gke.io/interfaces`; without it a Pod has eth0 on the default
network. Not here: other CNI plugins' annotations, and volumes.
"""

from __future__ import annotations

import hashlib
import json
import threading
from dataclasses import dataclass

from contract.names import DEFAULT_NETWORKS, INTERFACES
from lab import links
from lab.errors import LabError
from lab.links import Links
from lab.networks import address

_NETNS_NAME_MAX = 80
_FIRST_HOST = 10
_LAST_HOST = 254


class SandboxError(LabError):
    """A Pod asks for what cannot be given; it waits, and says this."""


@dataclass(frozen=True, slots=True)
class Interface:
    """One interface of a Pod."""

    name: str
    network: str


def interfaces(annotations: dict[str, str], networks: tuple[str, ...]) -> tuple[Interface, ...]:
    """Read which interfaces a Pod asks for.

    Raises:
        SandboxError: the annotation is damaged, or names a network that is not in this lab.
    """
    text = annotations.get(INTERFACES)
    if text is None:
        return (Interface("eth0", networks[0]),)
    try:
        asked = tuple(Interface(each["interfaceName"], each["network"]) for each in json.loads(text))
    except (ValueError, KeyError, TypeError) as error:
        raise SandboxError(f"annotation {INTERFACES} is not a list of interfaceName and network: {error!r}") from error
    found = []
    for each in asked:
        network = networks[0] if each.network in DEFAULT_NETWORKS else each.network
        if network not in networks:
            raise SandboxError(
                f"annotation {INTERFACES}: no network {each.network!r} here; there are {', '.join(networks)}"
            )
        found.append(Interface(each.name, network))
    if not any(each.network == networks[0] for each in found):
        raise SandboxError(f"annotation {INTERFACES}: no interface on the network {networks[0]!r}; every Pod needs one")
    return tuple(found)


def netns_name(namespace: str, name: str) -> str:
    """The network namespace of a Pod; a long name is cut and ends in a hash."""
    full = f"pod-{namespace}-{name}"
    if len(full) <= _NETNS_NAME_MAX:
        return full
    return f"{full[: _NETNS_NAME_MAX - 9]}-{hashlib.sha256(full.encode()).hexdigest()[:8]}"


class Hosts:
    """The host numbers of one node's Pods; the one longest free is given first."""

    def __init__(self) -> None:
        self._free = list(range(_FIRST_HOST, _LAST_HOST + 1))
        self._lock = threading.Lock()

    def take(self) -> int:
        """Give one out."""
        with self._lock:
            if not self._free:
                raise SandboxError("this node has no address left for another Pod")
            return self._free.pop(0)

    def give_back(self, host: int) -> None:
        """Take one back."""
        with self._lock:
            self._free.append(host)


def create(netns: str) -> None:
    """Make a Pod's network namespace, with nothing in it; one that is left from before goes."""
    links.delete(netns)
    links.create(netns)


def plug(netns: str, node: int, host: int, wanted: tuple[Interface, ...], networks: tuple[str, ...]) -> str:
    """Connect a Pod's network namespace to this node, whose own namespace this process is in.

    Returns:
        The Pod's address on the default network.
    """
    for place, each in enumerate(wanted):
        number = networks.index(each.network)
        port = f"p{host}-{place}"
        with Links() as here, Links(netns) as pod:
            here.remove(port)
            here.veth(port, netns, each.name, f"02:00:{number:02x}:{place:02x}:{node:02x}:{host:02x}")
            here.attach(port, f"br{number}")
            pod.up(each.name)
            pod.address(each.name, f"{address(number, node, host)}/16")
            if number == 0 and not place:
                pod.route("0.0.0.0/0", each.name)
    return address(0, node, host)


def remove(netns: str, host: int, count: int) -> None:
    """Remove it with its cables."""
    with Links() as here:
        for place in range(count):
            here.remove(f"p{host}-{place}")
    links.delete(netns)
