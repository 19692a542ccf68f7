"""A pod of Kubernetes as its API tells of it, and the target that it is.

Fields: https://kubernetes.io/docs/reference/kubernetes-api/workload-resources/pod-v1/; annotations: those by which
Prometheus is commonly told (``prometheus.io/scrape``, ``port``, ``path``, ``scheme``), and ``servescope.dev/`` beside.
"""

from __future__ import annotations

import ipaddress
import re
from typing import TYPE_CHECKING, Annotated, Final, Protocol

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field
from pydantic.alias_generators import to_camel

from agent.engine_table import tables
from agent.target import Target

if TYPE_CHECKING:
    from agent.access import Access

PROMETHEUS: Final = "prometheus.io"
OURS: Final = "servescope.dev"
VERSION: Final = "app.kubernetes.io/version"
SENDER: Final = "servescope/sender"
"""Label of pods in which an agent runs: it watches their servers itself."""
METRICS_PORTS: Final = ("http-metrics", "metrics")
"""What a port is called that shows a page, where a pod has several."""
_NAME: Final = 100
_PATH: Final = re.compile(r"/[!-~]*")


class Unannotated(Protocol):
    """What holds of a pod as far as it is not annotated otherwise."""

    @property
    def scheme(self) -> str: ...  # noqa: D102 - as of `agent.finder.Elsewhere`, all of them
    @property
    def engine(self) -> str: ...  # noqa: D102
    @property
    def metrics_path(self) -> str: ...  # noqa: D102
    @property
    def port(self) -> int | str | None: ...  # noqa: D102
    @property
    def deployment(self) -> str: ...  # noqa: D102
    @property
    def role(self) -> str: ...  # noqa: D102
    @property
    def access(self) -> Access: ...  # noqa: D102


class OddPodError(ValueError):
    """A pod that wants to be watched does not say how; the text names it."""


def _or_empty(kind: type) -> BeforeValidator:
    return BeforeValidator(lambda value: kind() if value is None else value)


Texts = Annotated[dict[str, str], _or_empty(dict)]


class _Part(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, extra="ignore", frozen=True)


class Owner(_Part):
    """Who made a pod."""

    kind: str = ""
    name: str = ""
    controller: bool = False


class Port(_Part):
    """A port that a container names."""

    container_port: int
    name: str = ""
    protocol: str = "TCP"


class Container(_Part):
    """A container, or one of those that are started before."""

    ports: Annotated[list[Port], _or_empty(list)] = []


class Metadata(_Part):
    """Whose it is."""

    name: str = Field(min_length=1)
    namespace: str = ""
    uid: str = Field(min_length=1)
    resource_version: str = ""
    creation_timestamp: Annotated[str, _or_empty(str)] = ""
    deletion_timestamp: str | None = None
    labels: Texts = {}
    annotations: Texts = {}
    owner_references: Annotated[list[Owner], _or_empty(list)] = []


class Spec(_Part):
    """What it is to be."""

    node_name: Annotated[str, _or_empty(str)] = ""
    containers: Annotated[list[Container], _or_empty(list)] = []


class Status(_Part):
    """How it is."""

    phase: str = ""
    pod_ip: str = Field(default="", alias="podIP")


class Pod(_Part):
    """A pod, as far as it matters here."""

    metadata: Metadata
    spec: Spec = Spec()
    status: Status = Status()

    @property
    def where(self) -> str:
        """Namespace, where it is known, and name."""
        return f"{self.metadata.namespace}/{self.metadata.name}".lstrip("/")

    @property
    def plain_name(self) -> str:
        """The name as an instance has it: the end of one that is too long, which tells it from others."""
        return self.metadata.name[-_NAME:].lstrip("-.")

    @property
    def whole_name(self) -> str:
        """The same with the namespace, where another pod has the plain one."""
        return f"{self.metadata.name}.{self.metadata.namespace}"[-_NAME:].lstrip("-.")

    @property
    def is_leaving(self) -> bool:
        """Whether it was told to end, or ended well by itself."""
        return self.metadata.deletion_timestamp is not None or self.status.phase == "Succeeded"

    @property
    def has_failed(self) -> bool:
        """Whether it ended and comes up no more: evicted, or failed without being restarted."""
        return self.status.phase == "Failed"

    @property
    def is_annotated(self) -> bool:
        """Whether it says that it has a page."""
        return self.told("scrape").strip().lower() == "true"

    @property
    def has_sidecar(self) -> bool:
        """Whether an agent beside the server watches it already."""
        return self.metadata.labels.get(SENDER) == "yes"

    def told(self, what: str, prefix: str = PROMETHEUS) -> str:
        """An annotation, empty where it is not there."""
        return self.metadata.annotations.get(f"{prefix}/{what}", "")

    def ports(self) -> list[Port]:
        """TCP ports that its containers name."""
        return [port for one in self.spec.containers for port in one.ports if port.protocol == "TCP"]


