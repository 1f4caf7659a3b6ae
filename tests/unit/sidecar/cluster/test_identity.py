"""Files that the kubelet renews: what they say now counts; what cannot be read now leaves what was read last."""

from __future__ import annotations

import asyncio
import datetime as dt
import os
import ssl

import pytest

from controller.injection.certificate import CA_CERT, CERT, KEY, self_signed
from sidecar.cluster.client import ApiClient
from sidecar.cluster.identity import certificates_file, token_file
from sidecar.errors import EnvironmentMissing, Unreachable

TIMEOUT_S = 10.0


def replaced(path, data):
    """As a kubelet does it: another file in its place."""
    new = path.with_suffix(".new")
    new.write_bytes(data)
    new.replace(path)


@pytest.fixture
def authority():
    """Makes an authority with a certificate for localhost: ca.crt, tls.crt, tls.key."""
    return lambda: self_signed(("localhost",), dt.datetime.now(dt.UTC))


async def serving(data, folder, port=0):
    for name in (CERT, KEY):
        (folder / name).write_bytes(data[name])
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(folder / CERT, folder / KEY)

    async def answer(reader, writer):
        try:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}")
            await writer.drain()
        finally:
            writer.close()

    return await asyncio.start_server(answer, "localhost", port, ssl=tls, reuse_address=True)


def test_after_a_rotation_of_the_authority_the_agent_trusts_what_the_file_says_now(authority, tmp_path):
    old, new, file = authority(), authority(), tmp_path / "ca.crt"
    file.write_bytes(old[CA_CERT])

    async def test():
        server = await serving(old, tmp_path)
        port = server.sockets[0].getsockname()[1]
        api = ApiClient(f"https://localhost:{port}", tls=certificates_file(file), token=lambda: "t")
        assert await api.request("GET", "/", timeout_s=TIMEOUT_S) == b"{}"
        server.close()
        server = await serving(new, tmp_path, port)
        with pytest.raises(Unreachable, match="certificate verify failed"):
            await api.request("GET", "/", timeout_s=TIMEOUT_S)
        replaced(file, old[CA_CERT] + new[CA_CERT])
        assert await api.request("GET", "/", timeout_s=TIMEOUT_S) == b"{}"
        replaced(file, b"half a certifi")
        assert await api.request("GET", "/", timeout_s=TIMEOUT_S) == b"{}"
        replaced(file, old[CA_CERT])
        with pytest.raises(Unreachable, match="certificate verify failed"):
            await api.request("GET", "/", timeout_s=TIMEOUT_S)
        server.close()
        api.close()

    asyncio.run(asyncio.wait_for(test(), 30))


def test_a_renewed_token_counts_and_a_damaged_one_leaves_the_last(tmp_path):
    file = tmp_path / "token"
    file.write_text("one\n")
    token = token_file(file)
    assert token() == "one"
    replaced(file, b"two")
    assert token() == "two"
    replaced(file, b" \n")
    assert token() == "two"
    file.unlink()
    assert token() == "two"
    replaced(file, b"three")
    assert token() == "three"


@pytest.mark.parametrize("make", [token_file, certificates_file])
@pytest.mark.parametrize(("content", "said"), [(None, "No such file or directory"), (b"", ""), (b"\xff\xfe", "")])
def test_what_could_never_be_read_is_named_with_what_to_do(make, content, said, tmp_path):
    file = tmp_path / "file"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(EnvironmentMissing) as caught:
        make(file)()
    assert f"{os.fspath(file)}: {said}" in str(caught.value)
    assert str(caught.value).endswith("; mount the service account token in the Pod")
