"""What `make chaos` shows: one HTML page without anything from elsewhere, for people who are to judge the promise.

Pure: trials in, text out. A case is *bad* when there were two holders or false frames, when it was not settled again,
or when the address was on nobody, or the client without answers, for longer than the fault's bound.
"""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lab.chaos.faults import Fault
    from lab.chaos.trial import Trial
    from lab.witness.judge import Tenure

_WIDTH, _LEFT, _ROW = 960, 240, 22
_BEFORE_S: Final = 0.5
_COLOURS: Final = ("var(--one)", "var(--two)", "var(--three)")


@dataclass(frozen=True, slots=True)
class Case:
    """A trial with what it is judged by; `fault` None: a storm, which has no bound. `strikes`: what was done in it."""

    trial: Trial
    fault: Fault | None = None
    strikes: tuple[str, ...] = ()

    @property
    def vacant_bound_s(self) -> float:
        """How long nobody may have the address."""
        return self.fault.vacant_s(self.trial.lease_s, self.trial.lasted_s) if self.fault else float("inf")

    @property
    def gap_bound_s(self) -> float:
        """How long the client may get no answer."""
        return self.fault.gap_bound_s(self.trial.lease_s, self.trial.lasted_s) if self.fault else float("inf")

    @property
    def broken(self) -> str:
        """What breaks the promise, or ``""``."""
        found = []
        if self.trial.overlaps:
            found.append(f"two holders, {len(self.trial.overlaps)} times")
        if len(self.trial.false) > (self.fault.forged if self.fault else 0):
            found.append(f"{len(self.trial.false)} false frames")
        if self.trial.trouble:
            found.append(f"not settled: {self.trial.trouble}")
        if not self.trial.neighbour:
            found.append("the client's neighbour table is wrong")
        return "; ".join(found)

    @property
    def late(self) -> str:
        """What took longer than its bound, or ``""``."""
        found = []
        if self.trial.vacant_s > self.vacant_bound_s:
            found.append(f"on nobody for {self.trial.vacant_s:.3f} s")
        if self.trial.gap_s > self.gap_bound_s:
            found.append(f"client's gap {self.trial.gap_s:.3f} s")
        return "; ".join(found)

    @property
    def bad(self) -> str:
        """Both."""
        return "; ".join(filter(None, (self.broken, self.late)))


def page(cases: Sequence[Case], machine: str) -> str:
    """The whole page."""
    singles = [case for case in cases if case.fault is not None]
    storms = [case for case in cases if case.fault is None]
    bad = [case for case in cases if case.bad]
    parts = [
        _verdict(cases),
        f"<p>{escape(machine)}</p><p>{_EXPLAINED}</p>",
        "<h2>One fault at a time</h2>",
        _table(singles),
        "<h2>Gaps per fault</h2>",
        f"<p>{_PLOT_EXPLAINED}</p>",
        _plot(singles),
        "<h2>All at once, at random</h2>",
        _storms(storms),
        f"<h2>Bad cases: {len(bad)}</h2>",
        *[_timeline(case, is_open=True) for case in bad],
        "<h2>Every case from the capture</h2>",
        *[_timeline(case, is_open=False) for case in cases],
    ]
    return _PAGE.replace("@STYLE@", _STYLE).replace("@BODY@", "\n".join(parts))


def _verdict(cases: Sequence[Case]) -> str:
    overlaps = sum(len(case.trial.overlaps) for case in cases)
    broken, late = sum(bool(case.broken) for case in cases), sum(bool(case.late) for case in cases)
    kind = "bad" if broken else "good"
    return (
        f'<h1>holdfast under faults</h1><p class="{kind}"><b>Instants with two holders: {overlaps}</b> in {len(cases)} '
        f"cases. Promise broken in {broken}; longer than the bound in {late}.</p>"
    )


def _table(cases: Sequence[Case]) -> str:
    rows = [f"<tr>{''.join(f'<th>{head}</th>' for head in _HEADS)}</tr>"]
    for case in cases:
        trial, fault = case.trial, case.fault
        forged = f" (forged: {fault.forged})" if fault and fault.forged else ""
        cells = [
            trial.fault,
            fault.what if fault else "",
            f"{trial.lease_s} s",
            f"{trial.lasted_s:.2f} s",
            _seconds(trial.vacant_s),
            _seconds(case.vacant_bound_s),
            _seconds(trial.gap_s),
            _seconds(case.gap_bound_s),
            str(len(trial.overlaps)),
            f"{len(trial.false)}{forged}",
            "right" if trial.neighbour else "WRONG",
            case.bad or "kept",
        ]
        kind = "bad" if case.broken else "late" if case.late else "good"
        rows.append(f'<tr class="{kind}">{"".join(f"<td>{escape(cell)}</td>" for cell in cells)}</tr>')
    return f'<div class="wide"><table>{"".join(rows)}</table></div>'


def _seconds(value: float) -> str:
    return f"{value * 1000:.0f} ms" if value < 1 else f"{value:.2f} s"


