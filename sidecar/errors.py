"""The sidecar's errors: what may go wrong at its doors, and what may be concluded from each.

::

    SidecarError(Exception)
    +-- EnvironmentMissing        what the Pod's manifest has to give is not there (exit code 3)
    +-- KernelRefused             netlink or a socket said no; carries the errno
    |   +-- NotPermitted          a capability is missing (exit code 4)
    |   +-- FenceUnsupported      this kernel has no rule that can keep a deadline
    +-- InterfaceMissing          the interface that an address is to stand on is not there
    +-- ApiError                  a request to the API server did not succeed
        +-- Unknown               it may have been applied, or may be applied later
        +-- Refused               it was certainly not applied
            +-- Unreachable       it was never sent
            +-- Conflict          409: another writer was first
            +-- NotFound          404
            +-- Forbidden         401 and 403: RBAC or an admission policy says no
            +-- Gone              410: the watch's version is too old, begin again
            +-- Invalid           any other 4xx
"""

from __future__ import annotations


class SidecarError(Exception):
    """The root of what the sidecar raises on purpose."""


class EnvironmentMissing(SidecarError):  # noqa: N818 - the tree reads better so
    """What the Pod's manifest has to give (a variable, the token, the certificate) is not there."""


class KernelRefused(SidecarError):  # noqa: N818
    """The kernel said no.

    Attributes:
        errno: as in ``errno(3)``; positive.
    """

    def __init__(self, what: str, errno: int) -> None:
        self.errno = errno
        super().__init__(what)


class NotPermitted(KernelRefused):
    """A capability is missing."""


class FenceUnsupported(KernelRefused):
    """This kernel has no nftables rule of the netdev family on egress that compares the time (5.16 has)."""


class InterfaceMissing(SidecarError):  # noqa: N818
    """The interface that an address is to stand on is not there."""


class ApiError(SidecarError):
    """A request to the API server did not succeed."""


class Unknown(ApiError):  # noqa: N818
    """The request may have been applied, or may be applied later."""


class Refused(ApiError):  # noqa: N818
    """The request was certainly not applied."""


class Unreachable(Refused):
    """The request was never sent."""


class Conflict(Refused):
    """409: another writer was first."""


class NotFound(Refused):
    """404: there is no such object."""


class Forbidden(Refused):
    """401 or 403: RBAC or an admission policy says no."""


class Gone(Refused):
    """410: the watch's version is too old, begin again."""


class Invalid(Refused):
    """Any other 4xx: the request itself is wrong, or there are too many of them."""
