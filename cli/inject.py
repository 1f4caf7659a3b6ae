"""`holdfast inject`: manifests in, the same with the sidecar in every Pod and Pod template out; or the policies.

Exit codes: 0 written; 1 an object cannot have the sidecar, or its file not be edited: nothing is written; 2 wrong
usage, or a file cannot be read.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Final

import click

from cli.manifest import ManifestError, documents, with_agents, workloads
from contract.names import Source
from controller.injection.pod import NEVER_IN, Outcome, inject
from controller.injection.policy import policies
from controller.injection.release import SIDECAR_IMAGE
from controller.injection.sidecar import Settings

if TYPE_CHECKING:
    from cli.manifest import Workload

REFUSED: Final = 1
_STDIN: Final = "standard input"


class _Refused(Exception):  # noqa: N818 - holds the sentences
    """Objects that cannot have the sidecar, one sentence each."""


@click.command(
    "inject",
    epilog="Exit codes: 0 written; 1 an object cannot have the sidecar, or its file cannot be edited: nothing is "
    "written; 2 wrong usage, or a file cannot be read.",
)
@click.option(
    "-f",
    "--filename",
    "files",
    type=click.Path(exists=True, dir_okay=False, allow_dash=True),
    multiple=True,
    help="A file of manifests, YAML or JSON; - for standard input. May be given more than once.",
)
@click.option(
    "--policy",
    is_flag=True,
    help="Write admission policies that do the same in the cluster, without a webhook: for Kubernetes 1.34 with the "
    "feature gate MutatingAdmissionPolicy and the API admissionregistration.k8s.io/v1beta1 on.",
)
@click.option("--image", default=SIDECAR_IMAGE, show_default=True, help="The sidecar's image.")
@click.option(
    "--source",
    type=click.Choice([each.value for each in Source]),
    default=Source.DOWNWARD.value,
    show_default=True,
    help="From where the sidecar has its assignment, where a Pod's annotation holdfast.dev/source does not say it.",
)
@click.option(
    "--pull-policy",
    type=click.Choice(["Always", "IfNotPresent", "Never"]),
    help="imagePullPolicy of the sidecar; default: Kubernetes' own.",
)
def inject_command(files: tuple[str, ...], *, policy: bool, image: str, source: str, pull_policy: str | None) -> None:
    """Add the sidecar to every Pod and Pod template in manifests, and write them to standard output.

    Nothing else in them changes, comments and order included. Left alone are templates with the label
    holdfast.dev/inject: "false", those that have a container holdfast, the namespaces kube-system and holdfast-system,
    and objects of other kinds. What was done is told on standard error.
    """
    settings = Settings(image, Source(source), pull_policy or "")
    if policy == bool(files):
        raise click.UsageError("give either -f FILE, once or more, or --policy")
    if policy:
        click.echo(documents(policies(settings)), nl=False)
        return
    try:
        parts = [_injected(_text(file), _STDIN if file == "-" else file, settings) for file in files]
    except (_Refused, ManifestError) as error:
        click.echo(f"holdfast: {error}", err=True)
        sys.exit(REFUSED)
    click.echo(_joined(parts).encode(), nl=False)


def _text(file: str) -> str:
    try:
        with click.open_file(file, "rb") as stream:
            return bytes(stream.read()).decode()
    except UnicodeDecodeError as error:
        raise ManifestError(f"{file} is not UTF-8: {error}") from error


def _injected(text: str, file: str, settings: Settings) -> str:
    done = [(workload, _outcome(workload, settings)) for workload in workloads(text, file)]
    refused = [outcome.refused for _, outcome in done if outcome.refused]
    if refused:
        raise _Refused("\nholdfast: ".join(refused))
    for _, outcome in done:
        click.echo(outcome.reason, err=True)
    if not done:
        click.echo(f"{file}: no Pod and no Pod template in it: nothing is added", err=True)
    return with_agents(text, file, [(workload, outcome.pod) for workload, outcome in done if outcome.changed])


def _outcome(workload: Workload, settings: Settings) -> Outcome:
    if workload.namespace in NEVER_IN:
        reason = f"{workload.name} gets no sidecar: no Pod of namespace {workload.namespace} does"
        return Outcome(workload.pod, changed=False, refused=None, reason=reason)
    return inject(workload.pod, settings, name=workload.name, at=workload.at)


def _joined(parts: list[str]) -> str:
    """Files as one stream of documents."""
    stream = parts[0]
    for part in parts[1:]:
        stream += "" if stream.endswith("\n") or not stream else "\n"
        stream += part if part.startswith("---") else f"---\n{part}"
    return stream
