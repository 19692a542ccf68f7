"""What all connections of one tap share: settings, counters, names, where records go."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable

    from agent.request import RequestRecord
    from agent.tap.counters import Counters
    from agent.tap.tenants import BoundedNames, Tenants
    from agent.tap.upstream import Pool


@dataclass(frozen=True, slots=True)
class Limits:
    """Times in seconds and sizes that bound one connection; 0 seconds means no limit.

    Attributes:
        connect_seconds: To reach the server.
        first_byte_seconds: From the request forwarded to the response's head.
        stall_seconds: Between two reads of an answer.
        head_seconds: From a request's first byte to the end of its head.
        client_stall_seconds: A client that neither sends its body on nor takes its answer.
        keep_alive_seconds: An idle client connection.
        drain_seconds: Open requests at shutdown.
        max_connections: Client connections at once.
        patience_seconds: How long a client may wait for the first piece of its answer before its leaving is the
            server's failure.
    """

    connect_seconds: float = 5.0
    first_byte_seconds: float = 600.0
    stall_seconds: float = 300.0
    head_seconds: float = 30.0
    client_stall_seconds: float = 300.0
    keep_alive_seconds: float = 75.0
    drain_seconds: float = 30.0
    max_connections: int = 4_096
    patience_seconds: float = 30.0


class Records(Protocol):
    """Where records go (see ``recorder.Recorder``)."""

    def submit(self, record: RequestRecord, release: Callable[[], None]) -> None:
        """Take a record; call ``release`` once, at any time."""
        ...


@dataclass(slots=True)
class Core:
    """Shared state of one tap.

    Attributes:
        pool: Connections to the server.
        records: Where records go.
        counters: Own health.
        tenants: Finds who asked.
        models: Bounds the distinct model names that clients may make up.
        limits: Bounds.
        record_probes: Whether health and metrics probes get a record too.
        draining: The tap is shutting down.
        sample: Whether what a caller did not sample is sent on as sampled.
    """

    pool: Pool
    records: Records
    counters: Counters
    tenants: Tenants
    models: BoundedNames
    limits: Limits
    record_probes: bool = False
    draining: bool = False
    sample: bool = True
