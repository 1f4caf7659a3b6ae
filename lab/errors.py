"""Everything that can go wrong with the lab itself; each message names the thing and says what to do.

::

    LabError(Exception)
    +-- ClosedWorldError        no closed world can be made here, or this is not one
    |   +-- AlreadyRunning      a lab of that name runs already
    |   +-- NotRunning          no lab of that name runs
    +-- BinaryError             a program of the control plane is missing, damaged or cannot be built
    +-- ProgramError            a program of the lab ended or did not become ready; carries the end of its log
    +-- CommandError            a command that was run in the lab failed; carries what it said
    +-- LinkError               the kernel refused a change of a network
    +-- ApiError                the API server refused a request: `code`, `reason`, `body`
    +-- ApiUnreachable          it gave no answer
    +-- WaitTimeout             what was waited for did not come about in time
"""

from __future__ import annotations

from typing import Any


class LabError(Exception):
    """Root of all errors of the lab."""


class ClosedWorldError(LabError):
    """No closed world can be made here, or this is not one."""


class AlreadyRunning(ClosedWorldError):  # noqa: N818 - reads as what is the case
    """A lab of that name runs already."""


class NotRunning(ClosedWorldError):  # noqa: N818 - reads as what is the case
    """No lab of that name runs."""


class BinaryError(LabError):
    """A program of the control plane is missing, damaged or cannot be built."""


class ProgramError(LabError):
    """A program of the lab ended or did not become ready."""


class CommandError(LabError):
    """A command that was run in the lab failed."""


class LinkError(LabError):
    """The kernel refused a change of a network."""


class ApiError(LabError):
    """The API server refused a request.

    Attributes:
        code: the HTTP status.
        reason: the API's own word for it, such as ``Forbidden`` or ``Conflict``.
        body: the Status object.
    """

    def __init__(self, what: str, code: int, body: dict[str, Any]) -> None:
        self.code = code
        self.reason = str(body.get("reason", ""))
        self.body = body
        super().__init__(f"{what}: {code} {self.reason}: {body.get('message', '')}")


class ApiUnreachable(LabError):  # noqa: N818 - reads as what is the case
    """The API server gave no answer."""


class WaitTimeout(LabError):  # noqa: N818 - reads as what is the case
    """What was waited for did not come about in time."""
