"""The Lease of a route: lock, report and proof of life (coordination.k8s.io/v1), and every write there is to it.

Each writing function returns a JSON merge patch (RFC 7396) that carries the version it was made for, so that of two
writers one loses. Who may write what is not decided here but by the ValidatingAdmissionPolicy in deploy/base/.
"""

from __future__ import annotations

import datetime as dt
from typing import Any, Final

import msgspec

from contract.decode import named_error
from contract.errors import ContractError
from contract.names import ADDRESSES, LOST, OBSERVED, OWNER, PREPARED, ROUTE_LABEL, lease_name

Patch = dict[str, Any]


class LeaseView(msgspec.Struct, frozen=True):
    """One version of a route's Lease; times are kept as text, since no decision compares two machines' clocks.

    Attributes:
        version: ``metadata.resourceVersion``.
        holder: UID of the Pod that does hold the route's addresses, ``""`` when free.
        owner: UID of the Pod that shall hold them, ``""`` for nobody.
        prepared: UID of the Pod that is ready to take over, ``""`` for none.
        observed: the holder's report as text, ``""`` for none.
        lost: UIDs of Pods that let the Lease expire or left it untaken, and have not written to it since.
        addresses: all that its holder may have, with their prefix lengths; no other address counts for it.
        duration_s: how long a holder holds without renewing.
        transitions: the epoch, greater by one for each new holder.
    """

    namespace: str
    name: str
    uid: str
    version: str
    holder: str = ""
    owner: str = ""
    prepared: str = ""
    observed: str = ""
    lost: tuple[str, ...] = ()
    addresses: tuple[str, ...] = ()
    duration_s: int = 10
    transitions: int = 0
    renew_time: str = ""
    route: str = ""
    deleting: bool = False

    @property
    def where(self) -> str:
        """The Lease as messages name it."""
        return f"Lease {self.namespace}/{self.name}"


class _Meta(msgspec.Struct, frozen=True, rename="camel"):
    namespace: str
    name: str
    uid: str
    resource_version: str
    annotations: dict[str, str] = {}
    labels: dict[str, str] = {}
    deletion_timestamp: str | None = None


class _Spec(msgspec.Struct, frozen=True, rename="camel"):
    holder_identity: str | None = None
    lease_duration_seconds: int | None = None
    lease_transitions: int | None = None
    renew_time: str | None = None


class _Wire(msgspec.Struct, frozen=True):
    metadata: _Meta
    spec: _Spec = _Spec()


# Made here, before there are threads: msgspec works a type out at its first use, and two threads that do that at once
# end the process with SIGSEGV.
_read = msgspec.json.Decoder(_Wire).decode


def decode_lease(raw: bytes | dict[str, Any], where: str = "Lease") -> LeaseView:
    """Read a Lease from the API's JSON, text or decoded.

    Raises:
        ContractError: it is not a Lease; the field is named.
    """
    try:
        wire = msgspec.convert(raw, _Wire) if isinstance(raw, dict) else _read(raw)
    except (msgspec.DecodeError, msgspec.ValidationError) as error:
        raise named_error(where, error) from error
    meta, spec = wire.metadata, wire.spec
    duration_s = 10 if spec.lease_duration_seconds is None else spec.lease_duration_seconds
    if duration_s < 1:
        raise ContractError(where, "spec.leaseDurationSeconds", f"{duration_s} is not a positive number of seconds")
    notes = meta.annotations
    return LeaseView(
        namespace=meta.namespace,
        name=meta.name,
        uid=meta.uid,
        version=meta.resource_version,
        holder=spec.holder_identity or "",
        owner=notes.get(OWNER, ""),
        prepared=notes.get(PREPARED, ""),
        observed=notes.get(OBSERVED, ""),
        lost=listed(notes.get(LOST, "")),
        addresses=listed(notes.get(ADDRESSES, "")),
        duration_s=duration_s,
        transitions=spec.lease_transitions or 0,
        renew_time=spec.renew_time or "",
        route=meta.labels.get(ROUTE_LABEL, ""),
        deleting=meta.deletion_timestamp is not None,
    )


def listed(text: str) -> tuple[str, ...]:
    """Read an annotation that is a list: its items, comma separated."""
    return tuple(each for each in text.split(",") if each)