def target_of(pod: Pod, settings: Unannotated, instance: str) -> Target:
    """The target that a pod is.

    Args:
        pod: It has an address.
        settings: What is not annotated.
        instance: Its name.

    Raises:
        OddPodError: It does not say which port, or says what can't be.
    """
    try:
        host = str(ipaddress.ip_address(pod.status.pod_ip))
    except ValueError:
        raise _odd(pod, f"its address {pod.status.pod_ip[:60]!r} is none", "it is the API server's word") from None
    scheme = pod.told("scheme") or settings.scheme
    if scheme not in {"http", "https"}:
        raise _odd(pod, f"{PROMETHEUS}/scheme is {scheme[:60]!r}", "http or https")
    engine = pod.told("engine", OURS) or settings.engine
    if engine not in {"", "auto"} and engine not in tables():
        raise _odd(pod, f"{OURS}/engine is {engine[:60]!r}", f"one of {', '.join(sorted(tables()))}, or auto")
    named = None if engine in {"", "auto"} else engine
    path = pod.told("path") or settings.metrics_path or (tables()[named].page_path if named else "")
    path = f"/{path}" if path and not path.startswith("/") else path
    if path and not _PATH.fullmatch(path):
        raise _odd(pod, f"{PROMETHEUS}/path is {path[:60]!r}", "a path such as /metrics")
    port = _port(pod, settings.port)
    serving = port - (tables()[named].metrics_port_offset if named else 0)
    at = f"{scheme}://{f'[{host}]' if ':' in host else host}"
    role = pod.told("role", OURS)
    return Target(
        instance,
        (pod.told("deployment", OURS) or settings.deployment or _made_by(pod))[:_NAME],
        engine=named,
        url=f"{at}:{serving}",
        metrics_url=f"{at}:{port}{path}" if path else "",
        role=role if role in _ROLES else settings.role,
        access=settings.access,
        pod=pod.metadata.name,
        namespace=pod.metadata.namespace,
        node=pod.spec.node_name,
        version=pod.metadata.labels.get(VERSION, ""),
    )


_ROLES: Final = frozenset({"both", "prefill", "decode", "router"})


def _port(pod: Pod, given: int | str | None) -> int:
    """The port of the page: as annotated, as set, the only one, or the one that is called so."""
    ports = pod.ports()
    by_name = {port.name: port.container_port for port in ports if port.name}
    told = pod.told("port").strip()
    wanted: int | str | None = (int(told) if told.isascii() and told.isdigit() else told) if told else given
    if isinstance(wanted, str):
        if wanted not in by_name:
            raise _odd(pod, f"it has no port {wanted[:60]!r}", f"a number or one of {', '.join(by_name) or 'none'}")
        wanted = by_name[wanted]
    if wanted is None:
        numbers = dict.fromkeys(port.container_port for port in ports)
        called = [by_name[name] for name in METRICS_PORTS if name in by_name]
        if len(numbers) != 1 and not called:
            there = f"of {', '.join(map(str, numbers))} none" if numbers else "no port"
            raise _odd(pod, f"{there} is named as that of its page", "the port", f"{PROMETHEUS}/port")
        wanted = called[0] if called else next(iter(numbers))
    if not 1 <= wanted <= 65535:  # noqa: PLR2004 - ports
        raise _odd(pod, f"{wanted} is no port", "1 to 65535", f"{PROMETHEUS}/port")
    return wanted


def _made_by(pod: Pod) -> str:
    """The Deployment, StatefulSet or other that made it; the pod's own name where nothing did."""
    owner = next((one for one in pod.metadata.owner_references if one.controller), None)
    if owner is None or not owner.name:
        return pod.metadata.name
    template = pod.metadata.labels.get("pod-template-hash", "")
    return owner.name.removesuffix(f"-{template}") if owner.kind == "ReplicaSet" and template else owner.name


def _odd(pod: Pod, what: str, wanted: str, annotation: str = "") -> OddPodError:
    where = f" by the annotation {annotation}" if annotation else ""
    return OddPodError(f"pod {pod.where} is not watched: {what}; give {wanted}{where}")
