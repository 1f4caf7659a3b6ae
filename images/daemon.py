"""Runs a command with a Docker daemon: the one that answers, or one of its own that ends with the command.

A daemon of its own stands in a network namespace without a way out (containers have no network there, and the machine's
own network is not touched), keeps its data in ~/.cache/holdfast/docker, but for old layers of no image, and needs root.
Debian's packages that it takes are installed when they are missing.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Final

from lab.real import debian

if TYPE_CHECKING:
    from collections.abc import Iterator

PACKAGES: Final = {"docker": "docker.io", "dockerd": "docker.io", "debootstrap": "debootstrap"}
START_S: Final = 60.0
STOP_S: Final = 30.0
CONTAINERD: Final = "/run/containerd"
"""Where a machine's own containerd has its socket."""
LAYERS_KEPT: Final = "12h"


def main() -> None:
    """Run the command line's command, and exit as it does."""
    command = sys.argv[1:]
    if command[:1] == ["--"]:
        del command[0]
    if not command:
        sys.exit("usage: daemon.py [--] COMMAND [ARGUMENT]...")
    # so that what is started here ends here, also when the terminal or a CI job stops us
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    with docker_host() as host:
        sys.exit(subprocess.run(command, check=False, env={**os.environ, **host}).returncode)


@contextlib.contextmanager
def docker_host() -> Iterator[dict[str, str]]:
    """Give the environment by which `docker` finds a daemon.

    Raises:
        SystemExit: there is none, and none can be started here; the message says what to do.
    """
    if shutil.which("docker") is not None and _answers({}):
        yield {}
        return
    if os.geteuid() != 0:
        sys.exit(
            "images: no Docker daemon answers; start one, set DOCKER_HOST, or run this as root to have one started"
        )
    _install()
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "holdfast" / "docker"
    home.mkdir(parents=True, exist_ok=True)
    with (home / "lock").open("w") as lock, tempfile.TemporaryDirectory(prefix="holdfast-docker-") as run:
        fcntl.flock(lock, fcntl.LOCK_EX)  # one daemon has the data; another `make` waits for its end
        with _started(home, Path(run)) as address:
            try:
                yield {"DOCKER_HOST": address}
            finally:
                _prune(address)


def _install() -> None:
    missing = sorted({package for program, package in PACKAGES.items() if shutil.which(program) is None})
    if not missing:
        return
    if shutil.which("apt-get") is None:
        sys.exit(f"images: {', '.join(missing)}: not there, and no apt-get to install them with; install them")
    print(f"images: installs {', '.join(missing)} from Debian's packages", flush=True)
    said = debian.install(missing)
    if any(shutil.which(program) is None for program in PACKAGES):
        sys.exit(f"images: apt-get could not install {', '.join(missing)}:\n{said}")


@contextlib.contextmanager
def _started(home: Path, run: Path) -> Iterator[str]:
    address = f"unix://{run}/docker.sock"
    # the daemon dies with us (pdeathsig); its containers go when the next one clears its own files. It would take the
    # containerd that the machine has, as each node does, which sees nothing of what is mounted in here
    inside = f'ip link set lo up; if [ -d {CONTAINERD} ]; then mount -t tmpfs tmpfs {CONTAINERD}; fi; exec "$@"'
    command = [
        "setpriv", "--pdeathsig", "TERM", "unshare", "--net", "--mount", "--propagation", "private",
        "sh", "-ec", inside, "sh",
        "dockerd", "--host", address, "--data-root", str(home / "data"), "--exec-root", str(run / "exec"),
        "--pidfile", str(run / "pid"), "--bridge=none", "--iptables=false", "--ip6tables=false",
    ]  # fmt: skip
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ready, (home / "dockerd.log").open("w") as log:
        ready.bind(str(run / "notify"))
        ready.settimeout(START_S)
        environment = {**os.environ, "NOTIFY_SOCKET": str(run / "notify")}
        daemon = subprocess.Popen(command, stdout=log, stderr=log, env=environment, start_new_session=True)
        try:
            _await_ready(daemon, ready, home / "dockerd.log")
            yield address
        finally:
            _stop(daemon)


def _prune(address: str) -> None:
    """Remove old layers that no image has: a full build leaves 1.3 GB and the next ones take what fits."""
    for sort in ("image", "builder"):
        command = ["docker", "--host", address, sort, "prune", "--force", "--filter", f"until={LAYERS_KEPT}"]
        subprocess.run(command, check=False, stdout=subprocess.DEVNULL)


def _await_ready(daemon: subprocess.Popen[bytes], ready: socket.socket, log: Path) -> None:
    # when it ends before it is ready, its end is what wakes us
    signal.signal(signal.SIGCHLD, lambda *_: daemon.poll())
    try:
        while b"READY=1" not in ready.recv(4096):
            pass
    except TimeoutError:
        sys.exit(f"images: dockerd is not ready after {START_S:.0f} s; see {log}")
    if daemon.poll() is not None:
        sys.exit(f"images: dockerd ended with code {daemon.returncode}; see {log}")


def _stop(daemon: subprocess.Popen[bytes]) -> None:
    daemon.terminate()
    try:
        daemon.wait(STOP_S)
    except subprocess.TimeoutExpired:
        os.killpg(daemon.pid, signal.SIGKILL)
        daemon.wait()


def _answers(host: dict[str, str]) -> bool:
    asked = subprocess.run(["docker", "version"], check=False, capture_output=True, env={**os.environ, **host})
    return asked.returncode == 0


if __name__ == "__main__":
    main()
