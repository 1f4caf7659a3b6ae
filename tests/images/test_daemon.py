"""The Docker daemon that `make` starts for itself where none answers."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

DAEMON = Path(__file__).resolve().parents[2] / "images" / "daemon.py"


def test_it_leaves_the_machines_containerd_alone(tmp_path):
    """A node has one, in other mount namespaces than the daemon's: it would not find the containers' files."""
    theirs = tmp_path / "containerd"
    theirs.mkdir()
    none_and_new = {"DOCKER_HOST": f"unix://{tmp_path}/none.sock", "XDG_CACHE_HOME": str(tmp_path / "cache")}
    with socket.socket(socket.AF_UNIX) as door:
        door.bind(str(theirs / "containerd.sock"))
        door.listen()
        door.settimeout(0.0)
        script = 'mkdir -p /run/containerd; mount --bind "$1" /run/containerd; shift; exec "$@"'
        inside = ["unshare", "--mount", "--propagation", "private", "sh", "-ec", script, "sh", str(theirs)]
        done = subprocess.run(
            [*inside, sys.executable, str(DAEMON), "--", "docker", "version", "--format", "{{.Server.Version}}"],
            env={**os.environ, **none_and_new},
            cwd=DAEMON.parents[1],
            capture_output=True,
            text=True,
            check=False,
            timeout=90,
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout.strip()
        try:
            door.accept()
        except BlockingIOError:
            return
        raise AssertionError("it has asked the machine's containerd")
