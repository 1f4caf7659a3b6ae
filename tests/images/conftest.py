"""The images, built twice, and containers of them as closed as a Pod's: no network but loopback, a read-only root."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
from dataclasses import dataclass, field
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
NAMES = ("holdfast-sidecar", "holdfast-controller", "holdfast-examples")
BUILT, AGAIN = "test", "test-again"
EPOCH = 1_700_000_000
LINE_S = 30
ACCOUNT = "/var/run/secrets/kubernetes.io/serviceaccount"


@dataclass
class Ended:
    code: int
    out: str
    err: str


@dataclass
class Docker:
    """What these tests ask of Docker; what it started it removes."""

    started: list[str] = field(default_factory=list)

    def ask(self, *arguments: str) -> str:
        done = subprocess.run(["docker", *arguments], check=False, capture_output=True, text=True)
        assert done.returncode == 0, f"docker {' '.join(arguments)}: {done.stderr}"
        return done.stdout

    def inspect(self, image: str) -> dict:
        return json.loads(self.ask("image", "inspect", image))[0]

    def run(self, image: str, *arguments: str, flags: tuple[str, ...] = ()) -> Ended:
        command = ["docker", "run", "--rm", *closed(flags), f"{image}:{BUILT}", *arguments]
        done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)
        return Ended(done.returncode, done.stdout, done.stderr)

    def start(self, image: str, *arguments: str, flags: tuple[str, ...] = ()) -> str:
        container = self.ask("run", "--detach", *closed(flags), f"{image}:{BUILT}", *arguments).strip()
        self.started.append(container)
        return container

    def first_line(self, container: str, words: str) -> str:
        """Follow a container's log to the line that has these words."""
        seen = []
        command = ["timeout", str(LINE_S), "docker", "logs", "--follow", container]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as log:
            try:
                for line in log.stdout:
                    seen.append(line)
                    if words in line:
                        return line
            finally:
                log.kill()
        pytest.fail(f"no line that has {words!r} within {LINE_S} s, or the container ended: {''.join(seen)}")

    def stop(self, container: str) -> int:
        """Send SIGTERM, and give the exit code."""
        self.ask("kill", "--signal", "TERM", container)
        return int(self.ask("wait", container))


def closed(flags: tuple[str, ...]) -> list[str]:
    return ["--network=none", "--read-only", "--cap-drop=ALL", "--security-opt=no-new-privileges", *flags]


def build(*arguments: str) -> None:
    command = [sys.executable, "images/build.py", *arguments]
    done = subprocess.run(
        command,
        check=False,
        cwd=ROOT,
        env={**os.environ, "SOURCE_DATE_EPOCH": str(EPOCH)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert done.returncode == 0, done.stdout


@pytest.fixture(scope="session")
def built():
    """Build every image, once."""
    if subprocess.run(["docker", "version"], check=False, capture_output=True).returncode:
        pytest.fail("no Docker daemon answers: use `make images-test`, which starts one", pytrace=False)
    build("--tag", BUILT)


@pytest.fixture
def docker(built):  # noqa: ARG001 - for its effect
    it = Docker()
    yield it
    for container in it.started:
        it.ask("rm", "--force", container)


@pytest.fixture(scope="session")
def layers(built, tmp_path_factory):  # noqa: ARG001 - for its effect
    """The layers of each image, as files."""
    found = {}
    for name in NAMES:
        folder = tmp_path_factory.mktemp(name)
        subprocess.run(["docker", "save", "--output", str(folder / "image.tar"), f"{name}:{BUILT}"], check=True)
        with tarfile.open(folder / "image.tar") as image:
            image.extractall(folder, filter="data")
        manifest = json.loads((folder / "manifest.json").read_text())[0]
        found[name] = [folder / layer for layer in manifest["Layers"]]
    return found


@pytest.fixture(scope="session")
def account(tmp_path_factory):
    """A service account's files, as the kubelet mounts them; nobody answers to them."""
    folder = tmp_path_factory.mktemp("account")
    folder.chmod(0o755)
    certificate = subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-subj",
         "/CN=nobody", "-keyout", "/dev/null"], check=True, capture_output=True, text=True,
    ).stdout  # fmt: skip
    for name, text in {"token": "a.b.c", "namespace": "here", "ca.crt": certificate}.items():
        (folder / name).write_text(text)
        (folder / name).chmod(0o644)
    return folder
