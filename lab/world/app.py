"""The stand-in for a Pod's app: answers HTTP on its ports, with 200, or with 503 when it is told to fail.

    python -I -S app.py CONTROL REFUSES PORT...

CONTROL is a unix socket of the node; on it come the lines `fail` and `heal`, each answered with `ok` when it is in
force. REFUSES is `yes` when failing is to mean closed ports (what a `tcpSocket` probe sees). Started by its path,
isolated and without site packages: it is one process per container, and its start is on the way of every Pod.
"""

from __future__ import annotations

import selectors
import signal
import socket
import sys


class App:
    """One container's app."""

    def __init__(self, control: str, ports: list[int], *, refuses: bool) -> None:
        self._ports = ports
        self._refuses = refuses
        self._failing = False
        self._doors: list[socket.socket] = []
        self._selector = selectors.DefaultSelector()
        self._open()
        self._control = socket.socket(socket.AF_UNIX)
        self._control.connect(control)
        self._selector.register(self._control, selectors.EVENT_READ, self._told)

    def run(self) -> None:
        """Serve until SIGTERM."""
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
        self._control.sendall(b"started\n")
        while True:
            for key, _ in self._selector.select():
                key.data(key.fileobj)

    def _open(self) -> None:
        for port in self._ports:
            door = socket.create_server(("", port))
            self._doors.append(door)
            self._selector.register(door, selectors.EVENT_READ, self._serve)

    def _close(self) -> None:
        while self._doors:
            door = self._doors.pop()
            self._selector.unregister(door)
            door.close()

    def _told(self, control: socket.socket) -> None:
        said = control.recv(16)
        if not said:
            sys.exit(0)  # the node is gone
        failing = said == b"fail\n"
        if self._refuses and failing != self._failing:
            (self._close if failing else self._open)()
        self._failing = failing
        control.sendall(b"ok\n")

    def _serve(self, door: socket.socket) -> None:
        guest, _ = door.accept()
        with guest:
            guest.settimeout(1)
            try:
                guest.recv(4096)
                status = "503 Service Unavailable" if self._failing else "200 OK"
                guest.sendall(f"HTTP/1.0 {status}\r\nContent-Length: 0\r\n\r\n".encode())
            except OSError:
                return


if __name__ == "__main__":
    App(sys.argv[1], [int(port) for port in sys.argv[3:]], refuses=sys.argv[2] == "yes").run()
