"""The two admission policies of deploy/base/policies.yaml, tried on a real API server with real bound tokens.

Each row of the table of writes in docs/contract.md once as it is meant, by the patches of `contract.lease` themselves;
and each way of breaking it, which is to be refused by the policy (not by RBAC: here the Pods' Role is a wide one) with
a message that says why, and to leave the Lease as it was.
"""

from __future__ import annotations

import contextlib
import datetime as dt
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from contract import lease as contract_lease
from contract.lease import LeaseView, decode_lease
from contract.names import ADDRESSES, ASSIGNMENT, CONTROLLER_ACCOUNT, ELECTION_LEASE, LOST, OBSERVED, OWNER, PREPARED
from contract.names import SYSTEM_NAMESPACE as SYSTEM
from lab.errors import ApiError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from lab.api_client import ApiClient
    from lab.world.world import World

pytestmark = pytest.mark.lab

NOW = dt.datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=dt.UTC)
DEADLINE_S = 30.0
REPORT = '{"v":1,"fence":"deadline","addresses":[]}'
ROUTE = "r"
NAMED = ("192.0.2.1/32", "192.0.2.2/32")
HELD_BY_A = {"holder": "a", "owner": "a"}
ASSIGNED = {"metadata": {"annotations": {ASSIGNMENT: '{"v":1,"routes":[]}'}}}


# The cast: a namespace, three Pods with tokens bound to them, the controller, a user ---------------------------------


@dataclass(frozen=True)
class Cast:
    """Who writes. `uids` are the Pods' by their letter, and ``""`` for nobody; `apis` who they are to the server."""

    namespace: str
    uids: dict[str, str]
    apis: dict[str, ApiClient]

    @property
    def leases(self) -> str:
        return f"/apis/coordination.k8s.io/v1/namespaces/{self.namespace}/leases"

    @property
    def pods(self) -> str:
        return f"/api/v1/namespaces/{self.namespace}/pods"


def _pod(name: str, **metadata: Any) -> dict[str, Any]:
    """Make a Pod that no scheduler takes, so that no node touches it."""
    spec = {
        "schedulerName": "nobody",
        "serviceAccountName": "app",
        "automountServiceAccountToken": False,
        "containers": [{"name": "app", "image": "app:1"}],
    }
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, **metadata}, "spec": spec}


def _wide_role(api: ApiClient, namespace: str) -> None:
    rules = [
        {"apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "verbs": ["*"]},
        {"apiGroups": [""], "resources": ["pods", "pods/status"], "verbs": ["*"]},
    ]
    rbac = f"/apis/rbac.authorization.k8s.io/v1/namespaces/{namespace}"
    kind = {"apiVersion": "rbac.authorization.k8s.io/v1", "metadata": {"name": "wide"}}
    api.create(f"{rbac}/roles", {**kind, "kind": "Role", "rules": rules})
    ref = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "wide"}
    subjects = [{"kind": "ServiceAccount", "name": "app", "namespace": namespace}]
    api.create(f"{rbac}/rolebindings", {**kind, "kind": "RoleBinding", "roleRef": ref, "subjects": subjects})


@pytest.fixture(scope="module")
def quiet(world: World) -> Iterator[World]:
    """The world without its controllers, which would tidy away Leases that have no route."""
    for controller in world.controllers:
        controller.kill()
    yield world
    for controller in world.controllers:
        controller.start()


@contextlib.contextmanager
def _cast(world: World, namespace: str) -> Iterator[Cast]:
    api = world.api
    account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "app"}}
    api.create(f"/api/v1/namespaces/{namespace}/serviceaccounts", account)
    _wide_role(api, namespace)
    uids = {"": "", "x": "00000000-0000-0000-0000-000000000000"}
    tokens = {"controller": world.token(SYSTEM, CONTROLLER_ACCOUNT)}
    for name in ("a", "b", "c"):
        uids[name] = api.create(f"/api/v1/namespaces/{namespace}/pods", _pod(name))["metadata"]["uid"]
        tokens[name] = world.token(namespace, "app", (name, uids[name]))
    with contextlib.ExitStack() as stack:
        apis = {who: stack.enter_context(contextlib.closing(api.as_token(token))) for who, token in tokens.items()}
        yield Cast(namespace, uids, {"admin": api, **apis})


@pytest.fixture
def cast(quiet: World, kube_namespace: str) -> Iterator[Cast]:
    with _cast(quiet, kube_namespace) as cast:
        yield cast


def _merge(api: ApiClient, path: str, patch: dict[str, Any]) -> dict[str, Any]:
    return api.patch(path, patch, "application/merge-patch+json")


