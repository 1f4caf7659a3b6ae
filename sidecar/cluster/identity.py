"""Who this Pod is and how it reaches the API server: what the manifest and the kubelet give to the container."""

from __future__ import annotations

import os
import ssl
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar

from sidecar.errors import EnvironmentMissing

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path


@dataclass(frozen=True, slots=True)
class Identity:
    """This Pod.

    Attributes:
        uid: tells it from an earlier Pod of the same name; a StatefulSet makes those.
        server: URL of the API server.
    """

    name: str
    namespace: str
    uid: str
    server: str


def read_identity(environment: Mapping[str, str] | None = None) -> Identity:
    """Read it from the environment.

    Raises:
        EnvironmentMissing: a variable is not set; the message says where it comes from.
    """
    environment = os.environ if environment is None else environment

    def get(name: str, source: str) -> str:
        if value := environment.get(name):
            return value
        raise EnvironmentMissing(f"environment variable {name} is not set; {source}")

    downward = "set it in the container's env from the downward API (valueFrom.fieldRef)"
    host = get("KUBERNETES_SERVICE_HOST", "the kubelet sets it in every Pod")
    port = get("KUBERNETES_SERVICE_PORT", "the kubelet sets it in every Pod")
    return Identity(
        name=get("POD_NAME", downward),
        namespace=get("POD_NAMESPACE", downward),
        uid=get("POD_UID", downward),
        server=f"https://{f'[{host}]' if ':' in host else host}:{port}",
    )


T = TypeVar("T")


class RenewedFile(Generic[T]):
    """What a file says that the kubelet renews: read again when it is another file.

    Args:
        path: the file.
        read: makes of it what is wanted; raises OSError or ValueError where that cannot be made.
        what: what the file is, for the error.
    """

    def __init__(self, path: Path, read: Callable[[Path], T], what: str) -> None:
        self._path = path
        self._read = read
        self._what = what
        self._stamp: tuple[int, int] | None = None
        self._last: T | None = None

    def __call__(self) -> T:
        """Give what it says now; while it is being replaced, or is damaged, what it said last.

        Raises:
            EnvironmentMissing: it could never be read.
        """
        try:
            status = self._path.stat()
            stamp = (status.st_mtime_ns, status.st_ino)
            if stamp != self._stamp:
                self._last = self._read(self._path)
                self._stamp = stamp
        except (OSError, ValueError) as error:
            if self._last is None:
                said = (error.strerror if isinstance(error, OSError) else "") or error
                raise EnvironmentMissing(
                    f"{self._what} {self._path}: {said}; mount the service account token in the Pod"
                ) from error
        assert self._last is not None  # noqa: S101 - set above, now or before
        return self._last


def token_file(path: Path) -> RenewedFile[str]:
    """Read the Pod's bound token."""

    def read(found: Path) -> str:
        if token := found.read_text().strip():
            return token
        raise ValueError("it is empty")

    return RenewedFile(path, read, "token")


def certificates_file(path: Path) -> RenewedFile[ssl.SSLContext]:
    """Read the certificates that may sign the API server's; a cluster's authority is replaced while Pods run."""

    def read(found: Path) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.load_verify_locations(found)
        return context

    return RenewedFile(path, read, "certificate")
