"""Injection on a real API server: two replicas of the controller serve the webhook of deploy/overlays/injection.

The replicas are processes at the lab's place for the controller; an EndpointSlice stands for the Service's selector.
Pods here are only created, or tried with a dry run: what their sidecars do is in other files.
"""

from __future__ import annotations

import base64
import contextlib
import datetime as dt
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from contract.names import CONTROLLER_ACCOUNT, ELECTION_LEASE
from contract.names import SYSTEM_NAMESPACE as SYSTEM
from controller.injection.certificate import CA_CERT, CA_KEY, CERT, problem, self_signed
from controller.injection.keeper import CONFIGURATION, NAMES, SECRET
from controller.injection.release import SIDECAR_IMAGE
from lab.errors import ApiError
from lab.program import Program
from lab.world import injection

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from lab.binaries import Binaries
    from lab.world.world import World

pytestmark = pytest.mark.lab

OVERLAY = Path(__file__).parents[3] / "deploy" / "overlays" / "injection"
NETNS, ADDRESS, PORTS = "ctl-0", "10.200.0.31", (8443, 8444)
SOON_S = 30.0
SECRETS = f"/api/v1/namespaces/{SYSTEM}/secrets"
CONFIGURATIONS = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations"
ELECTION = f"/apis/coordination.k8s.io/v1/namespaces/{SYSTEM}/leases/{ELECTION_LEASE}"
MERGE = "application/merge-patch+json"
HOOKS = ("label.inject.holdfast.dev", "namespace.inject.holdfast.dev")
Object = dict[str, Any]


# The replicas ---------------------------------------------------------------------------------------------------------


def _added(binaries: Binaries) -> list[Object]:
    """What the overlay adds to the base, but for the Deployment."""

    def rendered(folder: Path) -> list[Object]:
        command = [str(binaries.kubectl), "kustomize", str(folder)]
        return list(yaml.safe_load_all(subprocess.check_output(command, text=True, timeout=60)))

    base = rendered(OVERLAY.parents[1] / "base")
    return [body for body in rendered(OVERLAY) if body not in base and body["kind"] != "Deployment"]


def _endpoints(port: int) -> Object:
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "name": f"holdfast-webhook-{port}",
            "namespace": SYSTEM,
            "labels": {"kubernetes.io/service-name": "holdfast-webhook"},
        },
        "addressType": "IPv4",
        "endpoints": [{"addresses": [ADDRESS], "conditions": {"ready": True}}],
        "ports": [{"name": "webhook", "port": port, "protocol": "TCP"}],
    }


class Replicas:
    """Both replicas, and what they show."""

    def __init__(self, world: World) -> None:
        self.world = world
        argv = world.controllers[0].argv
        self.programs = [
            Program(
                f"webhook-{port}",
                [*argv, "--identity", f"hook-{port}", "--webhook-port", str(port)],
                world.logs / f"webhook-{port}.log",
                NETNS,
            )
            for port in PORTS
        ]

    def start(self) -> None:
        for program in self.programs:
            program.start()
        for port in PORTS:
            self.until(lambda port=port: self.asked(port, "/readyz") == "200 ok", f"port {port} to be ready")

    def kill(self) -> None:
        for program in self.programs:
            program.kill()

    def asked(self, port: int, path: str) -> str:
        """The answer to a GET without looking at the certificate, as a kubelet's probe does; or the error."""
        code = (
            "import http.client, ssl, sys\n"
            "tls = ssl._create_unverified_context()\n"
            f"c = http.client.HTTPSConnection({ADDRESS!r}, {port}, timeout=5, context=tls)\n"
            f"c.request('GET', {path!r}); a = c.getresponse(); print(a.status, a.read().decode())"
        )
        return self._inside(code)

    def shown(self, port: int) -> str:
        """The certificate that it shows, PEM."""
        return self._inside(f"import ssl; print(ssl.get_server_certificate(({ADDRESS!r}, {port})))")

    def _inside(self, code: str) -> str:
        command = ["nsenter", f"--net=/run/netns/{NETNS}", sys.executable, "-c", code]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=SOON_S)
        return done.stdout.strip() if done.returncode == 0 else done.stderr.strip().splitlines()[-1]

    def until(self, done: Callable[[], bool], what: str) -> None:
        """Ask again and again: a replica has no event for what it serves."""
        deadline = time.monotonic() + SOON_S
        while not done():
            for program in self.programs:
                program.check()
            assert time.monotonic() < deadline, f"timed out waiting for {what}"

    def secret(self) -> dict[str, bytes]:
        return _data(self.world.api.get(f"{SECRETS}/{SECRET}"))

    def mended(self) -> dict[str, bytes]:
        """What the Secret holds once it is right, both replicas show it, and the API server trusts it."""
        right = self.world.api.wait(f"{SECRETS}/{SECRET}", lambda body: _problem(body) == "", SOON_S, "a good Secret")
        data = _data(right)
        own = data[CERT].decode().strip()
        for port in PORTS:
            self.until(lambda port=port: self.shown(port) == own, f"port {port} to show the Secret's certificate")
        bundle = base64.b64encode(data[CA_CERT]).decode()
        path = f"{CONFIGURATIONS}/{CONFIGURATION}"
        self.world.api.wait(path, lambda body: _bundles(body) == {bundle}, SOON_S, "caBundle to be the authority")
        return data


