"""One collection, followed for ever: list, then watch with bookmarks; again from the last version, or from a new list.

A reflector runs in a thread of its own, decodes there, and puts what it has seen into the loop's queue: `Listed` once
for every list, then `Seen` for every change. An object that cannot be read is a `Trouble` and stops no other. Not
promised: that no version is skipped. Whoever listens compares states.
"""

from __future__ import annotations

import functools
import random
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import msgspec

from contract.errors import ContractError
from contract.lease import LeaseView
from controller.choice.objects import (
    Gateway,
    GatewayClass,
    Namespace,
    Network,
    Pod,
    Route,
    decode,
    decode_lease_object,
    decode_route,
)
from controller.errors import ApiError, Gone, NotFound

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable

    from controller.choice.snapshot import Item
    from controller.cluster.kube import Session

BACKOFF_FIRST_S: Final = 0.05
BACKOFF_MAX_S: Final = 1.0
"""An API server that is back is noticed within this time; seven watches a second are no load."""
RBAC: Final = "deploy/base/rbac.yaml"
SHORT_S: Final = 1.0
"""A watch that ends sooner counts as a failure, so that no server can make us spin."""

PATHS: Final[dict[type[Any], str]] = {
    GatewayClass: "/apis/gateway.networking.k8s.io/v1/gatewayclasses",
    Gateway: "/apis/gateway.networking.k8s.io/v1/gateways",
    Route: "/apis/networking.gke.io/v1/gkeiproutes",
    Network: "/apis/networking.gke.io/v1/networks",
    Namespace: "/api/v1/namespaces",
    Pod: "/api/v1/pods",
    LeaseView: "/apis/coordination.k8s.io/v1/leases",
}


@dataclass(frozen=True, slots=True)
class Listed:
    """All objects of a kind, as of a version."""

    kind: type[Any]
    items: list[Item]
    version: str


@dataclass(frozen=True, slots=True)
class Seen:
    """A version of one object; `gone`: its last."""

    kind: type[Any]
    item: Item
    gone: bool


@dataclass(frozen=True, slots=True)
class Trouble:
    """Something to tell people; said once until it changes."""

    subject: str
    text: str


class _Meta(msgspec.Struct, rename="camel"):
    resource_version: str = ""


class _Versioned(msgspec.Struct):
    metadata: _Meta


_read_version = msgspec.json.Decoder(_Versioned).decode  # made before there are threads: see objects


@dataclass(frozen=True, slots=True)
class One:
    """One object of a collection, for those who may read no other, and how it is read."""

    path: str
    name: str
    read: Callable[[bytes | msgspec.Raw], Any]


class Reflector:
    """Follows the collection of one kind, or `one` object of it."""

    def __init__(
        self,
        kind: type[Any],
        session: Session,
        put: Callable[[Any], None],
        stop: threading.Event,
        one: One | None = None,
    ) -> None:
        self._kind = kind
        self._path = one.path if one else PATHS[kind]
        self._name = one.name if one else ""
        self._read = one.read if one else functools.partial(decoded, kind)
        self._session = session
        self._put = put
        self._stop = stop
        self._version = ""

    def run(self) -> None:
        """Follow until told to stop."""
        failures = 0
        while not self._stop.is_set():
            try:
                if not self._version:
                    self._list()
                    self._put(Trouble(self._path, ""))
                began_s = time.monotonic()
                for kind, raw in self._session.watch(self._path, self._version, self._name):
                    failures = 0
                    self._take(kind, raw)
                    if self._stop.is_set():
                        return
                if time.monotonic() - began_s >= SHORT_S:
                    failures = 0
                    continue
                failures += 1
            except Gone:
                self._version = ""
                failures += 1
            except ApiError as error:
                failures += 1
                self._put(Trouble(self._path, _advice(error, "deploy/overlays/injection" if self._name else RBAC)))
            self._stop.wait(_pause_s(failures))

    def _list(self) -> None:
        listed = self._session.list(self._path, self._name)
        items = [item for raw in listed.items if (item := self._decoded(raw)) is not None]
        self._version = listed.version
        self._put(Listed(self._kind, items, listed.version))

    def _take(self, kind: str, raw: msgspec.Raw) -> None:
        self._version = _read_version(raw).metadata.resource_version
        if kind == "BOOKMARK":
            return
        item = self._decoded(raw)
        if item is not None:
            self._put(Seen(self._kind, item, kind == "DELETED"))

    def _decoded(self, raw: msgspec.Raw) -> Any:
        try:
            return self._read(raw)
        except ContractError as error:
            self._put(Trouble(error.where, f"{error}; correct it, until then its last readable version counts"))
            return None


def decoded(kind: type[Any], raw: bytes | msgspec.Raw) -> Item:
    """Read an object of a kind.

    Raises:
        ContractError: it cannot be read; object and field are named.
    """
    if kind is LeaseView:
        return decode_lease_object(raw)
    if kind is Route:
        return decode_route(raw)
    found: Item = decode(raw, kind, kind.__name__)
    return found


def _advice(error: ApiError, rbac: str = RBAC) -> str:
    if isinstance(error, NotFound):
        return f"{error}; install the CRDs of holdfast (deploy/base/crds.yaml) and of the Gateway API"
    if error.code in (401, 403):
        return f"{error}; apply {rbac} and check the controller's token"
    return str(error)


def _pause_s(failures: int) -> float:
    pause_s: float = min(BACKOFF_MAX_S, BACKOFF_FIRST_S * 2.0 ** min(failures, 10))
    return pause_s * random.uniform(0.5, 1.0)  # noqa: S311 - jitter
