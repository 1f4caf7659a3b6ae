"""From the manifests, controllers and sidecars of an earlier commit to the present ones, and back: no address moves.

The earlier ones run from that commit's tree, an archive beside this file. What is judged is what the kernels,
the wire and a client saw.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from contract.names import AGENT_CONTAINER, ASSIGNMENT, ELECTION_LEASE, SYSTEM_NAMESPACE
from lab.binaries import find
from lab.errors import ApiError
from lab.world.world import World
from tests.lab.steps import CIDR, SOON_S, Steps, bare, steps_in

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lab.program import Program
    from lab.witness.client import Probe
    from lab.world.pods import PodHandle

ROOT = Path(__file__).parents[2]
EARLIER = Path(__file__).with_name("earlier.tar.xz")
"""Of commit 59e8524, the last before the manifests became kustomize's, by `git archive`: a shallow clone has it too."""
JITTER_MS = 50.0
"""A client of a busy machine misses an answer now and then; an address that moved is away for longer, or seen to go."""
HANDOVER_MS = 5000.0
"""Of a Lease of 10 s that ran out it would be twice as much."""
RENEWALS = 3
AGENT = {
    "name": AGENT_CONTAINER,
    "image": "holdfast-sidecar",
    "restartPolicy": "Always",
    "env": [
        {"name": name, "valueFrom": {"fieldRef": {"fieldPath": f"metadata.{field}"}}}
        for name, field in (("POD_NAME", "name"), ("POD_NAMESPACE", "namespace"), ("POD_UID", "uid"))
    ],
}
"""As a user wrote it when there was no injection: it reads its assignment by a watch, with the Pod's own account."""
_FORBIDDEN_POD = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {"name": "forbidden", "annotations": {ASSIGNMENT: "{}"}},
    "spec": {"containers": [{"name": "app", "image": "app"}]},
}
_FORBIDDEN_LEASE = {
    "apiVersion": "coordination.k8s.io/v1",
    "kind": "Lease",
    "metadata": {"name": "holdfast-forbidden"},
}
_FORBIDDEN = {
    "/api/v1/namespaces/default/pods": _FORBIDDEN_POD,
    "/apis/coordination.k8s.io/v1/namespaces/kube-system/leases": _FORBIDDEN_LEASE,
}
"""What the policies refuse, by where it is created."""


@dataclass(frozen=True)
class Release:
    """One version of holdfast, as a tree of files.

    Attributes:
        tree: where its packages lie.
        manifests: what `kubectl apply` is told, to install it.
        words: what its policies say when they refuse; tells whose policies are in effect.
    """

    tree: Path
    manifests: tuple[str, str]
    words: tuple[str, str]

    @property
    def env(self) -> dict[str, str]:
        """So that Python finds this version's packages, and not those of the folder it is started in."""
        return {"PYTHONPATH": str(self.tree), "PYTHONSAFEPATH": "1"}


PRESENT = Release(
    ROOT,
    ("-k", str(ROOT / "deploy" / "base")),
    ("only holdfast's controller writes the annotation", "only holdfast's controller creates Leases"),
)


@pytest.fixture(scope="session")
def earlier(tmp_path_factory: pytest.TempPathFactory) -> Release:
    tree = tmp_path_factory.mktemp("earlier")
    with tarfile.open(EARLIER) as tar:
        tar.extractall(tree)  # noqa: S202 - ours
    found = Release(
        tree,
        ("-f", str(tree / "deploy")),
        ("is written by holdfast's controller alone", "are made by holdfast's controller alone"),
    )
    where = "import contract, controller, sidecar; print(contract.__file__, controller.__file__, sidecar.__file__)"
    said = subprocess.run(
        [sys.executable, "-c", where], env=os.environ | found.env, capture_output=True, text=True, check=True
    ).stdout
    assert [Path(each).parents[1] for each in said.split()] == [tree] * 3
    return found


