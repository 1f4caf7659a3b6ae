"""`holdfast`, the command for people. Each subcommand is imported when it is called for."""

from __future__ import annotations

import importlib
import importlib.util

import click

from lab.errors import LabError

_COMMANDS = {
    "demo": ("cli.demo", "demo"),
    "inject": ("cli.inject", "inject_command"),
    "lab": ("lab.cli", "lab"),
}
EXIT_NO_LAB = 2


class _Lazy(click.Group):
    """A group whose commands are modules: `holdfast lab` need not import what `holdfast demo` needs."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        return sorted(name for name, (module, _) in _COMMANDS.items() if importlib.util.find_spec(module))

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in self.list_commands(ctx):
            return None
        module, attribute = _COMMANDS[cmd_name]
        command: click.Command = getattr(importlib.import_module(module), attribute)
        return command

    def invoke(self, ctx: click.Context) -> object:
        """Run a command; what the lab cannot do is a message and exit code 2, not a traceback."""
        try:
            return super().invoke(ctx)
        except LabError as error:
            click.echo(f"holdfast: {error}", err=True)
            ctx.exit(EXIT_NO_LAB)


@click.command(cls=_Lazy)
@click.version_option(package_name="holdfast")
def main() -> None:
    """Persistent IP addresses that follow their Pod."""


if __name__ == "__main__":
    main(prog_name="holdfast")
