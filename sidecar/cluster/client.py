"""HTTP to the API server: one request, or one watch, over asyncio streams, TLS and h11.

The point of this file is its errors. A write that was not answered is not a write that failed, and the holder's
protocol rests on the difference: `Refused` was certainly not applied, `Unknown` may have been, or may be yet.

Not promised: HTTP/2, proxies, redirects, anything that the two kinds of request here do not need.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

import h11
import msgspec

from sidecar.errors import ApiError, Conflict, Forbidden, Gone, Invalid, NotFound, Unknown, Unreachable

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncGenerator, Callable

MERGE_PATCH: Final = "application/merge-patch+json"

_READ_BYTES: Final = 1 << 16
_MAX_BYTES: Final = 8 << 20
"""More than any object of the API server (etcd takes 1.5 MiB); beyond it something else is answering."""
_CONNECT_S: Final = 5.0
# a peer that went silently is noticed after 11 s by the kernel, at no cost to us
_KEEPALIVE: Final = ((socket.TCP_KEEPIDLE, 5), (socket.TCP_KEEPINTVL, 2), (socket.TCP_KEEPCNT, 3))
_BY_CODE: Final[dict[int, type[ApiError]]] = {
    401: Forbidden,
    403: Forbidden,
    404: NotFound,
    409: Conflict,
    410: Gone,
}
_CUT: Final = (OSError, EOFError, h11.RemoteProtocolError)


class _Status(msgspec.Struct):
    message: str = ""
    code: int = 0


class _WatchEvent(msgspec.Struct):
    type: str
    object: msgspec.Raw = msgspec.Raw(b"null")


class _Connection:
    """One TCP connection and its HTTP state."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._http = h11.Connection(h11.CLIENT)
        sock = writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for option, value in _KEEPALIVE:
            sock.setsockopt(socket.IPPROTO_TCP, option, value)

    def stale(self) -> bool:
        """Whether the server has closed it, as far as is known here."""
        return self._reader.at_eof() or self._writer.is_closing()

    def send(self, request: h11.Request, body: bytes) -> None:
        data = self._http.send(request) or b""
        if body:
            data += self._http.send(h11.Data(data=body)) or b""
        self._writer.write(data + (self._http.send(h11.EndOfMessage()) or b""))

    async def next(self) -> h11.Event:
        """Read the next event of the answer."""
        while (event := self._http.next_event()) is h11.NEED_DATA:
            data = await self._reader.read(_READ_BYTES)
            self._http.receive_data(data)
        if not isinstance(event, h11.Event) or isinstance(event, h11.ConnectionClosed):
            raise EOFError("the server closed the connection")  # noqa: TRY004 - it is one
        return event

    def reusable(self) -> bool:
        """Make it ready for another request, or say that it cannot be."""
        if self._http.our_state is not h11.DONE or self._http.their_state is not h11.DONE:
            return False
        self._http.start_next_cycle()
        return not self.stale()

    def close(self) -> None:
        self._writer.close()


