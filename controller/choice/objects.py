"""The objects the controller reads, as far as it reads them: typed, frozen, decoded straight from the API's JSON.

Fields not named here are skipped, which is what makes ten thousand Pods cheap. Nothing is judged here: an address may
be nonsense, a selector empty. What is not even of the right type becomes a `ContractError` naming object and field.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, TypeVar

import msgspec

from contract.decode import named_error
from contract.lease import LeaseView, decode_lease
from contract.names import (
    AGENT_CONTAINER,
    ASSIGNMENT,
    CONTAINER,
    CONTROLLER_NAME,
    GKE_CONTROLLER_NAME,
    INTERFACES,
    NETWORK_STATUS,
    NETWORKS_STATUS,
    SOURCE_VARIABLE,
    Source,
)

if TYPE_CHECKING:
    from collections.abc import Callable

Key = tuple[str, str]
"""Namespace (``""`` for what has none) and name."""

_KEPT_OF_POD: Final = (ASSIGNMENT, CONTAINER, INTERFACES, NETWORK_STATUS, NETWORKS_STATUS)


class Meta(msgspec.Struct, frozen=True, rename="camel"):
    """The part of every object's metadata that is used."""

    name: str
    namespace: str = ""
    uid: str = ""
    resource_version: str = ""
    generation: int = 0
    creation_timestamp: str = ""
    deletion_timestamp: str | None = None
    labels: dict[str, str] = {}
    annotations: dict[str, str] = {}


class Object(msgspec.Struct, frozen=True):
    """What all objects share."""

    metadata: Meta

    @property
    def key(self) -> Key:
        """Namespace and name."""
        return self.metadata.namespace, self.metadata.name

    @property
    def name(self) -> str:
        """The name alone."""
        return self.metadata.name


class Condition(msgspec.Struct, frozen=True, rename="camel"):
    """One condition of a status."""

    type: str
    status: str
    reason: str = ""
    message: str = ""
    observed_generation: int = 0
    # null where whoever wrote it gave no time
    last_transition_time: str | None = None


class Conditions(msgspec.Struct, frozen=True):
    """A status of which only the conditions matter."""

    conditions: tuple[Condition, ...] = ()


class Requirement(msgspec.Struct, frozen=True):
    """One of a selector's ``matchExpressions``."""

    key: str
    operator: str
    values: tuple[str, ...] = ()


class Selector(msgspec.Struct, frozen=True, rename="camel"):
    """A LabelSelector."""

    match_labels: dict[str, str] = {}
    match_expressions: tuple[Requirement, ...] = ()

    def matches(self, labels: dict[str, str]) -> bool:
        """Whether an object with these labels is selected; an empty selector selects everything."""
        if any(labels.get(key) != value for key, value in self.match_labels.items()):
            return False
        return all(_meets(labels, each) for each in self.match_expressions)

    @property
    def empty(self) -> bool:
        """Whether it demands nothing."""
        return not self.match_labels and not self.match_expressions

    def __str__(self) -> str:
        equal = [f"{key}={value}" for key, value in self.match_labels.items()]
        return ", ".join(equal + [_requirement_text(each) for each in self.match_expressions])


def _meets(labels: dict[str, str], need: Requirement) -> bool:
    match need.operator:
        case "In":
            return need.key in labels and labels[need.key] in need.values
        case "NotIn":
            return labels.get(need.key) not in need.values
        case "Exists":
            return need.key in labels
        case "DoesNotExist":
            return need.key not in labels
    return False


def _requirement_text(need: Requirement) -> str:
    values = f" ({', '.join(need.values)})" if need.values else ""
    return f"{need.key} {need.operator}{values}"


class ClassSpec(msgspec.Struct, frozen=True, rename="camel"):
    """Who looks after Gateways of a class, and by which parameters."""

    controller_name: str = ""
    parameters_ref: dict[str, Any] | None = None


class GatewayClass(Object, frozen=True):
    """gateway.networking.k8s.io/v1."""

    spec: ClassSpec = ClassSpec()
    status: Conditions = Conditions()

    @property
    def ours(self) -> bool:
        """Whether holdfast selects and writes status (own mode)."""
        return self.spec.controller_name == CONTROLLER_NAME

    @property
    def followed(self) -> bool:
        """Whether GKE selects and holdfast only follows."""
        return self.spec.controller_name == GKE_CONTROLLER_NAME


