"""A lab whose nodes are real: the same control plane, networks, clients, witness and faults as `lab.world`.

    with RealWorld(nodes=2, binaries=find(real=True), images=[...], state=Path("/run/...")) as world:
        world.apply("examples/seed/...")

Root only, and on cgroup v1.
"""

from __future__ import annotations

import os
import secrets
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lab.errors import LabError
from lab.real import cgroups, configuration
from lab.real.node import RealNode
from lab.world.world import World

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lab.binaries import Binaries

_MAPPED = Path("/proc/self/uid_map")


class RealWorld(World):
    """See the module's docstring."""

    ready_s = 60.0

    def __init__(
        self,
        *,
        binaries: Binaries,
        state: Path,
        images: Sequence[Path],
        nodes: int = 2,
        networks: tuple[str, ...] = ("default", "blue-network"),
        controllers: int = 1,
        bare: bool = False,
        cni: str = configuration.BRIDGE,
    ) -> None:
        """Nothing is started before the world is entered.

        Args:
            binaries: the control plane's programs, and the kubelet.
            state: an empty directory for all that is written.
            images: archives that every node gets; nothing can be pulled. That of the pause container is added.
            nodes: how many nodes there are at first.
            networks: names of the networks; the first must be `default`.
            controllers: how many replicas of holdfast's controller are started.
            bare: whether the cluster is new: nothing is installed, nor a controller started.
            cni: how the Pods are on their networks, `bridge`, `macvlan` or `multus`.

        Raises:
            LabError: this user is not root, this machine has no cgroup v1, or an archive is not there.
        """
        super().__init__(
            binaries=binaries, state=state, nodes=nodes, networks=networks, controllers=controllers, bare=bare
        )
        require()
        if missing := [each for each in images if not each.is_file()]:
            raise LabError(
                f"the images {missing[0]} are not there: have them made, by `holdfast lab run --real` or "
                "`lab.real.images.ensure`, before the closed world is entered"
            )
        self._images = images
        self._cni = cni
        self._name = secrets.token_hex(4)

    def _injection(self) -> list[dict[str, Any]]:
        return []  # manifests bring it, or what a test applies

    def _make_node(self, number: int) -> RealNode:
        if number == 1:
            cgroups.sweep()
        return RealNode(
            number,
            networks=self.networks,
            credentials=self.control_plane.credentials,
            folder=self.state / "nodes",
            logs=self.logs,
            binaries=self.binaries,
            images=self._images,
            cni=self._cni,
            lab=self._name,
        )


def require() -> None:
    """Refuse to go on where there can be no real nodes.

    Raises:
        LabError: this user is not root, or is so only in a user namespace; or this machine has no cgroup v1.
    """
    whole = _MAPPED.read_text().split() == ["0", "0", "4294967295"]
    if os.geteuid() != 0 or not whole:
        raise LabError("real nodes need root: run this as root, or use the lab's played nodes")
    cgroups.require()