def micro_time(now: dt.datetime) -> str:
    """Write a time as the API's MicroTime: RFC 3339 with microseconds, UTC."""
    return now.astimezone(dt.UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _patch(view: LeaseView, *, spec: dict[str, Any] | None = None, notes: dict[str, str] | None = None) -> Patch:
    metadata: dict[str, Any] = {"resourceVersion": view.version, "uid": view.uid}
    if notes:
        metadata["annotations"] = notes
    patch: Patch = {"metadata": metadata}
    if spec:
        patch["spec"] = spec
    return patch


def _new_holder(view: LeaseView, holder: str, stamp: str) -> dict[str, Any]:
    epoch = view.transitions + 1
    return {"holderIdentity": holder, "leaseTransitions": epoch, "acquireTime": stamp, "renewTime": stamp}


WRITES: Final[tuple[tuple[str, str, str, str, str], ...]] = (
    ("create", "none", "free", "controller", "the route is new"),
    ("create", "none", "held", "controller", "it vanished while held: it runs out first"),
    ("name_owner", "free", "free", "controller", "who shall hold, or what, has changed"),
    ("name_owner", "held", "held", "controller", "who shall hold, or what, has changed"),
    ("prepare", "held", "held", "the owner's sidecar", "ready to take over"),
    ("explain", "free", "free", "the owner's sidecar", "why it does not take it"),
    ("take", "free", "held", "the owner's sidecar", "prepared"),
    ("renew", "held", "held", "the holder's sidecar", "sign of life, report"),
    ("hand_over", "held", "held", "the holder's sidecar", "its addresses are removed; to the prepared owner"),
    ("release", "held", "free", "the holder's sidecar", "its addresses are removed"),
    ("free", "held", "free", "controller", "no sign of life for duration and guard"),
    ("delete", "free", "none", "controller", "the route is gone or not Accepted"),
)
"""The functions below as passages of a Lease between none, free and held: (write, from, to, who, when)."""


# The sidecars' writes ------------------------------------------------------------------------------------------


def take(view: LeaseView, me: str, now: dt.datetime) -> Patch:
    """Free -> me, by the owner."""
    stamp = micro_time(now)
    return _patch(view, spec=_new_holder(view, me, stamp), notes={OBSERVED: ""})


def renew(view: LeaseView, observed: str, now: dt.datetime) -> Patch:
    """The holder's sign of life, with its report."""
    return _patch(view, spec={"renewTime": micro_time(now)}, notes={OBSERVED: observed})


def prepare(view: LeaseView, me: str) -> Patch:
    """The owner (or a lost Pod that is back) is ready to take over; ``me=""`` takes that back."""
    return _patch(view, notes={PREPARED: me})


def hand_over(view: LeaseView, successor: str, now: dt.datetime) -> Patch:
    """Me -> the prepared owner, in one write; the report goes, since it was the old holder's."""
    stamp = micro_time(now)
    return _patch(view, spec=_new_holder(view, successor, stamp), notes={OBSERVED: ""})


def release(view: LeaseView, now: dt.datetime) -> Patch:
    """Me -> free."""
    return _patch(view, spec={"holderIdentity": "", "renewTime": micro_time(now)}, notes={OBSERVED: ""})


def explain(view: LeaseView, observed: str) -> Patch:
    """The owner of a free Lease says why it does not take it."""
    return _patch(view, notes={OBSERVED: observed})


# The controller's writes ---------------------------------------------------------------------------------------


def create(
    route: str,
    namespace: str,
    owner: str,
    duration_s: int,
    *,
    addresses: tuple[str, ...],
    holder: str = "",
    transitions: int = 0,
) -> Patch:
    """Make a route's Lease; with `holder` it is made as held, so that what another may still hold runs out first."""
    spec: dict[str, Any] = {"leaseDurationSeconds": duration_s, "leaseTransitions": transitions}
    if holder:
        spec["holderIdentity"] = holder
    metadata = {
        "name": lease_name(route),
        "namespace": namespace,
        # a label's value is at most 63 characters; a longer route name is told from the Lease's own name
        "labels": {ROUTE_LABEL: route if len(route) <= 63 else ""},
        "annotations": {OWNER: owner, ADDRESSES: ",".join(addresses)},
    }
    return {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": metadata, "spec": spec}


def name_owner(
    view: LeaseView, owner: str, *, duration_s: int, lost: tuple[str, ...], addresses: tuple[str, ...]
) -> Patch:
    """Say who shall hold which addresses, how long without renewing, and who is lost; a new owner must prepare anew.

    What an owner has said of a free Lease goes with the next owner: it is not that one's word. It stays where nobody is
    the owner, since it says why.
    """
    prepared = view.prepared if view.prepared == owner and owner not in view.lost else ""
    if owner == view.owner:
        prepared = "" if view.prepared in view.lost else view.prepared
    notes = {OWNER: owner, PREPARED: prepared, LOST: ",".join(lost), ADDRESSES: ",".join(addresses)}
    if not view.holder and owner not in {"", view.owner}:
        notes[OBSERVED] = ""
    return _patch(view, spec={"leaseDurationSeconds": duration_s}, notes=notes)


def free(view: LeaseView, owner: str, *, duration_s: int, lost: tuple[str, ...], addresses: tuple[str, ...]) -> Patch:
    """Take an expired Lease from its holder and name the next owner, in one write for that version only."""
    prepared = view.prepared if view.prepared == owner else ""
    notes = {OWNER: owner, PREPARED: prepared, OBSERVED: "", LOST: ",".join(lost), ADDRESSES: ",".join(addresses)}
    return _patch(view, spec={"holderIdentity": "", "leaseDurationSeconds": duration_s}, notes=notes)
