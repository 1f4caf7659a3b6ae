"""What holds for every test: those of the lab and of real nodes need a closed world, and fail outside of one."""

from __future__ import annotations

from pathlib import Path

import pytest

from lab import closed

CLOSED = [Path(__file__).parent / each for each in ("lab", "worlds", "cluster")]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if any(map(item.path.is_relative_to, CLOSED)):
            item.add_marker(pytest.mark.lab)


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("lab") and not closed.is_closed():
        pytest.fail(
            "lab tests build networks and run only in a closed world: use `make test`, or "
            "`holdfast lab run -- pytest tests/lab`",
            pytrace=False,
        )