def _data(secret: Object | None) -> dict[str, bytes]:
    return {key: base64.b64decode(value) for key, value in ((secret or {}).get("data") or {}).items()}


def _problem(secret: Object | None) -> str:
    return problem(_data(secret), NAMES, dt.datetime.now(dt.UTC))


def _bundles(configuration: Object) -> set[str]:
    return {hook["clientConfig"].get("caBundle", "") for hook in configuration["webhooks"]}


@pytest.fixture(scope="module")
def replicas(world: World, binaries: Binaries) -> Iterator[Replicas]:
    bodies = _added(binaries)
    for body in bodies:
        if body["kind"] == "Service":
            del body["spec"]["selector"]
    manifest = yaml.safe_dump_all([*bodies, *map(_endpoints, PORTS)])
    for controller in world.controllers:
        controller.kill()
    made = Replicas(world)
    with injection.off(world.api), contextlib.ExitStack() as undo:
        for controller in world.controllers:
            undo.callback(controller.start)
        world.kubectl("apply", "-f", "-", stdin=manifest)
        undo.callback(world.kubectl, "delete", "--ignore-not-found", "-f", "-", stdin=manifest)
        undo.callback(made.kill)
        made.start()
        made.mended()
        yield made
        world.kubectl("delete", "secret", "--ignore-not-found", "-n", SYSTEM, SECRET)


@pytest.fixture
def enabled(world: World, kube_namespace: str) -> str:
    """A namespace that is labelled for injection."""
    world.api.patch(
        f"/api/v1/namespaces/{kube_namespace}", {"metadata": {"labels": {"holdfast.dev/injection": "enabled"}}}, MERGE
    )
    return kube_namespace


def _pod(labels: dict[str, str], **spec: Any) -> Object:
    full = {"containers": [{"name": "app", "image": "app:1"}], **spec}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"generateName": "app-", "labels": labels}, "spec": full}


ASKS = {"holdfast.dev/inject": "true"}


def _create(world: World, namespace: str, pod: Object, **query: str) -> Object:
    return world.api.create(f"/api/v1/namespaces/{namespace}/pods", pod, **({"dryRun": "All"} | query))


def _init(pod: Object) -> list[str]:
    return [each["name"] for each in pod["spec"].get("initContainers", [])]


# Who gets it ----------------------------------------------------------------------------------------------------------


def test_a_pod_that_asks_gets_the_sidecar_first_and_is_created(
    world: World, replicas: Replicas, kube_namespace: str
) -> None:
    pod = _pod(ASKS, schedulerName="nobody", initContainers=[{"name": "before", "image": "app:1"}])
    path = f"/api/v1/namespaces/{kube_namespace}/pods"
    name = world.api.create(path, pod)["metadata"]["name"]
    made = world.api.get(f"{path}/{name}")
    assert _init(made) == ["holdfast", "before"]
    sidecar = made["spec"]["initContainers"][0]
    assert (sidecar["image"], sidecar["restartPolicy"]) == (SIDECAR_IMAGE, "Always")
    assert "holdfast" in [each["name"] for each in made["spec"]["volumes"]]
    assert replicas.programs[0].pid != replicas.programs[1].pid


