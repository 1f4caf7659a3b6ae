"""The drawings of docs/ownership.md are of the tables as they are."""

import subprocess
import sys
from pathlib import Path

from contract import lease

DRAW = Path(__file__).parents[3] / "docs" / "draw.py"


def test_the_page_is_current():
    done = subprocess.run(
        [sys.executable, str(DRAW), "--check"], check=False, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr


def test_each_write_that_is_drawn_is_one_that_can_be_made():
    for write, *_ in lease.WRITES:
        assert write == "delete" or callable(getattr(lease, write))
