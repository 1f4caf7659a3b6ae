"""The threads that write, each over a connection of its own: what is urgent goes out in parallel and at once.

A job is one or more requests about one object. Before each request the writer asks whether this process may still
write; what it may not write is dropped and comes back as such. What came of a job goes back into the loop's queue.
"""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from controller.cluster.kube import JSON, MERGE
from controller.errors import ApiError, Exists, NotFound

if TYPE_CHECKING:
    from collections.abc import Callable

    from controller.cluster.kube import Kube, Session

HOT_THREADS: Final = 6
COLD_THREADS: Final = 2
WARM_S: Final = 45.0
"""The API server closes a connection that was idle for 90 s."""

Ident = tuple[str, str, str]
"""What a job is about: sort, namespace, name. One job at a time is under way for each."""


class NotLeading(Exception):  # noqa: N818 - it is no failure
    """This process may not write any more."""


@dataclass(frozen=True, slots=True)
class Request:
    """One request; `missing_ok`, `there_ok`: answers that mean that there was nothing to do."""

    method: str
    path: str
    body: Any = None
    missing_ok: bool = False
    there_ok: bool = False
    otherwise: Request | None = None
    """Sent instead where the object is missing."""

    @property
    def content_type(self) -> str:
        """What kind of body it has."""
        return MERGE if self.method == "PATCH" else JSON


@dataclass(frozen=True, slots=True)
class Job:
    """What is written about one object, and the sentence to tell when it has been done."""

    ident: Ident
    requests: tuple[Request, ...]
    told: str = ""
    version: str = ""
    context: Any = None


@dataclass(frozen=True, slots=True)
class Done:
    """What came of a job: the last answer, or the error; neither: this process may not write."""

    job: Job
    answer: bytes | None = None
    error: ApiError | None = None


@dataclass(slots=True)
class Writers:
    """Two pools: urgent writes (Lease, annotation, Role), and those for people (status, Events)."""

    kube: Kube
    may_write: Callable[[], bool]
    put: Callable[[Any], None]
    _hot: queue.SimpleQueue[Job] = field(default_factory=queue.SimpleQueue)
    _cold: queue.SimpleQueue[Job] = field(default_factory=queue.SimpleQueue)

    def targets(self) -> list[tuple[str, Callable[[], None]]]:
        """Name the threads to start, with what each runs."""
        hot = [(f"hot-{i}", lambda: self._run(self._hot)) for i in range(HOT_THREADS)]
        return hot + [(f"cold-{i}", lambda: self._run(self._cold)) for i in range(COLD_THREADS)]

    def hot(self, job: Job) -> None:
        """Write as soon as possible."""
        self._hot.put(job)

    def cold(self, job: Job) -> None:
        """Write when nothing urgent keeps these threads' kind waiting."""
        self._cold.put(job)

    def _run(self, jobs: queue.SimpleQueue[Job]) -> None:
        session = self.kube.session()
        while True:
            _warm(session)
            try:
                job = jobs.get(timeout=WARM_S)
            except queue.Empty:
                continue
            self.put(self._do(session, job))

    def _do(self, session: Session, job: Job) -> Done:
        answer: bytes | None = None
        try:
            for request in job.requests:
                answer = self._send(session, request)
        except ApiError as error:
            return Done(job, None, error)
        except NotLeading:
            return Done(job)
        return Done(job, answer or b"")

    def _send(self, session: Session, request: Request) -> bytes | None:
        if not self.may_write():
            raise NotLeading
        try:
            return session.request(request.method, request.path, request.body, content_type=request.content_type)
        except NotFound:
            if request.otherwise is not None:
                return self._send(session, request.otherwise)
            if not request.missing_ok:
                raise
        except Exists:
            if not request.there_ok:
                raise
        return None


def _warm(session: Session) -> None:
    """Keep the connection open: a handshake takes ten times as long as the write that would wait for it."""
    if session.idle_s() >= WARM_S:
        with contextlib.suppress(ApiError):
            session.request("GET", "/version")


def start(
    name: str, target: Callable[[], None], ended: Callable[[str, BaseException | None], None]
) -> threading.Thread:
    """Start a thread that is not to end; if it does, `ended` is told why."""

    def run() -> None:
        try:
            target()
        except BaseException as error:  # noqa: BLE001 - told, and the process ends
            ended(name, error)
        else:
            ended(name, None)

    thread = threading.Thread(target=run, name=name, daemon=True)
    thread.start()
    return thread


def monotonic() -> float:
    """The clock of this process: it counts seconds, and means no time of day."""
    return time.monotonic()
