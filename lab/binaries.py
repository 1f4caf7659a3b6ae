"""The programs of control plane and nodes: named by the user, found in the cache, or built from the Go modules.

Order: the directory in KUBEBUILDER_ASSETS (taken as it is), then the user's cache, then a build from lab/kube/go.mod
(Multus: lab/multus/go.mod), whose go.sum says what every module must hash to. What was built is cached with its SHA-256
and checked at every use.
Nothing is downloaded but Go modules, by the `go` command, and that command itself where it is missing or too old
(`lab.go_toolchain`), and both only when something has to be built.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import hashlib
import json
import os
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from lab import go_toolchain
from lab.errors import BinaryError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from lab.go_toolchain import Go

    Progress = Callable[[str, int, int], None]
    """Called with what is being done, how many steps are done, and of how many."""
    Builder = Callable[[], Go]
    """Answers the `go` to build with, and finds or installs it when it is first called for."""

VERSION = "v1.34.4"
ENV_ASSETS = "KUBEBUILDER_ASSETS"
_KUBE, _MULTUS = (Path(__file__).resolve().parent / each for each in ("kube", "multus"))
_VERSION_VARIABLES = "k8s.io/component-base/version"
_LDFLAGS = (
    f"-s -w -X {_VERSION_VARIABLES}.gitVersion={VERSION} "
    f"-X {_VERSION_VARIABLES}.gitMajor=1 -X {_VERSION_VARIABLES}.gitMinor=34"
)
PACKAGES = {
    "etcd": "go.etcd.io/etcd/server/v3",
    "kube-apiserver": "k8s.io/kubernetes/cmd/kube-apiserver",
    "kube-controller-manager": "k8s.io/kubernetes/cmd/kube-controller-manager",
    "kube-scheduler": "k8s.io/kubernetes/cmd/kube-scheduler",
    "kubectl": "k8s.io/kubernetes/cmd/kubectl",
}
NODES = {
    "kubelet": "k8s.io/kubernetes/cmd/kubelet",
    "multus": "gopkg.in/k8snetworkplumbingwg/multus-cni.v4/cmd/multus",
}
"""Built only for real nodes: everything else does without them."""
_GATEWAY_MODULE = "sigs.k8s.io/gateway-api@v1.6.3"
_GATEWAY_SUM = "h1:lKpJa5bGlraC/QeACvCpsHLdmO6y0iKfzVl6gzaFEYc="
_SUMS = "SHA256SUMS"
_STAMP = "checked"
_ELSEWHERE = f"or build elsewhere and set {ENV_ASSETS} to the directory of " + ", ".join(PACKAGES)


@dataclass(frozen=True, slots=True)
class Binaries:
    """Where the programs are, and the Gateway API's CRDs (a directory of YAML)."""

    etcd: Path
    kube_apiserver: Path
    kube_controller_manager: Path
    kube_scheduler: Path
    kubectl: Path
    gateway_crds: Path
    kubelet: Path | None = None
    """This and `multus` only where real nodes were asked for."""
    multus: Path | None = None


def _silent(_what: str, _done: int, _of: int) -> None:
    """Nobody wants to know."""


def find(progress: Progress = _silent, cache: Path | None = None, *, real: bool = False) -> Binaries:
    """Find or build everything; some minutes the first time, nothing afterwards.

    Args:
        progress: told what is under way.
        cache: another place than the user's cache.
        real: whether the programs of real nodes are needed too.

    Raises:
        BinaryError: a program is missing or damaged and cannot be built; says what to do.
    """
    root = cache or user_cache()
    assets = os.environ.get(ENV_ASSETS)
    wanted = {**PACKAGES, **NODES} if real else PACKAGES
    steps = len(wanted) + 1
    go = functools.cache(lambda: go_toolchain.find(root, lambda: progress("downloading Go (75 MB)", 0, steps)))
    with _locked(root):
        crds = _gateway_crds(root, go, lambda: progress("the Gateway API's definitions", 0, steps))
        if assets:
            return _named(Path(assets), crds, wanted)
        folder = root / "bin"
        for done, name in enumerate(wanted, start=1):
            _ensure(folder, name, go, lambda name=name, done=done: progress(f"building {name}", done, steps))  # type: ignore[misc]
    return _binaries(folder, crds, wanted)