def _stage(
    cast: Cast, *, holder: str = "", owner: str = "", prepared: str = "", observed: str = "", lost: str = ""
) -> LeaseView:
    """Bring a Lease into a state by nothing but allowed writes."""
    uid = cast.uids
    made = contract_lease.create(
        ROUTE, cast.namespace, uid[owner], 10, addresses=NAMED, holder=uid[holder], transitions=5
    )
    made["metadata"]["annotations"][LOST] = ",".join(uid[each] for each in lost)
    view = decode_lease(cast.apis["controller"].create(cast.leases, made))
    if prepared:
        view = _write(cast, prepared, view, contract_lease.prepare(view, uid[prepared]))
    if observed:
        view = _write(cast, holder or owner, view, contract_lease.explain(view, observed))
    return view


def _write(cast: Cast, who: str, view: LeaseView, patch: dict[str, Any]) -> LeaseView:
    return decode_lease(_merge(cast.apis[who], f"{cast.leases}/{view.name}", patch))


def _read(cast: Cast, view: LeaseView) -> LeaseView:
    return decode_lease(cast.apis["admin"].get(f"{cast.leases}/{view.name}"))


def _refusal(policy: str, write: Callable[[], object]) -> str:
    """Do a write that the policy is to refuse, and give its message."""
    with pytest.raises(ApiError) as caught:
        write()
    message = str(caught.value)
    assert caught.value.code == 403, message
    assert f"ValidatingAdmissionPolicy '{policy}'" in message, message
    return message


# The Lease: what is allowed ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Row:
    """One write: the Lease before it, who writes, what; `then` are fields after it, or `why` part of the refusal."""

    name: str
    before: dict[str, str]
    who: str
    patch: Any
    then: tuple[tuple[str, Any], ...] = ()
    why: str = ""


