"""The catalogue of faults: each a value that says how it is made and healed, and what it may cost at most.

Tests, `make chaos` and the benchmarks try these same values (`lab.scene.Scene.trial`). A bound is a function of the
Lease's duration *d* and of how long the fault lasted: what docs/ownership.md promises, nothing added for slow machines.
Striking gives back what heals. Not here: what judges (`lab.judge`), and faults of a whole machine's clock.
"""

from __future__ import annotations

import contextlib
import functools
import os
import signal
import socket
import subprocess
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from contract.names import GUARD_DEADLINE_S
from lab.errors import CommandError, LabError
from lab.links import Links
from lab.networks import SWITCH, port
from lab.scene import INTERFACE, NETWORK

if TYPE_CHECKING:
    from collections.abc import Callable

    from lab.pods import PodHandle
    from lab.proxy import Proxy
    from lab.scene import Scene
    from lab.service import Service


HANDOVER_S: Final = 0.2
"""From a Lease that has run out to the next holder's address: the freeing write, the owner's take, the kernel."""
PLANNED_S: Final = 0.02
"""A planned hand-over: nobody has it from the removal in one Pod to the addition in the other."""
EXPIRED_S: Final = GUARD_DEADLINE_S + HANDOVER_S
ASK_AGAIN_S: Final = 1.3
"""A client that had given up asks for a neighbour each second; a link that comes up carries frames within a second."""
ANNOUNCED_AGAIN_S: Final = 1.1
RESTART_S: Final = 0.6
"""A sidecar that was killed is at work again within this, where the node starts it at once."""
CONTROLLER_BACK_S: Final = 6.0
"""A controller that was killed is started, and the Lease by which its last self led has run out (4 s)."""
BACK_S: Final = 1.0
"""After the API server's return the holder has its address back within this."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault.

    Attributes:
        name: short, for tables; `what`: what is done, in a sentence.
        strike: makes it; gives what heals it.
        lasts_s: how long until it is healed, by the Lease's duration.
        vacant_s: how long the address may be on nobody, by the Lease's duration and how long the fault lasted.
        gap_s: the same for the client's gap; None: as `vacant_s`, and a planned hand-over's gap.
        proxied: whether it needs the proxy in front of the API server.
        forged: how many false frames the fault itself puts on the wire.
        fresh: it kills what a kubelet starts again at once only the first time.
        stackable: others may be struck while it lasts, and it while others do: it waits for nothing.
    """

    name: str
    what: str
    strike: Callable[[Scene, Proxy | None], Callable[[], None]]
    lasts_s: Callable[[float], float]
    vacant_s: Callable[[float, float], float]
    gap_s: Callable[[float, float], float] | None = None
    proxied: bool = False
    forged: int = 0
    fresh: bool = False
    stackable: bool = True

    def gap_bound_s(self, d: float, lasted_s: float) -> float:
        """The longest gap that the client may see."""
        return (self.gap_s or self.vacant_s)(d, lasted_s)


# what bounds are made of ---------------------------------------------------------------------------------------


def _never(_d: float, _lasted_s: float) -> float:
    return 0.0


def _planned(_d: float, _lasted_s: float) -> float:
    return PLANNED_S


def _expired(_d: float, _lasted_s: float) -> float:
    """The kernel cuts at the deadline, the controller frees a guard later."""
    return EXPIRED_S


def _dead(d: float, _lasted_s: float) -> float:
    """Nothing answers from the first instant on; the Lease was renewed just before."""
    return d + EXPIRED_S


def _api_away(d: float, lasted_s: float) -> float:
    """The last renewal was a third of the duration ago at most; the holder takes it back soon after the return."""
    return max(0.0, lasted_s - d * 2 / 3) + BACK_S


def _while_cut(_d: float, lasted_s: float) -> float:
    return lasted_s + ASK_AGAIN_S


def _short(d: float) -> float:
    return d / 4


def _long(d: float) -> float:
    return d + 1.5


# processes -----------------------------------------------------------------------------------------------------


def _nothing() -> None:
    """What has healed by itself."""


