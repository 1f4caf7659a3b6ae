"""`holdfast lab`: a closed world for a command, or one to work in from other terminals."""

from __future__ import annotations

import os
import shutil
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import click

from lab import closed, etcd
from lab.binaries import Binaries, find

if TYPE_CHECKING:
    from lab.binaries import Progress
    from lab.world.world import World

_PASS_ON = {"ignore_unknown_options": True, "allow_interspersed_args": False}
REAL = "real"
NODE_COUNTS = range(1, 10)
_END = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP}
_KUBECONFIG = closed.RUN / "kubeconfig"
_TOOLS = {"ip": "iproute2", "tcpdump": "tcpdump", "ping": "iputils-ping"}
_NAME = click.option("--name", default="lab", show_default=True, help="Name of the lab.")


@click.group()
def lab() -> None:
    """Run Pods as network namespaces around a real API server, closed off from every other network."""


@lab.command(context_settings=_PASS_ON)
@click.option("--name", help="Name of the lab, for `holdfast lab exec`.")
@click.option("--real", is_flag=True, help="See that there is what real nodes need, too.")
@click.option(
    "--old-etcd", is_flag=True, help="See that there is an etcd without progress requests, too (Debian 12's)."
)
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
def run(name: str | None, command: tuple[str, ...], *, real: bool, old_etcd: bool) -> None:
    """Run COMMAND in a fresh lab, stop all that it leaves behind, and exit with its exit code."""
    prepare(real=real, old_etcd=old_etcd)
    closed.enter(list(command), name)


@lab.command()
@_NAME
@click.option(
    "--nodes",
    default="2",
    show_default=True,
    type=click.Choice([*map(str, NODE_COUNTS), REAL]),
    help="Number of nodes; real: two nodes with a kubelet and containerd each (as root, on cgroup v1; installs what it "
    "lacks from Debian).",
)
@click.option(
    "--controllers", default=1, show_default=True, type=click.IntRange(0, 5), help="Number of controller replicas."
)
@click.option(
    "--network",
    "networks",
    multiple=True,
    default=("blue-network", "red-network"),
    show_default=True,
    help="Network to add to `default`; repeat for more.",
)
def up(name: str, nodes: str, controllers: int, networks: tuple[str, ...]) -> None:
    """Start a lab and keep it until Ctrl-C. Work in it from other terminals."""
    if not closed.is_closed():
        prepare(real=nodes == REAL)
        closed.enter([sys.executable, "-m", "cli.main", *sys.argv[1:]], name)
    with _world(nodes, ("default", *networks), controllers) as world:
        click.echo(_welcome(world, name))
        signal.pthread_sigmask(signal.SIG_BLOCK, _END)
        signal.sigwait(_END)
        click.echo("\nstopping the lab")


def _world(nodes: str, networks: tuple[str, ...], controllers: int) -> World:
    # of this module's commands only `up` needs them
    state = closed.RUN / "lab"
    if nodes != REAL:
        from lab.world.world import World  # noqa: PLC0415

        return World(nodes=int(nodes), networks=networks, controllers=controllers, binaries=find(), state=state)
    from lab.real import images  # noqa: PLC0415
    from lab.real.world import RealWorld  # noqa: PLC0415

    programs = find(real=True)
    return RealWorld(
        networks=networks, controllers=controllers, binaries=programs, images=images.archives(), state=state
    )


@lab.command("exec", context_settings=_PASS_ON)
@_NAME
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
def execute(name: str, command: tuple[str, ...]) -> None:
    """Run COMMAND inside a running lab: kubectl, ip, tcpdump, ping, anything."""
    _inside(name, list(command))


@lab.command()
@_NAME
def shell(name: str) -> None:
    """Open a shell inside a running lab."""
    bash = shutil.which("bash")
    _inside(name, [bash, "--norc", "-i"] if bash else ["sh", "-i"])


@lab.command()
@_NAME
def status(name: str) -> None:
    """Show a running lab's nodes, Pods and routes."""
    click.echo(f"lab {name!r} is running; its init is process {closed.find(name)}")
    _inside(name, ["kubectl", "get", "nodes,pods,gkeiproutes", "--all-namespaces", "--output=wide"])


def _inside(name: str, command: list[str]) -> NoReturn:
    path = f"{find().kubectl.parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
    closed.join(name, command, {"KUBECONFIG": str(_KUBECONFIG), "PATH": path, "PS1": f"{name}# "})


def prepare(*, real: bool = False, old_etcd: bool = False) -> Binaries:
    """Find the control plane's programs, or build them under a progress bar; and if asked to, what else is needed.

    To be called before a closed world is entered: no module can be downloaded inside it.
    """
    from rich import progress as bars  # noqa: PLC0415 - 60 ms, and seldom needed
    from rich.console import Console  # noqa: PLC0415

    text, clock = bars.TextColumn("{task.description}"), bars.TimeElapsedColumn()
    columns = (bars.SpinnerColumn(), text, bars.BarColumn(), bars.MofNCompleteColumn(), clock)
    bar = bars.Progress(*columns, console=Console(stderr=True))
    task = bar.add_task("", total=None)

    def show(what: str, done: int, of: int) -> None:
        if not bar.live.is_started:
            bar.console.print("Preparing the lab, the control plane from source; this takes some minutes, once.")
            bar.start()
        bar.update(task, description=what, completed=done, total=of)

    try:
        found = find(show, real=real)
        if old_etcd:
            etcd.ensure_old(show)
        if real:
            _prepare_real(show)
        return found
    finally:
        bar.stop()


def _prepare_real(show: Progress) -> None:
    from lab.real import debian, images, world  # noqa: PLC0415 - seldom needed

    world.require()
    debian.ensure(show)
    images.ensure(show)


def _welcome(world: World, name: str) -> str:
    option = "" if name == "lab" else f" --name {name}"
    me = Path(sys.executable).with_name("holdfast")
    blue = world.networks.names[-1] if len(world.networks.names) < 3 else world.networks.names[1]
    networks = ", ".join(world.networks.names)
    return f"""The lab is up ({world.started_in_s:.1f} s): {len(world.nodes)} nodes, networks {networks}.
Logs: {world.logs} (inside the lab). Work in it from another terminal:

    {me} lab shell{option}
    {name}# cd examples/seed; kubectl apply -f 00-namespaces.yaml -f 01-network.yaml
    {name}# kubectl apply -f allowed-pod-ips.yaml -f my-pod-ips-statefulset.yaml
    {name}# kubectl get gkeiproutes,pods -A -o wide
    {name}# ip netns                                   # one per Pod, node, client, and the switch
    {name}# ip netns exec switch tcpdump -nei sw{world.networks.number(blue)} arp
    {name}# ip -n client-{blue} route add 34.123.10.0/24 dev eth0
    {name}# ip netns exec client-{blue} ping 34.123.10.1

or run a single command: {me} lab exec{option} -- kubectl get pods -A
{_missing_tools()}Ctrl-C here stops everything."""


def _missing_tools() -> str:
    """Name what these lines need and this machine lacks, with Debian's packages; the lab itself needs none of it."""
    missing = [f"{tool} ({package})" for tool, package in _TOOLS.items() if shutil.which(tool) is None]
    return f"Some of these lines need tools that this machine lacks: {', '.join(missing)}.\n" if missing else ""
