"""holdfast's controller in the lab: the real program, one process per replica, each at its own place on the network.

A replica is `ctl-<i>` at 10.200.0.<31+i>, and has nothing but a token of the service account that deploy/ gives it.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from contract.names import CONTROLLER_ACCOUNT, SYSTEM_NAMESPACE
from lab.program import Program

if TYPE_CHECKING:
    from lab.world.world import World

_FIRST_HOST = 31
_TOKEN_S = 24 * 3600


def start(world: World, count: int) -> tuple[Program, ...]:
    """Start replicas of the controller; each can be killed, paused and started again by itself."""
    token = world.token(SYSTEM_NAMESPACE, CONTROLLER_ACCOUNT, duration_s=_TOKEN_S)
    kubeconfig = world.control_plane.credentials.kubeconfig(CONTROLLER_ACCOUNT, token)
    replicas = []
    for number in range(count):
        name = f"ctl-{number}"
        world.networks.host(name, name, 0, _FIRST_HOST + number)
        argv = [sys.executable, "-m", "controller.cli", "run", "--kubeconfig", str(kubeconfig), "--identity", name]
        replica = Program(f"controller-{number}", argv, world.logs / f"controller-{number}.log", name)
        replica.start()
        replicas.append(replica)
    return tuple(replicas)
