"""What a real node is told."""

from __future__ import annotations

import json

import pytest

from lab.binaries import Binaries
from lab.errors import LabError
from lab.real import configuration


def written(folder, **changes):
    for name in ("bin", "cni", "networks"):
        (folder / name).mkdir()
    settings = {
        "node": "node-2",
        "number": 2,
        "networks": ("default", "blue-network"),
        "cni": "bridge",
        "tokens": {"kubelet": "secret", "multus": "wide"},
        "binaries": Binaries(*6 * [folder], kubelet=folder / "kubelet", multus=folder / "multus"),
        "cgroup": "mine",
        "images": [],
        "visible": [],
    }
    configuration.write(folder, **settings | changes)


def test_a_node_has_addresses_of_its_own_and_only_the_default_network_leads_to_it(tmp_path):
    written(tmp_path)
    (plugin,) = json.loads((tmp_path / "cni" / "10-lab.conflist").read_text())["plugins"]
    default, blue = plugin["networks"]
    (addresses,) = default["ipam"]["ranges"][0]
    assert addresses == {
        "subnet": "10.200.0.0/16",
        "rangeStart": "10.200.2.10",
        "rangeEnd": "10.200.2.250",
        "gateway": "10.200.2.1",
    }
    assert default["ipam"]["routes"] == [{"dst": "0.0.0.0/0"}]
    assert (default["bridge"], blue["bridge"]) == ("br0", "br1")
    assert "routes" not in blue["ipam"]


def test_with_macvlan_the_pods_are_on_the_nodes_cables(tmp_path):
    written(tmp_path, cni="macvlan")
    (plugin,) = json.loads((tmp_path / "cni" / "10-lab.conflist").read_text())["plugins"]
    assert [each["master"] for each in plugin["networks"]] == ["up0", "up1"]


def test_with_multus_the_default_network_is_the_labs_and_the_others_are_its_own(tmp_path):
    written(tmp_path, cni="multus")
    (plugin,) = json.loads((tmp_path / "cni" / "10-lab.conflist").read_text())["plugins"]
    (delegate,) = plugin["delegates"]
    assert (plugin["type"], delegate["type"]) == ("multus", "holdfast-lab")
    assert [each["name"] for each in delegate["networks"]] == ["default"]
    assert plugin["confDir"] == "/run/lab/networks"
    blue = json.loads((tmp_path / "networks" / "blue-network.conf").read_text())
    assert (blue["name"], blue["type"], blue["bridge"]) == ("blue-network", "bridge", "br1")
    config = json.loads((tmp_path / "multus.kubeconfig").read_text())
    assert config["users"][0]["user"] == {"token": "wide"}


def test_the_programs_of_real_nodes_must_have_been_asked_for(tmp_path):
    with pytest.raises(LabError, match=r"need the kubelet and Multus: ask for them, `lab.binaries.find\(real=True\)`"):
        written(tmp_path, binaries=Binaries(*6 * [tmp_path]))


def test_another_kind_of_network_is_refused(tmp_path):
    with pytest.raises(LabError, match="of the kinds bridge, macvlan, multus, not 'flannel'"):
        written(tmp_path, cni="flannel")