ALLOWED = (
    Row(
        "take",
        {"owner": "a", "observed": REPORT},
        "a",
        lambda v, u: contract_lease.take(v, u["a"], NOW),
        (("holder", "a"), ("transitions", 6), ("observed", ""), ("renew_time", "2026-01-02T03:04:05.000006Z")),
    ),
    Row(
        "take, prepared before",
        {"owner": "a", "prepared": "a"},
        "a",
        lambda v, u: contract_lease.take(v, u["a"], NOW),
        (("holder", "a"), ("prepared", "a"), ("transitions", 6)),
    ),
    Row(
        "renew and report",
        HELD_BY_A,
        "a",
        lambda v, _u: contract_lease.renew(v, REPORT, NOW),
        (("holder", "a"), ("observed", REPORT), ("transitions", 5), ("renew_time", "2026-01-02T03:04:05.000006Z")),
    ),
    Row(
        "renew by a holder that is no longer the owner",
        {"holder": "a", "owner": "b", "prepared": "b"},
        "a",
        lambda v, _u: contract_lease.renew(v, REPORT, NOW),
        (("holder", "a"), ("prepared", "b"), ("observed", REPORT)),
    ),
    Row(
        "prepare",
        {"holder": "a", "owner": "b", "observed": REPORT},
        "b",
        lambda v, u: contract_lease.prepare(v, u["b"]),
        (("holder", "a"), ("prepared", "b"), ("observed", REPORT), ("transitions", 5)),
    ),
    Row(
        "prepare by a lost Pod that is back",
        {"holder": "a", "owner": "a", "lost": "cb"},
        "b",
        lambda v, u: contract_lease.prepare(v, u["b"]),
        (("prepared", "b"), ("owner", "a")),
    ),
    Row(
        "take back prepared",
        {"holder": "a", "owner": "b", "prepared": "b"},
        "b",
        lambda v, _u: contract_lease.prepare(v, ""),
        (("prepared", ""), ("holder", "a")),
    ),
    Row(
        "take back prepared, lost and not the owner",
        {"holder": "a", "owner": "a", "lost": "b", "prepared": "b"},
        "b",
        lambda v, _u: contract_lease.prepare(v, ""),
        (("prepared", ""),),
    ),
    Row(
        "hand over",
        {"holder": "a", "owner": "b", "prepared": "b", "observed": REPORT},
        "a",
        lambda v, u: contract_lease.hand_over(v, u["b"], NOW),
        (("holder", "b"), ("transitions", 6), ("observed", ""), ("prepared", "b")),
    ),
    Row(
        "release",
        {"holder": "a", "owner": "a", "observed": REPORT},
        "a",
        lambda v, _u: contract_lease.release(v, NOW),
        (("holder", ""), ("transitions", 5), ("observed", "")),
    ),
    Row(
        "release by a holder that nobody wants any more",
        {"holder": "a", "owner": ""},
        "a",
        lambda v, _u: contract_lease.release(v, NOW),
        (("holder", ""),),
    ),
    Row(
        "explain while free",
        {"owner": "a"},
        "a",
        lambda v, _u: contract_lease.explain(v, REPORT),
        (("holder", ""), ("observed", REPORT)),
    ),
    Row(
        "name another owner, who must prepare anew",
        {"holder": "a", "owner": "b", "prepared": "b", "observed": REPORT},
        "controller",
        lambda v, u: contract_lease.name_owner(v, u["c"], duration_s=2, lost=(), addresses=v.addresses),
        (("holder", "a"), ("owner", "c"), ("prepared", ""), ("observed", REPORT), ("duration_s", 2)),
    ),
    Row(
        "name no owner",
        HELD_BY_A,
        "controller",
        lambda v, _u: contract_lease.name_owner(v, "", duration_s=10, lost=(), addresses=v.addresses),
        (("holder", "a"), ("owner", "")),
    ),
    Row(
        "find a lost Pod again",
        {"holder": "a", "owner": "a", "lost": "b", "prepared": "b"},
        "controller",
        lambda v, u: contract_lease.name_owner(v, u["a"], duration_s=10, lost=(), addresses=v.addresses),
        (("prepared", ""), ("lost", ())),
    ),
    Row(
        "change the duration alone",
        {"holder": "a", "owner": "b", "prepared": "b"},
        "controller",
        lambda v, u: contract_lease.name_owner(v, u["b"], duration_s=60, lost=(), addresses=v.addresses),
        (("prepared", "b"), ("owner", "b"), ("duration_s", 60)),
    ),
    Row(
        "name one address more under a holder without a report",
        HELD_BY_A,
        "controller",
        lambda v, u: contract_lease.name_owner(v, u["a"], duration_s=10, lost=(), addresses=(*NAMED, "192.0.2.9/32")),
        (("addresses", (*NAMED, "192.0.2.9/32")),),
    ),
    Row(
        "name one address less when the holder has reported",
        HELD_BY_A | {"observed": REPORT},
        "controller",
        lambda v, u: contract_lease.name_owner(v, u["a"], duration_s=10, lost=(), addresses=NAMED[:1]),
        (("addresses", NAMED[:1]),),
    ),
    Row(
        "name none when the Lease is free",
        {"owner": "a"},
        "controller",
        lambda v, _u: contract_lease.name_owner(v, "", duration_s=10, lost=(), addresses=()),
        (("addresses", ()),),
    ),
    Row(
        "free, and name others",
        HELD_BY_A,
        "controller",
        lambda v, u: contract_lease.free(v, u["b"], duration_s=10, lost=(), addresses=("192.0.2.9/32",)),
        (("holder", ""), ("addresses", ("192.0.2.9/32",))),
    ),
    Row(
        "free, with the prepared Pod as the next owner",
        {"holder": "a", "owner": "b", "prepared": "b", "observed": REPORT},
        "controller",
        lambda v, u: contract_lease.free(v, u["b"], duration_s=10, lost=(u["a"],), addresses=v.addresses),
        (("holder", ""), ("owner", "b"), ("prepared", "b"), ("observed", ""), ("transitions", 5), ("lost", ("a",))),
    ),
    Row(
        "free, with another owner",
        {"holder": "a", "owner": "a", "observed": REPORT},
        "controller",
        lambda v, u: contract_lease.free(v, u["c"], duration_s=10, lost=(u["a"],), addresses=v.addresses),
        (("holder", ""), ("owner", "c"), ("prepared", "")),
    ),
)


def _seen(value: Any, uids: dict[str, str]) -> Any:
    if isinstance(value, tuple):
        return tuple(uids.get(each, each) for each in value)
    return uids.get(value, value) if isinstance(value, str) else value


@pytest.mark.parametrize("row", ALLOWED, ids=lambda row: row.name)
def test_a_write_of_the_table_is_allowed(cast: Cast, row: Row) -> None:
    before = _stage(cast, **row.before)
    after = _write(cast, row.who, before, row.patch(before, cast.uids))
    assert {name: getattr(after, name) for name, _ in row.then} == {n: _seen(v, cast.uids) for n, v in row.then}


# The Lease: what is refused ---------------------------------------------------------------------------------------


def _spec(**fields: Any) -> Any:
    return lambda _v, u: {"spec": {name: _seen(value, u) for name, value in fields.items()}}


def _notes(**fields: Any) -> Any:
    names = {"owner": OWNER, "prepared": PREPARED, "observed": OBSERVED, "lost": LOST}
    names |= {"addresses": ADDRESSES, "foreign": "example.com/x"}
    return lambda _v, u: {"metadata": {"annotations": {names[name]: _seen(v, u) for name, v in fields.items()}}}