class Address(msgspec.Struct, frozen=True):
    """An address as a Gateway or a route asks for it."""

    value: str = ""
    type: str = "IPAddress"


class RouteNamespaces(msgspec.Struct, frozen=True, rename={"from_": "from"}):
    """From which namespaces a listener admits routes."""

    from_: str = "Same"
    selector: Selector | None = None


class RouteKind(msgspec.Struct, frozen=True):
    """A kind of route that a listener admits."""

    kind: str = ""
    group: str = "gateway.networking.k8s.io"


class AllowedRoutes(msgspec.Struct, frozen=True):
    """Which routes a listener admits; no kinds: those of any."""

    namespaces: RouteNamespaces = RouteNamespaces()
    kinds: tuple[RouteKind, ...] = ()


class Listener(msgspec.Struct, frozen=True, rename="camel"):
    """A listener of a Gateway: for holdfast, a filter of routes."""

    name: str
    port: int = 0
    allowed_routes: AllowedRoutes = AllowedRoutes()


class Infrastructure(msgspec.Struct, frozen=True, rename="camel"):
    """What a Gateway asks for of what is made for it."""

    parameters_ref: dict[str, Any] | None = None


class GatewaySpec(msgspec.Struct, frozen=True, rename="camel"):
    """What a Gateway asks for."""

    gateway_class_name: str = ""
    listeners: tuple[Listener, ...] = ()
    addresses: tuple[Address, ...] = ()
    infrastructure: Infrastructure = Infrastructure()


class Gateway(Object, frozen=True):
    """gateway.networking.k8s.io/v1; its status is compared as plain JSON."""

    spec: GatewaySpec = GatewaySpec()
    status: dict[str, Any] = {}


class ParentRef(msgspec.Struct, frozen=True, rename="camel"):
    """A route's reference to a Gateway."""

    name: str = ""
    namespace: str = ""
    group: str = "gateway.networking.k8s.io"
    kind: str = "Gateway"
    section_name: str = ""
    port: int = 0


class RouteSpec(msgspec.Struct, frozen=True, rename="camel"):
    """What a route asks for; the last four are GKE's, read as far as to say what they mean here."""

    parent_refs: tuple[ParentRef, ...] = ()
    addresses: tuple[Address, ...] = ()
    network: str = "default"
    pod_selector: Selector = Selector()
    reaction_mode: str = "ReadyCondition"
    allow_global_access: Any = None
    ha_policy: Any = None
    load_balancing: Any = None
    node_selector: Any = None


class AddressStatus(msgspec.Struct, frozen=True):
    """Where one address of a route is."""

    address: str
    pod: str = ""
    interface: str = ""
    epoch: int = 0
    state: str = ""
    message: str = ""
    since: str = ""


class RouteStatus(msgspec.Struct, frozen=True):
    """What a route's status says now."""

    pods: tuple[str, ...] = ()
    addresses: tuple[AddressStatus, ...] = ()
    conditions: tuple[Condition, ...] = ()


class Route(Object, frozen=True):
    """GKEIPRoute, networking.gke.io/v1; `problem` and `field` say why it could not be read, where it could not."""

    spec: RouteSpec = RouteSpec()
    status: RouteStatus = RouteStatus()
    problem: str = ""
    field: str = ""


class Network(Object, frozen=True):
    """networking.gke.io/v1."""

    status: Conditions = Conditions()


class Namespace(Object, frozen=True):
    """Core v1: for its labels."""


class ReadinessGate(msgspec.Struct, frozen=True, rename="camel"):
    """A condition that must be True too before its Pod is Ready."""

    condition_type: str


class EnvVar(msgspec.Struct, frozen=True):
    """A variable of a container's environment."""

    name: str
    value: str = ""


class Container(msgspec.Struct, frozen=True):
    """A container of a Pod's spec."""

    name: str
    env: tuple[EnvVar, ...] = ()


class PodSpec(msgspec.Struct, frozen=True, rename="camel"):
    """Where a Pod runs, what its being Ready takes beside its containers, and of these its agent's."""

    node_name: str = ""
    host_network: bool = False
    readiness_gates: tuple[ReadinessGate, ...] = ()
    containers: tuple[Container, ...] = ()
    init_containers: tuple[Container, ...] = ()


