"""Logs as JSON lines on standard error: one sentence when something changes, none otherwise."""

from __future__ import annotations

import datetime as dt
import sys
import threading
from typing import TYPE_CHECKING, Any, TextIO

import msgspec

if TYPE_CHECKING:
    from collections.abc import Callable


def _now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)


class Journal:
    """Writes lines; `trouble` says the same thing about a subject only once."""

    def __init__(self, stream: TextIO | None = None, clock: Callable[[], dt.datetime] = _now) -> None:
        self._stream = stream or sys.stderr
        self._clock = clock
        self._lock = threading.Lock()
        self._last: dict[str, str] = {}

    def tell(self, message: str, level: str = "info", **fields: Any) -> None:
        """Write one sentence."""
        time = self._clock().isoformat(timespec="milliseconds").replace("+00:00", "Z")
        line = msgspec.json.encode({"time": time, "level": level, "message": message, **fields}).decode()
        with self._lock:
            self._stream.write(line + "\n")
            self._stream.flush()

    def trouble(self, subject: str, text: str) -> None:
        """Write what is wrong with a subject, once until it changes; ``""``: it is resolved."""
        if self._last.get(subject, "") == text:
            return
        if text:
            self._last[subject] = text
            self.tell(text, "warning", subject=subject)
        else:
            del self._last[subject]
            self.tell("resolved", subject=subject)
