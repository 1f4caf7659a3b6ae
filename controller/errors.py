"""The controller's errors: what the API server may answer, and what may be concluded from each.

::

    ControllerError(Exception)
    +-- NoAccess               no kubeconfig and not in a cluster, or it cannot be read (exit code 3)
    +-- ThreadEnded            one of the controller's own threads has ended: a bug (exit code 1)
    +-- ApiError               a request did not succeed
        +-- Unreachable        no answer, or 5xx or 429: it may have been applied; again later
        +-- Conflict           409: another writer was first; the watch will tell
        |   +-- Exists         409 on a create: it is there already
        +-- NotFound           404: gone, or its kind is not installed
        +-- Forbidden          401 and 403: RBAC or an admission policy says no
        +-- Gone               410: the watch's version is too old, list again
        +-- Invalid            any other 4xx: the object itself is refused
"""

from __future__ import annotations

from typing import Final


class ControllerError(Exception):
    """The root of what the controller raises on purpose."""


class NoAccess(ControllerError):  # noqa: N818 - the tree reads better so
    """There is no way to an API server."""


class ThreadEnded(ControllerError):  # noqa: N818
    """A thread that is to run for ever has ended."""


class ApiError(ControllerError):
    """A request did not succeed.

    Attributes:
        code: the HTTP status, 0 where there was no answer.
    """

    def __init__(self, what: str, code: int, problem: str) -> None:
        self.code = code
        self.problem = problem
        super().__init__(f"{what}: {code or 'no answer'}: {problem}")


class Unreachable(ApiError):  # noqa: N818
    """No answer, or one that asks to come again later."""


class Conflict(ApiError):  # noqa: N818
    """Another writer was first."""


class Exists(Conflict):
    """What was to be created is there already."""


class NotFound(ApiError):  # noqa: N818
    """It is gone, or its kind is not installed."""


class Forbidden(ApiError):  # noqa: N818
    """RBAC or an admission policy says no."""


class Gone(ApiError):  # noqa: N818
    """The version asked for is too old."""


class Invalid(ApiError):  # noqa: N818
    """The request itself is wrong."""


_BY_CODE: Final[dict[int, type[ApiError]]] = {
    401: Forbidden,
    403: Forbidden,
    404: NotFound,
    409: Conflict,
    410: Gone,
    429: Unreachable,
}


def from_status(what: str, code: int, reason: str, problem: str) -> ApiError:
    """Give the error for an HTTP status and the API's own word for it."""
    if reason == "AlreadyExists":
        return Exists(what, code, problem)
    kind = _BY_CODE.get(code, Unreachable if code >= 500 else Invalid)
    return kind(what, code, problem)
