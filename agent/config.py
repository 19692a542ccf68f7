"""Settings of the agent: the section ``agent:`` of the configuration file, each with its default and its meaning."""

from __future__ import annotations

import os
import platform
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, model_validator

from agent.finder import Entry, Keyed, OneOfItsKind
from agent.tap.config import TapLimits, TenantConfig
from agent.target import ForwardPasses, KvEvents, Place, Target
from base import yamlfile
from base.settings import MustExist, Port
from base.urls import Host, HttpUrl, encrypted
from base.yamlfile import FieldError

if TYPE_CHECKING:
    from collections.abc import Mapping

ENVIRONMENT_PREFIX: Final = "SERVESCOPE_AGENT_"
TLS_FILES: Final = ("collector_ca_file", "client_certificate_file", "client_key_file")
"""Settings that name what an https collector is checked by and shown."""
_TCP: Final = re.compile(r"^tcp://(?:\[[0-9A-Fa-f:.%]+\]|[A-Za-z0-9._-]+):(\d{1,5})$")
_IPC: Final = re.compile(r"^ipc://\S{1,200}$")
_LAST_PORT: Final = 65_535
_SCALARS: Final = (str, int, float, bool)
_OF_KUBERNETES: Final = re.compile(r"_(SERVICE_(HOST|PORT(_\w+)?)|PORT(_\d+_(TCP|UDP|SCTP)(_\w+)?)?)$")
"""Environment variables that a pod has for each service: https://kubernetes.io/docs/concepts/services-networking/"""


def _check_endpoint(name: str, value: str, ranks: int) -> None:
    """That a field is an address to which one connects, with a port for each rank."""
    ports = _TCP.match(value)
    if ports is None and not _IPC.match(value):
        raise FieldError((name,), "must be tcp://host:port or ipc://path; a publisher's * is its host, as reached")
    if ports is not None and not 1 <= int(ports[1]) <= _LAST_PORT - ranks + 1:
        raise FieldError((name,), f"has no port of 1 to {_LAST_PORT} for each rank")


class KvEventsConfig(BaseModel):
    """Where a server publishes its KV cache events, in the words of vLLM's ``--kv-events-config``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    endpoint: str = Field(
        description="Address of the publisher as this agent reaches it, such as tcp://127.0.0.1:5557."
    )
    replay_endpoint: str = Field(default="", description="Where missed batches are asked for; empty: they are lost.")
    topic: str = Field(default="", max_length=1000, description="What topics begin with; empty: all.")
    data_parallel_size: int = Field(
        default=1, ge=1, le=1024, description="Publishers, one a rank, on the ports from the endpoint's on."
    )

    @model_validator(mode="after")
    def _check_endpoints(self) -> Self:
        for name in ("endpoint", "replay_endpoint"):
            value = getattr(self, name)
            if not value and name == "replay_endpoint":
                continue
            _check_endpoint(name, value, self.data_parallel_size)
            if self.data_parallel_size > 1 and not _TCP.match(value):
                raise FieldError((name,), "must be tcp://host:port where data_parallel_size is above 1")
        return self

    def publishers(self) -> KvEvents:
        """What the source is told."""
        return KvEvents(self.endpoint, self.replay_endpoint, self.topic, self.data_parallel_size)


class ForwardPassMetricsConfig(BaseModel):
    """Where a server publishes its forward-pass metrics."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    endpoint: str = Field(
        description="Address of the first rank's publisher as this agent reaches it, such as tcp://127.0.0.1:20380."
    )
    data_parallel_size: int = Field(
        default=1, ge=1, le=1024, description="Publishers, one a rank, on the ports from the endpoint's on."
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        _check_endpoint("endpoint", self.endpoint, self.data_parallel_size)
        return self

    def publishers(self) -> ForwardPasses:
        """What the source is told."""
        return ForwardPasses(self.endpoint, self.data_parallel_size)


class TargetConfig(Keyed):
    """One model server."""

    instance: str = Field(
        min_length=1,
        max_length=100,
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._:-]*$",
        description="Unique name of this server; letters, digits and `._:-`.",
    )
    deployment: str = Field(default="", description="Replicas that serve one model together; empty: the instance.")
    url: HttpUrl = Field(default="", description="Base URL of the serving API.")
    metrics_url: HttpUrl = Field(default="", description="URL of the metrics page; empty derives it from url.")
    role: Literal["both", "prefill", "decode", "router"] = Field(default="both", description="What it serves.")
    version: str = Field(default="", description="Version that its taps' records carry; empty: the engine's own.")
    tap_port: Annotated[int | None, Port()] = Field(
        default=None, ge=0, le=65535, description="Port of the tap in front of it."
    )
    tap: bool = Field(default=True, description="Whether `servescope up` puts a tap in front of it.")
    kv_events: KvEventsConfig | None = Field(default=None, description="Where it publishes its KV cache events.")
    forward_pass_metrics: ForwardPassMetricsConfig | None = Field(
        default=None, description="Where it publishes its forward-pass metrics."
    )

    @model_validator(mode="after")
    def _check_reachable(self) -> Self:
        if not self.url and not self.metrics_url:
            raise ValueError("give url, metrics_url or both")
        return self

    def target(self) -> Target:
        """What the sources are told."""
        return Target(
            instance=self.instance,
            deployment=self.deployment or self.instance,
            engine=self.engine_id,
            url=self.url,
            metrics_url=self.metrics_url,
            role=self.role,
            tap_port=self.tap_port,
            access=self.access,
            kv_events=self.kv_events.publishers() if self.kv_events is not None else None,
            forward_pass_metrics=(
                self.forward_pass_metrics.publishers() if self.forward_pass_metrics is not None else None
            ),
        )


