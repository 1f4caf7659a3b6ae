"""The app's stand-in: answers on its ports, is ready or not as it is told, ends at SIGTERM.

`python -m lab.app 8080`: every GET is answered with 200 while it is well and with 503 while it is not; the path
``/-/fail`` makes it unwell and ``/-/heal`` well again. One small process per container, sockets only: a quick start.
"""

from __future__ import annotations

import selectors
import signal
import socket
import sys

_LARGEST = 65536


def serve(ports: list[int]) -> None:
    """Serve until SIGTERM."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    well = True
    with selectors.DefaultSelector() as selector:
        for port in ports:
            listening = socket.create_server(("0.0.0.0", port))
            selector.register(listening, selectors.EVENT_READ)
        while True:
            for key, _ in selector.select():
                assert isinstance(key.fileobj, socket.socket)  # noqa: S101 - nothing else is registered
                connection, _ = key.fileobj.accept()
                with connection:
                    connection.settimeout(1.0)
                    try:
                        well = _answer(connection, well=well)
                    except OSError:
                        continue


def _answer(connection: socket.socket, *, well: bool) -> bool:
    request = connection.recv(_LARGEST)
    if request.startswith(b"GET /-/fail "):
        well, status = False, b"200 OK"
    elif request.startswith(b"GET /-/heal "):
        well, status = True, b"200 OK"
    else:
        status = b"200 OK" if well else b"503 Service Unavailable"
    connection.sendall(b"HTTP/1.1 " + status + b"\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
    return well


if __name__ == "__main__":
    serve([int(port) for port in sys.argv[1:]])
