"""The errors of the contract; see the tree in the package's docstring."""

from __future__ import annotations


class ContractError(ValueError):
    """Something that was read is not what the contract says.

    Attributes:
        where: the object it was read from, as ``Pod default/web-0 annotation holdfast.dev/assignment``.
        field: the field that is wrong, as ``routes[0].addresses[1].address``, or ``""`` for the whole.
    """

    def __init__(self, where: str, field: str, problem: str) -> None:
        self.where = where
        self.field = field
        self.problem = problem
        super().__init__(f"{where}: {field + ': ' if field else ''}{problem}")


class UnknownVersion(ContractError):  # noqa: N818 - it is one kind of ContractError
    """The object is of a format version that this program does not speak: upgrade this program."""

    def __init__(self, where: str, version: object, known: int) -> None:
        super().__init__(
            where, "v", f"version {version!r} is not supported (this program supports {known}); upgrade it"
        )
