"""Each mutant's text is still there, and some broken rules are found quickly; `make mutants` hunts them all."""

from __future__ import annotations

import pytest

from .mutants import MUTANTS, Stale, copy, hunt, mutate, one

QUICK = (
    "no deadline in the kernel at all",
    "handed over to an unprepared Pod",
    "removed after the handover",
    "a renewal counts only if the report changes",
    "whoever is prepared takes a free Lease",
    "the deadline counted from a watch event",
)
LIMIT = 1500


def test_every_mutant_still_applies(tmp_path):
    assert len({mutant.name for mutant in MUTANTS}) == len(MUTANTS) >= 12
    for i, mutant in enumerate(MUTANTS):
        folder = tmp_path / str(i)
        copy(folder)
        mutate(folder, mutant)
        for file, _, _ in mutant.changes:
            compile((folder / file).read_text(), file, "exec")


def test_a_mutant_whose_text_is_gone_says_so(tmp_path):
    copy(tmp_path)
    with pytest.raises(Stale, match=r"occurs 0 times in sidecar/protocol/machine\.py"):
        mutate(tmp_path, one("no such rule", "sidecar/protocol/machine.py", "no such text", ""))


@pytest.mark.parametrize("name", QUICK)
def test_a_broken_rule_is_found(name):
    mutant = next(each for each in MUTANTS if each.name == name)
    found = hunt(mutant, LIMIT)
    assert found.startswith("seed "), found


def test_what_is_not_broken_is_not_found():
    assert (
        hunt(one("nothing", "sidecar/protocol/noting.py", "RETRY_MAX_S: Final = 0.5", "RETRY_MAX_S: Final = 0.50"), 40)
        == ""
    )