class GpuPageConfig(BaseModel):
    """One GPU exporter."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    url: HttpUrl = Field(min_length=1, description="URL of its page, NVIDIA's (dcgm-exporter) or AMD's.")


class AgentConfig(BaseModel):
    """The section ``agent:`` of the configuration file."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    collector: HttpUrl = Field(
        default="http://127.0.0.1:4318", min_length=1, description="Base URL to which batches go."
    )
    collector_ca_file: Annotated[Path | None, MustExist()] = Field(
        default=None, description="Authorities an https collector is checked by."
    )
    client_certificate_file: Annotated[Path | None, MustExist()] = Field(
        default=None, description="Certificate shown to an https collector."
    )
    client_key_file: Annotated[Path | None, MustExist()] = Field(
        default=None, description="Private key of that certificate."
    )
    key_file: Annotated[Path | None, MustExist()] = Field(
        default=None, description="Hex key that signs; empty: DATA/keys/agent_hmac."
    )
    sign: bool = Field(default=True, description="Sign batches.")
    region: str = Field(default="", description="Cloud region.")
    cluster: str = Field(default="", description="Kubernetes cluster.")
    pod: str = Field(default="", description="Kubernetes pod.")
    namespace: str = Field(default="", description="Kubernetes namespace of that pod.")
    node: str = Field(default="", description="Machine; empty: its host name.")
    tenant: TenantConfig = Field(default_factory=TenantConfig, description="How the tap tells who asks.")
    tap: TapLimits = Field(default_factory=TapLimits, description="Bounds of the taps.")
    targets: tuple[TargetConfig, ...] = Field(default=(), description="The model servers.")
    discover: bool = Field(default=False, description="Look for further model servers on this machine.")
    discovery: tuple[OneOfItsKind, ...] = Field(
        default=(), max_length=32, description="Where further model servers are looked for, by kind."
    )
    max_targets: int = Field(default=256, ge=1, le=10_000, description="Model servers that are watched at most.")
    interval_seconds: float = Field(default=1.0, ge=0.1, le=60, description="Time between two samples.")
    gpu: bool = Field(default=True, description="Sample GPUs.")
    gpu_pages: tuple[GpuPageConfig, ...] = Field(
        default=(), max_length=256, description="Pages of GPU exporters to read beside the driver."
    )
    pod_resources: Path | None = Field(
        default=Path("/var/lib/kubelet/pod-resources/kubelet.sock"),
        description="Socket on which a kubelet tells which pods have which GPUs; null: it is not asked.",
    )
    host: bool = Field(default=True, description="Sample this machine and the engines' processes.")
    probe: bool = Field(default=True, description="Take what probes in model servers tell.")
    probe_socket: Path | None = Field(
        default=None, description="Socket on which they tell it; none: SERVESCOPE_PROBE_SOCKET, or the runtime folder."
    )
    otlp_host: Host = Field(default="127.0.0.1", description="Address on which engines' spans are taken.")
    otlp_http_port: Annotated[int | None, Port("agent_otlp_http")] = Field(
        default=14318, ge=0, le=65535, description="OTLP/HTTP; null: not at all."
    )
    otlp_grpc_port: Annotated[int | None, Port("agent_otlp_grpc")] = Field(
        default=14317, ge=0, le=65535, description="OTLP/gRPC; null: not at all."
    )
    store_prompts: bool = Field(default=False, description="Keep attributes that hold prompt text.")
    health_host: Host = Field(default="127.0.0.1", description="Address of /metrics and /healthz.")
    health_port: Annotated[int, Port("agent_health")] = Field(
        default=9464, ge=0, le=65535, description="Port of /metrics and /healthz."
    )
    spool_max_bytes: int = Field(
        default=512_000_000, ge=1_000_000, description="Disk that one producer's signal may take while none is sent."
    )
    black_box_seconds: float = Field(
        default=300.0, ge=0, le=3600, description="How far the black box reaches back; 0: there is none."
    )
    black_box_max_bytes: int = Field(
        default=256_000_000, ge=1_000_000, description="Disk that the black box may take; the oldest goes first."
    )
    flush_seconds: float = Field(
        default=0.5,
        ge=0.05,
        le=30,
        description="How long records gather into a batch; 1.5 s at least while nobody reads.",
    )
    drain_seconds: float = Field(default=5.0, ge=0, le=300, description="Longest sending at shutdown.")
    self_spans: bool = Field(default=False, description="Send spans of the agent's own work to the collector.")

    @model_validator(mode="after")
    def _check_instances(self) -> Self:
        names = [target.instance for target in self.targets]
        for index, name in enumerate(names):
            if name in names[:index]:
                raise FieldError(("targets", index, "instance"), f"{name!r} is there twice: names must be unique")
        if len(names) > self.max_targets:
            raise FieldError(("targets",), f"are {len(names)}, and max_targets is {self.max_targets}: raise it")
        if (self.client_certificate_file is None) != (self.client_key_file is None):
            given = "client_certificate_file" if self.client_key_file is None else "client_key_file"
            raise FieldError((given,), "client_certificate_file and client_key_file go together")
        self._check_tls()
        return self

    def _check_tls(self) -> None:
        if encrypted(self.collector):
            return
        for name in TLS_FILES:
            if getattr(self, name) is not None:
                what = "is for an https collector, and agent.collector is plain http: make that https, or take this out"
                raise FieldError((name,), what)

    def looks(self) -> list[Entry]:
        """The entries of ``discovery``, and one of this machine where ``discover`` asks for it."""
        local = [] if any(one.kind == "local" for one in self.discovery) or not self.discover else [{"kind": "local"}]
        return [*self.discovery, *TypeAdapter(tuple[OneOfItsKind, ...]).validate_python(local)]

    def certificates(self) -> dict[str, Path]:
        """Files of certificates, by the setting that names them."""
        file = self.client_certificate_file
        return {} if file is None else {"agent.client_certificate_file": file}

    def place(self) -> Place:
        """Where this agent runs."""
        return Place(
            region=self.region,
            cluster=self.cluster,
            pod=self.pod,
            node=self.node or platform.node(),
            namespace=self.namespace,
        )