@pytest.mark.usefixtures("replicas")
def test_a_pod_that_does_not_ask_is_left_alone(world: World, kube_namespace: str, enabled: str) -> None:
    assert _init(_create(world, "default", _pod({"app": "a"}))) == []
    assert _init(_create(world, enabled, _pod({"app": "a"}))) == [], "no route selects it"
    assert kube_namespace == enabled


def _route(name: str) -> Object:
    spec = {
        "parentRefs": [{"name": "no-such-gateway"}],
        "addresses": [{"value": "192.0.2.1/32", "type": "gke.networking.io/cidr"}],
        "podSelector": {"matchLabels": {"app": "a"}},
    }
    return {"apiVersion": "networking.gke.io/v1", "kind": "GKEIPRoute", "metadata": {"name": name}, "spec": spec}


def test_in_a_namespace_with_injection_the_pods_of_its_routes_get_it(
    world: World, replicas: Replicas, enabled: str
) -> None:
    world.api.create(f"/apis/networking.gke.io/v1/namespaces/{enabled}/gkeiproutes", _route("r"))
    both = 5  # in a row: the API server asks either replica, and each learns of the route by its own watch
    answers: list[list[str]] = []

    def seen_by_all() -> bool:
        answers.append(_init(_create(world, enabled, _pod({"app": "a"}))))
        return answers[-both:] == [["holdfast"]] * both

    replicas.until(seen_by_all, "both replicas to know the route")
    assert _init(_create(world, enabled, _pod({"app": "b"}))) == []
    assert _init(_create(world, enabled, _pod({"app": "a", "holdfast.dev/inject": "false"}))) == []
    assert _init(_create(world, enabled, _pod({"app": "a"}, hostNetwork=True))) == [], "a warning, no refusal"


@pytest.mark.usefixtures("replicas")
def test_a_pod_that_asks_and_cannot_have_it_is_refused(world: World, kube_namespace: str) -> None:
    with pytest.raises(ApiError) as refused:
        _create(world, kube_namespace, _pod(ASKS, hostNetwork=True))
    assert refused.value.code == 403
    assert "hostNetwork" in str(refused.value)


@pytest.mark.usefixtures("replicas")
def test_the_controllers_own_namespace_is_left_alone(world: World) -> None:
    deployment = next(yaml.safe_load_all((OVERLAY.parents[1] / "base" / "controller.yaml").read_text()))
    assert _init(_create(world, SYSTEM, _pod(ASKS, **deployment["spec"]["template"]["spec"]))) == []


# When nobody answers --------------------------------------------------------------------------------------------------


def test_without_the_webhook_who_asked_is_refused_and_others_run(
    world: World, replicas: Replicas, enabled: str
) -> None:
    replicas.kill()
    try:
        with pytest.raises(ApiError) as refused:
            _create(world, enabled, _pod(ASKS))
        assert "failed calling webhook" in str(refused.value)
        assert _init(_create(world, enabled, _pod({"app": "a"}))) == []
    finally:
        replicas.start()
    assert _init(_create(world, enabled, _pod(ASKS))) == ["holdfast"]


# The certificate ------------------------------------------------------------------------------------------------------


def _expired() -> dict[str, bytes]:
    return self_signed(NAMES, dt.datetime.now(dt.UTC) - dt.timedelta(days=100))


def _renewable() -> dict[str, bytes]:
    return self_signed(NAMES, dt.datetime.now(dt.UTC) - dt.timedelta(days=70))


def _others() -> dict[str, bytes]:
    return self_signed(("another.default.svc",), dt.datetime.now(dt.UTC))


