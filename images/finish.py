"""The last step of an image's build stage, run inside it: lay out the root of the image, of what runs and nothing else.

Copies the stage's system to another root, without pip, what built the image, and what differs between two builds;
compiles every module of the standard library and of the application into `.pyc` files that need no check at run time,
and sees that they are there; gives every file one time. Needs nothing but Python and Debian's cp.
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

ROOT: Final = Path("/rootfs")
PIP_PACKAGES: Final = ("python3-venv", "python3.11-venv", "python3-pip-whl", "python3-setuptools-whl")
"""Debian's packages that carry pip; nothing that runs needs them, and where they are not installed nothing happens."""

NOT_COPIED: Final = frozenset({".dockerenv", "dev", "proc", "rootfs", "src", "sys", "tmp", "tools", "wheels"})
EMPTY: Final = {"dev": 0o755, "proc": 0o555, "sys": 0o555, "tmp": 0o1777}
"""What a runtime mounts or an application writes to, with its mode."""

UNUSED: Final = (
    # pip, and what else came to install things
    "usr/local/bin/pip*",
    "usr/local/bin/wheel",
    "usr/local/lib/python3*/site-packages/*",
    "usr/share/python-wheels",
    # of the standard library: what needs a screen, and what is for working on Python itself
    "usr/local/bin/idle*",
    *(
        f"usr/{local}lib/python3*/{name}"
        for local in ("", "local/")
        for name in ("ensurepip", "idlelib", "lib2to3", "test", "tkinter", "turtledemo")
    ),
    # what a runtime writes itself
    "etc/hostname",
    "etc/hosts",
    "etc/mtab",
    "etc/resolv.conf",
    # caches, logs and copies of before: they differ from build to build
    "root/.cache",
    "run/*",
    "var/cache/*/*",
    "var/lib/apt/lists/*",
    "var/lib/dpkg/*-old",
    "var/log/*",
)
KEPT_SCRIPTS: Final = ("python", "python3", "python3.*")
UNCHECKED_HASH: Final = 0b01
"""The second word of such a .pyc: made from the source's hash, which is not compared when it is read (PEP 552)."""


def main() -> None:
    """Lay out the image's root in /rootfs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scripts", nargs="*", default=[], help="programs of the application to keep in its bin")
    parser.add_argument("--epoch", type=int, required=True, help="the time of every file, in seconds since 1970")
    parser.add_argument("application", type=Path, nargs="?", help="the application's virtual environment")
    given = parser.parse_args()
    if shutil.which("dpkg") is not None:
        subprocess.run(["dpkg", "--purge", *PIP_PACKAGES], check=True, stdin=subprocess.DEVNULL)
    _copy()
    _take_away()
    trees = [Path(sysconfig.get_path("stdlib"))]
    if given.application is not None:
        trees.append(given.application / "lib")
        _keep_scripts(_inside(given.application / "bin"), given.scripts)
    for tree in trees:
        _compile(tree)
    # a builder's cache goes by content and not by time: another time is another content
    (ROOT / "etc/source-date-epoch").write_text(f"{given.epoch}\n")
    for path in _all(ROOT):
        os.utime(path, (given.epoch, given.epoch), follow_symlinks=False)


def _inside(path: Path) -> Path:
    return ROOT / path.relative_to("/")


def _copy() -> None:
    ROOT.mkdir()
    entries = [str(path) for path in sorted(Path("/").iterdir()) if path.name not in NOT_COPIED]
    subprocess.run(["cp", "--archive", *entries, str(ROOT)], check=True)
    for name, mode in EMPTY.items():
        (ROOT / name).mkdir()
        (ROOT / name).chmod(mode)


def _take_away() -> None:
    for path in [found for pattern in UNUSED for found in ROOT.glob(pattern)]:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


def _keep_scripts(folder: Path, scripts: list[str]) -> None:
    missing = [name for name in scripts if not (folder / name).is_file()]
    if missing:
        sys.exit(f"finish.py: {folder}: no {', '.join(missing)}; see [project.scripts] in pyproject.toml")
    for path in folder.iterdir():
        if path.name not in scripts and not any(path.match(pattern) for pattern in KEPT_SCRIPTS):
            path.unlink()


def _compile(tree: Path) -> None:
    root = _inside(tree)
    for cached in list(root.rglob("__pycache__")):
        shutil.rmtree(cached)
    mode = py_compile.PycInvalidationMode.UNCHECKED_HASH
    if not compileall.compile_dir(
        root, maxlevels=30, quiet=1, force=True, invalidation_mode=mode, stripdir=str(ROOT), prependdir="/"
    ):
        sys.exit(f"finish.py: {tree}: not everything compiles, see above")
    sources = [path for path in root.rglob("*.py") if path.is_file()]
    missing = [str(path) for path in sources if not _is_compiled(path)]
    if missing or not sources:
        sys.exit(f"finish.py: {tree}: of {len(sources)} modules {len(missing)} have no .pyc: {missing[:5]}")


def _is_compiled(source: Path) -> bool:
    compiled = source.parent / "__pycache__" / f"{source.stem}.{sys.implementation.cache_tag}.pyc"
    if not compiled.is_file():
        return False
    with compiled.open("rb") as file:
        return int.from_bytes(file.read(8)[4:], "little") == UNCHECKED_HASH


def _all(folder: Path) -> Iterator[Path]:
    """Everything below a folder, and the folder after what is in it."""
    for entry in os.scandir(folder):
        if entry.is_dir(follow_symlinks=False):
            yield from _all(Path(entry.path))
        else:
            yield Path(entry.path)
    yield folder


if __name__ == "__main__":
    main()
