"""Builds the images with Docker: wheels by hash from pip's index, a base, one `docker build` for each image.

The wheels are downloaded here, with this machine's own settings of pip, and go into the builds as files: no build needs
a network. The base is the one that the Dockerfiles name where it can be had, else Debian's Python, made by debootstrap.
"""

from __future__ import annotations

import argparse
import os
import platform
import re
import shutil
import subprocess
import sys
import tomllib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parent.parent
FILES: Final = {
    "holdfast-sidecar": "Dockerfile.sidecar",
    "holdfast-controller": "images/controller/Dockerfile",
    "holdfast-examples": "images/examples/Dockerfile",
}
LOCKS: Final = ("images", "sidecar", "controller")
GLIBC: Final = (36, 34, 31, 28, 17)
"""Debian 12 has glibc 2.36; wheels for it or an earlier one run there (PEP 600)."""


def main() -> None:
    """Build, and put the images where a cluster finds them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--load", choices=["docker", "kind", "ctr", "tar"], default="docker")
    parser.add_argument(
        "--base", default="", help="image to build on; default: what the Dockerfiles name, or debootstrap's"
    )
    parser.add_argument(
        "--folder", type=Path, default=ROOT / "build" / "images", help="where `--load tar` puts the files"
    )
    parser.add_argument("--no-cache", action="store_true", help="build every layer anew")
    parser.add_argument("--tag", default=version(), help="default: the project's version")
    given = parser.parse_args()
    names = build(base(given.base), tag=given.tag, no_cache=given.no_cache)
    load(names, given.load, given.folder)


def version() -> str:
    """Read the project's version."""
    return str(tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"])


def epoch() -> str:
    """Give the time that files get: SOURCE_DATE_EPOCH, or the commit's."""
    return os.environ.get("SOURCE_DATE_EPOCH") or _git("log", "-1", "--format=%ct") or "0"


def base(wanted: str = "") -> str:
    """Name the base that is at hand: the wanted one, the official one, or one made here."""
    if wanted:
        return wanted
    official = re.search(r"^ARG BASE=(\S+)$", (ROOT / FILES["holdfast-sidecar"]).read_text(), re.MULTILINE)
    if official is None:
        sys.exit("images: Dockerfile.sidecar has no line `ARG BASE=...`")
    if _has(official[1]) or _run("docker", "pull", "--quiet", official[1], check=False, quiet=True):
        return official[1]
    return _debian(official[1])


def _debian(official: str) -> str:
    name = "holdfast-base:bookworm"
    if not _has(name):
        print(f"images: {official} cannot be had here: makes a base of Debian's packages (a minute, once)", flush=True)
        tar = ROOT / "build" / f"base-{platform.machine()}.tar"
        _run(str(ROOT / "images/base/build.sh"), str(tar))
        _run("docker", "import", "--change", 'CMD ["python3"]', str(tar), name, quiet=True)
        tar.unlink()
    return name


def build(base: str, *, tag: str, no_cache: bool = False) -> list[str]:
    """Build each image on a base, and give their names."""
    download(ROOT / "build" / "wheels", platform.machine())
    arguments = {
        "BASE": base,
        "PIP_NO_INDEX": "1",
        "SOURCE_DATE_EPOCH": epoch(),
        "VERSION": version(),
        "REVISION": _git("rev-parse", "HEAD") or "unknown",
    }
    print(f"images: builds {', '.join(FILES)} on {base}", flush=True)
    with ThreadPoolExecutor(max_workers=len(FILES)) as builds:
        return list(builds.map(lambda name: _build(f"{name}:{tag}", FILES[name], arguments, no_cache=no_cache), FILES))


def _build(name: str, file: str, arguments: dict[str, str], *, no_cache: bool) -> str:
    declared = set(re.findall(r"^ARG (\w+)", (ROOT / file).read_text(), re.MULTILINE))
    flags = [f"--build-arg={key}={value}" for key, value in arguments.items() if key in declared]
    flags += ["--no-cache"] if no_cache else []
    command = ["docker", "build", "--network=none", "--file", file, "--tag", name, *flags, "."]
    done = subprocess.run(command, check=False, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode:
        sys.exit(f"{done.stdout}\nimages: {' '.join(command)}: failed with code {done.returncode}, see above")
    return name


def load(names: list[str], where: str, folder: Path) -> None:
    """Put images where a cluster finds them: the daemon itself, a kind cluster, containerd, or files in a folder."""
    if where == "kind":
        cluster = os.environ.get("KIND_CLUSTER", "kind")
        _run("kind", "load", "docker-image", "--name", cluster, *names)
    elif where in {"ctr", "tar"}:
        folder.mkdir(parents=True, exist_ok=True)
        for name in names:
            file = folder / f"{name.partition(':')[0]}.tar"
            _run("docker", "save", "--output", str(file), name)
            if where == "ctr":
                _run("ctr", "--namespace", "k8s.io", "images", "import", str(file))
    print("\n".join(f"images: {name}" for name in names))


def download(wheels: Path, machine: str) -> None:
    """Download the wheels of every lock for a kind of machine, each checked by its hash."""
    wheels.mkdir(parents=True, exist_ok=True)
    tags = [f"manylinux_2_{minor}" for minor in GLIBC] + ["manylinux2014"]
    fixed = [
        sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--require-hashes",
        "--no-deps", "--only-binary=:all:", "--python-version=3.11", "--implementation=cp", f"--dest={wheels}",
        *(f"--platform={tag}_{machine}" for tag in tags),
    ]  # fmt: skip
    for lock in LOCKS:
        _run(*fixed, f"--requirement={ROOT / 'requirements' / lock}.txt")


def _has(image: str) -> bool:
    return _run("docker", "image", "inspect", image, check=False, quiet=True)


def _git(*arguments: str) -> str:
    if shutil.which("git") is None:
        return ""
    done = subprocess.run(["git", "-C", str(ROOT), *arguments], check=False, capture_output=True, text=True)
    return done.stdout.strip()


def _run(*command: str, check: bool = True, quiet: bool = False) -> bool:
    sink = subprocess.DEVNULL if quiet else None
    try:
        code = subprocess.run(
            command, check=False, cwd=ROOT, stdout=sink, stderr=sink if not check else None
        ).returncode
    except FileNotFoundError:
        sys.exit(f"images: {command[0]}: no such program; install it")
    if code and check:
        sys.exit(f"images: {' '.join(command)}: failed with code {code}, see above")
    return code == 0


if __name__ == "__main__":
    main()
