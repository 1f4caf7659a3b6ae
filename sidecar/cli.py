"""The sidecar's command line.

Exit codes: 0 stopped as asked, every address released; 1 stopped as asked, but an address could not be released (its
deadline in the kernel ends it); 2 wrong usage; 3 the Pod's manifest lacks something; 4 a capability is missing. For the
last two a message says what to do.
"""

from __future__ import annotations

import asyncio
import gc
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from contract.names import SOURCE_VARIABLE, Source
from sidecar.errors import EnvironmentMissing, NotPermitted, SidecarError

if TYPE_CHECKING:
    from sidecar.agent import OpenSource

DIRECTORY: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount")
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
    type=click.Choice([each.value for each in Source]),
    default=Source.WATCH.value,
    show_default=True,
    envvar=SOURCE_VARIABLE,
    show_envvar=True,
    help="How to read the assignment. downward: from the file `annotations` in the directory, where a downwardAPI "
    "volume keeps the Pod's annotations; needs no permission to read Pods. watch: by a watch of the Pod, sooner by up "
    "to a second.",
)
@click.option(
    "--directory",
    type=click.Path(path_type=Path),
    default=DIRECTORY,
    show_default=True,
    envvar="HOLDFAST_DIRECTORY",
    show_envvar=True,
    help="Where the volume with the files `token` and `ca.crt` is mounted, and with source downward `annotations`.",
)
@click.option(
    "--drain-s",
    type=click.FloatRange(min=0),
    default=DRAIN_S,
    show_default=True,
    envvar="HOLDFAST_DRAIN_S",
    show_envvar=True,
    help="Seconds to wait after SIGTERM for the next owner to be prepared. Keep it well below the Pod's grace period.",
)
def run(source: str, directory: Path, drain_s: float) -> None:
    """Run until SIGTERM; then hand over or release every Lease, and exit."""
    # nothing is raised inside `except*`: Python 3.11.2 wraps what is, SystemExit too, and the exit code is lost
    code = NOT_LET_GO
    failed: BaseExceptionGroup[SidecarError] | None = None
    try:
        code = 0 if asyncio.run(_run(source, directory, drain_s)) else NOT_LET_GO
    except* EnvironmentMissing as group:
        code, failed = ENVIRONMENT_MISSING, group
    except* NotPermitted as group:
        code, failed = NOT_PERMITTED, group
    if failed is not None:
        click.echo(f"holdfast-sidecar: {_first(failed)}", err=True)
    sys.exit(code)


async def _run(source: str, directory: Path, drain_s: float) -> bool:
    # imported here: `--help` and wrong usage need none of it
    from sidecar.agent import Agent  # noqa: PLC0415
    from sidecar.cluster.client import ApiClient  # noqa: PLC0415
    from sidecar.cluster.downward import AnnotationFile  # noqa: PLC0415
    from sidecar.cluster.identity import certificates_file, read_identity, token_file  # noqa: PLC0415
    from sidecar.cluster.sources import assignment_watch  # noqa: PLC0415
    from sidecar.journal import Journal  # noqa: PLC0415

    # what was imported stays: not looking through it again and again spares the path to the frame some pauses
    gc.freeze()
    me, journal = read_identity(), Journal()
    token, tls = token_file(directory / "token"), certificates_file(directory / "ca.crt")
    token()
    tls()
    api = ApiClient(me.server, tls=tls, token=token)
    try:
        opened: OpenSource = lambda seen: assignment_watch(api, me, seen, journal)  # noqa: E731
        if source == Source.DOWNWARD:
            opened = lambda seen: AnnotationFile(directory / "annotations", seen, journal)  # noqa: E731
        return await Agent(me, api, journal, source=opened, drain_s=drain_s).run()
    finally:
        api.close()


def _first(group: BaseExceptionGroup[SidecarError]) -> BaseException:
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


if __name__ == "__main__":
    main()
