"""Gaps and stalls of the client: named rows of requests, 1 ms apart unless said."""

from __future__ import annotations

import pytest

from lab.witness.client import Request, gaps_of, stalls_of


def requests(pattern: str) -> list[Request]:
    """`.` answered at once, `x` not answered, `l` answered late, `_` a millisecond in which the client did not run."""
    return [
        Request(at / 1000, {".": at / 1000 + 0.0001, "l": at / 1000 + 0.1}.get(kind))
        for at, kind in enumerate(pattern)
        if kind != "_"
    ]


ROWS = {
    "always answered": ("......", []),
    "one lost": ("..x..", [(1, 1, 1, 0, True)]),
    "two gaps": (".x.xx.", [(0, 1, 1, 0, True), (2, 2, 2, 0, True)]),
    "at the beginning": ("xx..", [(0, 2, 2, 0, True)]),
    "until the end": ("..xxx", [(1, 3, 3, 0, False)]),
    "never answered": ("xxxx", [(0, 3, 4, 0, False)]),
    "late answers count as none": (".ll.", [(0, 2, 2, 0, True)]),
    "the client overslept, nothing lost": ("..______..", []),
    "the client overslept in a gap": (".x____x.", [(0, 2, 2, 4, True)]),
}


@pytest.mark.parametrize(("pattern", "expected"), ROWS.values(), ids=ROWS)
def test_gaps(pattern, expected):
    found = gaps_of(requests(pattern))
    assert [
        (round(g.start_s * 1000), round(g.length_ms), g.requests, round(g.stalled_ms), g.ended) for g in found
    ] == expected


def test_stalls_are_told():
    (stall,) = stalls_of(requests("..______.."))
    assert (round(stall.start_s * 1000), round(stall.length_ms)) == (1, 6)


def test_no_request_no_gap():
    assert gaps_of([]) == []
