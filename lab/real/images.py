"""The images that real nodes run: a base by debootstrap, the guide's app, holdfast's sidecar, and the examples' apps.

What takes long (the base: about a minute, and a mirror of Debian) is made once and kept in the lab's cache. To be
called before the closed world is entered: nothing can be downloaded inside it.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Final

from controller.injection.release import SIDECAR_IMAGE
from lab.binaries import user_cache
from lab.errors import BinaryError
from lab.real import image

if TYPE_CHECKING:
    from lab.binaries import Progress

APP: Final = "us-docker.pkg.dev/google-samples/containers/gke/hello-app:1.0"
"""The name that the guide's manifests give."""
EXAMPLES: Final = SIDECAR_IMAGE.replace("sidecar", "examples")
"""The name that the manifests of examples/ give."""
_ARCHIVE: Final = "images.tar"
_CHECKOUT: Final = Path(__file__).resolve().parents[2]
_SUITE: Final = "bookworm"
_PYTHON: Final = "3.11"
"""The suite's."""
_LEFT_OUT: Final = (
    "usr/share/doc",
    "usr/share/locale",
    "usr/share/man",
    "usr/share/info",
    "var/cache",
    "var/lib/apt/lists",
)
_SITE: Final = "opt/holdfast"


def archive(cache: Path | None = None) -> Path:
    """Where `ensure` puts the archive of all images."""
    return (cache or user_cache()) / "images" / _ARCHIVE


def ensure(progress: Progress, cache: Path | None = None) -> Path:
    """Make the images that are not there yet or no longer current.

    Args:
        progress: told what is under way.
        cache: another place than the user's cache.

    Returns:
        The archive of all of them.

    Raises:
        BinaryError: debootstrap or pip failed; shows what it said.
    """
    folder = archive(cache).parent
    folder.mkdir(parents=True, exist_ok=True)
    base = folder / f"base-{_SUITE}.tar"
    if not base.exists():
        progress("a base of the images (debootstrap)", 0, 3)
        _debootstrap(base)
    wheels = folder / "wheels"
    lock = _CHECKOUT / "requirements" / "sidecar.txt"
    if not (wheels / lock.name).exists() or (wheels / lock.name).read_bytes() != lock.read_bytes():
        progress("the sidecar's libraries", 1, 3)
        _install(lock, wheels)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".new-") as fresh:
        made = image.write(Path(fresh) / _ARCHIVE, _images(Path(fresh), base, wheels))
        made.replace(archive(cache))
    return archive(cache)


def _images(fresh: Path, base: Path, wheels: Path) -> list[image.Image]:
    app = image.layer(_CHECKOUT / "lab" / "real" / "app.py", fresh / "app.layer.tar", "app.py")
    site = fresh / "site"
    shutil.copytree(wheels, site)
    for package in ("contract", "sidecar"):
        shutil.copytree(_CHECKOUT / package, site / package, ignore=shutil.ignore_patterns("__pycache__"))
    sidecar = image.layer(site, fresh / "sidecar.layer.tar", _SITE)
    examples = fresh / "examples"
    not_run = shutil.ignore_patterns("Dockerfile", "*.go", "__pycache__")
    shutil.copytree(_CHECKOUT / "images" / "examples", examples, ignore=not_run)
    apps = image.layer(examples, fresh / "examples.layer.tar", "app")
    python = ("python3", "-B")
    return [
        image.pause(fresh / "pause.layer.tar"),
        image.Image(APP, (base, app), (*python, "-I", "-S", "/app.py")),
        image.Image(SIDECAR_IMAGE, (base, sidecar), (*python, "-m", "sidecar.cli"), (f"PYTHONPATH=/{_SITE}",)),
        image.Image(EXAMPLES, (base, apps), python),
    ]


def _debootstrap(base: Path) -> None:
    with tempfile.TemporaryDirectory(dir=base.parent, prefix=".base-") as fresh:
        root = Path(fresh) / "root"
        wanted = ["--variant=minbase", "--include=python3", _SUITE, str(root)]
        _run(["debootstrap", *wanted, *_mirror()], "make the base of the images")
        for each in _LEFT_OUT:
            shutil.rmtree(root / each, ignore_errors=True)
        image.layer(root, Path(fresh) / "layer.tar").replace(base)


def _mirror() -> list[str]:
    """The mirror that this machine's apt uses for the suite, where it uses one; else debootstrap has its own."""
    command = ["apt-get", "indextargets", "--format", "$(SITE)", "Created-By: Packages", f"Codename: {_SUITE}"]
    try:
        said = subprocess.run(command, capture_output=True, text=True, check=False).stdout.split()
    except OSError:  # no Debian
        return []
    return said[:1]


def _install(lock: Path, wheels: Path) -> None:
    """Install what is locked, for the base's Python, complete or not at all."""
    with tempfile.TemporaryDirectory(dir=wheels.parent, prefix=".wheels-") as fresh:
        target = Path(fresh) / "target"
        fitting = ["--only-binary", ":all:", "--implementation", "cp", "--python-version", _PYTHON]
        how = ["--quiet", "--no-input", "--disable-pip-version-check", "--no-deps", "--require-hashes", "--no-compile"]
        pip = [sys.executable, "-m", "pip", "install", *how, *fitting, "--requirement", str(lock)]
        _run([*pip, "--target", str(target)], "install the sidecar's libraries")
        shutil.copyfile(lock, target / lock.name)
        shutil.rmtree(wheels, ignore_errors=True)
        target.replace(wheels)


def _run(command: list[str], what: str) -> None:
    environment = {**os.environ, "PIP_USER": "0", "PATH": f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"}
    done = subprocess.run(
        command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        said = "\n".join((done.stderr or done.stdout).strip().splitlines()[-6:])
        raise BinaryError(f"cannot {what}: `{' '.join(command[:4])} ...` said\n{said}")