def _plot(cases: Sequence[Case]) -> str:
    longest = max([1.0, *(max(case.trial.gap_s, case.gap_bound_s, case.trial.vacant_s) for case in cases)])
    scale = (_WIDTH - _LEFT - 60) / longest
    height = len(cases) * _ROW + 26
    parts = [_axis(0.0, longest, scale, height - 20)]
    for row, case in enumerate(cases):
        top = row * _ROW + 4
        parts.append(_text(_LEFT - 6, top + 12, case.trial.fault, end=True))
        parts.append(
            _bar(_LEFT, top, case.trial.gap_s * scale, 8, colour="var(--one)", title=f"gap {case.trial.gap_s:.3f} s")
        )
        parts.append(_bar(_LEFT, top + 8, case.trial.vacant_s * scale, 6, colour="var(--two)", title="on nobody"))
        at = _LEFT + case.gap_bound_s * scale
        parts.append(f'<path d="M{at:.1f} {top - 2}v18" stroke="var(--bound)" stroke-width="2"/>')
        parts.append(
            _text(_LEFT + max(case.trial.gap_s, case.gap_bound_s) * scale + 5, top + 12, _seconds(case.trial.gap_s))
        )
    return _svg(height, parts)


def _storms(cases: Sequence[Case]) -> str:
    if not cases:
        return "<p>None was run.</p>"
    rows = ["<tr><th>seed</th><th>lasted</th><th>faults</th><th>two holders</th><th>false frames</th><th>end</th></tr>"]
    for case in cases:
        trial = case.trial
        cells = (trial.fault, f"{trial.lasted_s:.0f} s", len(case.strikes), len(trial.overlaps), len(trial.false))
        end = case.broken or f"settled {trial.settled_s - trial.healed_s:.1f} s after the last fault"
        kind = "bad" if case.broken else "good"
        rows.append(f'<tr class="{kind}">{"".join(f"<td>{escape(str(cell))}</td>" for cell in (*cells, end))}</tr>')
    return f"<table>{''.join(rows)}</table>"


# a timeline ----------------------------------------------------------------------------------------------------


class _Drawing:
    """Bars in lanes over time."""

    def __init__(self, case: Case) -> None:
        self._trial = case.trial
        self._begin_s, self._end_s = case.trial.struck_s - _BEFORE_S, case.trial.settled_s
        self._scale = (_WIDTH - _LEFT - 20) / max(self._end_s - self._begin_s, 0.1)
        self._lanes: list[str] = []
        self._parts: list[str] = []

    def lane(self, name: str) -> None:
        """Begin the next lane."""
        self._parts.append(_text(_LEFT - 6, len(self._lanes) * _ROW + 15, name, end=True))
        self._lanes.append(name)

    def bar(self, from_s: float, to_s: float | None, colour: str, said: str, label: str = "") -> None:
        """Draw into the lane begun last; `to_s` None: to the end."""
        left, right, top = self._x(from_s), self._x(to_s), (len(self._lanes) - 1) * _ROW
        title = f"{said} at {from_s - self._trial.struck_s:.3f} s"
        self._parts.append(_bar(left, top + 4, max(right - left, 1.0), 14, colour=colour, title=title))
        if label and right - left > 50:
            self._parts.append(_text(left + 4, top + 15, label))

    def svg(self) -> str:
        """The drawing, with seconds after the strike below it."""
        height = len(self._lanes) * _ROW + 26
        axis = _axis(-_BEFORE_S, self._end_s - self._trial.struck_s, self._scale, height - 20)
        return _svg(height, [axis, *self._parts])

    def _x(self, at_s: float | None) -> float:
        inside_s = min(max(self._end_s if at_s is None else at_s, self._begin_s), self._end_s)
        return _LEFT + (inside_s - self._begin_s) * self._scale


def _drawn(case: Case) -> str:
    trial, drawing = case.trial, _Drawing(case)
    drawing.lane("the fault")
    drawing.bar(trial.struck_s, trial.healed_s, "var(--bound)", f"{trial.lasted_s:.3f} s")
    for number, place in enumerate(sorted({(tenure.netns, tenure.space) for tenure in trial.tenures})):
        drawing.lane(f"{place[0].removeprefix('pod-')} has it")
        for tenure in trial.tenures:
            if (tenure.netns, tenure.space) == place:
                drawing.bar(tenure.start_s, tenure.end_s, _COLOURS[number % 3], _length(tenure))
    drawing.lane("the Lease's holder")
    ends = [*(at_s for at_s, _, _ in trial.versions[1:]), None]
    for (at_s, holder, owner), until_s in zip(trial.versions, ends, strict=False):
        said = f"holder {holder or 'nobody'}, owner {owner or 'nobody'}"
        drawing.bar(at_s, until_s, "var(--lease)" if holder else "var(--none)", said, holder)
    drawing.lane("announcements")
    for frame in trial.frames:
        if frame.gratuitous:
            drawing.bar(frame.time_s, frame.time_s, "var(--ink)", frame.sender_mac)
    drawing.lane("client without answer")
    for gap in trial.gaps:
        drawing.bar(gap.start_s, gap.start_s + gap.most_s, "var(--bad)", f"{gap.most_s * 1000:.1f} ms")
    return drawing.svg()


