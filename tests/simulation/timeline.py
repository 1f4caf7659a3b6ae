"""Draws what happened: one lane per Pod and address, and below it every event as a line."""

from __future__ import annotations

WIDTH = 100


def draw(outcome):
    """Give the lines of a drawing of one outcome."""
    yield from outcome.schedule.lines()
    end = max(outcome.end, 0.001)
    yield ""
    yield f"who has which address, 0 to {end:.3f} s, {end / WIDTH:.3f} s per sign (| : no more faults from here)"
    for address in sorted({span[1] for span in outcome.spans}):
        for pod in outcome.schedule.pods:
            yield f"  {address:17s} {pod.name} {_lane(outcome, address, pod.name, end)}"
    yield ""
    yield from (f"{at:10.4f}  {who:9s} {what}" for at, who, what in outcome.log)
    yield ""
    yield from (f"violation at {at:.4f} s: {kind}: {what}" for at, kind, what in outcome.violations)


def _lane(outcome, address, pod, end):
    spans = [(at, pod in names) for at, where, names in outcome.spans if where == address]
    ends = [at for at, _ in spans[1:]] + [end]
    signs = ["."] * WIDTH
    for (at, has), until in zip(spans, ends, strict=True):
        if has:
            first, last = int(at / end * WIDTH), int(until / end * WIDTH)
            for i in range(first, min(WIDTH, max(last, first + 1))):
                signs[i] = "#"
    calm = int(outcome.calm / end * WIDTH)
    if 0 < calm < WIDTH and signs[calm] == ".":
        signs[calm] = "|"
    return "".join(signs)
