"""The machine's Lease actions as requests, and their outcome as the machine's events."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

from contract import lease as writes
from contract.errors import ContractError
from contract.lease import Patch, decode_lease
from sidecar.clock import boottime, wall_time
from sidecar.errors import ApiError, NotFound, Refused
from sidecar.protocol.events import Kind, Read, ReadDone, Unanswered, Write, Written
from sidecar.protocol.events import Refused as WriteRefused

if TYPE_CHECKING:
    from sidecar.cluster.client import ApiClient

_COLLECTION: Final = "/apis/coordination.k8s.io/v1/namespaces/{}/leases/{}"


def patch_for(action: Write, me: str) -> Patch:  # noqa: PLR0911 - one case per kind
    """Give the merge patch that carries out a write."""
    view, now = action.view, wall_time()
    match action.kind:
        case Kind.TAKE:
            return writes.take(view, me, now)
        case Kind.RENEW:
            return writes.renew(view, action.observed, now)
        case Kind.PREPARE:
            return writes.prepare(view, me)
        case Kind.WITHDRAW:
            return writes.prepare(view, "")
        case Kind.HAND_OVER:
            return writes.hand_over(view, action.successor, now)
        case Kind.RELEASE:
            return writes.release(view, now)
        case Kind.EXPLAIN:
            return writes.explain(view, action.observed)


async def write(api: ApiClient, action: Write, me: str) -> Written | WriteRefused | Unanswered:
    """Write the Lease."""
    path = _COLLECTION.format(action.view.namespace, action.view.name)
    body = msgspec.json.encode(patch_for(action, me))
    sent_s = boottime()
    try:
        answer = await api.request("PATCH", path, body, timeout_s=action.timeout_s)
        return Written(decode_lease(answer, action.view.where), sent_s)
    except Refused as error:
        return WriteRefused(str(error))
    except (ApiError, ContractError) as error:
        return Unanswered(str(error))


async def read(api: ApiClient, namespace: str, name: str, action: Read) -> ReadDone | Unanswered:
    """Read the Lease."""
    try:
        answer = await api.request("GET", _COLLECTION.format(namespace, name), timeout_s=action.timeout_s)
        return ReadDone(decode_lease(answer, f"Lease {namespace}/{name}"))
    except NotFound:
        return ReadDone(None)
    except (ApiError, ContractError) as error:
        return Unanswered(str(error))
