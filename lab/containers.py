"""The processes of a Pod: the real sidecar with its few rights, and the app's stand-in.

The sidecar has CAP_NET_ADMIN and CAP_NET_RAW and no way to more, a mount namespace of its own with the service
account's files where a kubelet mounts them, and /proc/sys read-only as container runtimes leave it.
"""

from __future__ import annotations

import shlex
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from lab.closed import RUN
from lab.networks import API_ADDRESS
from lab.service import spawn

if TYPE_CHECKING:
    import subprocess

_ACCOUNT = Path("/run/secrets/kubernetes.io/serviceaccount")  # /var/run is /run
_PORT = 6443
_SIDECAR = [sys.executable, "-m", "sidecar.cli", "run", "--source", "watch"]
_FEW_RIGHTS = ["setpriv", "--inh-caps=-all", "--bounding-set=-all,+net_admin,+net_raw", "--no-new-privs", "--"]


def account_folder(uid: str) -> Path:
    """Where a Pod's token is kept on its node: on a tmpfs, as a kubelet does it."""
    return RUN / "accounts" / uid


def write_account(uid: str, token: str, ca: bytes, namespace: str) -> None:
    """Write a Pod's service account files; a token is replaced at once, never half."""
    folder = account_folder(uid)
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in (("ca.crt", ca), ("namespace", namespace.encode()), ("token", token.encode())):
        new = folder / f".{name}"
        new.write_bytes(content)
        new.chmod(0o600)
        new.replace(folder / name)


def start_sidecar(namespace: str, name: str, uid: str, netns: str, log: Path) -> subprocess.Popen[bytes]:
    """Start the real sidecar in a Pod's network namespace."""
    _ACCOUNT.mkdir(parents=True, exist_ok=True)
    mounts = [
        f"mount --bind {shlex.quote(str(account_folder(uid)))} {_ACCOUNT}",
        "mount --bind /proc/sys /proc/sys && mount -o remount,bind,ro /proc/sys",
        f"exec {shlex.join([*_FEW_RIGHTS, *_SIDECAR])}",
    ]
    argv = ["unshare", "--mount", "--propagation", "private", "sh", "-ec", "\n".join(mounts)]
    env = {"POD_NAME": name, "POD_NAMESPACE": namespace, "POD_UID": uid}
    env |= {"KUBERNETES_SERVICE_HOST": API_ADDRESS, "KUBERNETES_SERVICE_PORT": str(_PORT)}
    return spawn(argv, log, netns, env)


def start_app(ports: list[int], netns: str, log: Path) -> subprocess.Popen[bytes]:
    """Start the app's stand-in on its ports."""
    # -I: no site packages, nothing of the environment: it starts in a third of the time
    argv = [sys.executable, "-I", "-S", str(Path(__file__).with_name("app.py")), *map(str, ports)]
    return spawn(argv, log, netns)


def terminate(process: subprocess.Popen[bytes] | None) -> None:
    """SIGTERM, if it runs."""
    if process is not None and process.poll() is None:
        process.send_signal(signal.SIGTERM)


def kill(process: subprocess.Popen[bytes] | None) -> None:
    """SIGKILL, and wait for its end."""
    if process is not None:
        if process.poll() is None:
            process.kill()
        process.wait()
