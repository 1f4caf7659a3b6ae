"""Who writes the webhook's Secret, when, and what is served meanwhile; the real API server is in tests/lab."""

import base64
import datetime as dt
import io
import json

import pytest

from controller.cluster.reflector import Listed, Seen
from controller.errors import Conflict, Forbidden, Unreachable
from controller.injection.certificate import CA_CERT, CERT, KEY, next_renewal, problem, self_signed
from controller.injection.keeper import CONFIGURATION, FOLLOWED, NAMES, SECRET, Configuration, Keeper, Secret, Wake
from controller.journal import Journal

NOW = dt.datetime(2026, 1, 2, 3, 4, 5, tzinfo=dt.UTC)
MADE = self_signed(NAMES, NOW)
HOOKS = ("label.inject.holdfast.dev", "namespace.inject.holdfast.dev")


def encoded(data):
    return {key: base64.b64encode(value).decode() for key, value in data.items()}


class Server:
    """The two objects, as far as they are written here; it may refuse."""

    def __init__(self, data=None, bundles=(b"", b"")):
        self.version = 10
        self.secret = None if data is None else self.stamped({"metadata": {"name": SECRET}, "data": encoded(data)})
        hooks = [
            {"name": name, "clientConfig": {"caBundle": base64.b64encode(bundle).decode()}}
            for name, bundle in zip(HOOKS, bundles, strict=True)
        ]
        self.configuration = self.stamped({"metadata": {"name": CONFIGURATION}, "webhooks": hooks})
        self.asked = []
        self.error = None

    def stamped(self, body):
        self.version += 1
        meta = {**body["metadata"], "uid": "u", "resourceVersion": str(self.version)}
        return {**body, "metadata": meta}

    def request(self, method, path, body, *, content_type):
        self.asked.append((method, path.rpartition("/")[2], content_type))
        if self.error is not None:
            raise self.error
        if "mutatingwebhookconfigurations" in path:
            assert body["metadata"]["resourceVersion"] == self.configuration["metadata"]["resourceVersion"]
            changes = {each["name"]: each for each in body["webhooks"]}
            hooks = [{**each, **changes.get(each["name"], {})} for each in self.configuration["webhooks"]]
            self.configuration = self.stamped({**self.configuration, "webhooks": hooks})
            return json.dumps(self.configuration).encode()
        if method == "PATCH":
            assert body["metadata"]["resourceVersion"] == self.secret["metadata"]["resourceVersion"]
        self.secret = self.stamped({"metadata": {"name": SECRET}, "data": body["data"]})
        return json.dumps(self.secret).encode()

    def data(self):
        return {key: base64.b64decode(value) for key, value in self.secret["data"].items()}

    def bundles(self):
        return {base64.b64decode(each["clientConfig"]["caBundle"]) for each in self.configuration["webhooks"]}


def read(kind, body):
    return FOLLOWED[kind].read(json.dumps(body).encode())


class Replica:
    """A keeper with its clock, its log and what it serves."""

    def __init__(self, server, *, leads=True, own=True):
        self.server, self.leads, self.now = server, leads, NOW
        self.served, self.log = [], io.StringIO()
        self.keeper = Keeper(
            server, lambda: self.leads, lambda *pair: self.served.append(pair), Journal(self.log), own, lambda: self.now
        )

    def step(self, *items):
        for item in (*items, Wake()):
            self.keeper._take(item)
        self.keeper._act()

    def sees_all(self):
        secret = [read(Secret, self.server.secret)] if self.server.secret else []
        self.step(
            Listed(Secret, secret, "1"), Listed(Configuration, [read(Configuration, self.server.configuration)], "1")
        )


def test_the_leader_makes_it_and_says_whom_to_trust():
    server = Server()
    leader = Replica(server)
    leader.sees_all()
    assert problem(server.data(), NAMES, NOW) == ""
    assert server.bundles() == {server.data()[CA_CERT]}
    assert leader.served == [(server.data()[CERT], server.data()[KEY])]
    before = list(server.asked)
    leader.step()
    assert server.asked == before, "what is right is left alone"


