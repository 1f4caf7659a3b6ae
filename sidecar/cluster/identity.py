"""Who this Pod is and how it reaches the API server: what the manifest and the kubelet give to the container."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sidecar.errors import EnvironmentMissing

if TYPE_CHECKING:
    from collections.abc import Mapping
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


class TokenFile:
    """The Pod's bound token, read again when the kubelet has replaced it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._stamp: tuple[int, int] | None = None
        self._token = ""

    def __call__(self) -> str:
        """Give the token.

        Raises:
            EnvironmentMissing: there is no token to read.
        """
        try:
            status = self._path.stat()
            stamp = (status.st_mtime_ns, status.st_ino)
            if stamp != self._stamp:
                self._token = self._path.read_text().strip()
                self._stamp = stamp
        except OSError as error:
            if not self._token:  # while it is being replaced the last one still serves
                raise EnvironmentMissing(
                    f"token {self._path}: {error.strerror}; mount the service account token in the Pod"
                ) from error
        return self._token
