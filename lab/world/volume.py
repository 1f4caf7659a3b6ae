"""The sidecar's projected volume: `token`, `ca.crt`, `namespace` and `annotations`, as a kubelet writes them.

The annotations are written anew at each change of the Pod's. The token is bound to the Pod and is renewed when most of
its time is over; one that cannot be renewed now is kept.
"""

from __future__ import annotations

import json
import shutil
import time
from typing import TYPE_CHECKING, Any, Final

from lab.errors import ApiError, ApiUnreachable
from lab.world.credentials import account_token

if TYPE_CHECKING:
    import threading

    from lab.world.agenda import Agenda
    from lab.world.host import Place

_TOKEN_S: Final = 3600
_TOKEN_FRESH: Final = 0.8
_TRY_AGAIN_S: Final = 0.5
_AUTHORIZER_S: Final = 0.02
_AUTHORIZER_TRIES: Final = 100


class Volume:
    """One Pod's; used by its worker's thread alone."""

    def __init__(self, place: Place, pod: dict[str, Any], agenda: Agenda, doomed: threading.Event) -> None:
        """Nothing is written before `furnish`.

        Args:
            place: the Pod's.
            pod: its object.
            agenda: of its worker, where renewals are set.
            doomed: set, by whichever thread, when the Pod is to end: it is no longer worth to wait for a token then.
        """
        self._place = place
        self._pod = pod
        self._agenda = agenda
        self._doomed = doomed
        self._folder = place.volume
        self._annotations: str | None = None

    def furnish(self) -> None:
        """Write all of it.

        Raises:
            ApiError: the token was refused.
            ApiUnreachable: the API server gave no answer.
        """
        self._folder.mkdir(parents=True, exist_ok=True)
        (self._folder / "ca.crt").write_text(self._place.host.ca_file.read_text())
        (self._folder / "namespace").write_text(self._place.namespace)
        self._annotations = None
        self.annotate(self._pod)
        self._renew_token()

    def annotate(self, pod: dict[str, Any]) -> None:
        """Write the Pod's annotations as they are now, once there is a volume."""
        self._pod = pod
        # JSON's quoting is one that Go's %q may give: kubernetes pkg/fieldpath/fieldpath.go, FormatMap
        notes = sorted(pod["metadata"].get("annotations", {}).items())
        text = "\n".join(f"{name}={json.dumps(value, ensure_ascii=False)}" for name, value in notes)
        if self._folder.is_dir() and text != self._annotations:
            self._write("annotations", text)
            self._annotations = text

    def discard(self) -> None:
        """Remove it."""
        shutil.rmtree(self._folder, ignore_errors=True)

    def _renew_token(self) -> None:
        try:
            token = self._until_authorized()
        except (ApiUnreachable, ApiError) as error:
            if not (self._folder / "token").exists():
                raise
            self._place.say(f"keeps its old token: {error}")
            self._agenda.at("token", _TRY_AGAIN_S, self._renew_token)
            return
        self._write("token", token)
        self._agenda.at("token", _TOKEN_S * _TOKEN_FRESH, self._renew_token)

    def _write(self, name: str, text: str) -> None:
        """Put a file in the old one's place, whole or not at all."""
        new = self._folder / f"{name}.new"
        new.touch(mode=0o600)
        new.write_text(text)
        new.replace(self._folder / name)

    def _until_authorized(self) -> str:
        """The Node authorizer learns of a Pod by its own watch, a moment after we do; a kubelet tries again too."""
        for _ in range(_AUTHORIZER_TRIES):
            try:
                return self._ask_token()
            except ApiError as error:
                if error.code != 403 or self._doomed.is_set():
                    raise
                time.sleep(_AUTHORIZER_S)
        return self._ask_token()

    def _ask_token(self) -> str:
        place, account = self._place, self._pod["spec"]["serviceAccountName"]
        return account_token(place.host.api, place.namespace, account, _TOKEN_S, pod=(place.name, place.uid))