DAMAGE: dict[str, Callable[[], dict[str, bytes]]] = {
    "certificate unreadable": lambda: {CERT: b"nonsense"},
    "everything empty": lambda: {CA_CERT: b"", CA_KEY: b"", CERT: b""},
    "of other names": _others,
    "expired": _expired,
    "two thirds over": _renewable,
}


@pytest.mark.parametrize("how", DAMAGE)
def test_a_damaged_certificate_is_mended_and_served_without_a_restart(
    world: World, replicas: Replicas, kube_namespace: str, how: str
) -> None:
    pids = [program.pid for program in replicas.programs]
    wrong = {key: base64.b64encode(value).decode() for key, value in DAMAGE[how]().items()}
    written = world.api.patch(f"{SECRETS}/{SECRET}", {"data": wrong}, MERGE)

    def rewritten(secret: Object | None) -> bool:
        return bool(secret and secret["data"].get(CERT) != written["data"].get(CERT))

    world.api.wait(f"{SECRETS}/{SECRET}", rewritten, SOON_S, "the Secret to be written")
    data = replicas.mended()
    if how in {"of other names", "expired", "two thirds over"}:
        assert base64.b64encode(data[CA_CERT]).decode() == wrong[CA_CERT], "its authority was good, and stays"
    assert [program.pid for program in replicas.programs] == pids
    _soon_injected(world, replicas, kube_namespace)


def _soon_injected(world: World, replicas: Replicas, namespace: str) -> None:
    """The API server learns of a new `caBundle` by a watch of its own."""

    def injected() -> bool:
        try:
            return _init(_create(world, namespace, _pod(ASKS))) == ["holdfast"]
        except ApiError as error:
            if "failed calling webhook" not in str(error):
                raise
            return False

    replicas.until(injected, "the API server to trust the webhook")


def test_a_secret_that_was_deleted_is_made_again_by_whoever_leads(
    world: World, replicas: Replicas, kube_namespace: str
) -> None:
    holder = world.api.get(ELECTION)["spec"]["holderIdentity"]
    leader = next(
        each for each, port in zip(replicas.programs, PORTS, strict=True) if holder.startswith(f"hook-{port}_")
    )
    leader.kill()
    before = replicas.secret()
    world.api.delete(f"{SECRETS}/{SECRET}")
    world.api.wait(f"{SECRETS}/{SECRET}", lambda body: _problem(body) == "", SOON_S, "the other replica to make it")
    leader.start()
    data = replicas.mended()
    assert data[CA_CERT] != before[CA_CERT]
    _soon_injected(world, replicas, kube_namespace)


def test_a_bundle_that_somebody_changed_is_put_right(world: World, replicas: Replicas, kube_namespace: str) -> None:
    other = base64.b64encode(_others()[CA_CERT]).decode()
    hooks = [{"name": name, "clientConfig": {"caBundle": other}} for name in HOOKS]
    world.api.patch(f"{CONFIGURATIONS}/{CONFIGURATION}", {"webhooks": hooks}, "application/strategic-merge-patch+json")
    replicas.mended()
    _soon_injected(world, replicas, kube_namespace)


def test_applying_the_manifests_again_keeps_the_bundle(world: World, replicas: Replicas, binaries: Binaries) -> None:
    path = f"{CONFIGURATIONS}/{CONFIGURATION}"
    before = world.api.get(path)
    world.kubectl("apply", "-f", "-", stdin=yaml.safe_dump_all(_added(binaries)[-1:]))
    assert world.api.get(path)["webhooks"] == before["webhooks"]
    assert _bundles(before) == {base64.b64encode(replicas.secret()[CA_CERT]).decode()}


def test_of_secrets_and_configurations_the_controller_has_its_own_only(world: World, replicas: Replicas) -> None:
    token = world.token(SYSTEM, CONTROLLER_ACCOUNT)
    with contextlib.closing(world.api.as_token(token)) as api:
        assert _data(api.get(f"{SECRETS}/{SECRET}")) == replicas.secret()
        for path in (SECRETS, f"{SECRETS}/another", f"/api/v1/namespaces/default/secrets/{SECRET}", CONFIGURATIONS):
            with pytest.raises(ApiError) as refused:
                api.get(path)
            assert refused.value.code == 403
