"""The lab as a library: a control plane, networks, nodes, clients and a witness, in the closed world of this process.

    with World(nodes=2, networks=("default", "blue-network"), binaries=find(), state=Path("/run/...")) as world:
        world.apply("examples/seed/...")
        world.pod("default", "proxy").addresses("eth1")

One World at a time in one closed world. Everything is ended, not kept, when it is left.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import time
from typing import TYPE_CHECKING, Any, Self

from contract.names import ELECTION_LEASE, SYSTEM_NAMESPACE
from lab import closed
from lab.api_client import is_ready
from lab.errors import AlreadyRunning, CommandError, LabError, WaitTimeout
from lab.witness.client import Client
from lab.witness.witness import Witness
from lab.world import controllers, injection, install, pods
from lab.world.control_plane import ControlPlane
from lab.world.credentials import account_token
from lab.world.networks import Networks
from lab.world.nodes import NodeHandle
from lab.world.pods import PodHandle

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from lab.api_client import ApiClient
    from lab.binaries import Binaries
    from lab.program import Program

_KUBECTL_S = 60.0
_PODS_MAY_BE_MADE_S = 60.0
_LOOK_EVERY_S = 1.0
_ELECTION = f"/apis/coordination.k8s.io/v1/namespaces/{SYSTEM_NAMESPACE}/leases/{ELECTION_LEASE}"
_CLIENT = 100


class World:
    """One lab; see the module's docstring."""

    api: ApiClient
    """A client of the cluster's administrator."""
    ready_s = 20.0
    """How long what is started may take until it is ready."""

    def __init__(
        self,
        *,
        binaries: Binaries,
        state: Path,
        nodes: int = 2,
        networks: tuple[str, ...] = ("default", "blue-network"),
        controllers: int = 1,
        bare: bool = False,
        sidecar: Sequence[str] = (),
    ) -> None:
        """Nothing is started before the world is entered.

        Args:
            binaries: the control plane's programs.
            state: an empty directory for all that is written; logs are in its `logs`.
            nodes: how many nodes there are at first.
            networks: names of the networks; the first must be `default`.
            controllers: how many replicas of holdfast's controller are started.
            bare: whether the cluster is new: nothing is installed, nor a controller started.
            sidecar: the command that Pods' sidecars are on every node; ours when left out.
        """
        self.binaries = binaries
        self.state = state
        self.logs = state / "logs"
        self.networks = Networks(networks)
        self._node_count = nodes
        self._controller_count = 0 if bare else controllers
        self._bare = bare
        self._sidecar = sidecar
        self._undo = contextlib.ExitStack()
        self.nodes: dict[str, NodeHandle] = {}
        self.controllers: tuple[Program, ...] = ()
        self._clients: dict[str, Client] = {}
        self.started_in_s = 0.0

    def __enter__(self) -> Self:
        """Start everything; ready for Pods when it returns.

        Raises:
            LabError: something did not start; says what, and shows its log.
        """
        closed.require()
        self.logs.mkdir(parents=True, exist_ok=True)
        with contextlib.ExitStack() as undo:
            self._start(undo)
            self._undo = undo.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._undo.close()

    def _start(self, undo: contextlib.ExitStack) -> None:
        began = time.monotonic()
        _claim(undo)
        undo.callback(self.networks.remove)
        self.networks.make()
        self.control_plane = ControlPlane(self.binaries, self.state, self.logs)
        undo.callback(self.control_plane.stop)
        bodies = [] if self._bare else [*install.manifests(self.binaries.gateway_crds), *self._injection()]
        self.api = self.control_plane.start()
        undo.callback(self.api.close)
        _link(closed.RUN / "kubeconfig", self.control_plane.admin_kubeconfig)
        install.install(self.api, bodies)
        self.witness = Witness(self.state, self.logs / "witness.log")
        undo.callback(self.witness.stop)
        self.witness.start()
        if self._controller_count:
            self.controllers = self._start_controllers(undo, self._controller_count)
        for _ in range(self._node_count):
            undo.callback(self._add().stop)
        for number, name in enumerate(self.networks.names):
            self.networks.host(f"client-{name}", f"client-{number}", number, _CLIENT)
            self._clients[name] = Client(f"client-{name}", self.state / "clients")
        for node in self.nodes.values():
            self._wait_node(node)
        if self.controllers:
            self._wait(self.controllers, _ELECTION, _has_holder, "one of the controllers to be elected")
        self.wait_service_account("default")
        self.started_in_s = time.monotonic() - began

    def _injection(self) -> list[dict[str, Any]]:
        """What gives Pods their sidecar."""
        return injection.manifests()

    def _start_controllers(
        self, undo: contextlib.ExitStack, count: int, first: int = 0, env: dict[str, str] | None = None
    ) -> tuple[Program, ...]:
        started = controllers.start(
            count,
            api=self.api,
            credentials=self.control_plane.credentials,
            networks=self.networks,
            logs=self.logs,
            first=first,
            env=env,
        )
        for controller in started:
            undo.callback(controller.kill)
        return started

    def _add(self) -> NodeHandle:
        node = self._make_node(len(self.nodes) + 1)
        self.nodes[node.name] = node
        node.start()
        return node

    def _make_node(self, number: int) -> NodeHandle:
        credentials = self.control_plane.credentials
        return NodeHandle(
            number,
            networks=self.networks,
            credentials=credentials,
            folder=self.state / "nodes",
            logs=self.logs,
            sidecar=self._sidecar,
        )

    def _wait_node(self, node: NodeHandle) -> None:
        self._wait((node.program,), f"/api/v1/nodes/{node.name}", is_ready, f"{node.name} to be Ready")

    def _wait(self, programs: tuple[Program, ...], path: str, done: Callable[[Any], object], what: str) -> None:
        """Wait for what programs are to bring about; one that has ended will not, and is told at once."""
        deadline = time.monotonic() + self.ready_s
        while True:
            try:
                self.api.wait(path, done, _LOOK_EVERY_S, what)
            except WaitTimeout:
                for program in programs:
                    program.check()
                if time.monotonic() > deadline:
                    raise
            else:
                return

    def add_controllers(self, count: int, env: dict[str, str] | None = None) -> tuple[Program, ...]:
        """Start more replicas of the controller; `controllers` has them too.

        Args:
            count: how many.
            env: what they find in their environment beside ours.

        Returns:
            The new ones.
        """
        new = self._start_controllers(self._undo, count, len(self.controllers), env)
        self.controllers += new
        return new

    # nodes and Pods --------------------------------------------------------------------------------------------

    def add_node(self) -> NodeHandle:
        """Start one more node, and wait until it is Ready."""
        node = self._add()
        self._undo.callback(node.stop)
        self._wait_node(node)
        return node

    def node(self, name: str) -> NodeHandle:
        """The node of that name.

        Raises:
            LabError: there is none.
        """
        if name not in self.nodes:
            raise LabError(f"there is no node {name!r} in this lab: it has {', '.join(self.nodes)}")
        return self.nodes[name]

    def pod(self, namespace: str, name: str) -> PodHandle:
        """Take hold of a Pod that runs now.

        Of several with one name on different nodes (one was deleted by force, and its node still ends it) it is the one
        that the API server knows.

        Raises:
            LabError: no node runs one of that name.
        """
        found = [each for node in self.nodes.values() if (each := pods.handle(node, namespace, name))]
        if len(found) > 1:
            known = self.api.list(f"/api/v1/namespaces/{namespace}/pods", fieldSelector=f"metadata.name={name}")
            found = [each for each in found if each.uid in [pod["metadata"]["uid"] for pod in known]]
        if found:
            return found[0]
        raise LabError(f"no node of this lab runs a Pod {namespace}/{name} now")

    def pods(self, namespace: str) -> list[PodHandle]:
        """All Pods of a namespace that run now."""
        return [
            PodHandle(namespace, record["name"], record["uid"], record["netns"], node)
            for node in self.nodes.values()
            for record in node.pods()
            if record["namespace"] == namespace
        ]

    def client(self, network: str) -> Client:
        """The client on a network.

        Raises:
            LabError: there is no such network.
        """
        self.networks.number(network)
        return self._clients[network]

    def two_holders(self, since_s: float = 0.0) -> int:
        """How many times since then an address had two holders, as kernels and wire say."""
        return len(self.witness.two_holders(since_s))

    # the API ---------------------------------------------------------------------------------------------------

    def kubectl(self, *arguments: str, stdin: str | None = None) -> str:
        """Run kubectl as the cluster's administrator.

        Returns:
            Its standard output.

        Raises:
            CommandError: it failed; carries what it said.
        """
        command = [str(self.binaries.kubectl), *arguments]
        return _output(command, {"KUBECONFIG": str(self.control_plane.admin_kubeconfig)}, stdin)

    def apply(self, manifest: Path | str) -> str:
        """`kubectl apply` a file, a directory, or YAML given as text (what has a line break)."""
        if isinstance(manifest, str) and "\n" in manifest:
            return self.kubectl("apply", "-f", "-", stdin=manifest)
        return self.kubectl("apply", "-f", str(manifest))

    def token(self, namespace: str, account: str, pod: tuple[str, str] | None = None, duration_s: int = 3600) -> str:
        """Ask for a service account's token, bound to a Pod (name, UID) if one is given."""
        return account_token(self.api, namespace, account, duration_s, pod)

    def create_namespace(self, name: str) -> None:
        """Create a namespace and wait until Pods may be made in it."""
        self.api.create("/api/v1/namespaces", {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
        self.wait_service_account(name)

    def wait_service_account(self, namespace: str) -> None:
        """Wait until the controller manager has made a namespace's `default` service account."""
        path = f"/api/v1/namespaces/{namespace}/serviceaccounts/default"
        self.api.wait(path, bool, _PODS_MAY_BE_MADE_S, f"the service account default of namespace {namespace}")


def _has_holder(lease: dict[str, Any] | None) -> bool:
    return bool(lease and lease["spec"].get("holderIdentity"))


def _claim(undo: contextlib.ExitStack) -> None:
    """One World in one closed world: their namespaces have the same names."""
    mine = closed.RUN / "world"
    try:
        mine.mkdir()
    except FileExistsError as error:
        raise AlreadyRunning(
            "a lab is already running in this closed world: use it, or start the second in a closed world of its own "
            "(`holdfast lab run -- COMMAND`)"
        ) from error
    undo.callback(mine.rmdir)


def _link(link: Path, target: Path) -> None:
    link.unlink(missing_ok=True)
    link.symlink_to(target)


def _output(command: list[str], env: dict[str, str], stdin: str | None = None) -> str:
    done = subprocess.run(
        command,
        env={**os.environ, **env},
        input=stdin,
        stdin=subprocess.DEVNULL if stdin is None else None,
        capture_output=True,
        text=True,
        check=False,
        timeout=_KUBECTL_S,
    )
    if done.returncode != 0:
        raise CommandError(
            f"`{' '.join(command)}` ended with {done.returncode}: {(done.stderr or done.stdout).strip()}"
        )
    return done.stdout
