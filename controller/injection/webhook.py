"""The admission webhook: gives a Pod its agent when it is created; `pod` decides, this speaks HTTPS.

`/mutate` answers AdmissionReview v1, `/healthz` whether the process serves, `/readyz` whether it may be asked: when its
watches are in step and it has its certificate. A certificate is exchanged without a restart. What this replica does
not know yet it does not answer (503), so that the webhook's failurePolicy decides, or another replica.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import os
import socket
import ssl
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final

import msgspec
import uvicorn
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from controller.injection.pod import admit, json_patch

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from starlette.requests import Request

    from controller.choice.objects import Selector
    from controller.injection.sidecar import Settings

    Space = tuple[Mapping[str, str], tuple[Selector, ...]]
    Asking = Callable[[str, Callable[[Space | None], None]], None]
    """Ask about a namespace: the answer, from another thread, is its labels and what its routes select, or None."""

NAMESPACE_LABEL: Final = "kubernetes.io/metadata.name"
MOST_BYTES: Final = 8 * 2**20
"""An object is at most 3 MiB in the API; a review has two of them, and more around them."""
ANSWER_S: Final = 1.5
"""Shorter than the shortest `timeoutSeconds` of the configuration, so that the API server gets the reason."""
_VERSION: Final = "admission.k8s.io/v1"
_KEEP_S: Final = 60
_END_S: Final = 2


class _Request(msgspec.Struct):
    uid: str
    object: dict[str, Any]
    namespace: str = ""


class _Review(msgspec.Struct, rename={"api_version": "apiVersion"}):
    request: _Request
    api_version: str
    kind: str


# made before there are threads: see controller.choice.objects
_read = msgspec.json.Decoder(_Review).decode


class BadReviewError(Exception):
    """What came is no AdmissionReview v1 of a Pod."""


def read_review(body: bytes) -> tuple[str, str, dict[str, Any]]:
    """Read an AdmissionReview.

    Returns:
        The request's UID, the namespace, and the Pod.

    Raises:
        BadReviewError: it is not one; says which field is wrong.
    """
    try:
        review = _read(body)
    except msgspec.DecodeError as error:
        raise BadReviewError(f"the body is no AdmissionReview {_VERSION}: {error}") from error
    if (review.api_version, review.kind) != (_VERSION, "AdmissionReview"):
        raise BadReviewError(
            f"the body is a {review.kind} {review.api_version}, not an AdmissionReview {_VERSION}: "
            "set admissionReviewVersions: [v1]"
        )
    pod = review.request.object
    if (pod.get("kind"), pod.get("apiVersion")) != ("Pod", "v1"):
        raise BadReviewError(
            f"request.object is a {pod.get('kind')} {pod.get('apiVersion')}, not a Pod v1: only Pods get an agent"
        )
    return review.request.uid, review.request.namespace, pod


def answer(uid: str, namespace: str, pod: dict[str, Any], space: Space, settings: Settings) -> dict[str, Any]:
    """Decide about a Pod, and say so as an AdmissionReview."""
    labels, selectors = space
    # a namespace so new that its watch has not shown it has a name all the same
    outcome = admit(pod, {NAMESPACE_LABEL: namespace, **labels}, selectors, settings)
    response: dict[str, Any] = {"uid": uid, "allowed": outcome.refused is None}
    if outcome.refused is not None:
        response["status"] = {"code": HTTPStatus.FORBIDDEN, "reason": "Forbidden", "message": outcome.refused}
    if outcome.warning is not None:
        response["warnings"] = [outcome.warning]
    if patch := json_patch(pod, outcome):
        response |= {"patchType": "JSONPatch", "patch": base64.b64encode(msgspec.json.encode(patch)).decode()}
    return {"apiVersion": _VERSION, "kind": "AdmissionReview", "response": response}


@dataclass(slots=True)
class Webhook:
    """The server; `run` is a thread's whole work.

    Attributes:
        ask: asks the thread that knows the cluster.
        settings: of what is added to a Pod.
        listening: where to serve, see `listen`.
        shown: certificate and key, PEM, to show until there are better ones.
    """

    ask: Asking
    settings: Settings
    listening: socket.socket
    shown: tuple[bytes, bytes]
    _tls: ssl.SSLContext = field(init=False)
    _loop: asyncio.AbstractEventLoop = field(init=False)
    _server: uvicorn.Server = field(init=False)
    _has_certificate: bool = False
    _draining: bool = False

    def __post_init__(self) -> None:
        self._tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._tls.minimum_version = ssl.TLSVersion.TLSv1_2
        _load(self._tls, *self.shown)
        self._loop = asyncio.new_event_loop()
        config = uvicorn.Config(
            self._app(),
            loop="asyncio",
            http="h11",
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_keep_alive=_KEEP_S,
            timeout_graceful_shutdown=_END_S,
            ssl_context_factory=lambda *_: self._tls,
        )
        self._server = uvicorn.Server(config)

    def run(self) -> None:
        """Serve until `stop`."""
        with contextlib.closing(self._loop), self.listening:
            self._loop.run_until_complete(self._server.serve([self.listening]))

    def drain(self) -> None:
        """Close each connection with its next answer; of any thread.

        The API server keeps connections, also after the replica has left the Service, and a request that crosses a
        connection's end is lost: it is not repeated.
        """
        self._draining = True

    def stop(self) -> None:
        """End; what is under way is answered first."""
        self._server.should_exit = True

    def use(self, certificate: bytes, key: bytes) -> None:
        """Show this certificate to every connection that comes from now on; of any thread."""
        # in the server's own thread: a handshake that is under way is not to see half of it
        self._loop.call_soon_threadsafe(self._use, certificate, key)

    def _use(self, certificate: bytes, key: bytes) -> None:
        _load(self._tls, certificate, key)
        self._has_certificate = True

    # what is served --------------------------------------------------------------------------------------------

    def _app(self) -> Starlette:
        return Starlette(
            routes=[
                Route("/mutate", self._mutate, methods=["POST"]),
                Route("/healthz", self._healthz),
                Route("/readyz", self._readyz),
            ]
        )

    async def _mutate(self, request: Request) -> Response:
        response = await self._decided(request)
        if self._draining:
            response.headers["Connection"] = "close"
        return response

    async def _decided(self, request: Request) -> Response:
        body = b""
        async for part in request.stream():
            body += part
            if len(body) > MOST_BYTES:
                too_long = f"the body is longer than {MOST_BYTES} bytes"
                return PlainTextResponse(too_long, HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
        try:
            uid, namespace, pod = read_review(body)
        except BadReviewError as error:
            return PlainTextResponse(str(error), HTTPStatus.BAD_REQUEST)
        space = await self._asked(namespace)
        if isinstance(space, str):
            return PlainTextResponse(space, HTTPStatus.SERVICE_UNAVAILABLE)
        review = msgspec.json.encode(answer(uid, namespace, pod, space, self.settings))
        return Response(review, media_type="application/json")

    async def _healthz(self, _: Request) -> Response:
        return PlainTextResponse("ok")

    async def _readyz(self, _: Request) -> Response:
        if not self._has_certificate:
            lacking = "there is no certificate yet: the leader makes it, or cert-manager"
            return PlainTextResponse(lacking, HTTPStatus.SERVICE_UNAVAILABLE)
        space = await self._asked("")
        if isinstance(space, str):
            return PlainTextResponse(space, HTTPStatus.SERVICE_UNAVAILABLE)
        return PlainTextResponse("ok")

    async def _asked(self, namespace: str) -> Space | str:
        """What is known of a namespace, or why it is not."""
        loop = asyncio.get_running_loop()
        known: asyncio.Future[Space | None] = loop.create_future()

        def settle(space: Space | None) -> None:
            if not known.done():  # whoever asked may have given up
                known.set_result(space)

        def tell(space: Space | None) -> None:
            with contextlib.suppress(RuntimeError):  # the server may have ended
                loop.call_soon_threadsafe(settle, space)

        self.ask(namespace, tell)
        try:
            space = await asyncio.wait_for(known, ANSWER_S)
        except TimeoutError:
            return f"this replica did not decide within {ANSWER_S:g} s: it is busy; try again"
        return space if space is not None else "this replica's watches are not in step yet; try again"


def listen(port: int) -> socket.socket:
    """Open the port, on every address of the Pod.

    Raises:
        OSError: it cannot be had.
    """
    if socket.has_dualstack_ipv6():
        return socket.create_server(("", port), family=socket.AF_INET6, dualstack_ipv6=True)
    return socket.create_server(("", port))


def _load(tls: ssl.SSLContext, certificate: bytes, key: bytes) -> None:
    """Give a context a certificate; the library reads files only, and the container's root is read-only."""
    with open(os.memfd_create("certificate"), "wb") as file:  # noqa: PTH123 - a descriptor, no path
        file.write(certificate + b"\n" + key)
        file.flush()
        tls.load_cert_chain(f"/proc/self/fd/{file.fileno()}")