def _length(tenure: Tenure) -> str:
    return "to the end" if tenure.end_s is None else f"{tenure.end_s - tenure.start_s:.3f} s"


def _timeline(case: Case, *, is_open: bool) -> str:
    said = f" ({case.bad})" if case.bad else ""
    told = "".join(f"<li>{escape(line)}</li>" for line in case.strikes)
    listed = f"<details><summary>What was struck</summary><ol>{told}</ol></details>" if told else ""
    return (
        f"<details{' open' if is_open else ''}><summary>{escape(case.trial.fault)}{escape(said)}</summary>"
        f"{_drawn(case)}{listed}</details>"
    )


def _axis(begin_s: float, end_s: float, scale: float, top: float) -> str:
    step_s = next((step for step in (0.5, 1, 2, 5, 10, 20, 60) if (end_s - begin_s) / step <= 14), 120)
    ticks = range(int(begin_s // step_s) + 1, int(end_s // step_s) + 1)
    marks = [
        f'<path d="M{_LEFT + (tick * step_s - begin_s) * scale:.1f} 0V{top:.0f}" stroke="var(--grid)"/>'
        + _text(_LEFT + (tick * step_s - begin_s) * scale - 8, top + 14, f"{tick * step_s:g} s")
        for tick in ticks
    ]
    return "".join(marks)


def _bar(left: float, top: float, width: float, height: float, *, colour: str, title: str) -> str:
    return (
        f'<rect x="{left:.1f}" y="{top:.1f}" width="{width:.1f}" height="{height}" fill="{colour}">'
        f"<title>{escape(title)}</title></rect>"
    )


def _text(left: float, top: float, text: str, *, end: bool = False) -> str:
    anchor = ' text-anchor="end"' if end else ""
    return f'<text x="{left:.1f}" y="{top:.1f}"{anchor}>{escape(text)}</text>'


def _svg(height: float, parts: Sequence[str]) -> str:
    return f'<div class="wide"><svg viewBox="0 0 {_WIDTH} {height:.0f}" width="{_WIDTH}">{"".join(parts)}</svg></div>'


_HEADS = (
    *("fault", "what is done", "d", "lasted", "on nobody", "bound", "client's gap", "bound"),
    *("two holders", "false frames", "neighbour table", "verdict"),
)
_EXPLAINED = (
    "A route's address is on one of two Pods on two nodes, behind a switch; a client pings it each millisecond. Who "
    "has it is said by the Pods' kernels (address events and the fence's deadline), who claims it by the frames on the "
    "switch: nothing here comes from holdfast's own logs. <b>d</b> is the Lease's duration, <b>on nobody</b> the "
    "longest time that no kernel had the address, <b>gap</b> the client's longest time without an answer (what it "
    "overslept itself counts as without one), the <b>bound</b> what docs/ownership.md promises for a machine that is "
    "not busy."
)
_PLOT_EXPLAINED = (
    "Upper bar: the client's longest gap. Lower bar: the longest time that the address was on nobody. The line: the "
    "gap's bound."
)
_STYLE = """
:root{--ink:#1b1f24;--paper:#fff;--grid:#d8dde3;--one:#2f6fb5;--two:#d98a1f;--three:#6b4fa0;--bound:#8a9199;
--lease:#9fc3a5;--none:#e3e6ea;--bad:#c62f2f;--goodbg:#e9f5ec;--badbg:#fae3e3;--latebg:#fdf3dc}
@media(prefers-color-scheme:dark){:root{--ink:#e4e7eb;--paper:#16191d;--grid:#343a41;--one:#6aa5e3;--two:#e8a951;
--three:#a88fd8;--bound:#8a9199;--lease:#3f6b48;--none:#30353b;--bad:#ef6a6a;--goodbg:#17301d;--badbg:#401c1c;
--latebg:#3a2f14}}
body{font:15px/1.5 system-ui,sans-serif;color:var(--ink);background:var(--paper);margin:2em auto;max-width:1100px;
padding:0 1em}
table{border-collapse:collapse;font-size:13px}td,th{border:1px solid var(--grid);padding:3px 7px;text-align:left;
vertical-align:top}td:nth-child(n+3):not(:last-child){white-space:nowrap}
.wide{overflow-x:auto}.good td:last-child,p.good{background:var(--goodbg)}
.bad td,p.bad{background:var(--badbg)}.late td:last-child{background:var(--latebg)}p.good,p.bad{padding:.6em}
svg text{font:12px system-ui,sans-serif;fill:var(--ink)}summary{cursor:pointer;padding:3px 0}
"""
_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>holdfast under faults</title><style>@STYLE@</style></head>
<body>
@BODY@
</body></html>
"""
