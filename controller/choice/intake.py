"""What is seen of the API server's objects, and what time makes of it: the one way into the snapshot.

Pure: times are passed in. Versions of one object only grow; an object that another list no longer shows is gone, and
what happened to it meanwhile is not known. A Lease that is gone may have been held until just then: it stands for its
addresses until a holder that renewed it at the last moment must have let go.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from contract.lease import LeaseView
from controller.choice.expiry import Expiry
from controller.choice.objects import Gateway, Key, Pod, Route
from controller.choice.reading import is_route_lease
from controller.choice.snapshot import Item, Snapshot

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


@dataclass(slots=True)
class Intake:
    """Keeps the snapshot and the Leases' clock in step with what is seen.

    Attributes:
        touch: called before and after each change with the kind and key of what changes.
        unlisted: the kinds that have not been listed yet since the start.
    """

    touch: Callable[[type[Any], Key], None]
    unlisted: set[type[Any]]
    snap: Snapshot = field(default_factory=Snapshot)
    expiry: Expiry = field(default_factory=Expiry)

    def listed(self, kind: type[Any], items: Sequence[Item], version: int, now: float) -> None:
        """All objects of a kind as of a version: what is not among them is gone, unless it is newer than that."""
        there = {key_of(item) for item in items}
        for key in self._keys(kind) - there:
            old = self.known(kind, key)
            if old is not None and version_of(old) <= version:
                self.gone(kind, key, now, final=False)
        for item in items:
            self.newer(kind, item, now)
        if kind in self.unlisted:
            self.unlisted.discard(kind)
            if not self.unlisted:
                # an entry whose Lease is not there is all that is left of one that vanished before the start
                for view in self.snap.note_left_behind():
                    self.expiry.vanish(view, now)

    def ended(self, kind: type[Any], item: Item, now: float) -> None:
        """A watch has shown the last version of an object."""
        old = self.known(kind, key_of(item))
        if old is None or uid_of(old) != uid_of(item):
            return
        self.newer(kind, item, now)
        self.gone(kind, key_of(item), now, final=True)

    def newer(self, kind: type[Any], item: Item, now: float) -> None:
        """Take in a version, unless it is older than what is known; other programs' Leases are left out."""
        if isinstance(item, LeaseView) and not is_route_lease(item):
            return
        key, old = key_of(item), self.known(kind, key_of(item))
        if old is not None and uid_of(old) == uid_of(item) and version_of(item) <= version_of(old):
            return
        self.touch(kind, key)
        self.snap.put(item)
        if isinstance(item, LeaseView):
            self.expiry.observe(item, now)
        self.touch(kind, key)

    def gone(self, kind: type[Any], key: Key, now: float, *, final: bool) -> None:
        """An object is no more; `final`: nothing happened to it since the version that is known."""
        self.touch(kind, key)
        if kind is LeaseView and (view := self.snap.leases.get(key)) is not None:
            if self.snap.note_vanished(view, final=final):
                self.expiry.vanish(view, now)
            else:
                self.expiry.forget(key)
        self.snap.drop(kind, key)
        self.touch(kind, key)

    def not_there(self, key: Key, version: str, now: float) -> None:
        """A write for this version of a Lease found none: a late answer may have brought it back here, its end seen."""
        view = self.snap.leases.get(key)
        if view is not None and view.version == version:
            self.gone(LeaseView, key, now, final=False)

    def count(self, now: float) -> tuple[list[Key], bool]:
        """Put the facts about time into the snapshot.

        Returns:
            The Leases of which something is due, and whether one that had vanished has run out.
        """
        due = self.expiry.due(now)
        over = [key for key in due if self.snap.run_out(key)]
        for key in over:
            self.expiry.forget(key)
        self.snap.expired = self.expiry.expired(now) if due else frozenset()
        self.snap.untaken = self.expiry.untaken(now) if due else frozenset()
        return due, bool(over)

    def known(self, kind: type[Any], key: Key) -> Any:
        """The version that is known of an object, or None."""
        return self.snap.stores()[kind].get(key if kind in _SPACED else key[1])

    def _keys(self, kind: type[Any]) -> set[Key]:
        return {key if isinstance(key, tuple) else ("", key) for key in self.snap.stores()[kind]}


_SPACED: Final = (Route, Gateway, Pod, LeaseView)


def key_of(item: Item) -> Key:
    """Namespace and name."""
    return (item.namespace, item.name) if isinstance(item, LeaseView) else item.key


def uid_of(item: Item) -> str:
    """The UID."""
    return item.uid if isinstance(item, LeaseView) else item.metadata.uid


def version_of(item: Item) -> int:
    """The resourceVersion, which grows with each change (an etcd revision)."""
    return int(item.version if isinstance(item, LeaseView) else item.metadata.resource_version)
