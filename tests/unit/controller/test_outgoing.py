"""The Role of a namespace's sidecars: a rule that names nothing would be for everything."""

from __future__ import annotations

import pytest

from controller.choice.decide import Access
from controller.outgoing import access_job, sidecar_role

LEASES = {
    "apiGroups": ["coordination.k8s.io"],
    "resources": ["leases"],
    "resourceNames": ["holdfast-r"],
    "verbs": ["get", "watch", "update", "patch"],
}
PODS = {"apiGroups": [""], "resources": ["pods"], "resourceNames": ["w"], "verbs": ["get", "watch"]}


@pytest.mark.parametrize(
    ("access", "rules"),
    [
        pytest.param(Access(("holdfast-r",)), [LEASES], id="leases"),
        pytest.param(Access((), ("w",)), [PODS], id="pods-before-a-route-selects-them"),
        pytest.param(Access(("holdfast-r",), ("w",)), [LEASES, PODS], id="both"),
    ],
)
def test_a_role_has_a_rule_only_for_what_it_names(access, rules):
    assert sidecar_role(access)["rules"] == rules
    assert [each.method for each in access_job("n", access).requests] == ["PATCH", "PATCH"]


def test_nothing_to_reach_means_no_role():
    assert [each.method for each in access_job("n", Access()).requests] == ["DELETE", "DELETE"]