def _both(*patchers: Any) -> Any:
    def merged(view: LeaseView, uids: dict[str, str]) -> dict[str, Any]:
        patches = [patcher(view, uids) for patcher in patchers]
        return {key: value for patch in patches for key, value in patch.items()}

    return merged


def _holder(name: str, epoch: int = 6) -> Any:
    return _both(_spec(holderIdentity=name, leaseTransitions=epoch), _notes(observed=""))


HANDING_OVER = {"holder": "a", "owner": "b", "prepared": "b", "observed": REPORT}
LATER = "2026-01-02T03:04:09.000000Z"

REFUSED = (
    # take
    Row("take by another than the owner", {"owner": "a"}, "b", _holder("b"), why="only the owner takes a free Lease"),
    Row("take without an owner", {}, "a", _holder("a"), why="only the owner takes a free Lease"),
    Row("take for another", {"owner": "a"}, "a", _holder("b"), why="only the owner takes a free Lease"),
    Row("take for the owner", {"owner": "a"}, "b", _holder("a"), why="only the owner takes a free Lease"),
    Row("take by prepared alone", {"lost": "b", "prepared": "b"}, "b", _holder("b"), why="only the owner takes"),
    Row("take by owner in the same write", {}, "a",
        _both(_spec(holderIdentity="a", leaseTransitions=6), _notes(owner="a")), why="only the owner takes"),
    Row("take from a holder, as the owner", HANDING_OVER, "b", _holder("b"), why="it is held"),
    Row("take from a holder, as a bystander", HANDING_OVER, "c", _holder("c"), why="it is held"),
    Row("free by another Pod", HANDING_OVER, "b", _holder("", 5), why="it is held"),
    Row("take without a new epoch", {"owner": "a"}, "a", _holder("a", 5), why="leaseTransitions grows by one"),
    Row("take with a leap of the epoch", {"owner": "a"}, "a", _holder("a", 7), why="leaseTransitions grows by one"),
    Row("take that keeps the report", {"owner": "a", "observed": REPORT}, "a",
        _spec(holderIdentity="a", leaseTransitions=6), why="clears holdfast.dev/observed"),
    Row("take with a report of its own", {"owner": "a"}, "a",
        _both(_spec(holderIdentity="a", leaseTransitions=6), _notes(observed=REPORT)), why="holdfast.dev/observed"),
    # renew, report
    Row("renew by the owner that does not hold", HANDING_OVER, "b", _spec(renewTime=LATER), why="renewTime"),
    Row("renew of a free Lease", {"owner": "a"}, "a", _spec(renewTime=LATER), why="renewTime"),
    Row("renew by a bystander", HELD_BY_A, "c", _spec(renewTime=LATER), why="renewTime"),
    Row("acquireTime without acquiring", HELD_BY_A, "a", _spec(acquireTime=LATER), why="acquireTime"),
    Row("a holder counts the epoch up", HELD_BY_A, "a", _spec(leaseTransitions=6), why="leaseTransitions"),
    Row("a holder counts the epoch down", HELD_BY_A, "a", _spec(leaseTransitions=4), why="leaseTransitions"),
    Row("report by the owner that does not hold", HANDING_OVER, "b", _notes(observed="{}"),
        why="holdfast.dev/observed"),
    Row("report by a bystander", HELD_BY_A, "c", _notes(observed=REPORT), why="holdfast.dev/observed"),
    Row("clear the holder's report", HANDING_OVER, "b", _notes(observed=""), why="holdfast.dev/observed"),
    Row("explain by another than the owner", {"owner": "a"}, "b", _notes(observed=REPORT), why="holdfast.dev/observed"),
    # hand over
    Row("hand over to one not prepared", {"holder": "a", "owner": "b"}, "a", _holder("b"), why="hands over only to"),
    Row("hand over to one prepared that is not the owner", {"holder": "a", "owner": "b", "lost": "c", "prepared": "c"},
        "a", _holder("c"), why="hands over only to"),
    Row("hand over while itself the owner", HELD_BY_A, "a", _holder("b"), why="hands over only to"),
    Row("hand over with owner and prepared in the same write", HELD_BY_A, "a",
        _both(_spec(holderIdentity="b", leaseTransitions=6), _notes(owner="b", prepared="b", observed="")),
        why="hands over only to"),
    Row("hand over to a Pod that is not there", HANDING_OVER, "a", _holder("x"), why="hands over only to"),
    Row("hand over by a bystander", HANDING_OVER, "c", _holder("b"), why="it is held"),
    Row("hand over without a new epoch", HANDING_OVER, "a", _holder("b", 5), why="leaseTransitions"),
    Row("hand over that keeps the report", HANDING_OVER, "a", _spec(holderIdentity="b", leaseTransitions=6),
        why="clears holdfast.dev/observed"),
    # release
    Row("release by another", HELD_BY_A, "b", _holder("", 5), why="it is held"),
    Row("release with a new epoch", HELD_BY_A, "a", _holder("", 6), why="leaseTransitions"),
    Row("release that keeps the report", {**HELD_BY_A, "observed": REPORT}, "a", _spec(holderIdentity=""),
        why="clears holdfast.dev/observed"),
    # prepare
    Row("prepare by a bystander", HELD_BY_A, "c", _notes(prepared="c"), why="holdfast.dev/prepared"),
    Row("prepare for another", HELD_BY_A | {"owner": "b"}, "a", _notes(prepared="b"), why="holdfast.dev/prepared"),
    Row("prepare for another, as the owner", {"holder": "a", "owner": "b"}, "b", _notes(prepared="c"),
        why="holdfast.dev/prepared"),
    Row("take back another's prepared", HANDING_OVER, "a", _notes(prepared=""), why="holdfast.dev/prepared"),
    Row("prepare by a UID that lost only begins with", HELD_BY_A | {"lost": "b"}, "c", _notes(prepared="c"),
        why="holdfast.dev/prepared"),
    # what is the controller's
    Row("a Pod names itself owner", HELD_BY_A, "b", _notes(owner="b"), why="a Pod may not change owner"),
    Row("the holder names an owner", HELD_BY_A, "a", _notes(owner="b"), why="a Pod may not change owner"),
    Row("a Pod takes the owner away", HELD_BY_A, "a", _notes(owner=None), why="a Pod may not change owner"),
    Row("a Pod finds itself again", {"lost": "b"}, "b", _notes(lost=""), why="may not change owner, lost, addresses"),
    Row("a Pod calls another lost", HELD_BY_A, "b", _notes(lost="a"), why="may not change owner, lost, addresses"),
    Row("the holder names an address", HELD_BY_A, "a", _notes(addresses="192.0.2.1/32,192.0.2.2/32,192.0.2.9/32"),
        why="may not change owner, lost, addresses"),
    Row("the owner names an address", {"owner": "a"}, "a", _notes(addresses="192.0.2.9/32"),
        why="may not change owner, lost, addresses"),
    Row("the holder changes the duration", HELD_BY_A, "a", _spec(leaseDurationSeconds=60), why="leaseDurationSeconds"),
    Row("the holder takes the duration away", HELD_BY_A, "a", _spec(leaseDurationSeconds=None),
        why="leaseDurationSeconds"),
    Row("the holder changes labels", HELD_BY_A, "a", lambda _v, _u: {"metadata": {"labels": {"x": "y"}}}, why="labels"),
    Row("the holder adds an annotation", HELD_BY_A, "a", _notes(foreign="1"), why="a Pod may not change"),
    Row("the holder adds a finalizer", HELD_BY_A, "a",
        lambda _v, _u: {"metadata": {"finalizers": ["example.com/x"]}}, why="a Pod may not change"),
    # the controller
    Row("the controller makes a holder", {"owner": "a"}, "controller", _spec(holderIdentity="a"),
        why="never makes a Pod its holder"),
    Row("the controller changes the holder", HANDING_OVER, "controller",
        _both(_spec(holderIdentity="b"), _notes(observed="")), why="never makes a Pod its holder"),
    Row("the controller renews", HELD_BY_A, "controller", _spec(renewTime=LATER), why="renews it (holderIdentity"),
    Row("the controller sets the epoch", HELD_BY_A, "controller", _spec(leaseTransitions=6), why="leaseTransitions"),
    Row("the controller says who is prepared", {"holder": "a", "owner": "b"}, "controller", _notes(prepared="b"),
        why="never says that a Pod is prepared"),
    Row("the controller keeps prepared at a change of owner", HANDING_OVER, "controller", _notes(owner="c"),
        why="a new owner must say so itself"),
    Row("the controller reports", HELD_BY_A, "controller", _notes(observed=REPORT), why="writes no report"),
    Row("the controller frees and keeps the report", HANDING_OVER, "controller", _spec(holderIdentity=""),
        why="clears holdfast.dev/observed"),
    Row("the controller takes an address from a holder without a report", HELD_BY_A, "controller",
        _notes(addresses="192.0.2.1/32"), why="stays named until its holder has reported"),
    # everybody else
    Row("an admin names an address", HELD_BY_A, "admin", _notes(addresses="192.0.2.9/32"), why="is neither"),
    Row("an admin frees", HELD_BY_A, "admin", _spec(holderIdentity=""), why="is neither"),
    Row("an admin makes a holder", {"owner": "a"}, "admin", _holder("a"), why="is neither"),
    Row("an admin names an owner", HELD_BY_A, "admin", _notes(owner="b"), why="is neither"),
    Row("an admin renews", HELD_BY_A, "admin", _spec(renewTime=LATER), why="is neither"),
    Row("an admin says who is prepared", {"holder": "a", "owner": "b"}, "admin", _notes(prepared="b"),
        why="is neither"),
    Row("an admin reports", HELD_BY_A, "admin", _notes(observed=REPORT), why="is neither"),
    Row("an admin labels", HELD_BY_A, "admin", lambda _v, _u: {"metadata": {"labels": {"x": "y"}}}, why="is neither"),
)  # fmt: skip


