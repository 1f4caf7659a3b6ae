"""Which rows of the machine's table have fired, and which phases have followed which."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

from sidecar.protocol import machine


class Coverage:
    """Counts; `rows` by (phase, what the row does)."""

    def __init__(self):
        self.rows = Counter()
        self.transitions = set()

    def merge(self, other):
        self.rows.update(other.rows)
        self.transitions |= other.transitions

    @property
    def missing(self):
        """The rows that have never fired."""
        return sorted(all_rows() - set(self.rows))

    def lines(self):
        """Tell it to a person."""
        for row in sorted(all_rows()):
            yield f"{self.rows[row]:9d}  {row[0]:8s} {row[1]}"
        yield f"rows fired: {len(all_rows()) - len(self.missing)} of {len(all_rows())}"
        said = ", ".join(f"{a} -> {b}" for a, b in sorted(self.transitions))
        yield f"transitions of phases seen: {len(self.transitions)}: {said}"


def all_rows():
    return {(str(at), row.what) for at, rows in machine.TABLE.items() for row in rows}


_current = [Coverage()]


def count_into(coverage):
    """From now on, until told otherwise, rows that fire are counted here."""
    _current[0] = coverage


def _counted(at, row):
    key, then = (str(at), row.what), row.then

    def act(state, now):
        _current[0].rows[key] += 1
        return then(state, now)

    return replace(row, then=act)


_counting = False


def install():
    """Have each row of the table count itself; what it does stays as it is."""
    global _counting  # noqa: PLW0603 - the table is a module's, and so is this
    if not _counting:
        _counting = True
        for at, rows in list(machine.TABLE.items()):
            machine.TABLE[at] = tuple(_counted(at, row) for row in rows)
