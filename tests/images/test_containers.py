"""The images as containers, with what a Pod gives them and with each thing missing: exit code and sentence."""

from __future__ import annotations

import pytest

from tests.images.conftest import ACCOUNT, BUILT

ENVIRONMENT = {
    "POD_NAME": "web-0",
    "POD_NAMESPACE": "here",
    "POD_UID": "f3b1",
    "KUBERNETES_SERVICE_HOST": "127.0.0.1",
    "KUBERNETES_SERVICE_PORT": "1",
}
CAPABILITIES = ("NET_ADMIN", "NET_RAW")
IMPORT_ALL = """
import importlib, pkgutil, {package}
for found in pkgutil.walk_packages({package}.__path__, "{package}."):
    importlib.import_module(found.name)
"""


def given(account, *, without=(), user=None, files=True):
    """Flags of a container that is given all but some of what a Pod's manifest gives."""
    flags = [f"--env={name}={value}" for name, value in ENVIRONMENT.items() if name not in without]
    flags += [f"--cap-add={name}" for name in CAPABILITIES if name not in without]
    flags += [f"--volume={account}:{ACCOUNT}:ro"] if files else []
    return (*flags, *([f"--user={user}"] if user else []))


ENDS = [
    *(
        (f"no {name}", {"without": [name]}, ["run"], 3, f"environment variable {name} is not set")
        for name in ENVIRONMENT
    ),
    ("no token", {"files": False}, ["run"], 3, "mount the service account token in the Pod"),
    (
        "no NET_ADMIN",
        {"without": ["NET_ADMIN"]},
        ["run"],
        4,
        "needs the capability NET_ADMIN: add it to its securityContext",
    ),
    ("no NET_RAW", {"without": ["NET_RAW"]}, ["run"], 4, "needs the capability NET_RAW: add it to its securityContext"),
    ("no capability", {"without": CAPABILITIES}, ["run"], 4, "add it to its securityContext"),
    (
        "not UID 0",
        {"user": 1000},
        ["run"],
        4,
        "runs as UID 1000, for which its capabilities do not count: set runAsUser: 0",
    ),
    ("no such option", {}, ["run", "--nothing"], 2, "No such option"),
    ("no such command", {}, ["walk"], 2, "No such command 'walk'"),
    ("no such source", {}, ["run", "--source", "rumour"], 2, "Invalid value for '--source'"),
    ("negative drain", {}, ["run", "--drain-s", "-1"], 2, "Invalid value for '--drain-s'"),
]


@pytest.mark.parametrize(
    ("lacks", "arguments", "end"), [(*row[1:3], row[3:]) for row in ENDS], ids=[row[0] for row in ENDS]
)
def test_the_sidecar_says_what_it_lacks(docker, account, lacks, arguments, end):
    code, said = end
    ended = docker.run("holdfast-sidecar", *arguments, flags=given(account, **lacks))
    assert (ended.code, ended.out) == (code, "")
    assert said in ended.err
    assert "Traceback" not in ended.err
    if code != 2:
        assert ended.err.startswith("holdfast-sidecar: ")
        assert ended.err.count("\n") == 1


def test_the_sidecar_runs_as_a_pod_runs_it(docker, account):
    sidecar = docker.start("holdfast-sidecar", "run", "--drain-s", "0", flags=given(account))
    assert "127.0.0.1:1" in docker.first_line(sidecar, "retrying")
    assert docker.stop(sidecar) == 0


def test_the_controller_runs_as_its_deployment_runs_it(docker, account):
    controller = docker.start(
        "holdfast-controller", "run", "--identity", "me", flags=given(account, without=CAPABILITIES)
    )
    assert '"identity":"me_' in docker.first_line(controller, '"message":"started"')
    assert "host='127.0.0.1'" in docker.first_line(controller, "no answer")
    assert docker.stop(controller) == 0


def test_the_controller_says_that_it_is_in_no_cluster(docker):
    ended = docker.run("holdfast-controller", "run")
    assert ended.code == 3
    assert "set --kubeconfig PATH, or run in a Pod with a service account" in ended.err


@pytest.mark.parametrize(("image", "package"), [("holdfast-sidecar", "sidecar"), ("holdfast-controller", "controller")])
def test_every_module_finds_what_it_imports(docker, image, package):
    flags = ("--entrypoint=python",)
    ended = docker.run(image, "-c", IMPORT_ALL.format(package=package), flags=flags)
    assert (ended.code, ended.err) == (0, "")


@pytest.mark.parametrize("image", ["holdfast-sidecar", "holdfast-controller"])
def test_help_needs_no_shell(docker, image):
    masks = tuple(f"--volume=/dev/null:/usr/bin/{shell}:ro" for shell in ("bash", "dash"))
    ended = docker.run(image, "--help", flags=masks)
    assert ended.code == 0
    assert ended.out.startswith(f"Usage: {image} ")


def test_examples_run_a_file_without_privilege(docker, tmp_path):
    tmp_path.chmod(0o755)
    (tmp_path / "app.py").write_text("import os, socket, ssl, asyncio\nprint(os.getuid(), os.access('/', os.W_OK))\n")
    ended = docker.run("holdfast-examples", "/app/app.py", flags=(f"--volume={tmp_path}:/app:ro",))
    assert (ended.code, ended.out) == (0, "65532 False\n"), ended.err


def test_the_apps_of_the_examples_are_in_their_image(docker):
    every = "import sys; sys.path.insert(0, '/app'); import assignment, hello, tcp_server, udp_server"
    ended = docker.run("holdfast-examples", "-c", f"{every}; print(open('/app/tcp_server.sh').readline().strip())")
    assert (ended.code, ended.out) == (0, "#!/bin/sh\n"), ended.err


@pytest.mark.parametrize(("image", "user"), [("holdfast-sidecar", "0:0"), ("holdfast-controller", "65532:65532")])
def test_a_manifest_needs_arguments_only(docker, image, user):
    config = docker.inspect(f"{image}:{BUILT}")["Config"]
    assert (config["Entrypoint"], config["Cmd"], config["User"]) == ([image], None, user)
