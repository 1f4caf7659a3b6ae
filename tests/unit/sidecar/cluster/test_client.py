"""The API client against a local server that cuts, stalls and talks nonsense: what may be concluded from each."""

import asyncio
import contextlib
import json

import pytest

from sidecar import errors
from sidecar.cluster.client import ApiClient

TIMEOUT_S = 5.0


def answer(code, body=b"{}", extra=b""):
    head = b"HTTP/1.1 %d X\r\nContent-Type: application/json\r\nContent-Length: %d\r\n" % (code, len(body))
    return head + extra + b"\r\n" + body


def status(code, message):
    return answer(code, json.dumps({"kind": "Status", "message": message, "code": code}).encode())


def chunk(data):
    return b"%x\r\n%s\r\n" % (len(data), data)


WATCH_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
EVENT = b'{"type":"ADDED","object":{"metadata":{"name":"a"}}}\n'


class Server:
    """Answers request after request from a script; an entry is bytes, or a coroutine function (reader, writer)."""

    def __init__(self, *script):
        self.script = list(script)
        self.requests = []
        self.connections = 0
        self.closed = asyncio.Event()

    async def serve(self, reader, writer):
        self.connections += 1
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = next(
                    (int(line.split(b":")[1]) for line in head.split(b"\r\n") if line.startswith(b"Content-Length")), 0
                )
                self.requests.append((head, await reader.readexactly(length)))
                act = self.script.pop(0)
                if callable(act):
                    await act(reader, writer)
                else:
                    writer.write(act)
                if writer.is_closing():
                    break
        writer.close()
        self.closed.set()


async def close(_reader, writer):
    writer.close()


async def stall(reader, _writer):
    await reader.read()


def then_close(data):
    async def act(_reader, writer):
        writer.write(data)
        await writer.drain()
        writer.close()

    return act


def then_stall(data):
    async def act(reader, writer):
        writer.write(data)
        await reader.read()

    return act


@contextlib.asynccontextmanager
async def serving(*script, token=lambda: "secret"):
    server = Server(*script)
    listener = await asyncio.start_server(server.serve, "127.0.0.1", 0)
    api = ApiClient(f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}", tls=None, token=token)
    try:
        yield server, api
    finally:
        api.close()
        listener.close()


def run(test):
    asyncio.run(asyncio.wait_for(test(), 20))


def test_a_patch_goes_out_as_it_should_and_its_answer_comes_back():
    async def test():
        async with serving(answer(200, b'{"a":1}')) as (server, api):
            assert await api.request("PATCH", "/x", b'{"b":2}', timeout_s=TIMEOUT_S) == b'{"a":1}'
            head, body = server.requests[0]
            assert head.startswith(b"PATCH /x HTTP/1.1\r\n")
            assert b"Content-Type: application/merge-patch+json\r\n" in head
            assert b"Authorization: Bearer secret\r\n" in head
            assert body == b'{"b":2}'

    run(test)


def test_the_connection_is_kept_and_the_token_read_anew():
    tokens = iter(["one", "two"])

    async def test():
        async with serving(answer(200), answer(200), token=lambda: next(tokens)) as (server, api):
            await api.request("GET", "/x", timeout_s=TIMEOUT_S)
            await api.request("GET", "/x", timeout_s=TIMEOUT_S)
            assert server.connections == 1
            assert b"Bearer one" in server.requests[0][0]
            assert b"Bearer two" in server.requests[1][0]

    run(test)


def test_a_kept_connection_that_the_server_closed_is_not_used():
    async def test():
        async with serving(then_close(answer(200)), answer(200, b"2")) as (server, api):
            await api.request("GET", "/x", timeout_s=TIMEOUT_S)
            await server.closed.wait()
            while not api._idle[0].stale():  # noqa: ASYNC110 - the transport tells nobody when it sees the end
                await asyncio.sleep(0)
            assert await api.request("PATCH", "/x", b"{}", timeout_s=TIMEOUT_S) == b"2"
            assert server.connections == 2

    run(test)


@pytest.mark.parametrize(
    ("code", "error"),
    [
        (400, errors.Invalid),
        (401, errors.Forbidden),
        (403, errors.Forbidden),
        (404, errors.NotFound),
        (409, errors.Conflict),
        (410, errors.Gone),
        (422, errors.Invalid),
        (429, errors.Invalid),
        (302, errors.Invalid),
        (500, errors.Unknown),
        (503, errors.Unknown),
        (504, errors.Unknown),
    ],
)
def test_what_a_code_means(code, error):
    async def test():
        async with serving(status(code, "the reason"), answer(200, b"after")) as (server, api):
            with pytest.raises(error, match=f"PATCH /x: {code} the reason") as caught:
                await api.request("PATCH", "/x", b"{}", timeout_s=TIMEOUT_S)
            assert type(caught.value) is error
            assert isinstance(caught.value, errors.Refused) == (code < 500)
            assert await api.request("GET", "/x", timeout_s=TIMEOUT_S) == b"after"
            assert server.connections == 1

    run(test)


