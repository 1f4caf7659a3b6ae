"""Waiting for what the API server acts on some time after it has stored it, and tells by no event."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from lab.errors import WaitTimeout

if TYPE_CHECKING:
    from collections.abc import Callable

WITHIN_S: Final = 20.0
_ASK_AGAIN_S: Final = 0.03


def until(wish: Callable[[], bool], otherwise: str, since_s: float | None = None) -> None:
    """Ask again and again until the answer is yes.

    Args:
        wish: what is asked.
        otherwise: what is the case while it is no.
        since_s: by the monotonic clock, from when `WITHIN_S` counts; left out: from now on.

    Raises:
        WaitTimeout: the answer is still no when that time is over.
    """
    deadline = (time.monotonic() if since_s is None else since_s) + WITHIN_S
    while not wish():
        if time.monotonic() > deadline:
            raise WaitTimeout(f"{otherwise} within {WITHIN_S:g} s")
        time.sleep(_ASK_AGAIN_S)
