"""The webhook's answers, and its server over TLS on the loopback; the API server that asks it is in tests/lab."""

import base64
import contextlib
import datetime as dt
import http.client
import json
import ssl
import threading

import pytest

from controller.choice.objects import Selector
from controller.injection import webhook
from controller.injection.certificate import CA_CERT, CERT, KEY, self_signed
from controller.injection.sidecar import Settings
from controller.injection.webhook import BadReviewError, Webhook, answer, listen, read_review

SETTINGS = Settings("registry.example/sidecar:1")
NOW = dt.datetime.now(dt.UTC)
FIRST, SECOND = (self_signed(("localhost",), NOW) for _ in range(2))
TRUST = ssl.create_default_context(cadata=(FIRST[CA_CERT] + SECOND[CA_CERT]).decode())
ASKS = {"holdfast.dev/inject": "true"}
ENABLED = {"holdfast.dev/injection": "enabled"}
SELECTORS = (Selector(match_labels={"app": "a"}),)


def pod(labels, **spec):
    containers = [{"name": "app", "image": "app:1"}]
    metadata = {"generateName": "app-", "labels": labels}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": {"containers": containers, **spec}}


def review(body, **changes):
    request = {"uid": "u1", "namespace": "mine", "operation": "CREATE", "object": body}
    return {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": request, **changes}


# what is answered -----------------------------------------------------------------------------------------------


def answered(body, space):
    made = answer(*read_review(json.dumps(review(body)).encode()), space, SETTINGS)
    assert (made["apiVersion"], made["kind"], made["response"]["uid"]) == (
        "admission.k8s.io/v1",
        "AdmissionReview",
        "u1",
    )
    return made["response"]


def test_a_pod_that_asks_gets_a_patch():
    response = answered(pod(ASKS), ({}, ()))
    assert (response["allowed"], response["patchType"]) == (True, "JSONPatch")
    patch = json.loads(base64.b64decode(response["patch"]))
    assert [each["path"] for each in patch] == ["/spec/initContainers", "/spec/volumes"]
    assert patch[0]["value"][0]["image"] == SETTINGS.image


def test_what_asks_and_cannot_have_it_is_refused_with_a_sentence():
    response = answered(pod(ASKS, hostNetwork=True), ({}, ()))
    assert (response["allowed"], response["status"]["code"]) == (False, 403)
    assert "hostNetwork" in response["status"]["message"]
    assert "patch" not in response


def test_what_a_route_selects_and_cannot_have_it_is_warned_of():
    response = answered(pod({"app": "a"}, hostNetwork=True), (ENABLED, SELECTORS))
    assert response["allowed"] is True
    assert ["hostNetwork" in each for each in response["warnings"]] == [True]
    assert "patch" not in response


@pytest.mark.parametrize(
    ("labels", "space", "patched"),
    [
        pytest.param({"app": "a"}, (ENABLED, SELECTORS), True, id="a route selects it"),
        pytest.param({"app": "a"}, ({}, SELECTORS), False, id="a namespace without injection"),
        pytest.param({"app": "b"}, (ENABLED, SELECTORS), False, id="no route selects it"),
        pytest.param({"app": "a", "holdfast.dev/inject": "false"}, (ENABLED, SELECTORS), False, id="it will not"),
    ],
)
def test_others_get_it_by_their_namespace_and_a_route(labels, space, patched):
    response = answered(pod(labels), space)
    assert response["allowed"] is True
    assert ("patch" in response) is patched


BAD = [
    pytest.param(b"nonsense", "no AdmissionReview", id="no JSON"),
    pytest.param(b"{}", "missing required field `request`", id="empty"),
    pytest.param(json.dumps(review(pod({}), request={"uid": "u"})), "`object`", id="no object"),
    pytest.param(json.dumps(review([])), "$.request.object", id="a list"),
    pytest.param(json.dumps(review(pod({}), apiVersion="admission.k8s.io/v1beta1")), "[v1]", id="an old version"),
    pytest.param(json.dumps(review({"kind": "Service", "apiVersion": "v1"})), "a Service v1, not a Pod", id="no Pod"),
]


@pytest.mark.parametrize(("body", "said"), BAD)
def test_what_is_no_review_of_a_pod_is_named(body, said):
    with pytest.raises(BadReviewError) as error:
        read_review(body if isinstance(body, bytes) else body.encode())
    assert said in str(error.value)


# the server -----------------------------------------------------------------------------------------------------


class Served:
    """A server in a thread of its own, and what a client sees of it."""

    def __init__(self):
        self.space = ({}, ())
        listening = listen(0)
        self.port = listening.getsockname()[1]
        self.webhook = Webhook(self.ask, SETTINGS, listening, (FIRST[CERT], FIRST[KEY]))
        self.thread = threading.Thread(target=self.webhook.run)
        self.thread.start()

    def ask(self, _namespace, tell):
        if self.space != "silent":
            tell(self.space)

    def request(self, method, path, body=None):
        with self.connection() as c:
            c.request(method, path, body)
            got = c.getresponse()
            return got.status, got.read().decode()

    def connection(self):
        return contextlib.closing(http.client.HTTPSConnection("localhost", self.port, timeout=10, context=TRUST))

    def shown(self):
        return ssl.get_server_certificate(("127.0.0.1", self.port)).strip().encode()

    def end(self):
        self.webhook.stop()
        self.thread.join(10)
        assert not self.thread.is_alive()


@pytest.fixture
def served():
    made = Served()
    yield made
    made.end()


def test_it_is_ready_with_a_certificate_and_watches_in_step(served):
    assert served.request("GET", "/healthz") == (200, "ok")
    status, said = served.request("GET", "/readyz")
    assert (status, "no certificate yet" in said) == (503, True)
    served.webhook.use(SECOND[CERT], SECOND[KEY])
    assert served.request("GET", "/readyz") == (200, "ok")
    served.space = None
    status, said = served.request("GET", "/readyz")
    assert (status, "not in step" in said) == (503, True)
    assert served.request("GET", "/healthz") == (200, "ok")


def test_a_new_certificate_is_shown_without_a_restart(served):
    assert served.shown() == FIRST[CERT].strip()
    served.webhook.use(SECOND[CERT], SECOND[KEY])
    assert served.request("GET", "/healthz") == (200, "ok")
    assert served.shown() == SECOND[CERT].strip()


def test_a_review_is_answered(served):
    status, said = served.request("POST", "/mutate", json.dumps(review(pod(ASKS))))
    assert (status, json.loads(said)["response"]["patchType"]) == (200, "JSONPatch")


def test_what_it_does_not_know_it_does_not_answer(served, monkeypatch):
    monkeypatch.setattr(webhook, "ANSWER_S", 0.05)
    body = json.dumps(review(pod(ASKS)))
    served.space = None
    assert served.request("POST", "/mutate", body) == (503, "this replica's watches are not in step yet; try again")
    served.space = "silent"
    status, said = served.request("POST", "/mutate", body)
    assert (status, "did not decide within 0.05 s" in said) == (503, True)


WRONG = [
    pytest.param(("POST", "/mutate", "nonsense"), 400, "no AdmissionReview", id="nonsense"),
    pytest.param(("GET", "/mutate", None), 405, "", id="not posted"),
    pytest.param(("POST", "/other", "{}"), 404, "", id="another path"),
]


@pytest.mark.parametrize(("request_", "status", "said"), WRONG)
def test_a_wrong_request_is_answered_as_such(served, request_, status, said):
    got, text = served.request(*request_)
    assert got == status
    assert said in text


def test_a_body_without_end_is_cut_off(served, monkeypatch):
    monkeypatch.setattr(webhook, "MOST_BYTES", 1000)
    assert served.request("POST", "/mutate", "x" * 1001)[0] == 413


def test_a_port_that_is_taken_is_an_error(served):
    with pytest.raises(OSError, match="in use"):
        listen(served.port)


def test_a_webhook_that_drains_answers_and_closes_each_connection_with_its_answer(served):
    body = json.dumps(review(pod(ASKS)))
    with served.connection() as kept:
        for last in (False, True):
            if last:
                served.webhook.drain()
            kept.request("POST", "/mutate", body)
            got = kept.getresponse()
            assert json.load(got)["response"]["allowed"] is True
            assert got.will_close is last
