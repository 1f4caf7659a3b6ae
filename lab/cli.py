"""`holdfast lab`: a closed world for a command, or one to work in from other terminals."""

from __future__ import annotations

import sys

import click

from lab import closed

_PASS_ON = {"ignore_unknown_options": True, "allow_interspersed_args": False}


@click.group()
def lab() -> None:
    """Pods as network namespaces around a real API server, without a way out of it."""


@lab.command(context_settings=_PASS_ON)
@click.option("--name", help="A name under which `holdfast lab exec` finds it.")
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
def run(name: str | None, command: tuple[str, ...]) -> None:
    """Run COMMAND in a fresh closed world, and end all that it leaves behind; its exit code is this one's."""
    closed.enter(list(command), name)


def again(*arguments: str) -> list[str]:
    """This program with other arguments."""
    return [sys.executable, "-m", "cli.main", *arguments]