@pytest.mark.parametrize("row", REFUSED, ids=lambda row: row.name)
def test_any_other_write_is_refused(cast: Cast, row: Row) -> None:
    before = _stage(cast, **row.before)
    message = _refusal("holdfast-lease", lambda: _write(cast, row.who, before, row.patch(before, cast.uids)))
    assert row.why in message
    assert f"Lease {cast.namespace}/holdfast-r" in message
    assert _read(cast, before) == before


def test_of_two_writers_one_loses(cast: Cast) -> None:
    before = _stage(cast, **HANDING_OVER)
    _write(cast, "a", before, contract_lease.renew(before, REPORT + " ", NOW))
    freeing = contract_lease.free(before, cast.uids["b"], duration_s=10, lost=(), addresses=before.addresses)
    with pytest.raises(ApiError) as caught:
        _write(cast, "controller", before, freeing)
    assert caught.value.code == 409


def test_a_token_that_is_not_bound_to_a_pod_writes_nothing(world: World, cast: Cast) -> None:
    before = _stage(cast, owner="a")
    patch = contract_lease.take(before, cast.uids["a"], NOW)
    with contextlib.closing(world.api.as_token(world.token(cast.namespace, "app"))) as unbound:
        message = _refusal("holdfast-lease", lambda: _merge(unbound, f"{cast.leases}/{before.name}", patch))
    assert f"system:serviceaccount:{cast.namespace}:app is neither" in message