class ContainerStatus(msgspec.Struct, frozen=True):
    """Of a container, whether it is ready."""

    name: str
    ready: bool = False


class PodStatus(msgspec.Struct, frozen=True, rename="camel"):
    """How a Pod is, and its IP address; of its containers' statuses those that are not ready."""

    phase: str = ""
    conditions: tuple[Condition, ...] = ()
    container_statuses: tuple[ContainerStatus, ...] = ()
    init_container_statuses: tuple[ContainerStatus, ...] = ()
    pod_ip: str = msgspec.field(default="", name="podIP")


class Pod(Object, frozen=True):
    """Core v1, with the few annotations that are read."""

    spec: PodSpec = PodSpec()
    status: PodStatus = PodStatus()

    @property
    def agent_name(self) -> str:
        """What the container is called that is the Pod's agent, or would be."""
        return self.metadata.annotations.get(CONTAINER, AGENT_CONTAINER)

    @property
    def agent(self) -> Container | None:
        """The container that is the Pod's agent; None: it has none."""
        name, spec = self.agent_name, self.spec
        return next((each for each in (*spec.init_containers, *spec.containers) if each.name == name), None)

    @property
    def watches(self) -> bool:
        """Whether its agent reads its assignment by a watch of the Pod, and so must be allowed to."""
        agent = self.agent
        return agent is not None and EnvVar(SOURCE_VARIABLE, Source.DOWNWARD.value) not in agent.env


T = TypeVar("T", bound=Object)


class _Named(msgspec.Struct):
    metadata: Meta


# Made here, before there are threads: msgspec works a type out at its first use, and two threads that do that at once
# end the process with SIGSEGV.
_read_named = msgspec.json.Decoder(_Named).decode
_READ: Final[dict[type[Any], Callable[[bytes | msgspec.Raw], Any]]] = {
    kind: msgspec.json.Decoder(kind).decode for kind in (GatewayClass, Gateway, Route, Network, Namespace, Pod)
}


def decode(raw: bytes | msgspec.Raw, kind: type[T], where: str) -> T:
    """Read an object.

    Raises:
        ContractError: a field is not of its type; object and field are named.
    """
    try:
        found: T = _READ[kind](raw)
    except msgspec.DecodeError as error:
        raise named_error(_where(raw, where), error) from error
    if isinstance(found, Pod):
        meta, status = _pruned(found.metadata), _unready(found.status)
        return msgspec.structs.replace(found, metadata=meta, spec=_agents(found), status=status)
    return found


def decode_route(raw: bytes | msgspec.Raw) -> Route:
    """Read a route; one that cannot be read still has a name, and says what is wrong with it.

    Raises:
        ContractError: not even its metadata can be read.
    """
    try:
        found: Route = _READ[Route](raw)
    except msgspec.DecodeError as error:
        named = named_error(_where(raw, "GKEIPRoute"), error)
        if named.field.startswith("metadata"):
            raise named from error
        bare = _read_named(raw)
        return Route(metadata=bare.metadata, problem=named.problem, field=named.field)
    return found


def decode_lease_object(raw: bytes | msgspec.Raw) -> LeaseView:
    """Read a Lease.

    Raises:
        ContractError: it is not one.
    """
    return decode_lease(bytes(raw), _where(raw, "Lease"))


def _pruned(meta: Meta) -> Meta:
    kept = {key: meta.annotations[key] for key in _KEPT_OF_POD if key in meta.annotations}
    return msgspec.structs.replace(meta, annotations=kept)


def _agents(pod: Pod) -> PodSpec:
    agent = pod.agent
    if agent is not None:
        agent = Container(agent.name, tuple(each for each in agent.env if each.name == SOURCE_VARIABLE))
    return msgspec.structs.replace(pod.spec, containers=(agent,) if agent is not None else (), init_containers=())


def _unready(status: PodStatus) -> PodStatus:
    kinds = ("container_statuses", "init_container_statuses")
    kept = {kind: tuple(each for each in getattr(status, kind) if not each.ready) for kind in kinds}
    return msgspec.structs.replace(status, **kept)


def _where(raw: bytes | msgspec.Raw, kind: str) -> str:
    try:
        meta = _read_named(raw).metadata
    except msgspec.DecodeError:
        return kind
    return f"{kind} {meta.namespace}/{meta.name}" if meta.namespace else f"{kind} {meta.name}"
