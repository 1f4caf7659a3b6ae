"""What the lab installs: which path a kind has, when discovery lags behind its definition."""

from lab.errors import ApiError
from lab.world.install import _Resources

ROOT = "/apis/gateway.networking.k8s.io/v1"
CLASS = {"apiVersion": "gateway.networking.k8s.io/v1", "kind": "GatewayClass", "metadata": {"name": "a"}}


class Discovery:
    """Answers one after the other."""

    def __init__(self, *answers):
        self.answers = list(answers)

    def get(self, path):
        assert path == ROOT
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return {"resources": [{"name": name, "kind": kind, "namespaced": spaced} for name, kind, spaced in answer]}


def test_a_kind_is_waited_for_until_discovery_has_it():
    gateways, classes = ("gateways", "Gateway", True), ("gatewayclasses", "GatewayClass", False)
    discovery = Discovery(ApiError("get", 404, {"reason": "NotFound"}), [gateways], [gateways, classes])
    names = _Resources(discovery)
    assert names.collection(CLASS) == f"{ROOT}/gatewayclasses"
    assert names.collection(CLASS) == f"{ROOT}/gatewayclasses"
    assert discovery.answers == []