def user_cache() -> Path:
    """Where the lab keeps what took long to make."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "holdfast"


@contextlib.contextmanager
def _locked(root: Path) -> Iterator[None]:
    """One builder at a time; the others wait and then find it built."""
    try:
        root.mkdir(parents=True, exist_ok=True)
        lock = (root / "lock").open("w")
    except OSError as error:
        raise BinaryError(
            f"cannot write {root} ({error.strerror}): set XDG_CACHE_HOME to a writable directory"
        ) from error
    with lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _binaries(folder: Path, crds: Path, wanted: Iterable[str]) -> Binaries:
    etcd, api_server, manager, scheduler, kubectl = (folder / name for name in PACKAGES)
    nodes = [folder / name for name in NODES if name in wanted]
    return Binaries(etcd, api_server, manager, scheduler, kubectl, crds, *nodes)


def _named(folder: Path, crds: Path, wanted: Iterable[str]) -> Binaries:
    missing = [name for name in wanted if not os.access(folder / name, os.X_OK)]
    if missing:
        raise BinaryError(f"{ENV_ASSETS}={folder} has no {', '.join(missing)}: put them there, or unset {ENV_ASSETS}")
    return _binaries(folder, crds, wanted)


# the cache -----------------------------------------------------------------------------------------------------


def _ensure(folder: Path, name: str, go: Builder, building: Callable[[], None]) -> None:
    path, sums = folder / name, _sums(folder)
    lacking = f"{name} is not in {folder}"
    if path.exists() and name in sums:
        if _is_intact(path, sums[name]):
            return
        path.unlink()
        lacking = f"{path} was changed since it was built (its SHA-256 differs) and was removed"
    builder = _builder(go, lacking, _ELSEWHERE)
    building()
    _build(builder, folder, name)
    sums[name] = _sha256(path)
    _write_sums(folder, sums)


def _is_intact(path: Path, expected: str) -> bool:
    """Hash a program, but only when its inode has changed since it was last found good: 350 MB take 0.4 s."""
    status = path.stat()
    seen = f"{expected} {status.st_ino} {status.st_size} {status.st_mtime_ns} {status.st_ctime_ns}"
    stamp = path.with_name(f".{path.name}.{_STAMP}")
    if stamp.exists() and stamp.read_text() == seen:
        return True
    if _sha256(path) != expected:
        return False
    stamp.write_text(seen)
    return True


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sums(folder: Path) -> dict[str, str]:
    path = folder / _SUMS
    if not path.exists():
        return {}
    lines = (line.split() for line in path.read_text().splitlines())
    return {parts[1]: parts[0] for parts in lines if len(parts) == 2}


def _write_sums(folder: Path, sums: dict[str, str]) -> None:
    new = folder / f".{_SUMS}"
    new.write_text("".join(f"{digest}  {name}\n" for name, digest in sorted(sums.items())))
    new.replace(folder / _SUMS)


# building ------------------------------------------------------------------------------------------------------


def _builder(go: Builder, lacking: str, otherwise: str) -> Go:
    try:
        return go()
    except BinaryError as error:
        raise BinaryError(f"{lacking}, and {error}, {otherwise}") from error


def _build(go: Go, folder: Path, name: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".build-") as fresh:
        built = Path(fresh) / name
        package = (PACKAGES | NODES)[name]
        arguments = ["build", "-trimpath", "-ldflags", _LDFLAGS, "-o", str(built), package]
        _run(go, arguments, f"build {name}", _MULTUS if name == "multus" else _KUBE)
        built.replace(folder / name)


def _run(go: Go, arguments: list[str], what: str, module: Path = _KUBE) -> str:
    environment = {**os.environ, **go.environment, "CGO_ENABLED": "0", "GOWORK": "off"}
    command = [go.command, *arguments]
    done = subprocess.run(command, cwd=module, env=environment, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        said = "\n".join((done.stderr or done.stdout).strip().splitlines()[-12:])
        raise BinaryError(
            f"cannot {what}: `go {arguments[0]}` said\n{said}\nIf it cannot reach a Go module proxy, set GOPROXY, "
            f"{_ELSEWHERE}"
        )
    return done.stdout


def _gateway_crds(root: Path, go: Builder, fetching: Callable[[], None]) -> Path:
    """The standard CRDs of the Gateway API's release, copied from its Go module after its hash was compared."""
    folder = root / f"gateway-api-{_GATEWAY_MODULE.rpartition('@')[2]}"
    if folder.is_dir():
        return folder
    lacking = f"the Gateway API's definitions are not in {folder}"
    builder = _builder(go, lacking, f"or copy {root} from a machine that has built it")
    fetching()
    module = json.loads(_run(builder, ["mod", "download", "-json", _GATEWAY_MODULE], f"download {_GATEWAY_MODULE}"))
    if module["Sum"] != _GATEWAY_SUM:
        raise BinaryError(
            f"{_GATEWAY_MODULE} has the hash {module['Sum']}, not {_GATEWAY_SUM}: "
            "the module proxy (GOPROXY) serves another file, use one that serves the original"
        )
    with tempfile.TemporaryDirectory(dir=root, prefix=".crds-") as fresh:
        copy = Path(fresh) / "copy"
        copy.mkdir()
        for source in sorted(Path(module["Dir"], "config", "crd", "standard").glob("*.yaml")):
            shutil.copyfile(source, copy / source.name)
        copy.replace(folder)
    return folder
