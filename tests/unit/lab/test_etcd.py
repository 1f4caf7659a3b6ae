"""Where an old etcd comes from, and what is said where it cannot be had; apt-get, dpkg-deb, etcd are scripts here."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from lab import etcd
from lab.errors import BinaryError

if TYPE_CHECKING:
    from pathlib import Path

APT = """#!/bin/sh
echo "$@" >> "$0.log"
[ "$1" = update ] || : > etcd-server_1_amd64.deb
"""
DPKG = """#!/bin/sh
mkdir -p files/usr/bin
printf '#!/bin/sh\\necho etcd Version: {version}\\n' > files/usr/bin/etcd
chmod +x files/usr/bin/etcd
"""


@pytest.fixture
def tools(monkeypatch, tmp_path):
    folder = tmp_path / "path"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    return folder


def _script(path: Path, text: str) -> None:
    path.write_text(text)
    path.chmod(0o755)


def _debian(folder: Path, version: str = "3.4.23", apt: str = APT) -> None:
    _script(folder / "apt-get", apt)
    _script(folder / "dpkg-deb", DPKG.format(version=version))


@pytest.mark.parametrize(("uid", "asked"), [(0, ["update", "download etcd-server"]), (1000, ["download etcd-server"])])
def test_it_is_downloaded_once_and_told(monkeypatch, tmp_path, tools, uid, asked):
    _debian(tools)
    monkeypatch.setattr("os.geteuid", lambda: uid)
    told = []
    found = etcd.ensure_old(lambda *step: told.append(step), tmp_path)
    assert etcd.version(found) == (3, 4, 23)
    assert etcd.ensure_old(lambda *step: told.append(step), tmp_path) == etcd.old(tmp_path) == found
    assert told == [("downloading etcd-server from Debian's packages", 0, 1)]
    assert (tools / "apt-get.log").read_text().splitlines() == asked
    assert list(found.parent.iterdir()) == [found], "nothing else is left"


def test_another_machine_than_debian_is_told_what_is_missing(monkeypatch, tmp_path, tools):
    monkeypatch.setenv("PATH", str(tools))
    with pytest.raises(
        BinaryError, match=r"no apt-get, dpkg-deb: it needs Debian 12: .*put such an etcd at .*old/etcd"
    ):
        etcd.ensure_old(lambda *_: None, tmp_path)


def test_what_apt_said_is_told(tmp_path, tools):
    _debian(tools, apt="#!/bin/sh\necho 'E: Unable to locate package' >&2\nexit 100\n")
    with pytest.raises(BinaryError, match=r"(?s)needs Debian 12.*Unable to locate package"):
        etcd.ensure_old(lambda *_: None, tmp_path)


@pytest.mark.parametrize("version", ["3.4.31", "3.5.16"])
def test_one_that_is_not_old_is_refused(tmp_path, tools, version):
    _debian(tools, version)
    with pytest.raises(BinaryError, match=rf"is {version}, and not old: remove it. An old one needs Debian 12"):
        etcd.ensure_old(lambda *_: None, tmp_path)


def test_outside_of_a_prepared_lab_the_way_to_it_is_named(tmp_path):
    with pytest.raises(BinaryError, match="--old-etcd"):
        etcd.old(tmp_path)


def test_a_program_without_a_version_is_named(tmp_path):
    _script(tmp_path / "etcd", "#!/bin/sh\necho hello\n")
    with pytest.raises(BinaryError, match="does not say its version: 'hello"):
        etcd.version(tmp_path / "etcd")
    with pytest.raises(BinaryError, match="No such file"):
        etcd.version(tmp_path / "none")
