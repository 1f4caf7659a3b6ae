"""Keeps the webhook's certificate: the leader writes it where it is wrong or due, every replica serves what is there.

Two objects: the Secret with authority, certificate and keys, and the MutatingWebhookConfiguration, whose `caBundle`
says whom the API server trusts. Every replica follows the Secret and hands what it finds to its server. The leader
alone mends. Where something else makes the certificate (cert-manager), nothing is written. Not promised: that no Pod is
refused in the moment in which a damaged authority is replaced.
"""

from __future__ import annotations

import base64
import datetime as dt
import queue
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import msgspec

from contract.decode import named_error
from contract.names import SYSTEM_NAMESPACE
from controller.choice.objects import Object
from controller.cluster.kube import JSON, MERGE, STRATEGIC
from controller.cluster.reflector import Listed, One, Seen, Trouble
from controller.errors import ApiError, Conflict, Forbidden, NotFound
from controller.injection import certificate

if TYPE_CHECKING:
    from collections.abc import Callable

    from controller.cluster.kube import Session
    from controller.injection.certificate import Data
    from controller.journal import Journal

SECRET: Final = "holdfast-webhook"  # noqa: S105 - its name
SERVICE: Final = "holdfast-webhook"
CONFIGURATION: Final = "holdfast-webhook"
NAMES: Final = tuple(f"{SERVICE}.{SYSTEM_NAMESPACE}.svc{rest}" for rest in ("", ".cluster.local"))
"""The API server asks for the first of these."""

_SECRETS: Final = f"/api/v1/namespaces/{SYSTEM_NAMESPACE}/secrets"
_CONFIGURATIONS: Final = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations"
_LABELS: Final = {"app.kubernetes.io/part-of": "holdfast"}
_AGAIN_S: Final = 1.0
_LOOK_S: Final = 600.0
"""How often the time of day is looked at: it may be set while nothing else happens."""


class Secret(Object, frozen=True):
    """Core v1; the JSON's base64 is taken off."""

    data: dict[str, bytes] | None = None


class ClientConfig(msgspec.Struct, frozen=True, rename="camel"):
    """How the API server reaches a webhook."""

    ca_bundle: bytes = b""


class Hook(msgspec.Struct, frozen=True, rename="camel"):
    """One webhook of a configuration."""

    name: str
    client_config: ClientConfig = ClientConfig()


class Configuration(Object, frozen=True):
    """MutatingWebhookConfiguration, admissionregistration.k8s.io/v1."""

    webhooks: tuple[Hook, ...] | None = None


@dataclass(frozen=True, slots=True)
class Wake:
    """Something else has changed: whether this replica leads."""


@dataclass(frozen=True, slots=True)
class End:
    """End the thread."""


# made before there are threads: see controller.choice.objects
_read_secret = msgspec.json.Decoder(Secret).decode
_read_configuration = msgspec.json.Decoder(Configuration).decode


def _secret(raw: bytes | msgspec.Raw) -> Secret:
    try:
        return _read_secret(raw)
    except msgspec.DecodeError as error:
        raise named_error(f"Secret {SYSTEM_NAMESPACE}/{SECRET}", error) from error


def _configuration(raw: bytes | msgspec.Raw) -> Configuration:
    try:
        return _read_configuration(raw)
    except msgspec.DecodeError as error:
        raise named_error(f"MutatingWebhookConfiguration {CONFIGURATION}", error) from error


FOLLOWED: Final[dict[type[Any], One]] = {
    Secret: One(_SECRETS, SECRET, _secret),
    Configuration: One(_CONFIGURATIONS, CONFIGURATION, _configuration),
}
"""What is followed by a reflector each, which puts it into the keeper's inbox."""


def _utc() -> dt.datetime:
    return dt.datetime.now(dt.UTC)


