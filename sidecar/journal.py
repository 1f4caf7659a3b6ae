"""What the agent says: one JSON line on standard error when something changes, and nothing otherwise."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, TextIO

import msgspec

from contract.lease import micro_time
from sidecar.clock import wall_time

if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import Callable


class Journal:
    """Sentences by subject; one that says the same of its subject as the last one is not written."""

    def __init__(self, out: TextIO | None = None, now: Callable[[], dt.datetime] = wall_time) -> None:
        self._out = sys.stderr if out is None else out
        self._now = now
        self._last: dict[str, str] = {}

    def tell(self, subject: str, sentence: str, **facts: str | float) -> None:
        """Say it, unless it was the last thing said of this subject."""
        if self._last.get(subject) == sentence:
            return
        self._last[subject] = sentence
        line = {"time": micro_time(self._now()), "subject": subject, "message": sentence, **facts}
        self._out.write(msgspec.json.encode(line).decode() + "\n")
        self._out.flush()

    def forget(self, subject: str) -> None:
        """Let the next sentence of a subject that is over be said whatever it is."""
        self._last.pop(subject, None)