def load(path: Path | None, environment: Mapping[str, str] | None = None) -> AgentConfig:
    """Read the section ``agent`` of a YAML file, then ``SERVESCOPE_AGENT_<FIELD>`` over it.

    Args:
        path: The file; None takes the defaults.
        environment: Instead of the process's own. A value is read as YAML, so lists and numbers work too.

    Raises:
        ConfigError: The file can't be read, or a field is wrong; names each.
    """
    variables = os.environ if environment is None else environment
    over = {
        name: (f"the variable {variable}", _value(name, variables[variable]))
        for name in AgentConfig.model_fields
        if (variable := f"{ENVIRONMENT_PREFIX}{name.upper()}") in variables
    }
    return yamlfile.settings(path, "agent", AgentConfig, over)


def unknown_variables(environment: Mapping[str, str]) -> list[str]:
    """Variables that look like a setting of the agent and are none.

    Kubernetes makes such variables too, from the names of services: they are left out.
    """
    known = {f"{ENVIRONMENT_PREFIX}{name.upper()}" for name in AgentConfig.model_fields}
    return sorted(
        name
        for name in environment
        if name.startswith(ENVIRONMENT_PREFIX) and name not in known and not _OF_KUBERNETES.search(name)
    )


def _value(name: str, text: str) -> Any:
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        return text
    if AgentConfig.model_fields[name].annotation is str and isinstance(value, _SCALARS):
        return text
    return value
