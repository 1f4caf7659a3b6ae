"""A real control plane in network namespace `cp`: etcd, kube-apiserver, kube-controller-manager, kube-scheduler.

RBAC and the Node authorizer are on, anonymous requests are off, and each component is its own user. Not promised: the
durability of a real one. etcd does not wait for the disk, since nothing here is to survive the lab.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from lab import etcd, wiring
from lab.api_client import ApiClient
from lab.errors import ApiError, ApiUnreachable, ProgramError
from lab.program import Program
from lab.world.credentials import ADMIN, CONTROLLER_MANAGER, SCHEDULER, Credentials, node_user

if TYPE_CHECKING:
    from pathlib import Path

    from lab.binaries import Binaries

NETNS = "cp"
ADDRESS = "10.200.0.1"
PORT = 6443
SERVER = f"https://{ADDRESS}:{PORT}"
SERVICE = "10.255.0.1"
"""The address of the Service `kubernetes`: the first of its range. Nothing but a real node leads there."""
_ETCD_URL = "http://127.0.0.1:2379"
_PEER_URL = "http://127.0.0.1:2380"
_NO_FSYNC_SINCE = (3, 5)
_START_S = 30.0
_ASK_AGAIN_S = 0.02
NODE_NUMBERS = range(1, 10)
"""Tokens are made for so many nodes, since the API server reads them once."""

# What a lab of Deployments and StatefulSets needs. Each controller of the manager lists and watches on its own, and
# starting all forty costs the API server a second of work.
_CONTROLLERS = (
    "clusterrole-aggregation-controller",
    "cronjob-controller",
    "daemonset-controller",
    "deployment-controller",
    "disruption-controller",
    "endpointslice-controller",
    "garbage-collector-controller",
    "job-controller",
    "namespace-controller",
    "node-lifecycle-controller",
    "pod-garbage-collector-controller",
    "replicaset-controller",
    "root-ca-certificate-publisher-controller",
    "serviceaccount-controller",
    "statefulset-controller",
    "taint-eviction-controller",
    "validatingadmissionpolicy-status-controller",
)


class ControlPlane:
    """Its components, each with start, stop, kill, pause and resume."""

    def __init__(self, binaries: Binaries, state: Path, logs: Path) -> None:
        """Nothing is started yet; the namespace `cp` and its addresses are made by the world."""
        folder = state / "cp"
        folder.mkdir(parents=True)
        self.credentials = Credentials(folder, SERVER)
        self.credentials.add(ADMIN, "system:masters")
        self.credentials.add(CONTROLLER_MANAGER)
        self.credentials.add(SCHEDULER)
        for number in NODE_NUMBERS:
            self.credentials.add(node_user(f"node-{number}"), "system:nodes")
        self.etcd = Program("etcd", _etcd(binaries, folder), logs / "etcd.log", NETNS)
        api_log = logs / "kube-apiserver.log"
        self.api_server = Program("kube-apiserver", _api_server(binaries, self.credentials), api_log, NETNS)
        for user in (CONTROLLER_MANAGER, SCHEDULER, ADMIN):
            self.credentials.kubeconfig(user.rpartition(":")[2], self.credentials.token(user))
        manager = _controller_manager(binaries, self.credentials)
        self.controller_manager = Program(
            "kube-controller-manager", manager, logs / "kube-controller-manager.log", NETNS
        )
        self.scheduler = Program(
            "kube-scheduler", _scheduler(binaries, self.credentials), logs / "kube-scheduler.log", NETNS
        )

    @property
    def programs(self) -> tuple[Program, ...]:
        """All components, in the order of their start."""
        return (self.etcd, self.api_server, self.controller_manager, self.scheduler)

    @property
    def admin_kubeconfig(self) -> Path:
        """The kubeconfig of the cluster's administrator."""
        return self.credentials.folder / f"{ADMIN}.kubeconfig"

    def start(self) -> ApiClient:
        """Start everything and wait until the API server answers.

        Returns:
            A client of the cluster's administrator.

        Raises:
            ProgramError: a component ended or did not become ready; shows its log.
        """
        self.etcd.start()
        self.api_server.start()
        api = self.wait_ready()
        self.controller_manager.start()
        self.scheduler.start()
        return api

    def wait_ready(self, timeout_s: float = _START_S) -> ApiClient:
        """Wait until the API server says that it is ready.

        It has no event for this, and so it is asked, at short intervals; so is its certificate's file.
        """
        deadline = time.monotonic() + timeout_s
        said, api = "it has made no certificate", None
        while time.monotonic() < deadline:
            self.etcd.check()
            self.api_server.check()
            try:
                api = api or ApiClient(SERVER, self.credentials.ca_file, self.credentials.token(ADMIN))
                api.get("/readyz")
            except OSError:
                pass  # the certificate is not there, or not yet complete
            except (ApiUnreachable, ApiError) as error:
                said = str(error)
            else:
                return api
            time.sleep(_ASK_AGAIN_S)
        log = f"its log: {self.api_server.log}\n{self.api_server.tail()}"
        raise ProgramError(f"kube-apiserver was not ready after {timeout_s:g} s ({said}); {log}")

    def renew_clients(self) -> None:
        """Start the controller manager and the scheduler anew.

        Their watches ask an API server that was away more and more seldom, and go on so after its return.
        """
        for program in (self.controller_manager, self.scheduler):
            program.kill()
            program.start()

    def stop(self) -> None:
        """End everything at once: nothing of it is to be kept."""
        for program in reversed(self.programs):
            program.kill()


