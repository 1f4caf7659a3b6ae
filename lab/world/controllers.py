"""holdfast's controller in the lab: the real program, one process per replica, each at its own place on the network.

A replica is `ctl-<i>` at 10.200.0.<31+i>, and has nothing but a token of the service account that deploy/ gives it.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from contract.names import CONTROLLER_ACCOUNT, SYSTEM_NAMESPACE
from lab.program import Program
from lab.world.credentials import account_token

if TYPE_CHECKING:
    from pathlib import Path

    from lab.api_client import ApiClient
    from lab.world.credentials import Credentials
    from lab.world.networks import Networks

_FIRST_HOST = 31
_TOKEN_S = 24 * 3600


def start(
    count: int,
    *,
    api: ApiClient,
    credentials: Credentials,
    networks: Networks,
    logs: Path,
    first: int = 0,
    env: dict[str, str] | None = None,
) -> tuple[Program, ...]:
    """Start replicas of the controller; each can be killed, paused and started again by itself.

    Args:
        count: how many.
        api: a client that may ask for their account's token.
        credentials: where their kubeconfig is written.
        networks: on the first of which each gets a place.
        logs: where their logs go.
        first: the number of the first of them.
        env: what they find in their environment beside ours, such as where another version's code lies.
    """
    token = account_token(api, SYSTEM_NAMESPACE, CONTROLLER_ACCOUNT, _TOKEN_S)
    kubeconfig = credentials.kubeconfig(CONTROLLER_ACCOUNT, token)
    replicas = []
    for number in range(first, first + count):
        name = f"ctl-{number}"
        networks.host(name, name, 0, _FIRST_HOST + number)
        argv = [sys.executable, "-m", "controller.cli", "run", "--kubeconfig", str(kubeconfig), "--identity", name]
        replica = Program(f"controller-{number}", argv, logs / f"controller-{number}.log", name, env or {})
        replica.start()
        replicas.append(replica)
    return tuple(replicas)
