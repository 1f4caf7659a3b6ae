"""The CNI plugin of a real node: a Pod's interfaces on the networks that its annotation asks for, as Multus does it.

containerd runs it inside the node. It has the world register the Pod's network namespace with the witness before
anything is in it, and then lets CNI's own plugins (bridge or macvlan, host-local) make each interface. Which ones is
the rule of the played nodes, too (`lab.world.sandbox.interfaces_of`). Not promised: CHECK.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from typing import TYPE_CHECKING, Any, Final

from lab.errors import LabError
from lab.real.debian import PLUGINS
from lab.real.machine import INSIDE
from lab.world.sandbox import interfaces_of

if TYPE_CHECKING:
    from pathlib import Path

ANNOTATIONS: Final = "io.kubernetes.cri.pod-annotations"
"""The capability by which containerd hands over a Pod's annotations."""
SOCKET: Final = "registrar.sock"
VERSION: Final = "0.4.0"
"""Of CNI's specification."""
_ANSWER_S: Final = 20.0

Object = dict[str, Any]


def main() -> None:
    """Carry out CNI_COMMAND."""
    command = os.environ["CNI_COMMAND"]
    if command == "VERSION":
        print(json.dumps({"cniVersion": VERSION, "supportedVersions": ["0.3.0", "0.3.1", VERSION]}))
        return
    config = json.load(sys.stdin)
    try:
        if command == "ADD":
            print(json.dumps(_add(config)))
        elif command == "DEL":
            _remove(config)
    except LabError as error:
        print(json.dumps({"cniVersion": VERSION, "code": 100, "msg": str(error)}))
        sys.exit(1)


def _add(config: Object) -> Object:
    wanted = _wanted(config)
    _tell({"do": "add", **_pod(), "netns": os.path.realpath(os.environ["CNI_NETNS"])})
    results = {name: _delegate(config["networks"][number], "ADD", name) for name, number in wanted.items()}
    return results["eth0"]


def _remove(config: Object) -> None:
    for name, number in reversed(_wanted(config).items()):
        _delegate(config["networks"][number], "DEL", name)
    _tell({"do": "remove", **_pod()})


def _wanted(config: Object) -> dict[str, int]:
    annotations = config.get("runtimeConfig", {}).get(ANNOTATIONS) or {}
    return interfaces_of(annotations, [each["name"] for each in config["networks"]])


def _pod() -> dict[str, str]:
    named = dict(each.partition("=")[::2] for each in os.environ["CNI_ARGS"].split(";"))
    return {
        "sandbox": os.environ["CNI_CONTAINERID"],
        "namespace": named["K8S_POD_NAMESPACE"],
        "name": named["K8S_POD_NAME"],
        "uid": named.get("K8S_POD_UID", ""),
    }


def _delegate(network: Object, command: str, interface: str) -> Object:
    """Let CNI's plugin make or remove one interface."""
    done = subprocess.run(
        [str(PLUGINS / network["type"])],
        input=json.dumps(network),
        env={**os.environ, "CNI_COMMAND": command, "CNI_IFNAME": interface, "CNI_PATH": str(PLUGINS)},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise LabError(
            f"{network['type']} cannot {command} {interface} on {network['name']}: {done.stdout or done.stderr}"
        )
    result: Object = json.loads(done.stdout) if done.stdout.strip() else {}
    return result


def _tell(request: Object) -> None:
    path = INSIDE / SOCKET
    with socket.socket(socket.AF_UNIX) as door:
        door.settimeout(_ANSWER_S)
        try:
            door.connect(str(path))
            door.sendall(json.dumps(request).encode() + b"\n")
            answer = json.loads(door.makefile("rb").readline())
        except (OSError, ValueError) as error:
            raise LabError(f"the world does not answer at {path}: {error!r}") from error
    if answer["error"]:
        raise LabError(f"the world refused {request}: {answer['error']}")


def script(path: Path) -> None:
    """Write an executable that runs this plugin."""
    path.write_text(f"#!{sys.executable}\nfrom lab.real.plugin import main\n\nmain()\n")
    path.chmod(0o755)


if __name__ == "__main__":
    main()
