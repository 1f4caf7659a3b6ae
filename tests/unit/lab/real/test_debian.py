"""What real nodes need from Debian, and what is said where it is missing and cannot be installed."""

from __future__ import annotations

import shutil

import pytest

from lab.errors import BinaryError
from lab.real import debian

APT = """#!/bin/sh
echo "$@" >> "$0.log"
echo "E: Unable to locate package" >&2
exit 100
"""


@pytest.fixture
def lacking(monkeypatch, tmp_path):
    """A machine without runc and without the bridge plugin; `apt-get` is a script that fails."""
    gone = {"runc", str(debian.PLUGINS / "bridge")}
    apt = tmp_path / "apt-get"
    apt.write_text(APT)
    apt.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    which = shutil.which
    found = lambda program, path=None: None if program in gone else f"/found/{program}" if path else which(program)  # noqa: E731
    monkeypatch.setattr("shutil.which", found)
    return apt


def test_nothing_is_done_where_all_is_there(monkeypatch):
    monkeypatch.setattr("shutil.which", lambda program, **_: f"/found/{program}")
    told = []
    debian.ensure(lambda *step: told.append(step))
    assert told == []


def test_the_packages_are_named_to_another_user_than_root(monkeypatch, lacking):
    assert debian.missing() == ["runc", "containernetworking-plugins"]
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    said = r"need runc, .*/bridge: install them \(on Debian: apt-get install runc containernetworking-plugins\)"
    with pytest.raises(BinaryError, match=said):
        debian.ensure(lambda *_: None)
    assert not lacking.with_suffix(".log").exists()


def test_root_gets_them_installed_and_is_told_why_not(monkeypatch, lacking):
    monkeypatch.setattr("os.geteuid", lambda: 0)
    told = []
    with pytest.raises(BinaryError, match=r"(?s)apt-get could not install runc .*Unable to locate package"):
        debian.ensure(lambda *step: told.append(step))
    assert told == [("installing runc, containernetworking-plugins", 0, 1)]
    asked = lacking.with_name("apt-get.log").read_text().splitlines()
    assert asked[0] == "update"
    assert asked[1].endswith("runc containernetworking-plugins")
