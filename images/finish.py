"""The last step of an image's build stage, run inside it: leave what runs, compiled, and make it the same each time.

Takes away pip, what built the image, and what differs between two builds; compiles every module of the standard library
and of the application into `.pyc` files that need no check at run time, and sees that they are there; gives every file
one time. Needs nothing but Python. Made to destroy its own surroundings: never run it outside of a build.
"""

from __future__ import annotations

import argparse
import compileall
import os
import py_compile
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

PACKAGES: Final = ("python3-venv", "python3.11-venv", "python3-pip-whl", "python3-setuptools-whl")
"""Debian's packages that carry pip: no other needs them, and an image without them is left alone."""

UNUSED: Final = (
    # pip, and what else came to install things
    "usr/local/bin/pip*",
    "usr/local/bin/wheel",
    "usr/local/lib/python3*/site-packages/*",
    "usr/share/python-wheels",
    # of the standard library: what needs a screen, and what is for working on Python itself
    "usr/local/bin/idle*",
    *(
        f"usr{local}/lib/python3*/{name}"
        for local in ("", "/local")
        for name in ("ensurepip", "idlelib", "lib2to3", "test", "tkinter", "turtledemo")
    ),
    # what was written while building
    "root/.cache",
    "src",
    "tmp/*",
    "tools",
    "wheels",
    # logs, caches and copies of before: they differ from build to build
    "var/cache/*/*",
    "var/lib/apt/lists/*",
    "var/lib/dpkg/*-old",
    "var/log/*",
    "var/log/*/*",
)
HERE: Final = Path("/src/images/finish.py")
KEPT_SCRIPTS: Final = ("python", "python3", "python3.*")
UNCHECKED_HASH: Final = 0b01
"""The second word of such a .pyc: made from the source's hash, which is not compared when it is read (PEP 552)."""


def main() -> None:
    """Finish the image whose root this program stands in."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scripts", nargs="*", default=[], help="programs of the application to keep in its bin")
    parser.add_argument("--epoch", type=int, required=True, help="the time of every file, in seconds since 1970")
    parser.add_argument("application", type=Path, nargs="?", help="the application's virtual environment")
    given = parser.parse_args()
    if Path(__file__) != HERE:
        sys.exit("finish.py: takes away most of the system that it runs on; it belongs in the build of an image")
    trees = [Path(sysconfig.get_path("stdlib"))]
    if given.application is not None:
        trees.append(given.application / "lib")
        _keep_scripts(given.application / "bin", given.scripts)
    _take_away()
    for tree in trees:
        _compile(tree)
    _set_times(Path("/"), given.epoch)


def _keep_scripts(folder: Path, scripts: list[str]) -> None:
    missing = [name for name in scripts if not (folder / name).is_file()]
    if missing:
        sys.exit(f"finish.py: {folder}: no {', '.join(missing)}; see [project.scripts] in pyproject.toml")
    for path in folder.iterdir():
        if path.name not in scripts and not any(path.match(pattern) for pattern in KEPT_SCRIPTS):
            path.unlink()


def _take_away() -> None:
    if shutil.which("dpkg") is not None:
        subprocess.run(["dpkg", "--purge", *PACKAGES], check=True, stdin=subprocess.DEVNULL)
    root = Path("/")
    for path in [found for pattern in UNUSED for found in root.glob(pattern)]:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def _compile(tree: Path) -> None:
    for cached in list(tree.rglob("__pycache__")):
        shutil.rmtree(cached)
    mode = py_compile.PycInvalidationMode.UNCHECKED_HASH
    if not compileall.compile_dir(tree, maxlevels=30, quiet=1, force=True, invalidation_mode=mode):
        sys.exit(f"finish.py: {tree}: not everything compiles, see above")
    sources = [path for path in tree.rglob("*.py") if path.is_file()]
    missing = [str(path) for path in sources if not _is_compiled(path)]
    if missing or not sources:
        sys.exit(f"finish.py: {tree}: of {len(sources)} modules {len(missing)} have no .pyc: {missing[:5]}")


def _is_compiled(source: Path) -> bool:
    compiled = source.parent / "__pycache__" / f"{source.stem}.{sys.implementation.cache_tag}.pyc"
    if not compiled.is_file():
        return False
    with compiled.open("rb") as file:
        return int.from_bytes(file.read(8)[4:], "little") == UNCHECKED_HASH


def _set_times(root: Path, epoch: int) -> None:
    for path in _own(root, root.stat().st_dev):
        os.utime(path, (epoch, epoch), follow_symlinks=False)


def _own(folder: Path, device: int) -> Iterator[Path]:
    """Everything below a folder, the folder last, without what is mounted there."""
    for entry in os.scandir(folder):
        path = Path(entry.path)
        if entry.stat(follow_symlinks=False).st_dev != device:
            continue
        if entry.is_dir(follow_symlinks=False):
            yield from _own(path, device)
        else:
            yield path
    yield folder


if __name__ == "__main__":
    main()