class Cluster:
    """A world in which one version follows another."""

    def __init__(self, world: World, image: Path) -> None:
        self.world = world
        self._image = image

    def install(self, release: Release) -> None:
        """Apply a version's manifests as a user does, and wait until its policies are in effect."""
        self.world.kubectl("apply", *release.manifests)
        for (path, body), words in zip(_FORBIDDEN.items(), release.words, strict=True):
            self._until_refused(path, body, words)

    def _until_refused(self, path: str, body: dict[str, Any], words: str) -> None:
        """Try what a policy refuses: that the API server has compiled it is told by no event."""
        pause, deadline = threading.Event(), time.monotonic() + SOON_S
        while words not in (said := self._refusal(path, body)):
            assert time.monotonic() < deadline, f"still refused with {said!r}, not with {words!r}"
            pause.wait(0.05)

    def _refusal(self, path: str, body: dict[str, Any]) -> str:
        try:
            self.world.api.create(path, body, dryRun="All")
        except ApiError as error:
            return str(error)
        return ""

    def ship(self, release: Release) -> None:
        """From now on Pods' sidecars are those of this version; those that run stay as they are."""
        new = self._image.with_suffix(".new")
        new.unlink(missing_ok=True)
        new.symlink_to(release.tree)
        new.replace(self._image)


@pytest.fixture
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    # a short path: sockets lie in it
    state = tmp_path_factory.mktemp("world")
    image = state / "image"
    # the tree is looked up once, at the start: what a process imports later is its own version's too
    start = f'PYTHONSAFEPATH=1 PYTHONPATH="$(readlink -f {image})" exec {sys.executable} -m sidecar.cli run'
    with World(binaries=find(), state=state, bare=True, sidecar=("sh", "-c", start)) as world:
        world.kubectl("apply", "--server-side", "-f", str(world.binaries.gateway_crds))
        world.kubectl("wait", "crds", "--all", "--for=condition=Established", f"--timeout={SOON_S:g}s")
        yield Cluster(world, image)


@pytest.fixture(params=["up", "down"])
def way(request: pytest.FixtureRequest, earlier: Release) -> tuple[Release, Release]:
    return (earlier, PRESENT) if request.param == "up" else (PRESENT, earlier)


@pytest.fixture
def steps(cluster: Cluster, way: tuple[Release, Release]) -> Iterator[Steps]:
    """Two routes whose addresses the first version has brought to their Pods: a Deployment's, and one by hand."""
    cluster.install(way[0])
    cluster.ship(way[0])
    cluster.world.add_controllers(2, way[0].env)
    cluster.world.create_namespace("app")
    with steps_in(cluster.world, "app") as steps:
        steps.beside = {"initContainers": [AGENT]}
        steps.gateway()
        steps.route("web")
        steps.route("db", steps.addresses[1], podSelector={"matchLabels": {"app": "db"}})
        steps.pod("old", labels={"app": "db"})
        steps.deployment(2)
        steps.until("two Pods of the Deployment", lambda: len(steps.pods()) == 3)
        steps.tick()
        steps.api.patch(steps.at("deployments", "web"), {"spec": {"replicas": 3}})
        steps.until("its third Pod", lambda: len(steps.pods()) == 4)
        newest = max(steps.pods(), key=lambda pod: pod["metadata"]["creationTimestamp"])["metadata"]["name"]
        for route, name, address in (("web", newest, steps.addresses[0]), ("db", "old", steps.addresses[1])):
            steps.held_by(name, address, route=route)
            steps.condition("Ready", "ProgrammingComplete", route=route)
        yield steps


