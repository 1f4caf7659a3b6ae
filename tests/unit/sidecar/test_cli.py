"""How the agent ends: exit codes, and one sentence that says what to do."""

import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from sidecar import cli

ROOT = Path(__file__).parents[3]
ENDS = [
    ("True", 0, ""),
    ("False", cli.NOT_LET_GO, ""),
    ("EnvironmentMissing('no token')", cli.ENVIRONMENT_MISSING, "holdfast-sidecar: no token\n"),
    ("NotPermitted('no NET_ADMIN', 1)", cli.NOT_PERMITTED, "holdfast-sidecar: no NET_ADMIN\n"),
    ("group(NotPermitted('no NET_RAW', 1))", cli.NOT_PERMITTED, "holdfast-sidecar: no NET_RAW\n"),
    ("group(group(EnvironmentMissing('no CA')))", cli.ENVIRONMENT_MISSING, "holdfast-sidecar: no CA\n"),
]
PROGRAM = """
import sys
from sidecar import cli
from sidecar.errors import EnvironmentMissing, NotPermitted

def group(error):
    return BaseExceptionGroup("unhandled errors in a TaskGroup", [error])

async def end(_source, _directory, _drain_s):
    what = {what}
    if isinstance(what, BaseException):
        raise what
    return what

cli._run = end
sys.argv = ["holdfast-sidecar", "run"]
cli.main()
"""


def interpreters():
    """This Python, and the machine's own where it is of the same minor version: Debian's 3.11.2 is not like 3.11.7."""
    found = {Path(sys.executable).resolve(): sys.executable}
    for name in (f"/usr/bin/python3.{sys.version_info.minor}", shutil.which(f"python3.{sys.version_info.minor}")):
        if name is not None and Path(name).exists():
            found.setdefault(Path(name).resolve(), name)
    return list(found.values())


@pytest.mark.parametrize("python", interpreters())
@pytest.mark.parametrize(("what", "code", "said"), ENDS)
def test_every_end_has_its_exit_code_and_no_traceback(python, what, code, said):
    path = f"{ROOT}:{sysconfig.get_path('purelib')}"
    done = subprocess.run(
        [python, "-c", PROGRAM.format(what=what)],
        env={"PYTHONPATH": path},
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (code, said)