@dataclass(slots=True)
class Keeper:
    """One replica's part.

    Attributes:
        session: used by this keeper's thread alone.
        may_write: whether this replica leads, at this instant.
        serve: called with certificate and key, PEM, when there are new ones.
        journal: where changes and troubles are told.
        own: whether holdfast makes the certificate; else something else does.
        clock: the time of day.
    """

    session: Session
    may_write: Callable[[], bool]
    serve: Callable[[bytes, bytes], None]
    journal: Journal
    own: bool = True
    clock: Callable[[], dt.datetime] = _utc
    inbox: queue.SimpleQueue[Any] = field(default_factory=queue.SimpleQueue)
    _known: dict[type[Any], Any] = field(default_factory=dict)
    _served: Data = field(default_factory=dict)
    _pause_s: float = _LOOK_S

    def run(self) -> None:
        """Keep it until told to end."""
        while True:
            try:
                item = self.inbox.get(timeout=self._pause_s)
            except queue.Empty:
                item = Wake()
            if isinstance(item, End):
                return
            self._take(item)
            if self.inbox.empty():
                self._act()

    def _take(self, item: Any) -> None:
        match item:
            case Listed(kind, items, _):
                self._known[kind] = next(iter(items), None)
            case Seen(kind, seen, gone):
                if gone:
                    self._known[kind] = None
                elif _newer(seen, self._known.get(kind)):
                    self._known[kind] = seen
            case Trouble(subject, text):
                self.journal.trouble(subject, text)

    def _act(self) -> None:
        self._pause_s = _LOOK_S
        if Secret not in self._known:
            return
        data = self._data()
        wrong = certificate.problem(data, NAMES, self.clock())
        # others' may come from an authority that the API server knows by other ways: that is theirs to judge
        if not wrong or (not self.own and not certificate.unusable(data)):
            self._serve(data)
        if not self.own:
            advice = "; see why what makes it (cert-manager: its Certificate) does not mend it" if wrong else ""
            self._trouble(f"{wrong}{advice}")
            return
        if not self.may_write():
            return
        try:
            self._mend(data)
        except Conflict:
            self._pause_s = _AGAIN_S  # the watch will tell
        except ApiError as error:
            self._pause_s = _AGAIN_S
            advice = "; apply deploy/overlays/injection" if isinstance(error, (Forbidden, NotFound)) else ""
            self._trouble(f"{error}{advice}")
        else:
            left_s = (certificate.next_renewal(self._data()) - self.clock()).total_seconds()
            self._pause_s = max(0.0, min(_LOOK_S, left_s))

    def _data(self) -> Data:
        secret: Secret | None = self._known[Secret]
        return dict(secret.data or {}) if secret is not None else {}

    def _serve(self, data: Data) -> None:
        pair = {key: data[key] for key in (certificate.CERT, certificate.KEY)}
        if pair != self._served:
            self.serve(pair[certificate.CERT], pair[certificate.KEY])
            self._served = pair
            self.journal.tell("the webhook serves the certificate of the Secret", secret=f"{SYSTEM_NAMESPACE}/{SECRET}")

    # what the leader does --------------------------------------------------------------------------------------

    def _mend(self, found: Data) -> None:
        data, why = certificate.mended(found, NAMES, self.clock())
        if why:
            self._known[Secret] = _secret(self._write(data))
            self.journal.tell(f"Secret {SYSTEM_NAMESPACE}/{SECRET} written: {why}")
            self._serve(data)
        self._trouble(self._trust(data[certificate.CA_CERT]) if Configuration in self._known else "")

    def _write(self, data: Data) -> bytes:
        secret: Secret | None = self._known[Secret]
        encoded = {key: base64.b64encode(value).decode() for key, value in data.items()}
        if secret is None:
            metadata = {"name": SECRET, "labels": _LABELS}
            body = {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "type": "Opaque", "data": encoded}
            return self.session.request("POST", _SECRETS, body, content_type=JSON)
        body = {"metadata": {"resourceVersion": secret.metadata.resource_version}, "data": encoded}
        return self.session.request("PATCH", f"{_SECRETS}/{SECRET}", body, content_type=MERGE)

    def _trust(self, bundle: bytes) -> str:
        """Set every `caBundle` that is another; says what is wrong with the configuration, ``""``: nothing."""
        configuration: Configuration | None = self._known[Configuration]
        if configuration is None:
            return (
                f"MutatingWebhookConfiguration {CONFIGURATION} is not there, so no Pod gets the agent by itself: apply "
                "deploy/overlays/injection, or run without --webhook-port"
            )
        other = [hook.name for hook in configuration.webhooks or () if hook.client_config.ca_bundle != bundle]
        if not other:
            return ""
        text = base64.b64encode(bundle).decode()
        body = {
            "metadata": {"resourceVersion": configuration.metadata.resource_version},
            "webhooks": [{"name": name, "clientConfig": {"caBundle": text}} for name in other],
        }
        answer = self.session.request("PATCH", f"{_CONFIGURATIONS}/{CONFIGURATION}", body, content_type=STRATEGIC)
        self._known[Configuration] = _configuration(answer)
        self.journal.tell(f"MutatingWebhookConfiguration {CONFIGURATION}: caBundle of {', '.join(other)} set")
        return ""

    def _trouble(self, text: str) -> None:
        self.journal.trouble(f"Secret {SYSTEM_NAMESPACE}/{SECRET}", text)


def _newer(item: Any, known: Any) -> bool:
    return known is None or known.metadata.uid != item.metadata.uid or _version(known) < _version(item)


def _version(item: Object) -> int:
    return int(item.metadata.resource_version or 0)
