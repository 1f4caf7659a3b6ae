"""Archives of images, and the program of the pause container."""

from __future__ import annotations

import hashlib
import json
import subprocess
import tarfile

import pytest

from lab.errors import LabError
from lab.real import image


@pytest.fixture
def app(tmp_path):
    root = tmp_path / "root"
    (root / "bin").mkdir(parents=True)
    (root / "bin" / "app").write_text("an app")
    return image.Image("app:1", (image.layer(root, tmp_path / "layer.tar"),), ("/bin/app", "run"), ("A=b",))


def read(archive, name):
    with tarfile.open(archive) as tar:
        return json.load(tar.extractfile(name))


def test_an_archive_says_what_is_in_it(tmp_path, app):
    archive = image.write(tmp_path / "images.tar", [app, image.pause(tmp_path / "pause.tar")])
    one, two = read(archive, "manifest.json")
    assert (one["RepoTags"], two["RepoTags"]) == (["app:1"], [image.PAUSE])
    config = read(archive, one["Config"])
    assert config["config"]["Entrypoint"] == ["/bin/app", "run"]
    assert config["config"]["Env"][-1] == "A=b"
    with tarfile.open(archive) as tar:
        layer = tar.extractfile(one["Layers"][0]).read()
    assert config["rootfs"]["diff_ids"] == [f"sha256:{hashlib.sha256(layer).hexdigest()}"]
    with tarfile.open(app.layers[0]) as tar:
        assert tar.extractfile("./bin/app").read() == b"an app"


def test_a_layer_that_two_images_have_is_in_the_archive_once(tmp_path, app):
    other = image.Image("other:1", app.layers, ("/bin/app",))
    archive = image.write(tmp_path / "images.tar", [app, other])
    with tarfile.open(archive) as tar:
        assert [name for name in tar.getnames() if name.endswith("layer.tar")] == [
            read(archive, "manifest.json")[0]["Layers"][0]
        ]


def test_the_same_files_make_the_same_archive(tmp_path, app):
    one, two = (image.write(tmp_path / name, [app]).read_bytes() for name in ("one.tar", "two.tar"))
    (tmp_path / "root" / "bin" / "app").touch()
    image.layer(tmp_path / "root", app.layers[0])
    assert one == two == image.write(tmp_path / "three.tar", [app]).read_bytes()


def test_the_pause_program_runs_and_goes_on_until_it_is_ended(tmp_path):
    program = tmp_path / "pause"
    program.write_bytes(image.pause_program())
    program.chmod(0o755)
    with subprocess.Popen([program]) as running:
        with pytest.raises(subprocess.TimeoutExpired):
            running.wait(0.3)
        running.terminate()
        assert running.wait(5) == -15


def test_another_processor_is_refused(monkeypatch):
    monkeypatch.setattr("platform.machine", lambda: "s390x")
    with pytest.raises(LabError, match="real nodes run on x86_64 and aarch64, not on s390x"):
        image.pause_program()
