"""Where there can be no real nodes, and what is said there."""

from __future__ import annotations

import pytest

from lab.errors import LabError
from lab.real import cgroups, world


@pytest.fixture
def root(monkeypatch, tmp_path):
    """Root on a machine with cgroup v1."""
    (tmp_path / "cgroup" / "memory").mkdir(parents=True)
    (tmp_path / "cgroup" / "memory" / "cgroup.procs").touch()
    (tmp_path / "uid_map").write_text("         0          0 4294967295\n")
    monkeypatch.setattr(cgroups, "ROOT", tmp_path / "cgroup")
    monkeypatch.setattr(world, "_MAPPED", tmp_path / "uid_map")
    monkeypatch.setattr("os.geteuid", lambda: 0)
    return tmp_path


def test_root_on_cgroup_v1(root):
    assert root
    world.require()


def test_another_user(root, monkeypatch):
    assert root
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    with pytest.raises(LabError, match="real nodes need root: run this as root, or use the lab's played nodes"):
        world.require()


def test_root_of_a_user_namespace(root):
    (root / "uid_map").write_text("         0       1000          1\n")
    with pytest.raises(LabError, match="real nodes need root"):
        world.require()


def test_cgroup_v2(root):
    (root / "cgroup" / "memory" / "cgroup.procs").unlink()
    with pytest.raises(LabError, match=r"need cgroup v1, with the hierarchy `memory` in .*unified_cgroup_hierarchy=0"):
        world.require()


def test_images_that_were_not_made(root):
    with pytest.raises(
        LabError, match=r"images .*images.tar are not there: have them made, by `holdfast lab run --real`"
    ):
        world.RealWorld(binaries=None, state=root / "state", images=[root / "images.tar"])
