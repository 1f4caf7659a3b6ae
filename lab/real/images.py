"""The images that real nodes run: holdfast's own, as `make images` builds them, the guide's app, and the examples'.

They are built with Docker when what they are made of has changed, and kept in build/. To be called before the closed
world is entered: nothing can be downloaded inside it.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Final

from controller.injection.release import SIDECAR_IMAGE
from lab.errors import BinaryError
from lab.real import image

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lab.binaries import Progress

APP: Final = "us-docker.pkg.dev/google-samples/containers/gke/hello-app:1.0"
"""The name that the guide's manifests give."""
EXAMPLES: Final = SIDECAR_IMAGE.replace("sidecar", "examples")
"""The name that the manifests of examples/ give."""
_CHECKOUT: Final = Path(__file__).resolve().parents[2]
_FOLDER: Final = _CHECKOUT / "build" / "lab-images"
_SIDECAR, _CONTROLLER, _APPS = "holdfast-sidecar.tar", "holdfast-controller.tar", "apps.tar"
_BUILD: Final = [
    *(sys.executable, str(_CHECKOUT / "images" / "daemon.py"), "--"),
    *(sys.executable, str(_CHECKOUT / "images" / "build.py"), "--load", "tar", "--folder"),
]
_SOURCES: Final = (
    "Dockerfile.sidecar",
    "pyproject.toml",
    "requirements",
    "images",
    "contract",
    "controller",
    "sidecar",
)
_APP_SOURCE: Final = _CHECKOUT / "lab" / "real" / "app.py"
_EXAMPLES_SOURCE: Final = _CHECKOUT / "images" / "examples"


def archives(folder: Path = _FOLDER, *, controller: bool = False) -> list[Path]:
    """Where `ensure` puts the archives: the sidecar's, the apps', and the controller's where it is asked for."""
    return [folder / name for name in (_SIDECAR, _APPS, *([_CONTROLLER] if controller else []))]


def ensure(progress: Progress, folder: Path = _FOLDER) -> None:
    """Build the images, unless they are there and what they are made of is as it was.

    Args:
        progress: told of a build.
        folder: another place for the archives.

    Raises:
        BinaryError: they cannot be built; shows what was said.
    """
    stamp, sources = folder / "sources", _digest()
    wanted = archives(folder, controller=True)
    if stamp.exists() and stamp.read_text() == sources and all(each.exists() for each in wanted):
        return
    progress("building the images (Docker)", 0, 1)
    folder.mkdir(parents=True, exist_ok=True)
    stamp.unlink(missing_ok=True)
    _build(folder)
    _write_apps(folder)
    stamp.write_text(sources)


def _build(folder: Path) -> None:
    done = subprocess.run(
        [*_BUILD, str(folder)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        said = "\n".join(done.stdout.strip().splitlines()[-12:])
        raise BinaryError(f"cannot build the images, `make images` said\n{said}")


def _write_apps(folder: Path) -> None:
    """Put the apps on the sidecar's layer, so that a node keeps one Python on its disk."""
    with tempfile.TemporaryDirectory(dir=folder, prefix=".new-") as name:
        fresh = Path(name)
        python = image.unpack(folder / _SIDECAR, fresh)
        app = image.layer(_APP_SOURCE, fresh / "app.layer.tar", "app.py")
        shutil.copytree(_EXAMPLES_SOURCE, fresh / "examples", ignore=shutil.ignore_patterns("Dockerfile", "*.go"))
        examples = image.layer(fresh / "examples", fresh / "examples.layer.tar", "app")
        images = [
            image.pause(fresh / "pause.layer.tar"),
            image.Image(APP, (*python, app), ("python3", "-B", "-I", "-S", "/app.py")),
            image.Image(EXAMPLES, (*python, examples), ("python3", "-B")),
        ]
        image.write(fresh / _APPS, images).replace(folder / _APPS)


def _digest() -> str:
    """What the images are made of, as a hash."""
    found = hashlib.sha256()
    for path in _sources():
        found.update(f"{path.relative_to(_CHECKOUT)} {path.stat().st_size}\n".encode())
        found.update(path.read_bytes())
    return found.hexdigest()


def _sources() -> Iterator[Path]:
    for root in (*(_CHECKOUT / each for each in _SOURCES), _APP_SOURCE, Path(image.__file__)):
        yield from sorted(
            each
            for each in ([root] if root.is_file() else root.rglob("*"))
            if each.is_file() and "__pycache__" not in each.parts
        )
