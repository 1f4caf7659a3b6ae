"""A node's own directory in every hierarchy of cgroup v1, which the node takes for the whole hierarchy.

A kubelet with `cgroupsPerQOS: false` pays no heed to `cgroupRoot`, and so the directory is mounted where it looks for
the hierarchy. Nothing else of a node outlives its lab: these directories do, when the lab is killed, and the next one
removes them. Not promised: cgroup v2 alone; `require` says so.
"""

from __future__ import annotations

import contextlib
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

from lab.errors import LabError

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT: Final = Path("/sys/fs/cgroup")
_PREFIX: Final = "holdfast-node-"
_COPIED: Final = ("cpuset.cpus", "cpuset.mems")
"""A process may not enter a cpuset before it has some of both."""
_EMPTY_S: Final = 5.0
_ASK_AGAIN_S: Final = 0.02


def hierarchies() -> list[Path]:
    """The hierarchies of this machine."""
    return sorted(path for path in ROOT.iterdir() if path.is_dir() and (path / "cgroup.procs").exists())


def require() -> None:
    """Refuse to go on where there is no cgroup v1.

    Raises:
        LabError: there is none.
    """
    if not (ROOT / "memory" / "cgroup.procs").exists():
        raise LabError(
            f"real nodes need cgroup v1, with the hierarchy `memory` in {ROOT}: start the machine with "
            "`systemd.unified_cgroup_hierarchy=0`, or use the lab's played nodes"
        )


class NodeCgroups:
    """The directories of one node."""

    def __init__(self, lab: str, node: str) -> None:
        """Nothing is made yet; `lab` tells this lab's directories from another's."""
        self.name = f"{_PREFIX}{lab}-{node}"

    def make(self) -> None:
        """Make them, empty."""
        for hierarchy in hierarchies():
            own = hierarchy / self.name
            own.mkdir(exist_ok=True)
            for name in _COPIED:
                if (hierarchy / name).exists():
                    (own / name).write_text((hierarchy / name).read_text())

    def remove(self) -> None:
        """Remove them, once the processes in them have ended.

        Raises:
            LabError: a process goes on in one of them.
        """
        deadline = time.monotonic() + _EMPTY_S
        while left := [each for hierarchy in hierarchies() if not _removed(each := hierarchy / self.name)]:
            if time.monotonic() > deadline:
                raise LabError(f"a process is still in {left[0]}: end it, and remove the directory")
            time.sleep(_ASK_AGAIN_S)  # the kernel tells nobody of the end of the last one

    def processes(self, container: str) -> list[int]:
        """The processes of a container, as this process' PID namespace numbers them."""
        procs = ROOT / "pids" / self.name / "k8s.io" / container / "cgroup.procs"
        try:
            return sorted(int(each) for each in procs.read_text().split())
        except OSError:  # it has ended
            return []


def enter(name: str) -> None:
    """Put this process into a node's directories."""
    for hierarchy in hierarchies():
        (hierarchy / name / "cgroup.procs").write_text("0")


def sweep() -> None:
    """Remove what killed labs have left: a directory in which a process is cannot be removed, and so stays."""
    for hierarchy in hierarchies():
        for left in hierarchy.glob(f"{_PREFIX}*"):
            _removed(left)


def _removed(folder: Path) -> bool:
    """Remove a directory and all in it, children first; whether it is gone."""
    for each in _children_first(folder):
        with contextlib.suppress(OSError):
            each.rmdir()
    return not folder.exists()


def _children_first(folder: Path) -> Iterator[Path]:
    with contextlib.suppress(OSError):
        for child in folder.iterdir():
            if child.is_dir():
                yield from _children_first(child)
    yield folder
