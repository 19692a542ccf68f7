"""One target whose pages somebody else scraped, from points to what is told of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest

from collector.ledger import Ledger
from collector.scraped.order import HOLD_SECONDS, Order
from collector.scraped.pages import OLD_PATIENCE_SECONDS, Assembly
from collector.scraped.pods import Pods
from collector.scraped.reader import Reader, maker
from tests.kits.scraped import SECOND, START, told

if TYPE_CHECKING:
    from collections.abc import Iterable

    from collector.scraped.series import Point

WHOSE: Final = {"service.name": "chat", "service.instance.id": "a:1"}


class Target:
    """One target and what its pages became."""

    def __init__(self) -> None:
        self.assembly, self.order = Assembly(), None
        self.ledger = Ledger()
        self.bodies: list[bytes] = []
        self.events: list[tuple[int, str]] = []
        self.now = 1000.0

    def emit(self, kind: str, body: bytes) -> None:
        if kind == "metrics":
            self.bodies.append(body)
            return
        for group in ExportLogsServiceRequest.FromString(body).resource_logs:
            self.events += [(one.time_unix_nano, one.event_name) for one in group.scope_logs[0].log_records]

    def come(self, points: Iterable[Point], after: float = 0.0) -> None:
        self.now += after
        for point in points:
            self.assembly.add(point, self.now, START + int((self.now - 1000.0) * SECOND))
        self.hand_on()

    def hand_on(self, *, last: bool = False) -> None:
        for put in self.assembly.ready(self.now, last=last):
            if self.order is None:
                fresh = maker(put.page, WHOSE, self.emit, self.ledger, Pods())
                assert fresh is not None
                self.order: Order[Reader] | None = Order(fresh)
            self.order.take(put, self.now)
        if self.order is not None:
            self.order.tick(self.now, last=last)

    def wait(self) -> None:
        for seconds in (OLD_PATIENCE_SECONDS, HOLD_SECONDS):
            self.now += seconds
            self.hand_on()

    def rows(self) -> list[tuple[int, Any]]:
        """Rows as a store has them that keeps the last of a time, in the order of their times."""
        return sorted({time_ns: (whose, values) for time_ns, whose, values in told(self.bodies)}.items())
