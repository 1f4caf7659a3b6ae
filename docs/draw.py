"""Draws the state machines of docs/ownership.md from the tables in the code: `python docs/draw.py` writes the page.

With ``--check`` it writes nothing and exits with 1 when the page is not current.
"""

from __future__ import annotations

import sys
from pathlib import Path

from contract.lease import WRITES
from sidecar.protocol.machine import PASSAGES, TABLE

PAGE = Path(__file__).with_name("ownership.md")


def lease() -> list[str]:
    """The Lease's machine."""
    lines = ["```mermaid", "stateDiagram-v2", "    [*] --> free: create", "    [*] --> held: create, as held"]
    for write, before, after, who, _ in WRITES:
        if "none" not in (before, after):
            lines.append(f"    {before} --> {after}: {write.replace('_', ' ')} ({who})")
    lines += ["    free --> [*]: delete", "```", "", "| write | from | to | by | when |", "|---|---|---|---|---|"]
    return lines + [f"| {w.replace('_', ' ')} | {a} | {b} | {who} | {when} |" for w, a, b, who, when in WRITES]


def machine() -> list[str]:
    """The holder's machine: what is done in each phase, and what follows what."""
    lines = ["```mermaid", "stateDiagram-v2", "    [*] --> absent"]
    lines += [f"    {before} --> {after}" for before, after in PASSAGES]
    lines += ["```", "", "| phase | what is done: the first of these that is due |", "|---|---|"]
    lines += [
        f"| {phase} | {'; '.join(f'({n}) {row.what}' for n, row in enumerate(rows, 1))} |"
        for phase, rows in TABLE.items()
    ]
    lines += ["", "| from | to | why |", "|---|---|---|"]
    return lines + [f"| {before} | {after} | {why} |" for (before, after), why in PASSAGES.items()]


def drawn(text: str) -> str:
    """The page with its drawings replaced."""
    for name, lines in (("lease", lease()), ("machine", machine())):
        start = f"<!-- drawn: {name} -->\n"
        head, _, rest = text.partition(start)
        _, end, tail = rest.partition("<!-- end -->")
        text = head + start + "\n".join(lines) + "\n" + end + tail
    return text


def main() -> None:
    """Write the page, or check it."""
    before = PAGE.read_text()
    after = drawn(before)
    if "--check" in sys.argv[1:]:
        if before != after:
            sys.exit(f"{PAGE.name} is not current: run `python docs/draw.py`")
    else:
        PAGE.write_text(after)


if __name__ == "__main__":
    main()