def test_a_write_that_changes_nothing_is_anybodys(cast: Cast) -> None:
    before = _stage(cast, **HANDING_OVER)
    path = f"{cast.leases}/{before.name}"
    assert decode_lease(cast.apis["admin"].update(path, cast.apis["admin"].get(path))) == before


# The Lease: create and delete ---------------------------------------------------------------------------------------


def _lease(name: str, **spec: Any) -> dict[str, Any]:
    return {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": name}, "spec": spec}


@pytest.mark.parametrize("who", ["admin", "a"])
@pytest.mark.parametrize("named", [{"name": "holdfast-r"}, {"generateName": "holdfast-"}], ids=["name", "generateName"])
def test_only_the_controller_creates(cast: Cast, who: str, named: dict[str, str]) -> None:
    made = {**_lease(""), "metadata": named}
    message = _refusal("holdfast-lease", lambda: cast.apis[who].create(cast.leases, made))
    assert "only holdfast's controller creates" in message


@pytest.mark.parametrize("note", [PREPARED, OBSERVED])
def test_the_controller_creates_without_the_pods_part(cast: Cast, note: str) -> None:
    made = contract_lease.create(ROUTE, cast.namespace, cast.uids["a"], 10, addresses=NAMED)
    made["metadata"]["annotations"][note] = cast.uids["a"]
    assert "without" in _refusal("holdfast-lease", lambda: cast.apis["controller"].create(cast.leases, made))


def test_the_controller_recreates_as_held(cast: Cast) -> None:
    made = contract_lease.create(ROUTE, cast.namespace, "", 10, addresses=NAMED, holder=cast.uids["a"], transitions=8)
    view = decode_lease(cast.apis["controller"].create(cast.leases, made))
    assert (view.holder, view.transitions) == (cast.uids["a"], 8)


@pytest.mark.parametrize("who", ["controller", "admin", "a", "b"])
def test_nobody_deletes_what_is_held(cast: Cast, who: str) -> None:
    view = _stage(cast, **HELD_BY_A)
    message = _refusal("holdfast-lease", lambda: cast.apis[who].delete(f"{cast.leases}/{view.name}"))
    assert f"Pod {cast.uids['a']} holds it" in message
    assert _read(cast, view) == view


def test_nobody_deletes_what_is_held_along_with_all_others(cast: Cast) -> None:
    view = _stage(cast, **HELD_BY_A)
    _refusal("holdfast-lease", lambda: cast.apis["admin"].delete(cast.leases))
    assert _read(cast, view) == view


@pytest.mark.parametrize("who", ["controller", "admin"])
def test_a_free_lease_may_be_deleted(cast: Cast, who: str) -> None:
    view = _stage(cast, owner="a")
    cast.apis[who].delete(f"{cast.leases}/{view.name}")
    with pytest.raises(ApiError) as caught:
        _read(cast, view)
    assert caught.value.code == 404


def test_a_pod_deletes_no_lease(cast: Cast) -> None:
    view = _stage(cast, owner="a")
    assert "not a Pod" in _refusal("holdfast-lease", lambda: cast.apis["a"].delete(f"{cast.leases}/{view.name}"))


def test_a_namespace_goes_with_a_held_lease_in_it(quiet: World) -> None:
    path = "/api/v1/namespaces/going"
    quiet.create_namespace("going")
    with _cast(quiet, "going") as cast:
        _stage(cast, **HELD_BY_A)
        quiet.api.delete(path)
        quiet.api.wait(path, lambda found: found is None, DEADLINE_S)
        with pytest.raises(ApiError) as caught:
            quiet.api.get(f"{cast.leases}/holdfast-r")
    assert caught.value.code == 404


# Leases that are none of a route's ----------------------------------------------------------------------------------


@pytest.mark.parametrize("who", ["admin", "a"])
def test_other_programs_leases_are_left_alone(cast: Cast, who: str) -> None:
    cast.apis[who].create(cast.leases, _lease("my-operator", holderIdentity="me"))
    path = f"{cast.leases}/my-operator"
    assert _merge(cast.apis[who], path, _spec(holderIdentity="you")(None, {}))["spec"]["holderIdentity"] == "you"
    cast.apis[who].delete(path)


def test_the_heartbeat_of_a_node_called_like_a_route_is_left_alone(quiet: World) -> None:
    path = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases"
    quiet.api.create(path, _lease("holdfast-1", holderIdentity="holdfast-1"))
    _merge(quiet.api, f"{path}/holdfast-1", {"spec": {"renewTime": LATER}})
    quiet.api.delete(f"{path}/holdfast-1")


def test_the_controller_writes_no_other_leases(cast: Cast) -> None:
    cast.apis["admin"].create(cast.leases, _lease("my-operator", holderIdentity="me"))
    path, controller = f"{cast.leases}/my-operator", cast.apis["controller"]
    message = _refusal("holdfast-lease", lambda: _merge(controller, path, {"spec": {"holderIdentity": "you"}}))
    assert "only the Leases of its routes" in message
    _refusal("holdfast-lease", lambda: controller.delete(path))
    _refusal("holdfast-lease", lambda: controller.create(cast.leases, _lease(ELECTION_LEASE)))
    nodes = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases"
    _refusal("holdfast-lease", lambda: controller.create(nodes, _lease("holdfast-2")))


def test_the_replicas_may_elect(cast: Cast) -> None:
    # a dry run, which goes through admission: the real one belongs to the world's controllers
    path = f"/apis/coordination.k8s.io/v1/namespaces/{SYSTEM}/leases"
    try:
        made = cast.apis["controller"].create(path, _lease(ELECTION_LEASE, holderIdentity="me"), dryRun="All")
    except ApiError as error:
        assert error.reason == "AlreadyExists"  # noqa: PT017 - said by the store, which comes after admission
    else:
        assert made["spec"]["holderIdentity"] == "me"


# The assignment -----------------------------------------------------------------------------------------------------


def test_the_controller_writes_the_assignment(cast: Cast) -> None:
    controller, path = cast.apis["controller"], f"{cast.pods}/a"
    for text in ("one", "two", None):
        patch = {"metadata": {"uid": cast.uids["a"], "annotations": {ASSIGNMENT: text}}}
        after = _merge(controller, path, patch)["metadata"].get("annotations", {})
        assert after.get(ASSIGNMENT) == text


def test_the_controller_does_not_write_to_the_next_pod_of_that_name(cast: Cast) -> None:
    patch = {"metadata": {"uid": cast.uids["b"], "annotations": {ASSIGNMENT: "x"}}}
    with pytest.raises(ApiError) as caught:
        _merge(cast.apis["controller"], f"{cast.pods}/a", patch)
    assert caught.value.code == 422
    assert "metadata.uid" in str(caught.value)


@pytest.mark.parametrize("who", ["admin", "a"])
@pytest.mark.parametrize("text", ["forged", None, ""], ids=["change", "remove", "empty"])
@pytest.mark.parametrize("through", ["", "/status"], ids=["pod", "status"])
def test_nobody_else_changes_the_assignment(cast: Cast, who: str, text: str | None, through: str) -> None:
    _merge(cast.apis["controller"], f"{cast.pods}/a", ASSIGNED)
    patch = {"metadata": {"annotations": {ASSIGNMENT: text}}}
    message = _refusal("holdfast-assignment", lambda: _merge(cast.apis[who], f"{cast.pods}/a{through}", patch))
    assert "only holdfast's controller writes the annotation" in message
    pod = cast.apis["admin"].get(f"{cast.pods}/a")
    assert pod["metadata"]["annotations"][ASSIGNMENT] == ASSIGNED["metadata"]["annotations"][ASSIGNMENT]


@pytest.mark.parametrize("who", ["admin", "a"])
@pytest.mark.parametrize("through", ["", "/status"], ids=["pod", "status"])
def test_nobody_else_adds_an_assignment(cast: Cast, who: str, through: str) -> None:
    _refusal("holdfast-assignment", lambda: _merge(cast.apis[who], f"{cast.pods}/b{through}", ASSIGNED))
    assert ASSIGNMENT not in cast.apis["admin"].get(f"{cast.pods}/b")["metadata"].get("annotations", {})


@pytest.mark.parametrize("path", ["pods/b/binding", "bindings"])
def test_no_assignment_comes_with_a_binding(cast: Cast, path: str) -> None:
    bound = {
        "apiVersion": "v1",
        "kind": "Binding",
        "metadata": {"name": "b", **ASSIGNED["metadata"]},
        "target": {"apiVersion": "v1", "kind": "Node", "name": "no-such-node"},
    }
    target = f"/api/v1/namespaces/{cast.namespace}/{path}"
    _refusal("holdfast-assignment", lambda: cast.apis["admin"].create(target, bound))


def test_no_assignment_comes_with_an_ephemeral_container(cast: Cast) -> None:
    debug = {"spec": {"ephemeralContainers": [{"name": "debug", "image": "debug:1"}]}, **ASSIGNED}
    after = cast.apis["admin"].patch(
        f"{cast.pods}/b/ephemeralcontainers", debug, "application/strategic-merge-patch+json"
    )
    assert after["spec"]["ephemeralContainers"][0]["name"] == "debug"
    assert ASSIGNMENT not in after["metadata"].get("annotations", {})  # this door takes containers and nothing else


@pytest.mark.parametrize("who", ["admin", "a"])
def test_no_pod_is_born_with_an_assignment(cast: Cast, who: str) -> None:
    _refusal("holdfast-assignment", lambda: cast.apis[who].create(cast.pods, _pod("d", **ASSIGNED["metadata"])))


def test_no_template_makes_a_pod_with_an_assignment(cast: Cast) -> None:
    template = {"metadata": {"labels": {"app": "d"}, **ASSIGNED["metadata"]}, "spec": _pod("d")["spec"]}
    made = {
        "apiVersion": "apps/v1",
        "kind": "ReplicaSet",
        "metadata": {"name": "d"},
        "spec": {"replicas": 1, "selector": {"matchLabels": {"app": "d"}}, "template": template},
    }
    path = f"/apis/apps/v1/namespaces/{cast.namespace}/replicasets"
    cast.apis["admin"].create(path, made)
    found = cast.apis["admin"].wait(f"{path}/d", lambda each: bool(each["status"].get("conditions")), DEADLINE_S)
    condition = found["status"]["conditions"][0]
    assert (condition["type"], condition["reason"]) == ("ReplicaFailure", "FailedCreate")
    assert "holdfast-assignment" in condition["message"]


def test_an_assigned_pod_lives_on_as_any_other(cast: Cast) -> None:
    admin, path = cast.apis["admin"], f"{cast.pods}/a"
    _merge(cast.apis["controller"], path, ASSIGNED)
    _merge(admin, path, {"metadata": {"labels": {"x": "y"}}})
    _merge(admin, f"{path}/status", {"status": {"phase": "Running"}})
    admin.create(f"{path}/eviction", {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": "a"}})
    with pytest.raises(ApiError) as caught:
        admin.get(path)
    assert caught.value.code == 404


@pytest.mark.parametrize(
    "patch",
    [
        {"spec": {"containers": [{"name": "app", "image": "evil:1"}]}},
        {"metadata": {"labels": {"x": "y"}}},
        {"metadata": {"annotations": {ASSIGNMENT: "x", "example.com/x": "y"}}},
        {"metadata": {"annotations": {"example.com/kept": None}}},
        {"metadata": {"finalizers": ["example.com/x"]}},
        {"metadata": {"ownerReferences": [{"apiVersion": "v1", "kind": "Pod", "name": "b", "uid": "1"}]}},
    ],
    ids=["image", "label", "annotation", "removed annotation", "finalizer", "owner"],
)
def test_the_controller_writes_nothing_else_on_a_pod(cast: Cast, patch: dict[str, Any]) -> None:
    _merge(cast.apis["admin"], f"{cast.pods}/c", {"metadata": {"annotations": {"example.com/kept": "1"}}})
    message = _refusal("holdfast-assignment", lambda: _merge(cast.apis["controller"], f"{cast.pods}/c", patch))
    assert "nothing on a Pod but the annotation" in message