def test_an_upgrade_leaves_each_address_on_its_pod_until_the_pod_is_replaced(
    cluster: Cluster, way: tuple[Release, Release], steps: Steps
) -> None:
    before, after = way
    holders = {route: holder(steps, route) for route in ("web", "db")}
    epochs = {route: steps.lease(route).transitions for route in holders}
    mark = steps.world.witness.mark()
    probes = [steps.world.client("blue-network").watch(bare(each)) for each in steps.addresses[:2]]

    cluster.install(after)
    renewed(steps, *holders)
    roll(steps, after)
    renewed(steps, *holders)

    # the new controllers lead the old sidecars
    both = [steps.addresses[0], steps.addresses[2]]
    steps.change("web", addresses=[{"type": CIDR, "value": each} for each in both])
    assert steps.held_by(lambda _: True, *both, route="web").uid == holders["web"].uid
    for route in holders:
        steps.condition("Ready", "ProgrammingComplete", route=route)
    steps.until("the status to follow", lambda: len(steps.status("web")["addresses"]) == len(both))

    for probe in probes:
        undisturbed(probe)
    for address in steps.addresses[:2]:
        assert steps.removals(address, mark) == []
    for route, pod in holders.items():
        assert (steps.lease(route).holder, steps.lease(route).transitions) == (pod.uid, epochs[route])
        assert version(pod) == str(before.tree)

    # Pods that are replaced get the new sidecar, which takes over from the old one
    cluster.ship(after)
    with steps.world.client("blue-network").watch(bare(steps.addresses[1])) as probe:
        steps.pod("new", labels={"app": "db"})
        new = steps.held_by("new", steps.addresses[1], route="db")
    assert version(new) == str(after.tree)
    assert steps.lease("db").transitions == epochs["db"] + 1
    assert max((gap.length_ms for gap in probe.stop()), default=0) < HANDOVER_MS, "it was not a planned handover"

    old = {each["metadata"]["uid"] for each in steps.pods()} - {new.uid, holders["db"].uid}
    steps.world.kubectl("rollout", "restart", "deployment/web", "--namespace", steps.space)
    steps.until("the Deployment's old Pods to be gone", lambda: not old & {e["metadata"]["uid"] for e in steps.pods()})
    web = steps.held_by(lambda pod: pod["metadata"]["uid"] not in old, *both, route="web")
    assert version(web) == str(after.tree)
    for route in holders:
        steps.condition("Ready", "ProgrammingComplete", route=route)


@pytest.mark.parametrize("way", ["up"], indirect=True)
def test_a_new_sidecar_in_an_old_pod_keeps_the_address_where_it_is(
    cluster: Cluster, way: tuple[Release, Release], steps: Steps
) -> None:
    """The image of a container can be changed in a Pod that runs.

    Not back: an agent of before knows nothing of a fence on more than one interface, and cannot take it away.
    """
    _, after = way
    pod, epoch, mark = holder(steps, "db"), steps.lease("db").transitions, steps.world.witness.mark()
    cluster.install(after)
    roll(steps, after)
    cluster.ship(after)
    with steps.world.client("blue-network").watch(bare(steps.addresses[1])) as probe:
        pod.kill_sidecar()
        renewed(steps, "db")
        steps.announced_again(pod, steps.addresses[1], time.time())
    assert version(pod) == str(after.tree)
    undisturbed(probe)
    assert steps.removals(steps.addresses[1], mark) == []
    assert (steps.lease("db").holder, steps.lease("db").transitions) == (pod.uid, epoch)
    steps.pod("new", labels={"app": "db"})
    steps.held_by("new", steps.addresses[1], route="db")


def holder(steps: Steps, route: str) -> PodHandle:
    return steps.handle(steps.lease(route).holder)


def renewed(steps: Steps, *routes: str) -> None:
    """Wait until each route's holder has renewed its Lease several times from now on."""
    for route in routes:
        steps.renewed(route, RENEWALS)


def roll(steps: Steps, release: Release) -> None:
    """Replace the controllers as the Deployment does, one new beside the old ones, then one old less."""
    old = steps.world.controllers
    new: list[Program] = []
    for each in sorted(old, key=lambda replica: not leads(steps, replica)):
        new += steps.world.add_controllers(1, release.env)
        each.stop()
    steps.api.wait(
        f"/apis/coordination.k8s.io/v1/namespaces/{SYSTEM_NAMESPACE}/leases/{ELECTION_LEASE}",
        lambda lease: any(map(named_by(lease), new)),
        SOON_S,
        "one of the new controllers to lead",
    )


def leads(steps: Steps, replica: Program) -> bool:
    path = f"/apis/coordination.k8s.io/v1/namespaces/{SYSTEM_NAMESPACE}/leases/{ELECTION_LEASE}"
    return named_by(steps.api.get(path))(replica)


def named_by(lease: dict[str, Any] | None) -> Any:
    identity = str((lease or {}).get("spec", {}).get("holderIdentity") or "")
    return lambda replica: identity.startswith(f"{replica.netns}_")


def version(pod: PodHandle) -> str:
    """Where the code of a Pod's sidecar lies."""
    variables = Path(f"/proc/{pod.sidecar_pid}/environ").read_text().split("\0")
    return next(each for each in variables if each.startswith("PYTHONPATH=")).partition("=")[2]


def undisturbed(probe: Probe) -> None:
    gaps = [gap for gap in probe.stop() if gap.length_ms > JITTER_MS]
    assert gaps == []
    assert probe.requests > 1
