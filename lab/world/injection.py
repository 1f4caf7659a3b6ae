"""Injection on played nodes: the API server itself adds the sidecar to every Pod that does not refuse it.

It is the policy for labelled Pods that `holdfast inject --policy` prints; only whom it asks is another. So what a
played kubelet starts is what a real one would be told to.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any, Final

from contract.names import AGENT_CONTAINER, INJECT
from controller.injection.policy import policies
from controller.injection.release import SIDECAR_IMAGE
from controller.injection.sidecar import Settings
from lab.world.effect import until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lab.api_client import ApiClient

Object = dict[str, Any]

POLICY: Final = "holdfast-lab"
_BINDINGS: Final = "/apis/admissionregistration.k8s.io/v1beta1/mutatingadmissionpolicybindings"


def manifests() -> list[Object]:
    """The policy and its binding."""
    policy, binding = policies(Settings(SIDECAR_IMAGE))[:2]
    policy["metadata"]["name"] = binding["metadata"]["name"] = binding["spec"]["policyName"] = POLICY
    everybody = {"matchExpressions": [{"key": INJECT, "operator": "NotIn", "values": ["false"]}]}
    policy["spec"]["matchConstraints"]["objectSelector"] = everybody
    return [policy, binding]


def wait(api: ApiClient, *, on: bool = True) -> None:
    """Wait until a Pod that is created gets the sidecar, or no longer does; the API server says so by no event.

    Raises:
        WaitTimeout: it does not come to that.
    """
    what = "come into" if on else "go out of"
    until(lambda: _injects(api) is on, f"the policy {POLICY} did not {what} effect")


@contextlib.contextmanager
def off(api: ApiClient) -> Iterator[None]:
    """A time in which Pods get no sidecar by the lab, for what injects by itself."""
    binding = manifests()[1]
    api.delete(f"{_BINDINGS}/{POLICY}")
    try:
        wait(api, on=False)
        yield
    finally:
        api.create(_BINDINGS, binding)
        wait(api)


def _injects(api: ApiClient) -> bool:
    body = {"metadata": {"name": "injected"}, "spec": {"containers": [{"name": "app", "image": "app"}]}}
    made = api.create("/api/v1/namespaces/default/pods", body, dryRun="All")
    return any(each["name"] == AGENT_CONTAINER for each in made["spec"].get("initContainers", []))
