"""How the demo's events read: a head line and one line per stage, within 80 columns. Text only; nothing is printed."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING

from cli.outcome import STAGES

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cli.outcome import Outcome

WIDTH = 80
MEANING = {
    "decided": "the Lease names the next owner",
    "annotated": "the owner's Pod is told its addresses",
    "released": "the last holder no longer has them",
    "acquired": "the Lease names the new holder",
    "configured": "the new holder's kernel has them all",
    "announced": "its first gratuitous ARP is sent",
}
_MESSAGE_LINES = 3
_POD_LEAST = 12


def cut(name: str, room: int) -> str:
    """Shorten a name in its middle: the end of a Pod's name tells it from its siblings."""
    tail = room // 2
    return name if len(name) <= room else f"{name[: room - 1 - tail]}…{name[-tail:]}"


def event(outcome: Outcome) -> list[str]:
    """One event: who holds, the client's gap, and the stages that took place in the order of time."""
    return [_head(outcome), *_gap(outcome), *_stages(outcome)]


def paragraph(text: str) -> list[str]:
    """A sentence of the story."""
    return textwrap.wrap(text, WIDTH, break_on_hyphens=False)


def condition(route: str, what: str, message: str) -> list[str]:
    """A route's condition (``Ready=NoPodsFound``) and as much of its message as three lines hold."""
    indent = " " * 4
    lines = textwrap.wrap(
        message,
        WIDTH,
        initial_indent=indent,
        subsequent_indent=indent,
        max_lines=_MESSAGE_LINES,
        placeholder=" …",
        break_on_hyphens=False,
    )
    return [f"  {route}: {what}", *lines]


def _head(outcome: Outcome) -> str:
    if not outcome.is_move:
        return f"  {outcome.name}"
    twice = f"{outcome.two_holders} times" if outcome.two_holders else "never"
    before, after = f"  {outcome.name}: ", f" holds the addresses; two holders: {twice}"
    room = max(_POD_LEAST, WIDTH - len(before) - len(after))
    return f"{before}{cut(outcome.pod, room) or 'nobody'}{after}"


def _gap(outcome: Outcome) -> Iterator[str]:
    if outcome.gap_ms is not None:
        yield _line("gap", outcome.gap_ms, "", "the client's longest wait for an answer")
    elif outcome.unmeasured:
        yield f"    {'gap':<10} not measured: {outcome.unmeasured}"


def _stages(outcome: Outcome) -> Iterator[str]:
    took_place = sorted((outcome.times_ms[stage], stage) for stage in STAGES if stage in outcome.times_ms)
    before_ms = None
    for at_ms, stage in took_place:
        since = "" if before_ms is None else f"+{at_ms - before_ms:.1f} ms"
        yield _line(stage, at_ms, since, MEANING[stage])
        before_ms = at_ms


def _line(name: str, ms: float, since: str, meaning: str) -> str:
    return f"    {name:<10}{ms:>9.1f} ms{since:>13}  {meaning}"
