"""What all connections of one tap share: settings, counters, names, where records go."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from agent.tap.open_requests import OpenRequests
from agent.tap.places import Door

if TYPE_CHECKING:
    from collections.abc import Callable

    from agent.otlp.request import RequestRecord
    from agent.tap.counters import Counters
    from agent.tap.tenants import BoundedNames, Tenants
    from agent.tap.upstream import Pool


@dataclass(frozen=True, slots=True)
class Limits:
    """Times in seconds and sizes that bound one connection; 0 seconds means no limit.

    Attributes:
        connect_seconds: To reach the server.
        first_byte_seconds: From the request forwarded to the response's head; as long as the server takes by default.
        stall_seconds: Between two reads of an answer; as long as the server takes by default.
        head_seconds: From a request's first byte to the end of its head.
        client_stall_seconds: A client that neither sends its body on nor takes its answer.
        keep_alive_seconds: An idle client connection.
        drain_seconds: Open requests at shutdown.
        max_connections: Client connections at once.
        patience_seconds: How long a client may wait for the first piece of its answer before its leaving is the
            server's failure.
        max_tunnels: WebSocket sessions at once.
        tunnel_idle_seconds: A tunnel in which neither side says anything.
    """

    connect_seconds: float = 5.0
    first_byte_seconds: float = 0.0
    stall_seconds: float = 0.0
    head_seconds: float = 30.0
    client_stall_seconds: float = 300.0
    keep_alive_seconds: float = 75.0
    drain_seconds: float = 30.0
    max_connections: int = 4_096
    patience_seconds: float = 30.0
    max_tunnels: int = 1_024
    tunnel_idle_seconds: float = 3_600.0


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
        tunnels: WebSocket sessions that are open or asked for.
        open: Requests whose record is not written yet.
        lag_seconds: Longest lateness of the event loop since whoever reports it set it back to 0.
        door: Turns away what has no place.
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
    tunnels: int = 0
    lag_seconds: float = 0.0
    open: OpenRequests = field(default_factory=OpenRequests)
    door: Door = field(init=False)

    def __post_init__(self) -> None:
        self.door = Door(self.counters)

    def note_lag(self, seconds: float) -> None:
        """The event loop was so late for what it had planned."""
        self.counters.lag.observe(seconds)
        self.lag_seconds = max(self.lag_seconds, seconds)

    def take_tunnel(self) -> bool:
        """Whether there is a place for one more tunnel, which is taken then; given back by ``tunnels -= 1``."""
        if self.tunnels >= self.limits.max_tunnels:
            self.door.turned_away("tunnels")
            return False
        self.tunnels += 1
        return True
