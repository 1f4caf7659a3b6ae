"""Which replica leads: one Lease, one clock per process, and no two clocks compared.

The leader renews at a third of the duration, and its deadline counts from when its last successful renewal was
*sent*; past it nothing is written, also by a process that was stopped meanwhile and does not know. A standby counts
the duration from when it *saw* the last change, which is later. It sees it by the watch on Leases that every replica
has anyway, so a Lease that its holder releases is taken at once. Not promised: no two leaders for an instant. Nothing
rests on that; every write to a route's Lease carries the version it was made for.
"""

from __future__ import annotations

import datetime as dt
import random
import threading
from typing import TYPE_CHECKING, Any, Final

import msgspec

from contract.lease import LeaseView, decode_lease, micro_time
from contract.names import ELECTION_LEASE, SYSTEM_NAMESPACE
from controller.cluster.kube import MERGE
from controller.cluster.writer import monotonic
from controller.errors import ApiError, Conflict, NotFound

if TYPE_CHECKING:
    from collections.abc import Callable

    from controller.cluster.kube import Session

DURATION_S: Final = 4
"""A standby takes over so long after the leader's last sign of life. Whole seconds, as the Lease's field."""
LEAD_S: Final = DURATION_S * 0.8
"""The leader's own deadline: shorter, so that a write that is under way at its end is done before another leads."""
RENEW_S: Final = DURATION_S / 3
RETRY_S: Final = 0.3
_LEASES: Final = f"/apis/coordination.k8s.io/v1/namespaces/{SYSTEM_NAMESPACE}/leases"
_LEASE: Final = f"{_LEASES}/{ELECTION_LEASE}"


def is_election(view: LeaseView) -> bool:
    """Whether a Lease is the one between the replicas."""
    return (view.namespace, view.name) == (SYSTEM_NAMESPACE, ELECTION_LEASE)


class Elector:
    """One replica's part in the election.

    Args:
        session: used by this elector's thread alone.
        identity: this replica's name, another for each process.
        changed: called, in the elector's thread, with whether this replica leads now.
        trouble: called with what is wrong, ``""`` when it is no more.
    """

    def __init__(
        self, session: Session, identity: str, changed: Callable[[bool], None], trouble: Callable[[str], None]
    ) -> None:
        self._session = session
        self._me = identity
        self._changed = changed
        self._trouble = trouble
        self._wake = threading.Condition()
        self._synced = False
        self._view: LeaseView | None = None
        self._seen_s = 0.0
        self._deadline_s = float("-inf")
        self._leading = False
        self._stopping = False

    def may_write(self) -> bool:
        """Whether this replica leads, by its own clock, at this instant."""
        return monotonic() < self._deadline_s

    def observe(self, view: LeaseView | None) -> None:
        """Note what the watch shows; the first call says that the watch is in step."""
        with self._wake:
            self._synced = True
            self._note(view)
            self._wake.notify()

    def stop(self) -> None:
        """Release the Lease and end the thread."""
        with self._wake:
            self._stopping = True
            self._wake.notify()

    def run(self) -> None:
        """Take part until stopped."""
        while True:
            with self._wake:
                if self._stopping:
                    break
                pause_s = self._pause_s()
                if pause_s > 0:
                    self._wake.wait(timeout=pause_s)
                    continue
                view = self._view
            self._try(view)
            self._settle()
        self._release()

    # inside ----------------------------------------------------------------------------------------------------

    def _note(self, view: LeaseView | None) -> None:
        old = self._view
        if view is not None and old is not None and view.uid == old.uid and int(view.version) < int(old.version):
            return
        alive = view is None or old is None or _sign(view) != _sign(old)
        if alive:
            self._seen_s = monotonic()
        self._view = view

    def _pause_s(self) -> float:
        """How long there is nothing to do; 0: renew or take now."""
        if not self._synced:
            return RENEW_S
        now, view = monotonic(), self._view
        if self._leading:
            return max(0.0, self._deadline_s - LEAD_S + RENEW_S - now)
        if view is None or not view.holder or view.holder == self._me:
            return 0.0
        return max(0.0, self._seen_s + view.duration_s - now)

    def _try(self, view: LeaseView | None) -> None:
        sent_s = monotonic()
        try:
            answer = self._write(view)
        except NotFound as error:
            self._trouble(f"{error}; apply deploy/base/namespace.yaml")
            with self._wake:
                self._view = None
        except Conflict:
            self._reread()
        except ApiError as error:
            self._trouble(f"{error}; until this is resolved, this replica decides nothing")
        else:
            self._trouble("")
            with self._wake:
                self._note(answer)
                self._deadline_s = sent_s + LEAD_S
            return
        with self._wake:
            self._wake.wait_for(lambda: self._stopping, timeout=RETRY_S * random.uniform(0.5, 1.0))  # noqa: S311 - jitter

    def _write(self, view: LeaseView | None) -> LeaseView:
        stamp = micro_time(dt.datetime.now(dt.UTC))
        spec: dict[str, Any] = {"renewTime": stamp, "leaseDurationSeconds": DURATION_S, "holderIdentity": self._me}
        if view is None:
            body = {
                "apiVersion": "coordination.k8s.io/v1",
                "kind": "Lease",
                "metadata": {"name": ELECTION_LEASE},
                "spec": {**spec, "acquireTime": stamp, "leaseTransitions": 0},
            }
            return decode_lease(self._session.request("POST", _LEASES, body, timeout_s=RENEW_S))
        if view.holder != self._me:
            spec |= {"acquireTime": stamp, "leaseTransitions": view.transitions + 1}
        patch = {"metadata": {"resourceVersion": view.version, "uid": view.uid}, "spec": spec}
        return decode_lease(self._session.request("PATCH", _LEASE, patch, content_type=MERGE, timeout_s=RENEW_S))

    def _reread(self) -> None:
        """Another was first, or an answer was lost: see what there is, so that nobody waits for the watch."""
        try:
            view = decode_lease(self._session.request("GET", _LEASE, timeout_s=RENEW_S))
        except (ApiError, msgspec.DecodeError):
            return
        with self._wake:
            self._note(view)
            if view.holder != self._me:
                self._deadline_s = float("-inf")

    def _settle(self) -> None:
        """Tell when leading begins or ends."""
        leading = self.may_write()
        if leading != self._leading:
            self._leading = leading
            self._changed(leading)

    def _release(self) -> None:
        leading, self._deadline_s = self.may_write(), float("-inf")
        view = self._view
        if not leading or view is None or view.holder != self._me:
            return
        spec = {"holderIdentity": "", "renewTime": micro_time(dt.datetime.now(dt.UTC))}
        patch = {"metadata": {"resourceVersion": view.version, "uid": view.uid}, "spec": spec}
        try:
            self._session.request("PATCH", _LEASE, patch, content_type=MERGE, timeout_s=RENEW_S)
        except ApiError as error:
            self._trouble(f"{error}; the next leader must wait {DURATION_S} s")


def _sign(view: LeaseView) -> tuple[str, str, str, int]:
    return view.uid, view.holder, view.renew_time, view.transitions
