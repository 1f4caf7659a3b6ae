"""What real nodes take from Debian: containerd, runc, CNI's plugins, iptables.

Found on the machine, else, as root on a machine with apt-get, installed by it; else an error names the packages.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Final

from lab.errors import BinaryError

if TYPE_CHECKING:
    from lab.binaries import Progress

PLUGINS: Final = Path("/usr/lib/cni")
_SEARCH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
NEEDED: Final = {
    "containerd": ("containerd", "ctr", "containerd-shim-runc-v2"),
    "runc": ("runc",),
    "containernetworking-plugins": tuple(
        str(PLUGINS / each) for each in ("bridge", "host-local", "loopback", "macvlan")
    ),
    "iptables": ("iptables",),
}
"""Debian's package: its programs that are used."""


def ensure(progress: Progress) -> None:
    """Find everything, or install what is missing.

    Args:
        progress: told of an installation.

    Raises:
        BinaryError: something is missing and cannot be installed; names the packages.
    """
    lacking = missing()
    if not lacking:
        return
    progress(f"installing {', '.join(lacking)}", 0, 1)
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        raise BinaryError(
            f"real nodes need {_named(lacking)}: install them (on Debian: apt-get install {' '.join(lacking)})"
        )
    said = install(lacking)
    if still := missing():
        raise BinaryError(f"real nodes need {_named(still)}, and apt-get could not install {' '.join(still)}:\n{said}")


def install(packages: list[str]) -> str:
    """Install packages with apt-get.

    Returns:
        The last it said; that it did not fail is for the caller to see, by what is there.
    """
    said = ""
    for command in (["update"], ["install", "--yes", "--no-install-recommends", *packages]):
        done = subprocess.run(
            ["apt-get", *command],
            env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        said = "\n".join((done.stderr or done.stdout).strip().splitlines()[-6:])
    return said


def missing() -> list[str]:
    """The packages of which a program is missing here."""
    return [package for package, programs in NEEDED.items() if not all(map(_is_there, programs))]


def _is_there(program: str) -> bool:
    return shutil.which(program, path=_SEARCH) is not None


def _named(packages: list[str]) -> str:
    programs = [each for package in packages for each in NEEDED[package] if not _is_there(each)]
    return ", ".join(programs)
