"""The controller's command line: what it says about a webhook that it cannot serve, and what it does not load."""

from __future__ import annotations

import json
import socket
import subprocess
import sys

import pytest
import yaml

KUBECONFIG = {
    "apiVersion": "v1",
    "kind": "Config",
    "current-context": "c",
    "clusters": [{"name": "c", "cluster": {"server": "https://127.0.0.1:1"}}],
    "users": [{"name": "u", "user": {"token": "t"}}],
    "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
}
RUN = [sys.executable, "-m", "controller.cli", "run"]


def test_a_port_that_is_taken_is_named(tmp_path):
    kubeconfig = tmp_path / "kubeconfig"
    kubeconfig.write_text(yaml.safe_dump(KUBECONFIG))
    with socket.create_server(("", 0)) as taken:
        port = taken.getsockname()[1]
        command = [*RUN, "--kubeconfig", str(kubeconfig), "--webhook-port", str(port)]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 2
    said = json.loads(done.stderr.splitlines()[-1])["message"]
    assert said == f"--webhook-port {port}: Address already in use; end what uses the port, or choose another"


@pytest.mark.parametrize(
    "arguments", [["--webhook-port", "0"], ["--webhook-port", "8443", "--webhook-certificate", "no"]]
)
def test_a_wrong_option_is_refused(arguments):
    done = subprocess.run([*RUN, *arguments], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 2
    assert f"Invalid value for '{arguments[-2]}'" in done.stderr


def test_without_a_webhook_its_libraries_are_not_loaded():
    code = "import sys, controller.cli; print(*sys.modules)"
    loaded = set(subprocess.check_output([sys.executable, "-c", code], text=True, timeout=60).split())
    assert "controller.loop" in loaded
    assert loaded & {"cryptography", "starlette", "uvicorn", "controller.injection.service"} == set()
