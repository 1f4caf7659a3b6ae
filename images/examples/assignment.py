"""Says by HTTP on port 8080 which addresses its Pod is to hold: the Pod's annotation, in a file that the kubelet keeps.

The manifest mounts `metadata.annotations['holdfast.dev/assignment']` as this file; it is empty while there is none.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

from hello import PORT, Hello, Server

FILE = Path("/etc/holdfast/assignment")


class Assignment(Hello):
    """Says what is in the file now."""

    def text(self) -> str:
        """Name each address."""
        routes = json.loads(FILE.read_text() or "{}").get("routes", [])
        addresses = [each["address"] for route in routes for each in route["addresses"]]
        return f"{os.uname().nodename}: {', '.join(addresses) or 'no address'}"


if __name__ == "__main__":
    Server(("", PORT), Assignment).serve_forever()
