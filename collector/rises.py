"""Rows that nobody may learn late are not held back: sums of what a tap lost, where they grew.

Who pages of them asks for the rows that are there, so that asking costs no insert; here it is seen that something is to
be told.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from typing import TYPE_CHECKING, Final

import structlog
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

from base.vocabulary import TAP_LOSSES

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from collector.auth import Sender

LOG: Final = structlog.get_logger()

_NAMES: Final = tuple(name.encode() for name in TAP_LOSSES)
_MOST: Final = 10_000
"""Sums that are remembered; of one that was forgotten any value counts as a rise."""

_Sum = tuple[str, bytes, str, bytes]
"""Whose, its resource, its name, its attributes."""


class Rises:
    """Has metrics brought in when a sum grew that must not.

    Args:
        bring_in: Returns when the store has all metrics that were taken before.
        pause: Seconds from one such to the next, at least.
    """

    def __init__(self, bring_in: Callable[[], Awaitable[None]], pause: float) -> None:
        self._bring_in = bring_in
        self._pause = pause
        self._known: OrderedDict[_Sum, float] = OrderedDict()
        self._risen = asyncio.Event()

    def look(self, body: bytes, sender: Sender) -> None:
        """Look into a metrics request, just stored: where none of the sums is told, a search in its bytes."""
        if not any(name in body for name in _NAMES):
            return
        try:
            for key, value in _sums(body, sender.tenant):
                if value > self._known.get(key, 0.0):
                    self._risen.set()
                self._known[key] = value
                self._known.move_to_end(key)
        except Exception:  # the request is stored all the same, and nobody waits longer for it than for others
            LOG.exception("rises_not_read")
            self._risen.set()
        while len(self._known) > _MOST:
            self._known.popitem(last=False)

    async def run(self) -> None:
        """Bring in until cancelled."""
        while True:
            await self._risen.wait()
            self._risen.clear()
            await self._bring_in()
            await asyncio.sleep(self._pause)


def _sums(body: bytes, tenant: str) -> Iterator[tuple[_Sum, float]]:
    for group in ExportMetricsServiceRequest.FromString(body).resource_metrics:
        resource = b""
        for scope in group.scope_metrics:
            for metric in scope.metrics:
                if metric.name not in TAP_LOSSES:
                    continue
                resource = resource or group.resource.SerializeToString(deterministic=True)
                for point in metric.sum.data_points:
                    attributes = b"".join(one.SerializeToString(deterministic=True) for one in point.attributes)
                    yield (tenant, resource, metric.name, attributes), point.as_double or point.as_int
