"""What the resident agent imports: it is paid for once per Pod."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

# each with the reason why the agent may have it
ALLOWED = {
    "click": "command line",
    "contract": "ours",
    "h11": "HTTP",
    "msgspec": "JSON",
    "psutil": "pyroute2 takes it where it is installed, as here by the lab; the image has none, see below",
    "pyroute2": "netlink's messages",
    "sidecar": "ours",
    "typing_extensions": "h11 and msgspec, where installed",
}
AGENT = "import sidecar.cli, sidecar.agent, sidecar.cluster.client, sidecar.cluster.identity, sidecar.journal"
# how this environment starts Python is not the agent's doing: editable installs leave a finder behind
AROUND = ("__main__", "__mp_main__", "__editable__", "_distutils_hack", "sitecustomize", "usercustomize", "_virtualenv")


def imported(program):
    listing = f"{program}\nimport json, sys; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", listing], check=True, capture_output=True, text=True, timeout=60)
    return set(json.loads(done.stdout.splitlines()[-1]))


@pytest.fixture(scope="module")
def modules():
    return imported(AGENT)


def test_nothing_is_imported_that_is_not_on_the_list(modules):
    outside = {name.partition(".")[0] for name in modules} - sys.stdlib_module_names
    unexpected = {name for name in outside if name not in ALLOWED and not name.startswith(AROUND)}
    assert unexpected == set()


@pytest.mark.parametrize("name", ["kubernetes", "scapy", "urllib3", "requests", "controller", "lab", "rich", "yaml"])
def test_what_must_never_be_there(modules, name):
    assert name not in modules


def test_the_image_has_only_what_is_on_the_list():
    lock = (Path(__file__).parents[3] / "requirements" / "sidecar.txt").read_text()
    locked = {line.partition("==")[0] for line in lock.splitlines() if "==" in line}
    assert locked == {"click", "h11", "msgspec", "pyroute2-minimal"}


def test_usage_and_help_need_neither_netlink_nor_http():
    modules = imported("import sidecar.cli")
    assert not {"h11", "pyroute2", "sidecar.agent"} & modules


@pytest.mark.parametrize("name", ["machine", "state", "noting", "events"])
def test_what_decides_needs_no_io(name):
    modules = imported(f"import sidecar.protocol.{name}")
    assert not {"asyncio", "socket", "h11", "ssl"} & modules


def run(*arguments, environment=()):
    command = [sys.executable, "-m", "sidecar.cli", *arguments]
    return subprocess.run(command, check=False, capture_output=True, text=True, timeout=60, env=dict(environment))


def test_wrong_usage_ends_with_2():
    assert run("run", "--source", "magic").returncode == 2
    assert run("run", "--drain-s", "-1").returncode == 2


def test_a_missing_variable_ends_with_3_and_says_which():
    done = run("run")
    assert done.returncode == 3
    assert "KUBERNETES_SERVICE_HOST is not set" in done.stderr


def test_a_missing_token_ends_with_3_and_says_where():
    names = ("POD_NAME", "POD_NAMESPACE", "POD_UID", "KUBERNETES_SERVICE_HOST", "KUBERNETES_SERVICE_PORT")
    done = run("run", environment=[(name, "1") for name in names])
    assert done.returncode == 3
    assert "token /var/run/secrets/kubernetes.io/serviceaccount/token" in done.stderr
