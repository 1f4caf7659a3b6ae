"""Mounts by the system calls themselves: `mount` would resolve the links in /proc/PID/root, and lead elsewhere."""

from __future__ import annotations

import ctypes
import os
import platform
from typing import TYPE_CHECKING, Final

from lab.errors import LabError

if TYPE_CHECKING:
    from pathlib import Path

_MS_RDONLY, _MS_REMOUNT, _MS_BIND, _MS_REC = 0x1, 0x20, 0x1000, 0x4000
_MNT_DETACH: Final = 2
_PIVOT_ROOT: Final = {"x86_64": 155, "aarch64": 41}
_libc = ctypes.CDLL(None, use_errno=True)


def bind(source: Path, target: Path, *, deep: bool = False, read_only: bool = False) -> None:
    """Show a file or a directory in another place too; without the mounts that lie in it, unless `deep`.

    Raises:
        LabError: the kernel refuses.
    """
    _mount(str(source), target, None, _MS_BIND | (_MS_REC if deep else 0))
    if read_only:
        _mount(None, target, None, _MS_BIND | _MS_REMOUNT | _MS_RDONLY)


def fresh(kind: str, target: Path, options: str = "") -> None:
    """Mount a new file system: tmpfs, proc, sysfs.

    Raises:
        LabError: the kernel refuses.
    """
    _mount(kind, target, kind, 0, options)


def change_root(root: Path, old: Path) -> None:
    """Make `root`, a mount, this process' root, and let go of the one before, which `old` in it is to hold meanwhile.

    Raises:
        LabError: the kernel refuses, or this is a processor that the lab does not know.
    """
    number = _PIVOT_ROOT.get(platform.machine())
    if number is None:
        raise LabError(f"real nodes run on {' and '.join(_PIVOT_ROOT)}, not on {platform.machine()}")
    _check(_libc.syscall(number, str(root).encode(), str(old).encode()), f"make {root} the root")
    os.chdir("/")
    inside = "/" + str(old.relative_to(root))
    _check(_libc.umount2(inside.encode(), _MNT_DETACH), f"unmount {inside}")


def _mount(source: str | None, target: Path, kind: str | None, flags: int, options: str = "") -> None:
    encoded = [each.encode() if each else None for each in (source, str(target), kind)]
    done = _libc.mount(*encoded, ctypes.c_ulong(flags), options.encode() or None)
    _check(done, f"mount {source or 'again'} on {target}")


def _check(result: int, what: str) -> None:
    if result != 0:
        raise LabError(f"cannot {what}: {os.strerror(ctypes.get_errno())}")
