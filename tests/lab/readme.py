"""What the README has a user do on a cluster, and what is there afterwards."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

_README = Path(__file__).parents[2] / "README.md"


def uninstall() -> list[str]:
    """The commands that uninstall, word for word."""
    block = re.search(r"To uninstall.*?\n\n((?:    [^\n]*\n)+)", _README.read_text(), re.DOTALL)
    assert block is not None
    return [line.strip() for line in block[1].splitlines()]


def everything(run: Callable[[str], str]) -> dict[str, str]:
    """Every object of every kind, as JSON, but for Events: they are a record, and go by themselves.

    Args:
        run: runs a command line and gives its output.
    """
    kinds = run("kubectl api-resources --verbs=list --output=name").split()
    wanted = ",".join(sorted(kind for kind in kinds if kind.partition(".")[0] != "events"))
    items = json.loads(run(f"kubectl get --all-namespaces --output=json {wanted}"))["items"]
    return {
        f"{each['kind']} {each['metadata'].get('namespace', '')}/{each['metadata']['name']}": json.dumps(each)
        for each in items
    }
