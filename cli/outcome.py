"""What the demo saw: one outcome per event, its JSON form, and whether everything was as promised. Values only."""

from __future__ import annotations

from dataclasses import dataclass, field

STAGES = ("decided", "annotated", "released", "acquired", "configured", "announced")
"""The way of an address to its next Pod, in the order in which it is told; not all take place in every event."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """One event of the demo.

    Attributes:
        name: the event, as ``rollout``.
        pod: who had the addresses when it was over.
        gap_ms: the longest time without an answer that the client saw, its own stalls left out; None: not measured.
        two_holders: instants with two holders, by the kernels' own events.
        times_ms: milliseconds from the cause to each stage of `STAGES` that took place.
        broken: what was not as promised.
        unmeasured: why the gap of a move was not measured.
    """

    name: str
    pod: str
    gap_ms: float | None
    two_holders: int
    times_ms: dict[str, float] = field(default_factory=dict)
    broken: tuple[str, ...] = ()
    unmeasured: str = ""

    @property
    def is_move(self) -> bool:
        """Whether addresses were to move; otherwise it was a status that was looked at."""
        return self.gap_ms is not None or bool(self.unmeasured)

    def as_json(self) -> dict[str, object]:
        """The event as programs read it."""
        times = {stage: round(self.times_ms[stage], 1) for stage in STAGES if stage in self.times_ms}
        gap = None if self.gap_ms is None else round(self.gap_ms, 1)
        event: dict[str, object] = {"name": self.name, "pod": self.pod, "gap_ms": gap}
        event |= {"two_holders": self.two_holders, "times_ms": times}
        return event | {"broken": list(self.broken)} if self.broken else event


def summary(outcomes: list[Outcome]) -> dict[str, object]:
    """The whole demo as programs read it; ``ok`` is False when anything was not as promised, or nothing happened."""
    holders = sum(each.two_holders for each in outcomes)
    good = bool(outcomes) and not holders and not any(each.broken for each in outcomes)
    return {"ok": good, "two_holders": holders, "events": [each.as_json() for each in outcomes]}