def _signal(pid: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def _pause(pid: int) -> Callable[[], None]:
    _signal(pid, signal.SIGSTOP)
    return functools.partial(_signal, pid, signal.SIGCONT)


def _kill_holder(scene: Scene, _: Proxy | None) -> Callable[[], None]:
    scene.holder.kill_sidecar()
    return _nothing


def _pause_holder(scene: Scene, _: Proxy | None) -> Callable[[], None]:
    return _pause(scene.holder.sidecar_pid)


def _to_take_over(scene: Scene) -> tuple[PodHandle, Callable[[], None]]:
    """Let the other Pod hold; the one that held, and what lets it be chosen again."""
    first, other = scene.holder, scene.other
    scene.choose(first.name, eligible=False)
    scene.wait_holder(other.uid)
    return first, functools.partial(scene.choose, first.name, eligible=True)


def _hand_over(scene: Scene, _: Proxy | None) -> Callable[[], None]:
    return _to_take_over(scene)[1]


def _kill_successor(scene: Scene, _: Proxy | None) -> Callable[[], None]:
    successor, choose = _to_take_over(scene)
    choose()
    scene.wait_owner(successor.uid)
    successor.kill_sidecar()
    return _nothing


def _kill_unprepared(scene: Scene, _: Proxy | None) -> Callable[[], None]:
    successor, choose = _to_take_over(scene)
    pid = successor.sidecar_pid
    _signal(pid, signal.SIGSTOP)
    choose()
    scene.wait_owner(successor.uid)
    _signal(pid, signal.SIGKILL)
    return _nothing


def _pause_successor(scene: Scene, _: Proxy | None) -> Callable[[], None]:
    holder = scene.holder.name
    resume = _pause(scene.other.sidecar_pid)
    scene.choose(holder, eligible=False)

    def heal() -> None:
        resume()
        scene.choose(holder, eligible=True)

    return heal


def _pause_both(scene: Scene, _: Proxy | None) -> Callable[[], None]:
    pids = [pod.sidecar_pid for pod in scene.pods]  # both are known before one is stopped: a strike is whole or none
    heals = [_pause(pid) for pid in pids]

    def heal() -> None:
        for each in heals:
            each()

    return heal


def _controller(scene: Scene) -> Service:
    return scene.world.controllers[0]


def _kill_controller(scene: Scene, _: Proxy | None) -> Callable[[], None]:
    _controller(scene).kill()
    return _controller(scene).start


def _replace_controller(scene: Scene, _: Proxy | None) -> Callable[[], None]:
    controller = _controller(scene)
    controller.kill()
    resume = _pause(scene.holder.sidecar_pid)
    controller.start()
    return resume


def _pause_controller(scene: Scene, _: Proxy | None) -> Callable[[], None]:
    return _pause(_controller(scene).pid)


def _kill_api(scene: Scene, _: Proxy | None) -> Callable[[], None]:
    service = scene.world.control_plane.api_server
    service.kill()
    return service.start


def _pause_api(scene: Scene, _: Proxy | None) -> Callable[[], None]:
    return _pause(scene.world.control_plane.api_server.pid)


def _kill_etcd(scene: Scene, _: Proxy | None) -> Callable[[], None]:
    service = scene.world.control_plane.etcd
    service.kill()
    return service.start


def _pause_etcd(scene: Scene, _: Proxy | None) -> Callable[[], None]:
    return _pause(scene.world.control_plane.etcd.pid)


# links and the switch ------------------------------------------------------------------------------------------


def _link_down(scene: Scene, _: Proxy | None) -> Callable[[], None]:
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


def _cut_holder(scene: Scene, _: Proxy | None) -> Callable[[], None]:
    return _cut_off(scene, scene.holder, "default", NETWORK)


def _cut_successor(scene: Scene, _: Proxy | None) -> Callable[[], None]:
    return _cut_off(scene, scene.other, "default", NETWORK)


def _cut_api_side(scene: Scene, _: Proxy | None) -> Callable[[], None]:
    return _cut_off(scene, scene.holder, "default")


def _cut_lan_side(scene: Scene, _: Proxy | None) -> Callable[[], None]:
    return _cut_off(scene, scene.holder, NETWORK)


def _split(scene: Scene, _: Proxy | None) -> Callable[[], None]:
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


def _drop_announcements(scene: Scene, _: Proxy | None) -> Callable[[], None]:
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
        raise CommandError(f"`tc {' '.join(arguments)}`: {done.stderr.strip()}; is the iproute2 package there?")


def _late_announcement(scene: Scene, _: Proxy | None) -> Callable[[], None]:
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


def _node_dead(scene: Scene, _: Proxy | None) -> Callable[[], None]:
    node = scene.world.node(scene.holder.node)
    node.power_off()
    return node.power_on


def _slow(share: float) -> Callable[[Scene, Proxy | None], Callable[[], None]]:
    def strike(scene: Scene, proxy: Proxy | None) -> Callable[[], None]:
        through = _needed(proxy)
        through.set(delay_s=share * scene.lease_s)
        return through.set

    return strike


def _answers_lost(scene: Scene, proxy: Proxy | None) -> Callable[[], None]:
    through = _needed(proxy)
    addresses = {each.partition("/")[0] for each in scene.holder.addresses("eth0")}
    through.set(hold=True, only=tuple(sorted(addresses)))
    return through.set


def _needed(proxy: Proxy | None) -> Proxy:
    if proxy is None:
        raise LabError("this fault needs the proxy: try it by Scene.trial")
    return proxy


# The catalogue -------------------------------------------------------------------------------------------------

FAULTS: Final = (
    Fault(
        "planned hand-over",
        "No fault: the holder is no longer selected, and then is again.",
        _hand_over,
        _short,
        _planned,
        stackable=False,
    ),
    Fault("holder's sidecar killed", "SIGKILL; the node starts it again.", _kill_holder, _short, _never, fresh=True),
    Fault("holder's sidecar stopped, short", "SIGSTOP for d/4.", _pause_holder, _short, _never),
    Fault(
        "holder's sidecar stopped, long",
        "SIGSTOP past its deadline, then SIGCONT: it wakes without the right.",
        _pause_holder,
        _long,
        _expired,
    ),
    Fault(
        "successor killed, unprepared",
        "SIGKILL when it is to take over and cannot yet.",
        _kill_unprepared,
        _short,
        _planned,
        fresh=True,
        stackable=False,
    ),
    Fault(
        "successor killed, taking over",
        "SIGKILL at some moment of a hand-over.",
        _kill_successor,
        _short,
        lambda _d, _lasted_s: RESTART_S,
        fresh=True,
        stackable=False,
    ),
    Fault(
        "successor's sidecar stopped",
        "SIGSTOP for longer than d; it is to take over.",
        _pause_successor,
        _long,
        _planned,
        stackable=False,
    ),
    Fault(
        "both sidecars stopped",
        "SIGSTOP past the deadline; both wake at once.",
        _pause_both,
        _long,
        lambda d, lasted_s: max(0.0, lasted_s - d * 2 / 3) + BACK_S,
    ),
    Fault("controller killed", "SIGKILL; it is started again after more than d.", _kill_controller, _long, _never),
    Fault("controller stopped", "SIGSTOP for longer than d.", _pause_controller, _long, _never),
    Fault(
        "controller replaced, holder stopped",
        "SIGKILL of the controller, which is started again at once, and SIGSTOP of the holder's sidecar.",
        _replace_controller,
        lambda d: d + CONTROLLER_BACK_S + EXPIRED_S,
        lambda d, _lasted_s: d / 3 + CONTROLLER_BACK_S + EXPIRED_S,  # it counts anew from when it leads
        stackable=False,
    ),
    Fault("API server killed", "SIGKILL; it is started again at once.", _kill_api, lambda _d: 0.0, _api_away),
    Fault("API server stopped, short", "SIGSTOP for d/4.", _pause_api, _short, _never),
    Fault("API server stopped, long", "SIGSTOP for longer than d.", _pause_api, _long, _api_away),
    Fault("etcd killed", "SIGKILL; it is started again at once.", _kill_etcd, lambda _d: 0.0, _api_away),
    Fault("etcd stopped", "SIGSTOP for longer than d.", _pause_etcd, _long, _api_away),
    Fault("holder's link down", "Its interface is taken down, and up again.", _link_down, _long, _never, _while_cut),
    Fault(
        "holder cut off",
        "Its node is alone on one side of the cut switch; API server, client and the other node on the other.",
        _cut_holder,
        _long,
        _expired,
        _dead,
    ),
    Fault("successor cut off", "The same, with the other node alone.", _cut_successor, _long, _never),
    Fault(
        "switch cut in two",
        "Holder and client on one side, API server and the other node on the other.",
        _split,
        _long,
        _expired,
        _while_cut,
    ),
    Fault(
        "LAN reachable, API not", "The holder's node is off the API server's network.", _cut_api_side, _long, _expired
    ),
    Fault(
        "API reachable, LAN not",
        "The holder's node is off the address's network.",
        _cut_lan_side,
        _long,
        _never,
        _while_cut,
    ),
    Fault(
        "announcements lost",
        "Those of a hand-over are dropped at the switch for 1 s.",
        _drop_announcements,
        lambda _d: 1.0,
        _planned,
        lambda _d, lasted_s: lasted_s + ANNOUNCED_AGAIN_S,
        stackable=False,
    ),
    Fault(
        "announcement late",
        "One of the old holder comes after those of the new one.",
        _late_announcement,
        lambda _d: 2.0,
        _planned,
        lambda _d, _lasted_s: ANNOUNCED_AGAIN_S,
        forged=1,
        stackable=False,
    ),
    Fault(
        "holder's node dead",
        "Cables out, all processes killed; on again after the hand-over, with its old Pod.",
        _node_dead,
        _long,
        _dead,
        fresh=True,
    ),
    Fault(
        "API slow",
        "Each request takes d/5 longer.",
        _slow(0.2),
        lambda d: 3 * d,
        _never,
        proxied=True,
        stackable=False,
    ),
    Fault(
        "API too slow for its Lease",
        "Each request takes d/2 longer: no renewal is answered in time.",
        _slow(0.5),
        lambda d: 3 * d,
        _api_away,
        proxied=True,
        stackable=False,
    ),
    Fault(
        "answers lost",
        "The holder's requests arrive, the API server's answers to it do not; they come late.",
        _answers_lost,
        _long,
        lambda d, _lasted_s: d / 3 + EXPIRED_S,  # one renewal is applied that the holder does not know of
        proxied=True,
        stackable=False,
    ),
)
"""What is tried one at a time."""


def named(name: str) -> Fault:
    """The fault of the catalogue that has this name.

    Raises:
        LabError: there is none.
    """
    for fault in FAULTS:
        if fault.name == name:
            return fault
    raise LabError(f"there is no fault {name!r} in the catalogue: it has {', '.join(fault.name for fault in FAULTS)}")
