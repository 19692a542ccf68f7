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
    from agent.tap.limits import Limits
    from agent.tap.tenants import BoundedNames, Tenants
    from agent.tap.upstream import Pool


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
        owed: For how long the server has sent nothing of an answer that it owes, by the monotonic clock: the longest.
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
    owed: Callable[[float], float] = lambda _now: 0.0

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