def test_a_standby_writes_nothing_serves_what_is_there_and_keeps_the_last_good_one():
    server = Server(MADE)
    standby = Replica(server, leads=False)
    standby.sees_all()
    assert (server.asked, standby.served) == ([], [(MADE[CERT], MADE[KEY])])
    server.secret = server.stamped({**server.secret, "data": encoded({**MADE, CERT: b"nonsense"})})
    standby.step(Seen(Secret, read(Secret, server.secret), gone=False))
    assert (server.asked, standby.served) == ([], [(MADE[CERT], MADE[KEY])])
    standby.leads = True
    standby.step()
    assert problem(server.data(), NAMES, NOW) == ""
    assert standby.served[1:] == [(server.data()[CERT], server.data()[KEY])]
    assert "tls.crt cannot be read" in standby.log.getvalue()


def test_nothing_is_written_before_the_secret_has_been_seen():
    server = Server(MADE)
    Replica(server).step()
    assert server.asked == []


def test_it_is_renewed_when_its_time_has_come_and_the_authority_stays():
    server = Server(MADE, (MADE[CA_CERT], MADE[CA_CERT]))
    leader = Replica(server)
    leader.sees_all()
    assert server.asked == []
    leader.now = next_renewal(MADE)
    leader.step()
    assert [each[:2] for each in server.asked] == [("PATCH", SECRET)]
    assert server.bundles() == {MADE[CA_CERT]} == {server.data()[CA_CERT]}
    assert leader.served[-1] == (server.data()[CERT], server.data()[KEY]) != leader.served[0]


def test_it_is_renewed_in_time_without_anything_else_happening():
    leader = Replica(Server(MADE, (MADE[CA_CERT], MADE[CA_CERT])))
    leader.now = next_renewal(MADE) - dt.timedelta(seconds=7)
    leader.sees_all()
    assert leader.keeper._pause_s == pytest.approx(7)


def test_a_bundle_that_another_wrote_is_put_right():
    server = Server(MADE, (MADE[CA_CERT], b"another"))
    leader = Replica(server)
    leader.sees_all()
    assert server.bundles() == {MADE[CA_CERT]}
    assert "caBundle of namespace.inject.holdfast.dev set" in leader.log.getvalue()


def test_of_cert_managers_nothing_is_written_and_what_is_wrong_is_said():
    server = Server({**MADE, KEY: b""})
    leader = Replica(server, own=False)
    leader.sees_all()
    assert (server.asked, leader.served) == ([], [])
    assert "tls.key is missing; see why what makes it (cert-manager" in leader.log.getvalue()


def test_a_certificate_of_another_authority_is_served_where_it_is_given():
    stranger = self_signed(("webhook.default.svc",), NOW)
    replica = Replica(Server(stranger), own=False)
    replica.sees_all()
    assert replica.served == [(stranger[CERT], stranger[KEY])]
    assert "vouches for as holdfast-webhook.holdfast-system.svc" in replica.log.getvalue()


FAULTS = [
    pytest.param(Forbidden("POST", 403, "no"), "apply deploy/overlays/injection", id="forbidden"),
    pytest.param(Unreachable("POST", 0, "down"), "no answer: down", id="no answer"),
    pytest.param(Conflict("POST", 409, "another"), "", id="another was first"),
]


@pytest.mark.parametrize(("error", "said"), FAULTS)
def test_what_fails_is_said_and_tried_again(error, said):
    server = Server()
    server.error = error
    leader = Replica(server)
    leader.sees_all()
    assert said in leader.log.getvalue()
    assert leader.keeper._pause_s == pytest.approx(1)
    assert leader.served == []
    server.error = None
    leader.step()
    assert problem(server.data(), NAMES, NOW) == ""


def test_a_configuration_that_is_not_there_is_missed():
    leader = Replica(Server(MADE))
    leader.step(Listed(Secret, [read(Secret, leader.server.secret)], "1"), Listed(Configuration, [], "1"))
    assert "MutatingWebhookConfiguration holdfast-webhook is not there" in leader.log.getvalue()
