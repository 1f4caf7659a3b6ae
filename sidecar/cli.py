"""The sidecar's command line.

Exit codes: 0 stopped as asked, every address released; 1 stopped as asked, but an address could not be released (its
deadline in the kernel ends it); 2 wrong usage; 3 the Pod's manifest lacks something; 4 a capability is missing. For the
last two a message says what to do.
"""

from __future__ import annotations

import asyncio
import gc
import sys
from typing import Final

import click

from sidecar.errors import EnvironmentMissing, NotPermitted, SidecarError

DRAIN_S: Final = 5.0
NOT_LET_GO: Final = 1
ENVIRONMENT_MISSING: Final = 3
NOT_PERMITTED: Final = 4


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """Hold the persistent IP addresses of this Pod."""


@main.command(
    epilog="Exit codes: 0 stopped, every address released; 1 stopped, but an address could not be released (its "
    "deadline in the kernel ends it); 2 wrong usage; 3 the Pod's manifest lacks something; 4 a capability is missing."
)
@click.option(
    "--source",
    type=click.Choice(["watch"]),
    default="watch",
    show_default=True,
    help="How to read the assignment: watch the Pod on the API server.",
)
@click.option(
    "--drain-s",
    type=click.FloatRange(min=0),
    default=DRAIN_S,
    show_default=True,
    help="Seconds to wait after SIGTERM for the next owner to be prepared. Keep it well below the Pod's grace period.",
)
def run(source: str, drain_s: float) -> None:  # noqa: ARG001 - there is one source yet
    """Run until SIGTERM; then hand over or release every Lease, and exit."""
    # nothing is raised inside `except*`: Python 3.11.2 wraps what is, SystemExit too, and the exit code is lost
    code = NOT_LET_GO
    failed: BaseExceptionGroup[SidecarError] | None = None
    try:
        code = 0 if asyncio.run(_run(drain_s)) else NOT_LET_GO
    except* EnvironmentMissing as group:
        code, failed = ENVIRONMENT_MISSING, group
    except* NotPermitted as group:
        code, failed = NOT_PERMITTED, group
    if failed is not None:
        click.echo(f"holdfast-sidecar: {_first(failed)}", err=True)
    sys.exit(code)


async def _run(drain_s: float) -> bool:
    # imported here: `--help` and wrong usage need none of it
    from sidecar.agent import Agent  # noqa: PLC0415
    from sidecar.cluster.client import ApiClient  # noqa: PLC0415
    from sidecar.cluster.identity import SERVICE_ACCOUNT, TokenFile, read_identity  # noqa: PLC0415
    from sidecar.journal import Journal  # noqa: PLC0415

    # what was imported stays: not looking through it again and again spares the path to the frame some pauses
    gc.freeze()
    me, token = read_identity(), TokenFile()
    token()
    ca_file = SERVICE_ACCOUNT / "ca.crt"
    try:
        api = ApiClient(me.server, ca_file=ca_file, token=token)
    except OSError as error:
        raise EnvironmentMissing(
            f"certificate {ca_file}: {error}; mount the service account token in the Pod"
        ) from error
    try:
        return await Agent(me, api, Journal(), drain_s=drain_s).run()
    finally:
        api.close()


def _first(group: BaseExceptionGroup[SidecarError]) -> BaseException:
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


if __name__ == "__main__":
    main()
