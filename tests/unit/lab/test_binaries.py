"""Where the control plane's programs come from, and what is said when they cannot; `go` is a script here."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from lab import binaries
from lab.binaries import NODES, PACKAGES, find
from lab.errors import BinaryError

if TYPE_CHECKING:
    from pathlib import Path

CRDS = "gateway-api-v1.6.3"


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty cache, but for the definitions; nothing is named by the user, there is no `go`, and pip finds none."""
    monkeypatch.delenv(binaries.ENV_ASSETS, raising=False)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "path"))
    monkeypatch.setenv("PATH", str(tmp_path / "path"))
    (tmp_path / "path").mkdir()
    (tmp_path / "cache" / CRDS).mkdir(parents=True)
    return tmp_path / "cache"


@pytest.fixture
def go(tmp_path, cache):
    """A `go` that builds: it writes down its arguments and makes the file after `-o`."""
    assert cache
    return _script(
        tmp_path / "path" / "go",
        """
        import pathlib, sys
        if sys.argv[1] == "version":
            sys.exit(print("go version go1.24.0 linux/amd64"))
        log = pathlib.Path(__file__).with_suffix(".log")
        log.open("a").write(sys.argv[-1] + "\\n")
        out = pathlib.Path(sys.argv[sys.argv.index("-o") + 1])
        out.write_text("built from " + sys.argv[-1])
        out.chmod(0o755)
        """,
    )


def _script(path: Path, code: str) -> Path:
    lines = [line.removeprefix("        ") for line in code.strip("\n").splitlines()]
    path.write_text("\n".join([f"#!{sys.executable}", *lines]) + "\n")
    path.chmod(0o755)
    return path


def _built(go: Path) -> list[str]:
    log = go.with_suffix(".log")
    return log.read_text().splitlines() if log.exists() else []


def test_everything_is_built_once_and_told(cache, go):
    told = []
    found = find(lambda *step: told.append(step), cache)
    assert found.kubectl == cache / "bin" / "kubectl"
    assert found.gateway_crds == cache / CRDS
    assert _built(go) == list(PACKAGES.values())
    assert told == [(f"building {name}", done, 6) for done, name in enumerate(PACKAGES, start=1)]
    find(cache=cache)
    assert _built(go) == list(PACKAGES.values())


def test_what_real_nodes_need_is_built_only_where_they_are_asked_for(cache, go):
    assert find(cache=cache).kubelet is None
    told = []
    found = find(lambda *step: told.append(step), cache, real=True)
    assert (found.kubelet, found.multus) == (cache / "bin" / "kubelet", cache / "bin" / "multus")
    assert told == [("building kubelet", 6, 8), ("building multus", 7, 8)]
    find(cache=cache, real=True)
    assert _built(go) == [*PACKAGES.values(), *NODES.values()]
    (cache / "bin" / "kubelet").write_text("changed")
    find(cache=cache, real=True)
    assert _built(go)[-1] == NODES["kubelet"]


def test_sums_are_kept_as_sha256sum_writes_them(cache, go):
    assert go
    find(cache=cache)
    checked = ["/usr/bin/sha256sum", "--check", "--strict", "SHA256SUMS"]
    subprocess.run(checked, cwd=cache / "bin", check=True, capture_output=True)


def test_a_damaged_program_is_built_again(cache, go):
    find(cache=cache)
    damaged = cache / "bin" / "kube-scheduler"
    damaged.write_text("built from something else")
    find(cache=cache)
    assert _built(go)[len(PACKAGES) :] == [PACKAGES["kube-scheduler"]]
    assert damaged.read_text() == f"built from {PACKAGES['kube-scheduler']}"


def test_a_damaged_program_without_go_is_removed_and_named(cache, go):
    find(cache=cache)
    go.unlink()
    damaged = cache / "bin" / "etcd"
    damaged.write_bytes(b"\0")
    with pytest.raises(BinaryError, match=r"(?s)bin/etcd was changed since it was built .*Install Go"):
        find(cache=cache)
    assert not damaged.exists()


def test_a_program_of_unknown_origin_is_not_trusted(cache, go):
    (cache / "bin").mkdir()
    (cache / "bin" / "etcd").write_text("left by somebody")
    find(cache=cache)
    assert PACKAGES["etcd"] in _built(go)


def test_neither_programs_nor_go(cache):
    with pytest.raises(BinaryError, match=r"(?s)etcd is not in .*no `go`.*Install Go 1\.24 .* KUBEBUILDER_ASSETS"):
        find(cache=cache)


def test_neither_definitions_nor_go(cache):
    (cache / CRDS).rmdir()
    said = r"(?s)Gateway API's definitions are not in .* or copy .*cache from a machine"
    with pytest.raises(BinaryError, match=said):
        find(cache=cache)


def test_programs_that_are_there_need_no_go(cache, go):
    find(cache=cache)
    go.unlink()
    assert find(cache=cache).etcd == cache / "bin" / "etcd"


def test_a_build_that_fails_says_what_go_said_and_leaves_nothing(tmp_path, cache):
    _script(
        tmp_path / "path" / "go",
        """
        import sys
        if sys.argv[1] == "version":
            sys.exit(print("go version go1.24.0 linux/amd64"))
        sys.exit("dial tcp: lookup modules.invalid: no such host")
        """,
    )
    with pytest.raises(BinaryError, match=r"(?s)cannot build etcd.*no such host.*GOPROXY"):
        find(cache=cache)
    assert list((cache / "bin").iterdir()) == []


def test_definitions_with_another_hash_are_refused(tmp_path, cache):
    (cache / CRDS).rmdir()
    _script(
        tmp_path / "path" / "go",
        """
        import sys
        print("go version go1.24.0" if sys.argv[1] == "version" else '{"Sum": "h1:other", "Dir": "/nowhere"}', "")
        """,
    )
    with pytest.raises(BinaryError, match="h1:other"):
        find(cache=cache)


def test_what_the_user_names_is_taken(tmp_path, cache, monkeypatch):
    named = tmp_path / "named"
    named.mkdir()
    monkeypatch.setenv(binaries.ENV_ASSETS, str(named))
    for name in PACKAGES:
        _script(named / name, "        pass")
    assert find(cache=cache).kube_apiserver == named / "kube-apiserver"


def test_what_the_user_names_must_have_the_kubelet_for_real_nodes(tmp_path, cache, monkeypatch):
    monkeypatch.setenv(binaries.ENV_ASSETS, str(tmp_path))
    for name in PACKAGES:
        _script(tmp_path / name, "        pass")
    assert find(cache=cache).kubelet is None
    with pytest.raises(BinaryError, match=r"has no kubelet, multus: put them there"):
        find(cache=cache, real=True)


def test_what_the_user_names_must_be_complete(tmp_path, cache, monkeypatch):
    monkeypatch.setenv(binaries.ENV_ASSETS, str(tmp_path))
    with pytest.raises(BinaryError, match=r"has no etcd, .*kubectl: put them there, or unset KUBEBUILDER_ASSETS"):
        find(cache=cache)


def test_a_cache_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(BinaryError, match="XDG_CACHE_HOME"):
        find(cache=tmp_path / "file" / "cache")
