"""The world's hold on a real node: what it is made of, its power, and what runs on it now.

A node is a kubelet and a containerd in network, mount and PID namespaces of its own (`lab.real.machine`), on the same
switch as the played ones. Its disk (/var/lib, /var/log) lies in the world's state and survives `power_off`, and
nothing of it survives the world.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from contract.names import AGENT_CONTAINER
from lab.errors import LabError
from lab.program import Program
from lab.real import configuration, plugin
from lab.real.cgroups import NodeCgroups
from lab.real.registrar import Registrar
from lab.world.credentials import ADMIN, node_user
from lab.world.nodes import NodeHandle

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from lab.binaries import Binaries
    from lab.world.credentials import Credentials
    from lab.world.networks import Networks

_SIGNALS: Final = {"fail-app": signal.SIGUSR1, "heal-app": signal.SIGUSR2}
_TASKS: Final = "run/containerd/io.containerd.runtime.v2.task/k8s.io"
_CHECKOUT: Final = Path(__file__).resolve().parents[2]

Object = dict[str, Any]


class RealNode(NodeHandle):
    """One real node as the world sees it."""

    def __init__(
        self,
        number: int,
        *,
        networks: Networks,
        credentials: Credentials,
        folder: Path,
        logs: Path,
        binaries: Binaries,
        images: Sequence[Path],
        cni: str,
        lab: str,
    ) -> None:
        """Make its network namespace; it is started by `start`.

        Args:
            number: of the node; credentials have a token for so many.
            networks: which it is plugged into, all of them.
            credentials: with its token.
            folder: in which it gets a directory of its own name.
            logs: where its logs go.
            binaries: with those of real nodes.
            images: archives that its containerd gets.
            cni: `bridge`, `macvlan` or `multus`.
            lab: tells this lab's control groups from another's.

        Raises:
            LabError: `binaries` has not those of real nodes, or there is no such kind of network.
        """
        self._binaries = binaries
        self._logs = logs
        self._images = images
        self._cni = cni
        self._credentials = credentials
        self._cgroups = NodeCgroups(lab, f"node-{number}")
        super().__init__(number, networks=networks, credentials=credentials, folder=folder, logs=logs)
        self._furnish()
        witness = folder.parent / "witness.sock"
        self._registrar = Registrar(self.run_dir / plugin.SOCKET, witness, self.inside)

    def _make_program(self, _kubeconfig: Path) -> Program:
        spaces = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--propagation", "private"]
        argv = [*spaces, sys.executable, "-m", "lab.real.machine", str(self.run_dir)]
        return Program(self.name, argv, self._logs / f"{self.name}.log", self.netns)

    def _make_netns(self) -> str:
        return self._networks.node(self.number, bridged=self._cni != configuration.MACVLAN)

    # its power -------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start it, as after a boot: its control groups are empty."""
        shutil.copyfile(self._credentials.ca_file, self.run_dir / "ca.crt")
        self._cgroups.make()
        self.program.start()

    def power_off(self) -> None:
        """Cut its cables and kill everything on it at once; its Pods' network namespaces go, as in a power cut."""
        self._cables(up=False)
        self._kill()

    def stop(self) -> None:
        """End it for good; its disk, which is memory, goes."""
        self._kill()
        self._registrar.close()
        shutil.rmtree(self.run_dir / "var" / "lib")

    def _kill(self) -> None:
        self.program.kill()  # by its death process 1 dies, and the kernel ends whatever is in its PID namespace
        self._registrar.forget_all()
        self._cgroups.remove()

    # what runs on it -------------------------------------------------------------------------------------------

    def inside(self) -> int:
        """The process id, here, of its process 1.

        Raises:
            LabError: it is not running.
        """
        outer = self.program.pid
        children = Path(f"/proc/{outer}/task/{outer}/children").read_text().split()
        if not children:
            raise LabError(f"{self.name} is starting or stopping; its log: {self.program.log}")
        return int(children[0])

    def within(self, *command: str) -> list[str]:
        """Give the arguments that run a command inside, such as `ctr`."""
        return ["nsenter", "--target", str(self.inside()), "--mount", "--net", "--pid", "--", *command]

    def pods(self) -> list[Object]:
        """The Pods that run on it, with the process ids of their containers."""
        containers = list(self._containers())
        return [self._record(each, containers) for each in self._registrar.pods()]

    def pod(self, namespace: str, name: str) -> Object | None:
        """One Pod, the newer where an earlier one of its name still ends; None when it does not run here."""
        named = [each for each in self.pods() if (each["namespace"], each["name"]) == (namespace, name)]
        return named[-1] if named else None

    def ask(self, request: Object) -> Object:
        """Signal the app of a Pod to fail or to heal: the lab's app does so (`lab.real.app`).

        Raises:
            LabError: no such Pod or no such request.
        """
        number = _SIGNALS.get(request["do"])
        record = self.pod(*request["pod"].split("/"))
        if number is None or record is None or not record["app_pids"]:
            raise LabError(f"{self.name} cannot {request}: it runs {[each['name'] for each in self.pods()]}")
        for pid in record["app_pids"]:
            os.kill(pid, number)
        return {"ok": True}

    def _record(self, pod: Object, containers: list[Object]) -> Object:
        mine = [each for each in containers if each["sandbox"] == pod["sandbox"]]
        sidecar = [each["pid"] for each in mine if each["name"] == AGENT_CONTAINER]
        apps = [each["pid"] for each in mine if each["name"] != AGENT_CONTAINER]
        return {**pod, "sidecar_pid": sidecar[-1] if sidecar else None, "app_pids": apps}

    def _containers(self) -> Iterator[Object]:
        """The containers that run: what the runtime has written of each, and its first process."""
        try:
            tasks = list(Path(f"/proc/{self.inside()}/root/{_TASKS}").iterdir())
        except (LabError, OSError):
            return
        for task in tasks:
            try:
                notes = json.loads((task / "config.json").read_text()).get("annotations", {})
            except (OSError, ValueError):  # it is being made, or has just ended
                continue
            first = next((pid for pid in self._cgroups.processes(task.name) if _is_first(pid)), None)
            if first and notes.get("io.kubernetes.cri.container-type") == "container":
                sandbox, name = notes["io.kubernetes.cri.sandbox-id"], notes["io.kubernetes.cri.container-name"]
                yield {"sandbox": sandbox, "name": name, "pid": first}

    # what it is made of ----------------------------------------------------------------------------------------

    def _furnish(self) -> None:
        """Write everything that the node reads."""
        run_dir = self.run_dir
        for each in (
            "root",
            "var/lib",
            "var/log/pods",
            "var/log/containers",
            "log",
            "images",
            "bin",
            "cni",
            "networks",
        ):
            (run_dir / each).mkdir(parents=True, exist_ok=True)
        for archive in self._images:
            (run_dir / "images" / archive.name).touch()  # where the machine will show it
        configuration.write(
            run_dir,
            node=self.name,
            number=self.number,
            networks=self._networks.names,
            cni=self._cni,
            # Multus' own service account may read Pods and write their status; what it may do is not tried here
            tokens={
                "kubelet": self._credentials.token(node_user(self.name)),
                configuration.MULTUS: self._credentials.token(ADMIN),
            },
            binaries=self._binaries,
            cgroup=self._cgroups.name,
            images=self._images,
            visible=[str(each) for each in (_CHECKOUT, Path(sys.prefix), Path(sys.base_prefix))],
        )


def _is_first(pid: int) -> bool:
    """Whether a process is the first of its own PID namespace."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:  # it has ended
        return False
    numbers = next(line.split()[1:] for line in status.splitlines() if line.startswith("NSpid:"))
    return numbers[-1] == "1"
