"""What a real node is told: the kubelet's, containerd's and CNI's configuration, and what its process 1 does.

Pure but for `write`. Paths are those inside the node (`lab.real.machine`).
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

from lab.errors import LabError
from lab.real import plugin
from lab.real.debian import PLUGINS
from lab.real.image import PAUSE
from lab.real.machine import INSIDE
from lab.world import control_plane
from lab.world.networks import address

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from lab.binaries import Binaries

BRIDGE: Final = "bridge"
MACVLAN: Final = "macvlan"
MULTUS: Final = "multus"
KINDS: Final = (BRIDGE, MACVLAN, MULTUS)
"""How Pods are on their networks. With Multus, by bridges too, and on all but the default network as Multus attaches
them: a Pod names NetworkAttachmentDefinitions, each without a `config`, since each node has its own of that name."""
PLUGIN: Final = "holdfast-lab"
_FIRST_HOST, _LAST_HOST = 10, 250

Object = dict[str, Any]


def write(
    folder: Path,
    *,
    node: str,
    number: int,
    networks: Sequence[str],
    cni: str,
    tokens: dict[str, str],
    binaries: Binaries,
    cgroup: str,
    images: Sequence[Path],
    visible: list[str],
) -> None:
    """Write everything into a node's folder; `tokens` are by program, `kubelet` and `multus`.

    Raises:
        LabError: there is no kubelet or Multus, or no such kind of network.
    """
    if binaries.kubelet is None or binaries.multus is None:
        raise LabError("real nodes need the kubelet and Multus: ask for them, `lab.binaries.find(real=True)`")
    if cni not in KINDS:
        raise LabError(f"the Pods' networks of a real node are of the kinds {', '.join(KINDS)}, not {cni!r}")
    argv = [
        str(binaries.kubelet),
        f"--config={INSIDE / 'kubelet.json'}",
        f"--kubeconfig={INSIDE / 'kubelet.kubeconfig'}",
        f"--hostname-override={node}",
        f"--node-ip={address(0, number, 1)}",
        "--v=1",
    ]
    settings = {
        "cgroup": cgroup,
        "containerd": "containerd",
        "kubelet": argv,
        "service": control_plane.SERVICE,
        "server": f"{control_plane.ADDRESS}:{control_plane.PORT}",
        "images": [str(each) for each in images],
        "visible": [*visible, str(binaries.kubelet), str(binaries.multus)],
    }
    plugin.script(folder / "bin" / PLUGIN)
    for name in ("loopback", BRIDGE, "host-local"):
        (folder / "bin" / name).symlink_to(PLUGINS / name)
    (folder / "bin" / MULTUS).symlink_to(binaries.multus)
    (folder / "settings.json").write_text(json.dumps(settings, indent=1))
    (folder / "kubelet.json").write_text(json.dumps(_kubelet(), indent=1))
    (folder / "containerd.toml").write_text(_CONTAINERD)
    for name, token in tokens.items():
        (folder / f"{name}.kubeconfig").write_text(json.dumps(_kubeconfig(token), indent=1))
    made = [_network(number, network, name, cni) for network, name in enumerate(networks)]
    (folder / "cni" / "10-lab.conflist").write_text(json.dumps(_network_list(made, cni), indent=1))
    for each in made:
        (folder / "networks" / f"{each['name']}.conf").write_text(json.dumps(each, indent=1))


def _kubelet() -> Object:
    return {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        # nobody but this lab's API server reaches it
        "authentication": {"anonymous": {"enabled": True}, "webhook": {"enabled": False}},
        "authorization": {"mode": "AlwaysAllow"},
        "cgroupDriver": "cgroupfs",
        "cgroupsPerQOS": False,
        "enforceNodeAllocatable": [],
        "failSwapOn": False,
        "failCgroupV1": False,
        "containerRuntimeEndpoint": "unix:///run/containerd/containerd.sock",
        "evictionHard": {"memory.available": "50Mi", "nodefs.available": "1%", "imagefs.available": "1%"},
        "imageGCHighThresholdPercent": 100,  # an image that was removed could not be had again
        "makeIPTablesUtilChains": False,
        "resolvConf": "",
        "readOnlyPort": 0,
    }


_CONTAINERD = f"""version = 2
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{PAUSE}"
  restrict_oom_score_adj = true
  disable_apparmor = true  # a profile would be the whole machine's
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "overlayfs"
    default_runtime_name = "runc"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "{INSIDE / "bin"}"
    conf_dir = "{INSIDE / "cni"}"
"""


def _kubeconfig(token: str) -> Object:
    cluster = {"server": control_plane.SERVER, "certificate-authority": str(INSIDE / "ca.crt")}
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "lab", "cluster": cluster}],
        "users": [{"name": "kubelet", "user": {"token": token}}],
        "contexts": [{"name": "lab", "context": {"cluster": "lab", "user": "kubelet"}}],
        "current-context": "lab",
    }


def _network_list(networks: list[Object], cni: str) -> Object:
    """CNI's configuration: one plugin, which makes an interface on every network that a Pod asks for."""
    one: Object = {"type": PLUGIN, "capabilities": {plugin.ANNOTATIONS: True}, "networks": networks}
    if cni == MULTUS:  # the default network's interface by the lab's plugin, the others by Multus
        delegate = {"cniVersion": plugin.VERSION, "name": "lab", "type": PLUGIN, "networks": networks[:1]}
        one = {
            "type": MULTUS,
            "kubeconfig": str(INSIDE / f"{MULTUS}.kubeconfig"),
            "confDir": str(INSIDE / "networks"),
            "binDir": str(PLUGINS),
            "delegates": [delegate],
        }
    return {"cniVersion": plugin.VERSION, "name": "lab", "plugins": [one]}


def _network(number: int, network: int, name: str, cni: str) -> Object:
    addresses = {
        "subnet": f"{address(network, 0, 0)}/16",
        "rangeStart": address(network, number, _FIRST_HOST),
        "rangeEnd": address(network, number, _LAST_HOST),
        "gateway": address(network, number, 1),
    }
    # only the default network leads somewhere: to the node, and by it to the Service of the API server
    routes = {"routes": [{"dst": "0.0.0.0/0"}]} if network == 0 else {}
    ipam = {"type": "host-local", "ranges": [[addresses]], **routes}
    known = {"cniVersion": plugin.VERSION, "name": name, "ipam": ipam}
    if cni == MACVLAN:
        return {**known, "type": MACVLAN, "master": f"up{network}", "mode": "bridge"}
    return {**known, "type": BRIDGE, "bridge": f"br{network}", "isGateway": False, "ipMasq": False}
