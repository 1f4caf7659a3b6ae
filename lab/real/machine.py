"""A node from the inside: process 1 of its PID namespace, which makes its file system and runs containerd and kubelet.

    python -m lab.real.machine FOLDER

It is started in the node's network namespace, with new mount and PID namespaces. FOLDER is the node's (`lab.real.node`
writes it); inside it is seen as /run/lab. The file system is the machine's own, read-only and without any other mount
of it, but for /run, /tmp, /var/lib and /var/log. It ends when one of both programs ends, and the kernel kills the rest.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Final

from lab import closed
from lab.errors import LabError
from lab.real import cgroups, mounts

INSIDE: Final = Path("/run/lab")
_START_S: Final = 30.0
_ASK_AGAIN_S: Final = 0.05
_PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
# A kubelet sets these, which are the whole machine's. It gets files that say so, and the machine stays as it is.
PRETENDED: Final = {
    "vm/overcommit_memory": "1",
    "vm/panic_on_oom": "0",
    "kernel/panic": "10",
    "kernel/panic_on_oops": "1",
    "kernel/keys/root_maxkeys": "1000000",
    "kernel/keys/root_maxbytes": "25000000",
}


def main() -> None:
    """Run a node until its end."""
    closed.require()
    folder = Path(sys.argv[1])
    settings = json.loads((folder / "settings.json").read_text())
    logs = {name: (folder / "log" / f"{name}.log").open("ab") for name in ("containerd", "kubelet")}
    try:
        cgroups.enter(settings["cgroup"])
        _file_system(folder, settings)
        _network(settings)
        containerd = _start([settings["containerd"], "--config", str(INSIDE / "containerd.toml")], logs["containerd"])
        _until_it_answers(containerd)
        _import_images()
        kubelet = _start(settings["kubelet"], logs["kubelet"])
    except LabError as error:
        sys.exit(f"the node does not start: {error}")
    print("started", flush=True)
    _reap_until_one_ends({containerd.pid: "containerd", kubelet.pid: "kubelet"})


def _file_system(folder: Path, settings: dict[str, Any]) -> None:
    root = folder / "root"
    mounts.bind(Path("/"), root, read_only=True)
    mounts.fresh("proc", root / "proc")
    mounts.fresh("sysfs", root / "sys")
    _cgroup_file_systems(root / "sys/fs/cgroup", settings["cgroup"])
    mounts.bind(Path("/dev"), root / "dev", deep=True)
    mounts.fresh("tmpfs", root / "run", "mode=755")
    mounts.fresh("tmpfs", root / "tmp", "mode=1777")
    for name in ("lib", "log"):
        mounts.bind(folder / "var" / name, root / "var" / name)
    for name in ("netns", "lock", "old", "lab"):
        (root / "run" / name).mkdir()
    mounts.bind(folder, root / "run/lab")
    for archive in map(Path, settings["images"]):
        mounts.bind(archive, root / "run/lab/images" / archive.name)
    for name, value in PRETENDED.items():
        pretended = root / "run" / name.replace("/", ".")
        pretended.write_text(value)
        mounts.bind(pretended, root / "proc/sys" / name)
    for needed in map(Path, settings["visible"]):
        _show(needed, root / needed.relative_to("/"))
    mounts.change_root(root, root / "run/old")


def _show(needed: Path, inside: Path) -> None:
    """Show what lies on another file system than the machine's root, or under what has been hidden."""
    if inside.exists() and inside.samefile(needed):
        return
    if needed.is_dir():
        inside.mkdir(parents=True, exist_ok=True)
    elif not inside.exists():
        inside.parent.mkdir(parents=True, exist_ok=True)
        inside.touch()
    mounts.bind(needed, inside, read_only=True)


def _cgroup_file_systems(target: Path, name: str) -> None:
    mounts.fresh("tmpfs", target, "mode=755")
    for hierarchy in cgroups.hierarchies():
        (target / hierarchy.name).mkdir()
        mounts.bind(hierarchy / name, target / hierarchy.name)


def _network(settings: dict[str, Any]) -> None:
    """Forwarding, and the Service `kubernetes`, which leads to the API server as on any cluster.

    Answers must come back this way, and so what is sent there is sent from the node's own address.
    """
    Path("/proc/sys/net/ipv4/ip_forward").write_text("1")
    for each in Path("/proc/sys/net/bridge").glob("bridge-nf-call-*"):
        each.write_text("0")
    service, server = settings["service"], settings["server"]
    rule = ["--destination", service, "--protocol", "tcp", "--dport", "443"]
    for chain in ("PREROUTING", "OUTPUT"):
        _do("iptables", "--table", "nat", "--append", chain, *rule, "--jump", "DNAT", "--to-destination", server)
    asked = ["--match", "conntrack", "--ctorigdst", service]
    _do("iptables", "--table", "nat", "--append", "POSTROUTING", *asked, "--jump", "MASQUERADE")


def _start(argv: list[str], log: Any) -> subprocess.Popen[bytes]:
    environment = {"PATH": _PATH, "HOME": "/run", closed.ENV_CLOSED: "1"}
    return subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment)


def _until_it_answers(containerd: subprocess.Popen[bytes]) -> None:
    """It has no event for this, and so it is asked."""
    deadline = time.monotonic() + _START_S
    while time.monotonic() < deadline:
        if containerd.poll() is not None:
            raise LabError(f"containerd ended with {containerd.returncode}: see containerd.log")
        try:
            _do("ctr", "version")
        except LabError:
            time.sleep(_ASK_AGAIN_S)
        else:
            return
    raise LabError(f"containerd does not answer after {_START_S:g} s: see containerd.log")


def _import_images() -> None:
    """Give containerd the images; once, since they stay on the node's disk."""
    done = Path("/var/lib/lab-images")
    if not done.exists():
        for archive in sorted((INSIDE / "images").iterdir()):
            _do("ctr", "--namespace", "k8s.io", "images", "import", str(archive))
        done.touch()


def _do(*command: str) -> None:
    environment = {"PATH": _PATH, "HOME": "/run"}
    done = subprocess.run(
        command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        raise LabError(f"`{' '.join(command)}` ended with {done.returncode}: {(done.stderr or done.stdout).strip()}")


def _reap_until_one_ends(programs: dict[int, str]) -> None:
    while True:
        pid, status = os.wait()
        if pid in programs:
            sys.exit(f"{programs[pid]} ended with {os.waitstatus_to_exitcode(status)}: see {programs[pid]}.log")


if __name__ == "__main__":
    main()
