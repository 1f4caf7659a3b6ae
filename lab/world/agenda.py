"""What one thread is to do next: news that any thread may bring, and what it has set itself for later.

Nothing runs here: `next` gives what is to be done, in the order in which it came or came due; news goes first.
"""

from __future__ import annotations

import queue
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


class Agenda:
    """See the module's docstring; all but `put` is for the one thread whose agenda it is."""

    def __init__(self) -> None:
        self._news: queue.Queue[Callable[[], None]] = queue.Queue()
        self._due: dict[str, tuple[float, Callable[[], None]]] = {}

    def put(self, what: Callable[[], None]) -> None:
        """Have something done; any thread may call this."""
        self._news.put(what)

    def at(self, name: str, after_s: float, what: Callable[[], None]) -> None:
        """Have something done so many seconds from now, in place of what has the same name."""
        self._due[name] = (time.monotonic() + after_s, what)

    def drop(self, name: str) -> None:
        """No longer do what has this name; nothing happens where nothing has."""
        self._due.pop(name, None)

    def next(self) -> Callable[[], None]:
        """Wait for what is to be done next."""
        if not self._due:
            return self._news.get()
        name = min(self._due, key=lambda each: self._due[each][0])
        at_s, what = self._due[name]
        try:
            return self._news.get(timeout=max(at_s - time.monotonic(), 0))
        except queue.Empty:
            self.drop(name)
            return what
