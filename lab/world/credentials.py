"""Who may speak to the API server: a static token per component, service accounts' tokens, and kubeconfig files.

The API server signs its own certificate, which is also the CA; its key also signs service account tokens (a lab
needs no second one, and no openssl). Nodes have a kubelet's user and group, so that they may do what a kubelet may.
"""

from __future__ import annotations

import json
import secrets
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

    from lab.api_client import ApiClient

ADMIN = "admin"
CONTROLLER_MANAGER = "system:kube-controller-manager"
SCHEDULER = "system:kube-scheduler"


def node_user(node: str) -> str:
    """The user of a node's kubelet."""
    return f"system:node:{node}"


def account_token(
    api: ApiClient, namespace: str, account: str, duration_s: int, pod: tuple[str, str] | None = None
) -> str:
    """Ask for a service account's token, bound to a Pod (name, UID) if one is given.

    Raises:
        ApiError: it was refused.
        ApiUnreachable: there was no answer.
    """
    spec: dict[str, Any] = {"expirationSeconds": duration_s, "audiences": []}
    if pod:
        spec["boundObjectRef"] = {"apiVersion": "v1", "kind": "Pod", "name": pod[0], "uid": pod[1]}
    request = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec}
    answer = api.create(f"/api/v1/namespaces/{namespace}/serviceaccounts/{account}/token", request)
    return str(answer["status"]["token"])


@dataclass(slots=True)
class Credentials:
    """The tokens of one API server.

    Attributes:
        folder: where its certificate, the tokens and the kubeconfig files are.
        server: its address.
    """

    folder: Path
    server: str
    _tokens: dict[str, str] = field(default_factory=dict)

    @property
    def ca_file(self) -> Path:
        """The certificate to trust; there once the API server has started."""
        return self.folder / "certs" / "apiserver.crt"

    @property
    def key_file(self) -> Path:
        """The API server's private key."""
        return self.folder / "certs" / "apiserver.key"

    @property
    def token_file(self) -> Path:
        """The API server's `--token-auth-file`."""
        return self.folder / "tokens.csv"

    def add(self, user: str, *groups: str) -> None:
        """Give a user a token; the API server reads them once, when it starts."""
        self._tokens[user] = secrets.token_hex(16)
        line = f'{self._tokens[user]},{user},{user},"{",".join(groups)}"\n'
        with self.token_file.open("a") as file:
            file.write(line)

    def token(self, user: str) -> str:
        """A user's token."""
        return self._tokens[user]

    def kubeconfig(self, name: str, token: str) -> Path:
        """Write a kubeconfig file (JSON is YAML)."""
        path = self.folder / f"{name}.kubeconfig"
        cluster = {"server": self.server, "certificate-authority": str(self.ca_file)}
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "lab", "cluster": cluster}],
            "users": [{"name": name, "user": {"token": token}}],
            "contexts": [{"name": "lab", "context": {"cluster": "lab", "user": name}}],
            "current-context": "lab",
        }
        new = path.with_suffix(".new")
        new.write_text(json.dumps(config, indent=1))
        new.chmod(0o600)
        new.replace(path)
        return path
