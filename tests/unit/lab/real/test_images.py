"""The images are made once, and again when what they are made of has changed; debootstrap and pip are scripts here."""

from __future__ import annotations

import json
import sys
import tarfile
from pathlib import Path

import pytest

from controller.injection.release import SIDECAR_IMAGE
from lab.errors import BinaryError
from lab.real import images
from lab.real.image import PAUSE

BASE = "a base of the images (debootstrap)"
LIBRARIES = "the sidecar's libraries"
DEBOOTSTRAP = """#!/bin/sh
root="$4"
mkdir -p "$root/usr/bin" "$root/usr/share/doc/python3"
touch "$root/usr/bin/python3" "$root/usr/share/doc/python3/copyright"
"""
FAILS = """#!/bin/sh
echo "E: Failed getting release file" >&2
exit 1
"""
PIP = f"""#!{sys.executable}
import pathlib, sys
target = pathlib.Path(sys.argv[sys.argv.index("--target") + 1])
assert "--require-hashes" in sys.argv
(target / "h11").mkdir(parents=True)
"""


@pytest.fixture
def path(tmp_path, monkeypatch):
    """A PATH with a debootstrap that works and no apt-get; `python -m pip` is a script too."""
    folder = tmp_path / "path"
    folder.mkdir()
    for name, code in (("debootstrap", DEBOOTSTRAP), ("python", PIP)):
        (folder / name).write_text(code)
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/bin")
    monkeypatch.setattr("sys.executable", str(folder / "python"))
    monkeypatch.setattr(images, "_mirror", list)
    return folder


def told(cache):
    steps = []
    archive = images.ensure(lambda what, *_: steps.append(what), cache)
    with tarfile.open(archive) as tar:
        return steps, json.load(tar.extractfile("manifest.json"))


def members(archive, layer):
    with tarfile.open(archive) as tar, tarfile.open(fileobj=tar.extractfile(layer)) as inner:
        return inner.getnames()


def test_three_images_of_one_base(tmp_path, path):
    assert path
    steps, manifest = told(tmp_path)
    assert steps == [BASE, LIBRARIES]
    pause, app, sidecar = manifest
    assert [each["RepoTags"][0] for each in manifest] == [PAUSE, images.APP, SIDECAR_IMAGE]
    assert app["Layers"][0] == sidecar["Layers"][0] != pause["Layers"][0]


def test_the_sidecars_image_has_its_packages_and_libraries_and_the_base_no_documentation(tmp_path, path):
    assert path
    _, manifest = told(tmp_path)
    base, own = (members(images.archive(tmp_path), each) for each in manifest[2]["Layers"])
    assert {f"{images._SITE}/{each}" for each in ("sidecar/cli.py", "contract/names.py", "h11")} <= set(own)
    assert not [name for name in own if name.endswith(".pyc") or "/controller" in name]
    assert "./usr/bin/python3" in base
    assert not [name for name in base if "share/doc" in name]


def test_what_took_long_is_made_once(tmp_path, path):
    assert path
    told(tmp_path)
    assert told(tmp_path)[0] == []


def test_other_locked_libraries_are_installed_anew(tmp_path, path):
    assert path
    told(tmp_path)
    (tmp_path / "images" / "wheels" / "sidecar.txt").write_text("an older lock")
    assert told(tmp_path)[0] == [LIBRARIES]


def test_a_base_that_cannot_be_made_says_why_and_leaves_nothing(tmp_path, path):
    (path / "debootstrap").write_text(FAILS)
    with pytest.raises(BinaryError, match=r"(?s)cannot make the base of the images: .*Failed getting release file"):
        told(tmp_path)
    assert list(Path(tmp_path, "images").iterdir()) == []