@pytest.mark.parametrize(
    ("name", "act"),
    [
        ("cut before the answer", close),
        ("cut in the head", then_close(b"HTTP/1.1 200 OK\r\nContent-")),
        ("cut in the body", then_close(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{")),
        ("nonsense", then_close(b"\x16\x03\x01garbage\r\n\r\n")),
    ],
)
def test_a_write_whose_answer_is_lost_may_have_been_applied(name, act):
    async def test():
        async with serving(act, answer(200)) as (server, api):
            with pytest.raises(errors.Unknown):
                await api.request("PATCH", "/x", b"{}", timeout_s=TIMEOUT_S)
            assert len(server.requests) == 1, f"{name}: it must not be repeated"

    run(test)


@pytest.mark.parametrize("data", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{"])
def test_a_write_that_is_not_answered_in_time_may_have_been_applied(data):
    async def test():
        async with serving(then_stall(data), answer(200, b"new")) as (server, api):
            with pytest.raises(errors.Unknown, match="no answer within"):
                await api.request("PATCH", "/x", b"{}", timeout_s=0.05)
            assert await api.request("GET", "/x", timeout_s=TIMEOUT_S) == b"new"
            assert server.connections == 2, "a late answer must not be taken for another's"

    run(test)


def test_what_was_never_sent_was_not_applied():
    async def test():
        async with serving() as (_, api):
            pass
        with pytest.raises(errors.Unreachable):
            await api.request("PATCH", "/x", b"{}", timeout_s=TIMEOUT_S)

    run(test)


def test_watch_gives_events_however_they_are_cut_up():
    data = EVENT + b'{"type":"BOOKMARK","object":{"metadata":{"resourceVersion":"7"}}}\n'

    async def test():
        pieces = b"".join(chunk(data[i : i + 9]) for i in range(0, len(data), 9))
        async with serving(WATCH_HEAD + pieces + b"0\r\n\r\n") as (_, api):
            got = [event async for event in api.watch("/w", timeout_s=TIMEOUT_S)]
        assert got == [
            ("ADDED", b'{"metadata":{"name":"a"}}'),
            ("BOOKMARK", b'{"metadata":{"resourceVersion":"7"}}'),
        ]

    run(test)


@pytest.mark.parametrize(
    ("name", "act", "error"),
    [
        ("gone at once", status(410, "too old"), errors.Gone),
        ("forbidden", status(403, "no"), errors.Forbidden),
        (
            "gone later",
            WATCH_HEAD + chunk(EVENT + b'{"type":"ERROR","object":{"code":410,"message":"too old"}}\n'),
            errors.Gone,
        ),
        ("silent", then_stall(WATCH_HEAD + chunk(EVENT)), errors.Unknown),
        ("no head", stall, errors.Unknown),
        ("cut", then_close(WATCH_HEAD + chunk(EVENT)), errors.Unknown),
        ("not JSON", WATCH_HEAD + chunk(b"<html>\n"), errors.Unknown),
        ("not an event", WATCH_HEAD + chunk(b"[1]\n"), errors.Unknown),
    ],
)
def test_how_a_watch_ends(name, act, error):
    async def test():
        async with serving(act) as (_, api):
            with pytest.raises(error) as caught:
                async for _event in api.watch("/w", timeout_s=0.2):
                    pass
            assert type(caught.value) is error, name

    run(test)


def test_leaving_a_watch_closes_its_connection():
    async def test():
        async with serving(then_stall(WATCH_HEAD + chunk(EVENT))) as (server, api):
            async with contextlib.aclosing(api.watch("/w", timeout_s=TIMEOUT_S)) as events:
                async for _event in events:
                    break
            await asyncio.wait_for(server.closed.wait(), TIMEOUT_S)

    run(test)


def test_a_pause_ends_early_when_a_write_has_come_through():
    async def test():
        async with serving(answer(200), answer(200)) as (_, api):
            waiting = asyncio.create_task(api.pause(TIMEOUT_S * 10))
            await asyncio.sleep(0)
            await api.request("GET", "/x", timeout_s=TIMEOUT_S)
            assert not waiting.done()
            await api.request("PATCH", "/x", b"{}", timeout_s=TIMEOUT_S)
            await asyncio.wait_for(waiting, TIMEOUT_S)
            await api.pause(0.01)

    run(test)