class ApiClient:
    """One API server.

    Args:
        server: ``https://host:port``; with ``http`` there is no TLS (a proxy in the Pod, or a test).
        tls: gives what may sign the server's certificate; called for each connection, since that is replaced too.
        token: gives the bearer token; called for each request, since it is replaced while we run.
    """

    def __init__(self, server: str, *, tls: Callable[[], ssl.SSLContext] | None, token: Callable[[], str]) -> None:
        parts = urlsplit(server)
        self._host = parts.hostname or ""
        self._port = parts.port or (443 if parts.scheme == "https" else 80)
        self._authority = parts.netloc
        self._token = token
        self._idle: list[_Connection] = []
        self._written = asyncio.Event()
        self._tls = tls if parts.scheme == "https" else None

    def close(self) -> None:
        """Close the connections that are not in use.

        Also where one was silent: what has forgotten it may have forgotten them all.
        """
        while self._idle:
            self._idle.pop().close()

    async def request(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        *,
        timeout_s: float,
        content_type: str = MERGE_PATCH,
    ) -> bytes:
        """Make one request and give the answer's body.

        Raises:
            Refused: it was certainly not applied; the subclass says why.
            Unknown: it may have been applied, or may be yet.
        """
        what = f"{method} {path}"
        sent = False
        connection: _Connection | None = None
        try:
            async with asyncio.timeout(timeout_s):
                connection = self._kept() or await self._connect()
                request = self._request(method, path, body, content_type)
                # from here on the server may have it
                sent = True
                connection.send(request, body or b"")
                code, answer = await _answer(connection)
        except BaseException as error:
            if connection is not None:
                connection.close()
            if isinstance(error, TimeoutError):
                self.close()
                raise _cut(what, sent, f"no answer within {timeout_s:.1f} s") from error
            if isinstance(error, _CUT):
                raise _cut(what, sent, str(error) or type(error).__name__) from error
            raise
        self._keep(connection)
        if code >= 300:
            raise _refusal(what, code, answer)
        if method != "GET":
            self._written.set()
            self._written = asyncio.Event()
        return answer

    async def pause(self, longest_s: float) -> None:
        """Wait before trying again: so long, or until a write succeeds, which says that the server is back."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(longest_s):
                await self._written.wait()

    async def watch(self, path: str, *, timeout_s: float) -> AsyncGenerator[tuple[str, bytes], None]:
        """Watch: give (type, object as JSON) until the server ends it.

        Args:
            path: with its query; ask for bookmarks and a time-out there.
            timeout_s: the longest silence that is not an error.

        Raises:
            Gone: the version to begin from is too old.
            Refused: the server would not.
            Unknown: the connection was cut or silent for too long, or what came was not a watch.
        """
        # without the query, whose time-out differs each time: what is said twice is to be the same
        what = f"watch of {path.partition('?')[0]}"
        connection: _Connection | None = None
        try:
            async with asyncio.timeout(timeout_s):
                connection = await self._connect()
                connection.send(self._request("GET", path, None, ""), b"")
                code = await _headers(connection)
                if code >= 300:
                    raise _refusal(what, code, await _body(connection))
            async with contextlib.aclosing(_lines(connection, timeout_s)) as lines:
                async for line in lines:
                    yield _watch_event(what, line)
        except TimeoutError as error:
            self.close()
            raise Unknown(f"{what}: nothing received for {timeout_s:.0f} s") from error
        except _CUT as error:
            raise Unknown(f"{what}: {error or type(error).__name__}") from error
        finally:
            if connection is not None:
                connection.close()

    def _request(self, method: str, path: str, body: bytes | None, content_type: str) -> h11.Request:
        headers = [
            ("Host", self._authority),
            ("Accept", "application/json"),
            ("Authorization", f"Bearer {self._token()}"),
            ("User-Agent", "holdfast-sidecar"),
        ]
        if body is not None:
            headers += [("Content-Type", content_type), ("Content-Length", str(len(body)))]
        return h11.Request(method=method, target=path, headers=headers)

    def _kept(self) -> _Connection | None:
        while self._idle:
            connection = self._idle.pop()
            # one that the server has closed meanwhile is not used: nothing was sent on it, so nothing is in doubt
            if not connection.stale():
                return connection
            connection.close()
        return None

    def _keep(self, connection: _Connection) -> None:
        if connection.reusable():
            self._idle.append(connection)
        else:
            connection.close()

    async def _connect(self) -> _Connection:
        tls = self._tls() if self._tls is not None else None
        try:
            async with asyncio.timeout(_CONNECT_S):
                reader, writer = await asyncio.open_connection(self._host, self._port, ssl=tls)
        except TimeoutError as error:
            raise Unreachable(f"API server {self._authority}: no connection within {_CONNECT_S:.0f} s") from error
        except OSError as error:  # ssl.SSLError is one
            raise Unreachable(f"API server {self._authority}: {error}") from error
        return _Connection(reader, writer)


def _cut(what: str, sent: bool, why: str) -> ApiError:  # noqa: FBT001 - it is the very question
    return Unknown(f"{what}: {why}; it may have been applied") if sent else Unreachable(f"{what}: {why}")


def _refusal(what: str, code: int, answer: bytes) -> ApiError:
    status = _Status()
    with contextlib.suppress(msgspec.MsgspecError):
        status = msgspec.json.decode(answer, type=_Status)
    text = f"{what}: {code} {status.message or answer[:200].decode(errors='replace')}".rstrip()
    if code < 400:
        return Invalid(f"{text}; redirects are not followed")
    # a 5xx says nothing of whether etcd has it
    return Unknown(text) if code >= 500 else _BY_CODE.get(code, Invalid)(text)


async def _headers(connection: _Connection) -> int:
    while True:
        event = await connection.next()
        if isinstance(event, h11.Response):
            return event.status_code


async def _body(connection: _Connection) -> bytes:
    body = b""
    while isinstance(event := await connection.next(), h11.Data):
        body += event.data
        if len(body) > _MAX_BYTES:
            raise EOFError(f"an answer of more than {_MAX_BYTES} bytes")
    return body


async def _answer(connection: _Connection) -> tuple[int, bytes]:
    code = await _headers(connection)
    return code, await _body(connection)


async def _lines(connection: _Connection, timeout_s: float) -> AsyncGenerator[bytes, None]:
    rest = b""
    while True:
        async with asyncio.timeout(timeout_s):
            event = await connection.next()
        if not isinstance(event, h11.Data):
            return
        *lines, rest = (rest + bytes(event.data)).split(b"\n")
        if len(rest) > _MAX_BYTES:
            raise EOFError(f"a line of more than {_MAX_BYTES} bytes")
        for line in lines:
            if line:
                yield line


def _watch_event(what: str, line: bytes) -> tuple[str, bytes]:
    try:
        event = msgspec.json.decode(line, type=_WatchEvent)
        if event.type != "ERROR":
            return event.type, bytes(event.object)
        status = msgspec.json.decode(event.object, type=_Status)
    except msgspec.MsgspecError as error:
        raise Unknown(f"{what}: not a watch event: {error}") from error
    raise _refusal(what, status.code or 500, bytes(event.object))
