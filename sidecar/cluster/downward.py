"""Source `downward`: this Pod's assignment, from the file in which the kubelet keeps the Pod's annotations.

It needs no permission to read Pods, costs the API server nothing, and is silent while there is nothing to do. The
kubelet writes the file anew within a second or so of a change (0.1 to 1 s seen), so what an entry begins comes that
much later than by a watch; what follows goes by the Lease, and by a watch of it.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import re
import stat
from typing import TYPE_CHECKING, Final

from contract.assignment import Assignment, decode_assignment
from contract.errors import ContractError
from contract.names import ASSIGNMENT
from sidecar.errors import EnvironmentMissing

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from sidecar.journal import Journal

POLL_S: Final = 5.0
"""How often the file is looked at where inotify says nothing; one stat, and no more while it is the same file."""
FILE_MAX: Final = 1 << 20
"""Bytes; the API server takes 256 KiB of annotations in all, and quoting makes at most four of one (apimachinery's
validation of object metadata)."""

# of sys/inotify.h
_CLOSE_WRITE: Final = 0x8
_MOVED_TO: Final = 0x80
_CREATE: Final = 0x100
_ONLY_DIRECTORY: Final = 0x01000000
_EVENTS_BYTES: Final = 1 << 14

_ESCAPE: Final = re.compile(r"\\(?:x([0-9a-f]{2})|u([0-9a-f]{4})|U([0-9a-f]{8})|(.))", re.DOTALL)
_SHORT: Final = {"a": "\a", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v", "\\": "\\", '"': '"'}


def annotation(text: str, name: str) -> str | None:
    """Give one annotation's value out of a downward-API file, or None where it is not there.

    The kubelet writes a line ``name="value"`` for each, the value quoted as Go's ``%q`` does it
    (kubernetes pkg/fieldpath/fieldpath.go, FormatMap; strconv.Quote).

    Raises:
        ValueError: the line is there, and its value is not quoted like that.
    """
    for line in text.split("\n"):
        if line.startswith(f"{name}="):
            return _unquoted(line[len(name) + 1 :])
    return None


def _unquoted(quoted: str) -> str:
    if len(quoted) < 2 or quoted[0] != '"' or quoted[-1] != '"':
        raise ValueError("its value is not in quotation marks")

    def plain(escape: re.Match[str]) -> str:
        if (code := escape[1] or escape[2] or escape[3]) is not None:
            return chr(int(code, 16))
        if escape[4] not in _SHORT:
            raise ValueError(f"unknown escape {escape[0]}")
        return _SHORT[escape[4]]

    return _ESCAPE.sub(plain, quoted[1:-1])


class AnnotationFile:
    """The assignment in one file, for as long as this runs.

    Args:
        path: the file; the directory that it is in is watched, since the kubelet replaces a symbolic link there.
        seen: called with the assignment at first, and when the file has changed.

    Raises:
        EnvironmentMissing: the file is not there, or cannot be read; the message says how to get it.
    """

    def __init__(self, path: Path, seen: Callable[[Assignment], None], journal: Journal) -> None:
        self._path = path
        self._seen = seen
        self._journal = journal
        self._where = f"annotation {ASSIGNMENT} in {path}"
        self._stamp: tuple[int, ...] = ()
        try:
            self._first = self._changed() or ""
        except (OSError, ValueError) as error:
            raise EnvironmentMissing(
                f"annotations {path}: {error}; mount metadata.annotations there by a downwardAPI volume, "
                "or use --source watch"
            ) from error

    async def run(self) -> None:
        """Follow it for ever; ends only by cancellation."""
        self._take(self._first)
        stirred = asyncio.Event()
        with _Listener(self._path.parent, stirred):
            while True:
                stirred.clear()
                self._look()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(POLL_S):
                        await stirred.wait()

    def _look(self) -> None:
        try:
            text = self._changed()
        except (OSError, ValueError) as error:  # while it is replaced, or for good: what was read last stays
            self._journal.tell("assignment", f"{self._path}: {error}; the previous assignment stays in effect")
            return
        if text is not None:
            self._take(text)

    def _changed(self) -> str | None:
        """Read the file, unless it is the one that was read last.

        Raises:
            OSError: it cannot be read.
            ValueError: it is no text, or is too large.
        """
        # a pipe in its place must not stop us
        with os.fdopen(os.open(self._path, os.O_RDONLY | os.O_NONBLOCK), "rb") as file:
            status = os.fstat(file.fileno())
            stamp = (status.st_dev, status.st_ino, status.st_mtime_ns, status.st_size)
            if stamp == self._stamp:
                return None
            if not stat.S_ISREG(status.st_mode) or status.st_size > FILE_MAX:
                raise ValueError(f"not a file of at most {FILE_MAX} bytes")
            text = file.read(FILE_MAX + 1).decode()
        self._stamp = stamp
        return text

    def _take(self, text: str) -> None:
        try:
            value = annotation(text, ASSIGNMENT)
            assignment = decode_assignment(value, self._where) if value else Assignment()
        except ContractError as error:
            self._journal.tell("assignment", f"{error}; the previous assignment stays in effect")
        except ValueError as error:
            self._journal.tell("assignment", f"{self._where}: {error}; the previous assignment stays in effect")
        else:
            self._journal.forget("assignment")
            self._seen(assignment)


class _Listener:
    """Sets an event whenever something in a directory is written or moved there; without inotify, never."""

    def __init__(self, directory: Path, stirred: asyncio.Event) -> None:
        self._directory = os.fsencode(directory)
        self._stirred = stirred
        self._fd = -1

    def __enter__(self) -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        # none left for this user (fs.inotify.max_user_instances is the node's, not the Pod's): the poll remains
        self._fd = libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        if self._fd < 0:
            return
        libc.inotify_add_watch(self._fd, self._directory, _CLOSE_WRITE | _MOVED_TO | _CREATE | _ONLY_DIRECTORY)
        asyncio.get_running_loop().add_reader(self._fd, self._read)

    def __exit__(self, *_: object) -> None:
        if self._fd >= 0:
            asyncio.get_running_loop().remove_reader(self._fd)
            os.close(self._fd)

    def _read(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.read(self._fd, _EVENTS_BYTES)
        self._stirred.set()
