"""What is in the images, read from their layers: what runs, compiled and listed, and nothing that built it."""

from __future__ import annotations

import json
import re
import sys
import tarfile

import pytest

from tests.images.conftest import AGAIN, BUILT, EPOCH, NAMES, ROOT, build

sys.path.insert(0, str(ROOT / "images"))
from build import download, version

APPLICATIONS = {"holdfast-sidecar": "sidecar", "holdfast-controller": "controller"}
BUILDERS = re.compile(
    r"(pip[0-9.]*|wheel|ensurepip|setuptools|pkg_resources|cyclonedx.*|gcc.*|g\+\+.*|cc|c\+\+|clang.*|ld|as|make)"
)
FOLDERS_OF_PROGRAMS = re.compile(
    r"((usr/(local/)?)?s?bin|opt/holdfast/bin|.*/(site|dist)-packages|usr/(local/)?lib/python3[^/]*)"
)
UNCHECKED_HASH = 1


def entries(layers, name):
    (only,) = layers[name]
    with tarfile.open(only) as layer:
        return {member.name: member for member in layer}


def test_the_same_sources_give_the_same_layers(docker):
    build("--tag", AGAIN, "--no-cache")
    first, second = ([docker.inspect(f"{name}:{tag}")["RootFS"]["Layers"] for name in NAMES] for tag in (BUILT, AGAIN))
    assert first == second
    assert [len(layers) for layers in first] == [1, 1, 1]
    for name in NAMES:
        docker.ask("rmi", f"{name}:{AGAIN}")


@pytest.mark.parametrize("name", NAMES)
def test_every_file_has_the_time_of_the_sources(layers, name):
    assert {member.mtime for member in entries(layers, name).values()} == {EPOCH}


@pytest.mark.parametrize("name", NAMES)
def test_nothing_that_builds_or_installs_is_left(layers, name):
    left = []
    for path in entries(layers, name):
        folder, _, last = path.rpartition("/")
        if FOLDERS_OF_PROGRAMS.fullmatch(folder) and BUILDERS.fullmatch(last.partition("-")[0]):
            left.append(path)
    assert left == []
    assert not [path for path in entries(layers, name) if path.endswith(".whl")]


@pytest.mark.parametrize("name", NAMES)
def test_every_module_is_compiled_and_never_checked(layers, name):
    (only,) = layers[name]
    found = entries(layers, name)
    modules = [path for path in found if path.endswith(".py") and re.match(r"(usr/(local/)?lib/python3\.|opt/)", path)]
    assert len(modules) > 500
    with tarfile.open(only) as layer:
        for path in modules:
            folder, _, file = path.rpartition("/")
            (compiled,) = [
                member
                for tag in ("cpython-311", "cpython-312", "cpython-313")
                if (member := found.get(f"{folder}/__pycache__/{file.removesuffix('.py')}.{tag}.pyc"))
            ]
            assert int.from_bytes(layer.extractfile(compiled).read(8)[4:], "little") == UNCHECKED_HASH, path


@pytest.mark.parametrize("name", APPLICATIONS)
def test_the_bill_of_materials_lists_the_lock(layers, name):
    (only,) = layers[name]
    with tarfile.open(only) as layer:
        bill = json.load(layer.extractfile("opt/holdfast/sbom.cdx.json"))
    assert bill["bomFormat"] == "CycloneDX"
    assert bill["metadata"]["component"]["name"] == "holdfast"
    lock = (ROOT / f"requirements/{APPLICATIONS[name]}.txt").read_text()
    locked = set(re.findall(r"^([\w.-]+)==(\S+)", lock, re.MULTILINE))
    listed = {(re.sub(r"[-_.]+", "-", part["name"]).lower(), part["version"]) for part in bill["components"]}
    assert locked
    assert locked <= listed


@pytest.mark.parametrize("name", APPLICATIONS)
def test_an_image_has_its_own_program_only(layers, name):
    found = entries(layers, name)
    programs = {path.rpartition("/")[2] for path in found if re.fullmatch(r"opt/holdfast/bin/holdfast[^/]*", path)}
    assert programs == {name}
    packages = {"cli", "contract", "controller", "lab", "sidecar"}
    inside = {package for package in packages if any(path.endswith(f"/site-packages/{package}") for path in found)}
    assert inside == {"contract", APPLICATIONS[name]}


@pytest.mark.parametrize("name", NAMES)
def test_labels_say_what_it_is(docker, name):
    labels = docker.inspect(f"{name}:{BUILT}")["Config"]["Labels"]
    said = {key.removeprefix("org.opencontainers.image."): value for key, value in labels.items()}
    assert (said["title"], said["version"], said["licenses"]) == (name, version(), "Apache-2.0")
    assert said["description"]
    assert re.fullmatch(r"[0-9a-f]{40}|unknown", said["revision"])
    assert said["base.name"]


def test_every_locked_wheel_exists_for_arm64(tmp_path):
    download(tmp_path, "aarch64")
    native = [path.name for path in tmp_path.glob("*.whl") if not path.name.endswith("-any.whl")]
    assert any(name.startswith("msgspec-") for name in native)
    assert all("aarch64" in name for name in native)
