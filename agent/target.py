"""A model server as all parts of the agent know it, and where the agent runs."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, NamedTuple

from agent.access import Access

BOTH: Final = "both"
"""The role of a server that nobody gave one."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where this agent runs; each empty string is unknown and leaves no attribute on the wire."""

    region: str = ""
    cluster: str = ""
    pod: str = ""
    node: str = ""
    namespace: str = ""


@dataclass(frozen=True, slots=True)
class KvEvents:
    """Where a server publishes its KV cache events, in the words of vLLM's ``--kv-events-config``.

    Args:
        endpoint: ZeroMQ address of the publisher (``tcp://host:port``, ``ipc://path``).
        replay_endpoint: Where it is asked for batches that were missed; "" for nowhere.
        topic: What topics must begin with.
        data_parallel_size: Publishers, one a rank, on the ports from the endpoint's on.
    """

    endpoint: str
    replay_endpoint: str = ""
    topic: str = ""
    data_parallel_size: int = 1


@dataclass(frozen=True, slots=True)
class ForwardPasses:
    """Where a server publishes its forward-pass metrics.

    Args:
        endpoint: ZeroMQ address of the first rank's publisher (``tcp://host:port``), or what the ranks' sockets are
            called but for ``.RANK`` (``ipc://path``).
        data_parallel_size: Publishers, one a rank.
    """

    endpoint: str
    data_parallel_size: int = 1


@dataclass(frozen=True, slots=True)
class Target:
    """One model server to watch; ``repr`` leaves out its URLs, which may hold a password.

    Args:
        instance: Unique name of this server, for example ``vllm-a``.
        deployment: Name of the replicas that serve one model together.
        engine: Engine id (``vllm``, ``triton``, …); None reads it off the page.
        url: Base URL of the serving API.
        metrics_url: URL of the metrics page; empty derives it (``url`` + ``/metrics``, for Triton port 8002).
        role: ``both``, ``prefill``, ``decode`` or ``router``.
        tap_port: Port of the tap in front of it; None for no tap.
        access: Where the key that its pages want is.
        pod, namespace, node: Where Kubernetes runs it, where whoever named it knows; else it is where the agent is.
        version: What it is labelled with, where its engine tells no version.
        kv_events: Where it publishes its KV cache events; None for nowhere.
        forward_pass_metrics: Where it publishes its forward-pass metrics; None for nowhere.
    """

    instance: str
    deployment: str
    engine: str | None = None
    url: str = field(default="", repr=False)
    metrics_url: str = field(default="", repr=False)
    role: str = BOTH
    tap_port: int | None = None
    access: Access = field(default_factory=Access)
    pod: str = ""
    namespace: str = ""
    node: str = ""
    version: str = ""
    kv_events: KvEvents | None = None
    forward_pass_metrics: ForwardPasses | None = None


class Known(NamedTuple):
    """What a server told of itself; "" for what it did not tell.

    Attributes:
        engine: Engine id, by its page or by its target.
        version: The engine's version.
        model: The model it serves; "" too where it serves several.
        served: Requests that finished with an answer since the agent was started, as far as its page counts them.
    """

    engine: str
    version: str = ""
    model: str = ""
    served: float = 0.0
