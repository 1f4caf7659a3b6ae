"""The images are built once, and again when what they are made of has changed; the build is a script here."""

from __future__ import annotations

import json
import sys
import tarfile

import pytest

from lab.errors import BinaryError, LabError
from lab.real import image, images

BUILT = "building the images (Docker)"
BUILD = """
import pathlib, sys
from lab.real import image
folder = pathlib.Path(sys.argv[1])
(folder / "python3").touch()
layer = image.layer(folder / "python3", folder / "layer.tar", "usr/bin/python3")
for name in ("holdfast-sidecar", "holdfast-controller"):
    image.write(folder / f"{name}.tar", [image.Image(f"{name}:1", (layer,), (name,))])
"""
FAILS = "import sys; print('no Docker daemon answers'); sys.exit(1)"


@pytest.fixture
def build(monkeypatch):
    """A build that works, and another one on request."""

    def use(code):
        monkeypatch.setattr(images, "_BUILD", [sys.executable, "-c", code])

    use(BUILD)
    return use


def told(folder):
    steps = []
    images.ensure(lambda what, *_: steps.append(what), folder)
    return steps


def test_the_apps_stand_on_the_sidecars_layer(tmp_path, build):
    assert build
    assert told(tmp_path) == [BUILT]
    sidecar, apps, controller = images.archives(tmp_path, controller=True)
    assert images.archives(tmp_path) == [sidecar, apps]
    assert controller.exists()
    with tarfile.open(apps) as tar:
        pause, *made = json.load(tar.extractfile("manifest.json"))
        names = []
        for each in made:
            with tarfile.open(fileobj=tar.extractfile(each["Layers"][1])) as own:
                names.append(own.getnames())
    assert names[0] == ["app.py"]
    assert "app/udp_server.py" in names[1]
    assert [each["RepoTags"] for each in (pause, *made)] == [[image.PAUSE], [images.APP], [images.EXAMPLES]]
    with tarfile.open(sidecar) as tar:
        below = json.load(tar.extractfile("manifest.json"))[0]["Layers"]
    assert [each["Layers"][:1] for each in made] == [below, below]


def test_what_has_not_changed_is_built_once(tmp_path, build):
    assert build
    told(tmp_path)
    assert told(tmp_path) == []


@pytest.mark.parametrize("gone", [each.name for each in images.archives(controller=True)])
def test_an_archive_that_is_gone_is_built_anew(tmp_path, build, gone):
    assert build
    told(tmp_path)
    (tmp_path / gone).unlink()
    assert told(tmp_path) == [BUILT]


def test_other_sources_are_built_anew(tmp_path, build, monkeypatch):
    assert build
    told(tmp_path)
    monkeypatch.setattr(images, "_SOURCES", ("pyproject.toml",))
    assert told(tmp_path) == [BUILT]


def test_a_build_that_fails_says_why_and_is_tried_again(tmp_path, build):
    build(FAILS)
    with pytest.raises(BinaryError, match=r"(?s)cannot build the images.*no Docker daemon answers"):
        told(tmp_path)
    build(BUILD)
    assert told(tmp_path) == [BUILT]


def test_an_archive_that_is_none_is_named(tmp_path):
    (tmp_path / "some.tar").write_text("no archive")
    with pytest.raises(LabError, match=r"some\.tar is no archive of an image"):
        image.unpack(tmp_path / "some.tar", tmp_path)
