"""How each fault of the catalogue is made: a strike does it, and gives back what heals it.

A strike is whole or none: what it cannot do as a whole it refuses by a `LabError`, with nothing done. Healing twice
does no harm. Not here: how long a fault lasts and what it may cost (`lab.chaos.faults`).
"""

from __future__ import annotations

import contextlib
import functools
import os
import signal
import socket
import subprocess
import threading
from typing import TYPE_CHECKING

from lab.chaos.scene import INTERFACE, NETWORK
from lab.errors import CommandError, LabError
from lab.wiring import Links
from lab.world.networks import SWITCH, port

if TYPE_CHECKING:
    from collections.abc import Callable

    from lab.chaos.proxy import Proxy
    from lab.chaos.scene import Scene
    from lab.program import Program
    from lab.world.pods import PodHandle


# processes -----------------------------------------------------------------------------------------------------


def _nothing() -> None:
    """What has healed by itself."""


def _signal(pid: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def _pause(pid: int) -> Callable[[], None]:
    _signal(pid, signal.SIGSTOP)
    return functools.partial(_signal, pid, signal.SIGCONT)


def kill_holder(scene: Scene, _: Proxy | None) -> Callable[[], None]:
    """SIGKILL of the holder's sidecar; its node starts it again."""
    scene.holder.kill_sidecar()
    return _nothing


def pause_holder(scene: Scene, _: Proxy | None) -> Callable[[], None]:
    """SIGSTOP of the holder's sidecar."""
    return _pause(scene.holder.sidecar_pid)


def _to_take_over(scene: Scene) -> tuple[PodHandle, Callable[[], None]]:
    """Let the other Pod hold; the one that held, and what lets it be chosen again."""
    first, other = scene.holder, scene.other
    scene.choose(first.name, eligible=False)
    scene.wait_holder(other.uid)
    return first, functools.partial(scene.choose, first.name, eligible=True)


def hand_over(scene: Scene, _: Proxy | None) -> Callable[[], None]:
    """The other Pod is to hold, and then the first again."""
    return _to_take_over(scene)[1]


def kill_successor(scene: Scene, _: Proxy | None) -> Callable[[], None]:
    """SIGKILL of the sidecar that takes over, at some moment of it."""
    successor, choose = _to_take_over(scene)
    choose()
    scene.wait_owner(successor.uid)
    successor.kill_sidecar()
    return _nothing


def kill_unprepared(scene: Scene, _: Proxy | None) -> Callable[[], None]:
    """SIGKILL of the sidecar that is to take over, before it can."""
    successor, choose = _to_take_over(scene)
    pid = successor.sidecar_pid
    _signal(pid, signal.SIGSTOP)
    choose()
    scene.wait_owner(successor.uid)
    _signal(pid, signal.SIGKILL)
    return _nothing


def pause_successor(scene: Scene, _: Proxy | None) -> Callable[[], None]:
    """SIGSTOP of the sidecar that is to take over."""
    holder = scene.holder.name
    resume = _pause(scene.other.sidecar_pid)
    scene.choose(holder, eligible=False)

    def heal() -> None:
        resume()
        scene.choose(holder, eligible=True)

    return heal


def pause_both(scene: Scene, _: Proxy | None) -> Callable[[], None]:
    """SIGSTOP of both sidecars."""
    pids = [pod.sidecar_pid for pod in scene.pods]  # both are known before one is stopped: a strike is whole or none
    heals = [_pause(pid) for pid in pids]

    def heal() -> None:
        for each in heals:
            each()

    return heal


def _controller(scene: Scene) -> Program:
    return scene.world.controllers[0]


def kill_controller(scene: Scene, _: Proxy | None) -> Callable[[], None]:
    """SIGKILL of the controller."""
    _controller(scene).kill()
    return _controller(scene).start


def replace_controller(scene: Scene, _: Proxy | None) -> Callable[[], None]:
    """SIGKILL of the controller, which starts again at once, and SIGSTOP of the holder's sidecar."""
    controller = _controller(scene)
    controller.kill()
    resume = _pause(scene.holder.sidecar_pid)
    controller.start()
    return resume


def pause_controller(scene: Scene, _: Proxy | None) -> Callable[[], None]:
    """SIGSTOP of the controller."""
    return _pause(_controller(scene).pid)


def kill_api(scene: Scene, _: Proxy | None) -> Callable[[], None]:
    """SIGKILL of the API server."""
    program = scene.world.control_plane.api_server
    program.kill()
    return program.start


def pause_api(scene: Scene, _: Proxy | None) -> Callable[[], None]:
    """SIGSTOP of the API server."""
    return _pause(scene.world.control_plane.api_server.pid)


def kill_etcd(scene: Scene, _: Proxy | None) -> Callable[[], None]:
    """SIGKILL of etcd."""
    program = scene.world.control_plane.etcd
    program.kill()
    return program.start


def pause_etcd(scene: Scene, _: Proxy | None) -> Callable[[], None]:
    """SIGSTOP of etcd."""
    return _pause(scene.world.control_plane.etcd.pid)


# links and the switch ------------------------------------------------------------------------------------------


def link_down(scene: Scene, _: Proxy | None) -> Callable[[], None]:
    """The holder's interface goes down."""
    holder = scene.holder
    holder.link(INTERFACE, up=False)
    return functools.partial(holder.link, INTERFACE, up=True)


def _cut_off(scene: Scene, pod: PodHandle, *networks: str) -> Callable[[], None]:
    node = scene.world.node(pod.node)
    for network in networks:
        node.cut(network)

    def heal() -> None:
        for network in networks:
            node.join(network)

    return heal


def cut_holder(scene: Scene, _: Proxy | None) -> Callable[[], None]:
    """The holder's node is alone on its half of the switch."""
    return _cut_off(scene, scene.holder, "default", NETWORK)


def cut_successor(scene: Scene, _: Proxy | None) -> Callable[[], None]:
    """The other node is alone on its half of the switch."""
    return _cut_off(scene, scene.other, "default", NETWORK)


def cut_api_side(scene: Scene, _: Proxy | None) -> Callable[[], None]:
    """The holder's node is off the API server's network."""
    return _cut_off(scene, scene.holder, "default")


def cut_lan_side(scene: Scene, _: Proxy | None) -> Callable[[], None]:
    """The holder's node is off the address's network."""
    return _cut_off(scene, scene.holder, NETWORK)


def split(scene: Scene, _: Proxy | None) -> Callable[[], None]:
    """The holder's node and the client on one half of the switch, the API server and the other node on the other."""
    number = scene.world.networks.number(NETWORK)
    ports = [port(scene.world.node(scene.holder.node).number, number), f"client-{number}"]
    join_default = _cut_off(scene, scene.holder, "default")
    with Links(SWITCH) as switch:
        if "sw-cut" not in switch.names():
            switch.bridge("sw-cut")
        for each in ports:
            switch.attach(each, "sw-cut")

    def heal() -> None:
        join_default()
        with Links(SWITCH) as switch:
            for each in ports:
                switch.attach(each, f"sw{number}")

    return heal


# frames --------------------------------------------------------------------------------------------------------

# (code, if true, if false, k): ARP whose sender's address is its target's; TC_ACT_SHOT, else on to the next
_DROP_ANNOUNCEMENTS = (
    *((40, 0, 0, 12), (21, 0, 6, 0x0806)),  # ldh type; not ARP: on
    *((32, 0, 0, 28), (2, 0, 0, 0), (32, 0, 0, 38), (97, 0, 0, 0)),  # sender to memory, target to A, sender to X
    *((29, 0, 1, 0), (6, 0, 0, 2), (6, 0, 0, 0xFFFFFFFF)),
)


def drop_announcements(scene: Scene, _: Proxy | None) -> Callable[[], None]:
    """Announcements of the Pod that takes over are dropped at the switch."""
    holder, successor = scene.holder, scene.other
    where = port(scene.world.node(successor.node).number, scene.world.networks.number(NETWORK))
    rows = [",".join(map(str, row)).replace(",", " ") for row in _DROP_ANNOUNCEMENTS]
    code = f"{len(rows)}," + ",".join(rows)
    _tc("qdisc", "add", "dev", where, "clsact")
    _tc("filter", "add", "dev", where, "ingress", "bpf", "da", "bytecode", code)
    scene.choose(holder.name, eligible=False)

    def heal() -> None:
        _tc("qdisc", "del", "dev", where, "clsact")
        scene.choose(holder.name, eligible=True)

    return heal


def _tc(*arguments: str) -> None:
    command = ["nsenter", f"--net=/run/netns/{SWITCH}", "--", "tc", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise CommandError(f"`tc {' '.join(arguments)}`: {done.stderr.strip()}; install the package iproute2")


def late_announcement(scene: Scene, _: Proxy | None) -> Callable[[], None]:
    """Hand over, and then deliver an announcement of the old holder: it had waited in a queue of the network."""
    holder, successor = scene.holder, scene.other
    with Links(holder.netns) as links:
        mac = links.mac(INTERFACE)
    scene.choose(holder.name, eligible=False)
    mark = scene.world.witness.mark()
    with Links(successor.netns) as links:
        new = links.mac(INTERFACE)
    scene.world.witness.wait_frame(
        lambda f: f.sender_ip == scene.address and f.gratuitous and f.sender_mac == new, 10.0, mark
    )
    _send(scene.world.node(holder.node).netns, f"up{scene.world.networks.number(NETWORK)}", _announcement(mac, scene))
    return functools.partial(scene.choose, holder.name, eligible=True)


def _announcement(mac: str, scene: Scene) -> bytes:
    hardware, address = bytes.fromhex(mac.replace(":", "")), socket.inet_aton(scene.address)
    arp = bytes.fromhex("0001080006040001") + hardware + address + bytes(6) + address
    return b"\xff" * 6 + hardware + b"\x08\x06" + arp


def _send(netns: str, link: str, frame: bytes) -> None:
    """Send a frame from another namespace: namespaces are per thread, and this thread ends at once."""

    def send() -> None:
        import ctypes  # noqa: PLC0415

        handle = os.open(f"/run/netns/{netns}", os.O_RDONLY)
        try:
            if ctypes.CDLL(None).setns(handle, 0x40000000) != 0:
                return
        finally:
            os.close(handle)
        with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as raw:
            raw.bind((link, 0))
            raw.send(frame)
            sent.append(True)

    sent: list[bool] = []
    thread = threading.Thread(target=send)
    thread.start()
    thread.join()
    if not sent:
        raise LabError(f"no frame could be sent over {link} in {netns}")


# nodes and the API ---------------------------------------------------------------------------------------------


def node_dead(scene: Scene, _: Proxy | None) -> Callable[[], None]:
    """The holder's node loses its power: cables out, all processes killed."""
    node = scene.world.node(scene.holder.node)
    node.power_off()
    return node.power_on


def slow(share: float) -> Callable[[Scene, Proxy | None], Callable[[], None]]:
    """Each request takes so much of the Lease's duration longer."""

    def strike(scene: Scene, proxy: Proxy | None) -> Callable[[], None]:
        through = _needed(proxy)
        through.set(delay_s=share * scene.lease_s)
        return through.set

    return strike


def answers_lost(scene: Scene, proxy: Proxy | None) -> Callable[[], None]:
    """The holder's requests arrive, the answers to it do not."""
    through = _needed(proxy)
    addresses = {each.partition("/")[0] for each in scene.holder.addresses("eth0")}
    through.set(hold=True, only=tuple(sorted(addresses)))
    return through.set


def _needed(proxy: Proxy | None) -> Proxy:
    if proxy is None:
        raise LabError("this fault needs the proxy: try it by lab.chaos.trial.try_fault")
    return proxy
