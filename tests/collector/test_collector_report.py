"""A collector's books come into the store like anybody's records: whole, of one instant, and not for their own sake."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

from collector.intake import BusyError, Taken
from collector.ledger import Ledger
from collector.report import report

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

Told = dict[tuple[str, str, str], float]


@dataclass
class Books:
    """A ledger, a log and an intake that stores at once what it takes."""

    ledger: Ledger = field(default_factory=Ledger)
    waiting: int = 0
    busy: bool = False
    looked: int = 0
    bodies: list[bytes] = field(default_factory=list)

    def pending(self, signal: str) -> int:
        self.looked += 1
        return self.waiting if signal == "traces" else 0

    async def take(self, signal: str, body: bytes, **_: Any) -> Taken:
        assert signal == "metrics"
        if self.busy:
            raise BusyError("log full")
        self.bodies.append(body)
        records = len(told(body))
        self.ledger.received(signal, records, len(body))
        self.ledger.stored(signal, records)
        return Taken(new=True, refusal=None)

    @contextlib.asynccontextmanager
    async def reporting(self) -> AsyncIterator[None]:
        task = asyncio.create_task(report(self, self.ledger, self, every=0.001))  # type: ignore[arg-type]
        yield
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task

    async def looks(self, times: int = 5) -> None:
        """Wait until the books were looked at so often again: three signals, and once more whether they balance."""
        until = self.looked + 6 * times
        async with asyncio.timeout(60):
            while self.looked < until:  # noqa: ASYNC110
                await asyncio.sleep(0.001)


def told(body: bytes) -> Told:
    request = ExportMetricsServiceRequest.FromString(body)
    found: Told = {}
    for metric in request.resource_metrics[0].scope_metrics[0].metrics:
        for point in metric.sum.data_points:
            named = {pair.key: pair.value.string_value for pair in point.attributes}
            found[named["signal"], named["fate"], named.get("reason", "")] = point.as_double
            assert metric.sum.is_monotonic == (named["fate"] != "pending")
            assert point.start_time_unix_nano < point.time_unix_nano
    return found


async def test_the_books_are_told_when_something_came_and_add_up():
    books = Books()
    async with books.reporting():
        await books.looks()
        assert books.bodies == [], "nothing came"
        books.ledger.recovered("traces", 4)
        books.ledger.received("traces", 90, 1000)
        books.ledger.rejected("traces", "malformed", 3)
        books.ledger.repeated("traces", 5)
        books.ledger.stored("traces", 80)
        books.waiting = 14
        await books.looks()
        (body,) = books.bodies
        found = {key[1:]: count for key, count in told(body).items() if key[0] == "traces"}
        assert found == {
            ("received", ""): 98, ("recovered", ""): 4, ("stored", ""): 80, ("pending", ""): 14,
            ("rejected", "malformed"): 3, ("dropped", "repeat"): 5,
        }  # fmt: skip
        came = found["received", ""] + found["recovered", ""]
        assert came == sum(count for (fate, _), count in found.items() if fate not in {"received", "recovered"})
        await books.looks()
        assert len(books.bodies) == 1, "its own records are no reason to report"
        books.waiting = 0
        books.ledger.stored("traces", 14)
        await books.looks()
        assert len(books.bodies) == 2, "what waits no more is told"
        own = {key[1]: count for key, count in told(books.bodies[1]).items() if key[0] == "metrics"}
        assert own["received"] == own["stored"] == len(told(books.bodies[0]))


async def test_books_that_find_no_room_are_told_later():
    books = Books(busy=True)
    books.ledger.received("logs", 7, 70)
    books.ledger.stored("logs", 7)
    async with books.reporting():
        await books.looks()
        assert books.bodies == []
        books.busy = False
        await books.looks()
        assert [told(body)["logs", "received", ""] for body in books.bodies] == [7]


async def test_what_is_on_its_way_into_the_log_is_waited_for():
    books = Books(waiting=3)  # the log has three that the ledger learns of in a moment
    async with books.reporting():
        await books.looks(1)
        books.ledger.received("traces", 3, 30)
        await books.looks()
        (body,) = books.bodies
        assert (told(body)["traces", "received", ""], told(body)["traces", "pending", ""]) == (3, 3)
