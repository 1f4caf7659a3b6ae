"""Pods of all kinds, as users write them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hypothesis import strategies as st

from contract.names import INJECT
from controller.injection.sidecar import Settings

if TYPE_CHECKING:
    from hypothesis.strategies import SearchStrategy

Object = dict[str, Any]

SETTINGS = Settings(image="holdfast-sidecar:1")
ASKS = {INJECT: "true"}


def pod(*, labels: Any = None, notes: Any = None, namespace: str = "shop", **spec: Any) -> Object:
    meta = {"name": "web-0", "namespace": namespace, "labels": labels, "annotations": notes}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {key: value for key, value in meta.items() if value is not None},
        "spec": {"containers": [{"name": "app", "image": "app:1"}], **spec},
    }


_names = st.sampled_from(["app", "db", "setup", "holdfast", "holdfast-2", "log"])
_containers = st.lists(st.fixed_dictionaries({"name": _names, "image": st.text(max_size=5)}), max_size=3)
_volumes = st.lists(st.fixed_dictionaries({"name": _names, "emptyDir": st.just({})}), max_size=3)
_values = st.sampled_from(["true", "false", "yes", "downward", "watch", "app", "holdfast", ""])
_texts = st.dictionaries(
    st.sampled_from([INJECT, "holdfast.dev/source", "holdfast.dev/container", "component"]), _values, max_size=3
)


def any_pods() -> SearchStrategy[Object]:
    """Pods that may ask for anything, with fields absent, null and empty, as JSON has them."""
    maybe = st.none() | _texts
    meta = st.fixed_dictionaries({"name": st.just("p")}, optional={"labels": maybe, "annotations": maybe})
    spec = st.fixed_dictionaries(
        {"containers": _containers},
        optional={
            "initContainers": st.none() | _containers,
            "volumes": st.none() | _volumes,
            "hostNetwork": st.booleans(),
            "os": st.sampled_from([None, {"name": "linux"}, {"name": "windows"}]),
            "restartPolicy": st.sampled_from(["Always", "Never", "OnFailure"]),
            "shareProcessNamespace": st.booleans(),
        },
    )
    return st.fixed_dictionaries({"metadata": meta, "spec": spec})
