"""Which etcd there is: its version, and an old one without progress requests, as Debian 12 has it.

An API server over an old one answers a watch that has no resourceVersion with 500. It comes from Debian's package
etcd-server: apt-get downloads it, it is unpacked into the lab's cache, and nothing is installed.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Final

from lab.binaries import user_cache
from lab.errors import BinaryError

if TYPE_CHECKING:
    from lab.binaries import Progress

PROGRESS_REQUESTS: Final = (3, 4, 31)
"""The first of 3.4 whose progress requests the API server trusts; of 3.5 that is 3.5.13."""
PACKAGE: Final = "etcd-server"
_NEEDED: Final = ("apt-get", "dpkg-deb")
_ELSEWHERE: Final = f"needs Debian 12: its package {PACKAGE} is 3.4.23; or put such an etcd at"


def version(program: Path) -> tuple[int, ...]:
    """Ask an etcd for its version, such as ``(3, 4, 23)``.

    Raises:
        BinaryError: it cannot be run, or says none.
    """
    try:
        said = subprocess.run([str(program), "--version"], capture_output=True, text=True, check=False).stdout
    except OSError as error:
        raise BinaryError(f"etcd {program}: {error.strerror}") from error
    found = re.search(r"^etcd Version: (\d+)\.(\d+)\.(\d+)", said, re.MULTILINE)
    if found is None:
        raise BinaryError(f"etcd {program} does not say its version: {said[:200]!r}")
    return tuple(map(int, found.groups()))


def old(cache: Path | None = None) -> Path:
    """Find the old one in the cache.

    Raises:
        BinaryError: it is not there, or is not old.
    """
    program = (cache or user_cache()) / "old" / "etcd"
    if not program.exists():
        raise BinaryError(f"{program} is not there: `holdfast lab run --old-etcd` gets it from Debian's packages")
    if (found := version(program)) >= PROGRESS_REQUESTS:
        raise BinaryError(
            f"{program} is {'.'.join(map(str, found))}, and not old: remove it. An old one {_ELSEWHERE} it"
        )
    return program


def ensure_old(progress: Progress, cache: Path | None = None) -> Path:
    """Find the old one, or get it from Debian's packages; to be called before a closed world is entered.

    Args:
        progress: told of a download.
        cache: another place than the user's cache.

    Raises:
        BinaryError: it is not there and cannot be had here; says what is missing.
    """
    program = (cache or user_cache()) / "old" / "etcd"
    if not program.exists():
        progress(f"downloading {PACKAGE} from Debian's packages", 0, 1)
        _download(program)
    return old(cache)


def _download(program: Path) -> None:
    if lacking := [each for each in _NEEDED if shutil.which(each) is None]:
        raise BinaryError(
            f"the old etcd is not in the cache, and there is no {', '.join(lacking)}: it {_ELSEWHERE} {program}"
        )
    program.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=program.parent, prefix=".fresh-") as fresh:
        if os.geteuid() == 0:  # only root may; another takes it by what is known here
            _run(["apt-get", "update"], Path(fresh), program)
        _run(["apt-get", "download", PACKAGE], Path(fresh), program)
        packages = sorted(map(str, Path(fresh).glob("*.deb")))
        _run(["dpkg-deb", "--extract", *packages, "files"], Path(fresh), program)
        (Path(fresh) / "files" / "usr" / "bin" / "etcd").replace(program)


def _run(command: list[str], folder: Path, program: Path) -> None:
    done = subprocess.run(command, cwd=folder, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        said = "\n".join((done.stderr or done.stdout).strip().splitlines()[-6:])
        raise BinaryError(f"the old etcd {_ELSEWHERE} {program}. `{' '.join(command)}` said\n{said}")
