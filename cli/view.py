"""How the demo is shown: a live table on a terminal, plain lines elsewhere, nothing but JSON for programs.

The demo tells every view the same things; a view decides nothing.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from cli import lines
from cli.outcome import Outcome, summary

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

_SHOWN = ("decided", "released", "acquired", "announced")
"""What fits beside each other on 80 columns; the lines of each event and the JSON have all."""
_POD_COLUMNS = 32


@dataclass(frozen=True, slots=True)
class PodRow:
    """One Pod as the live table shows it; `addresses` are those in its kernel that a route gave it."""

    name: str
    node: str
    ready: bool
    addresses: tuple[str, ...]
    holds: str


class View:
    """Plain lines of 80 columns; the other views differ from it."""

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or Console(highlight=False, soft_wrap=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass

    def say(self, line: str) -> None:
        """Print a sentence of the story."""
        self._print("", *lines.paragraph(line))

    def condition(self, route: str, what: str, message: str) -> None:
        """Print what a route's status says."""
        self._print(*lines.condition(route, what, message))

    def outcome(self, outcome: Outcome) -> None:
        """Print the event's figures, and what was not as promised."""
        self._print(*lines.event(outcome), *(f"  NOT AS PROMISED: {problem}" for problem in outcome.broken))

    def end(self, outcomes: list[Outcome]) -> None:
        """Print the table of all events and the verdict."""
        self._print("")
        self._console.print(table(outcomes))
        self._console.print(verdict(outcomes))

    def _print(self, *several: str) -> None:
        for each in several:
            self._console.print(each, markup=False)


class Silent(View):
    """Nothing until the end, then one JSON document on standard output."""

    def say(self, line: str) -> None:
        """Say nothing."""

    def condition(self, route: str, what: str, message: str) -> None:
        """Say nothing."""

    def outcome(self, outcome: Outcome) -> None:
        """Say nothing."""

    def end(self, outcomes: list[Outcome]) -> None:
        """Print the JSON document."""
        print(json.dumps(summary(outcomes), indent=2))


class Terminal(View):
    """The story scrolls by; below it stands a table of the Pods as they are now."""

    def __init__(self, pods: Callable[[], list[PodRow]]) -> None:
        console = Console(highlight=False)
        super().__init__(console)
        self._pods = pods
        self._gaps: list[str] = []
        self._live = Live(get_renderable=self._now, console=console, refresh_per_second=8, transient=True)

    def __enter__(self) -> Self:
        self._live.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.__exit__(kind, error, trace)

    def outcome(self, outcome: Outcome) -> None:
        """Print the event, and keep its gap in sight."""
        super().outcome(outcome)
        if outcome.gap_ms is not None:
            self._gaps.append(f"{outcome.name} {outcome.gap_ms:.1f} ms")

    def _now(self) -> Group:
        rows = Table(title="Pods now", title_justify="left", box=None, pad_edge=False, header_style="bold")
        for heading in ("Pod", "node", "Ready", "addresses", "epoch"):
            rows.add_column(heading)
        for pod in self._pods():
            style = "bold green" if pod.addresses else ""
            ready = Text("yes" if pod.ready else "no", style="" if pod.ready else "red")
            rows.add_row(
                Text(lines.cut(pod.name, _POD_COLUMNS), style),
                pod.node,
                ready,
                Text(" ".join(pod.addresses), style),
                pod.holds,
            )
        gaps = ", ".join(self._gaps) or "none yet"
        return Group(Text(""), rows, Text(f"The client's longest gap at each event: {gaps}", "italic"))


def table(outcomes: list[Outcome]) -> Table:
    """The events at which an address moved, one row each."""
    title = "What was seen: the client's gap, and stages in ms after the cause"
    rows = Table(title=title, title_justify="left", header_style="bold", box=None, pad_edge=False, padding=(0, 2, 0, 0))
    rows.add_column("event", no_wrap=True)
    for heading in ("gap ms", "two holders", *_SHOWN):
        rows.add_column(heading, justify="right")
    for each in outcomes:
        if not each.is_move:
            continue
        gap = "-" if each.gap_ms is None else f"{each.gap_ms:.1f}"
        times = (f"{each.times_ms[stage]:.0f}" if stage in each.times_ms else "-" for stage in _SHOWN)
        rows.add_row(each.name, gap, str(each.two_holders), *times, style="red" if each.broken else "")
    return rows


def verdict(outcomes: list[Outcome]) -> Text:
    """The last line."""
    if summary(outcomes)["ok"]:
        return Text("As promised: the addresses followed the Pods, and never had two holders.", "bold green")
    broken = sum(bool(each.broken) or bool(each.two_holders) for each in outcomes)
    return Text(f"NOT AS PROMISED in {broken} of {len(outcomes)} events; see above.", "bold red")