def make_namespace() -> None:
    """Make the control plane's network namespace."""
    wiring.create(NETNS)


def _etcd(binaries: Binaries, folder: Path) -> list[str]:
    return [
        str(binaries.etcd),
        f"--data-dir={folder / 'etcd'}",
        f"--listen-client-urls={_ETCD_URL}",
        f"--advertise-client-urls={_ETCD_URL}",
        f"--listen-peer-urls={_PEER_URL}",
        f"--initial-advertise-peer-urls={_PEER_URL}",
        f"--initial-cluster=default={_PEER_URL}",
        *_without_waiting(binaries.etcd),
        "--logger=zap",
        "--log-level=warn",
    ]


def _without_waiting(program: Path) -> list[str]:
    """The lab's state lies on a tmpfs and ends with it: waiting for a disk would only measure the disk."""
    return ["--unsafe-no-fsync"] if etcd.version(program) >= _NO_FSYNC_SINCE else []


def _api_server(binaries: Binaries, credentials: Credentials) -> list[str]:
    return [
        str(binaries.kube_apiserver),
        f"--etcd-servers={_ETCD_URL}",
        f"--cert-dir={credentials.ca_file.parent}",
        f"--bind-address={ADDRESS}",
        f"--advertise-address={ADDRESS}",
        f"--secure-port={PORT}",
        f"--token-auth-file={credentials.token_file}",
        "--service-cluster-ip-range=10.255.0.0/24",
        "--service-account-issuer=https://holdfast.lab",
        f"--service-account-key-file={credentials.key_file}",
        f"--service-account-signing-key-file={credentials.key_file}",
        "--authorization-mode=Node,RBAC",
        "--anonymous-auth=false",
        "--enable-admission-plugins=NodeRestriction",
        # injection without a webhook: beta in 1.34, and off unless it is asked for
        "--feature-gates=MutatingAdmissionPolicy=true",
        "--runtime-config=admissionregistration.k8s.io/v1beta1=true",
        "--endpoint-reconciler-type=none",
        # there is no kube-proxy: a webhook's Service is reached at its endpoints
        "--enable-aggregator-routing=true",
        "--kubelet-preferred-address-types=InternalIP",
        "--profiling=false",
    ]


def _controller_manager(binaries: Binaries, credentials: Credentials) -> list[str]:
    kubeconfig = credentials.folder / "kube-controller-manager.kubeconfig"
    return [
        str(binaries.kube_controller_manager),
        f"--kubeconfig={kubeconfig}",
        f"--authentication-kubeconfig={kubeconfig}",
        f"--authorization-kubeconfig={kubeconfig}",
        # nobody but this component asks its own port: it need not look up who may
        "--authentication-skip-lookup=true",
        "--bind-address=127.0.0.1",
        f"--cert-dir={credentials.folder / 'kcm-certs'}",
        f"--root-ca-file={credentials.ca_file}",
        f"--service-account-private-key-file={credentials.key_file}",
        "--use-service-account-credentials=true",
        "--leader-elect=false",
        f"--controllers={','.join(_CONTROLLERS)}",
        "--kube-api-qps=500",
        "--kube-api-burst=1000",
        "--profiling=false",
    ]


def _scheduler(binaries: Binaries, credentials: Credentials) -> list[str]:
    kubeconfig = credentials.folder / "kube-scheduler.kubeconfig"
    return [
        str(binaries.kube_scheduler),
        f"--kubeconfig={kubeconfig}",
        f"--authentication-kubeconfig={kubeconfig}",
        f"--authorization-kubeconfig={kubeconfig}",
        # nobody but this component asks its own port: it need not look up who may
        "--authentication-skip-lookup=true",
        "--bind-address=127.0.0.1",
        f"--cert-dir={credentials.folder / 'scheduler-certs'}",
        "--leader-elect=false",
        "--profiling=false",
        "--kube-api-qps=500",
        "--kube-api-burst=1000",
    ]
