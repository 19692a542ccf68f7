"""A collector's own books as OTLP metrics, taken like anybody's: the store itself says what became of every record.

``servescope.collector.records`` counts since the start of the process, by ``signal``, ``fate`` (``received``,
``recovered``, ``stored``, ``rejected``, ``dropped``) and ``reason``; ``servescope.collector.pending`` is what the log
has and the store does not. All figures of a report are of one instant, so that they add up.
"""

from __future__ import annotations

import asyncio
import os
import platform
import time
from typing import TYPE_CHECKING, Final

import structlog
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, InstrumentationScope, KeyValue
from opentelemetry.proto.metrics.v1.metrics_pb2 import (
    AGGREGATION_TEMPORALITY_CUMULATIVE,
    Metric,
    NumberDataPoint,
    ResourceMetrics,
    ScopeMetrics,
    Sum,
)

from base.vocabulary import SERVICE_COLLECTOR, Resource
from collector.auth import NOBODY
from collector.intake import BusyError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from collector.intake import Intake
    from collector.ledger import Fate, Ledger
    from collector.log.write_ahead import WriteAheadLog

_SECONDS: Final = 15.0
_TRIES: Final = 50
_TRY_SECONDS: Final = 0.02
_SCOPE: Final = "servescope.collector"
_RECORDS: Final = "servescope.collector.records"
_PENDING: Final = "servescope.collector.pending"

LOG: Final = structlog.get_logger()


async def report(intake: Intake, ledger: Ledger, log: WriteAheadLog, every: float = _SECONDS) -> None:
    """Take the books into the log every so many seconds, unless nothing changed but by this, until cancelled."""
    start_ns, own, before = time.time_ns(), 0, (0, 0)
    while True:
        await asyncio.sleep(every)
        fates = await _books(ledger, log)
        came = sum(count for fate, count in fates.items() if fate.name in {"received", "recovered"}) - own
        state = came, sum(count for fate, count in fates.items() if fate.name == "pending")
        if state == before:
            continue
        body = encode(fates, time.time_ns(), start_ns)
        try:
            taken = await intake.take(
                "metrics", body, as_json=False, batch="", sender=NOBODY, received_ns=time.time_ns()
            )
        except BusyError:
            continue  # the next one says all that this one would have
        except Exception:  # books that are not told cost no record
            LOG.exception("books_not_told")
            continue
        before = state
        own += len(fates) if taken.new else 0


async def _books(ledger: Ledger, log: WriteAheadLog) -> dict[Fate, int]:
    """The books at an instant at which nothing is on its way into the log, if one comes soon: then they add up."""
    for _ in range(_TRIES):
        fates = ledger.fates(log)
        if not any(book["balance"] for book in ledger.books(log).values()):
            break
        await asyncio.sleep(_TRY_SECONDS)
    return fates


def encode(fates: Mapping[Fate, int], time_ns: int, start_ns: int) -> bytes:
    """A serialized ``ExportMetricsServiceRequest``.

    Args:
        fates: The books.
        time_ns: Their instant, Unix ns.
        start_ns: Since when they count.
    """
    sums = {name: Sum(aggregation_temporality=AGGREGATION_TEMPORALITY_CUMULATIVE) for name in (_RECORDS, _PENDING)}
    sums[_RECORDS].is_monotonic = True
    for fate, count in fates.items():
        named = {"signal": fate.signal, "fate": fate.name, "reason": fate.reason}
        sums[_PENDING if fate.name == "pending" else _RECORDS].data_points.append(
            NumberDataPoint(
                time_unix_nano=time_ns, start_time_unix_nano=start_ns, as_double=count,
                attributes=[_pair(key, text) for key, text in named.items() if text],
            )
        )  # fmt: skip
    metrics = [Metric(name=name, unit="{record}", sum=found) for name, found in sums.items()]
    group = ResourceMetrics(scope_metrics=[ScopeMetrics(scope=InstrumentationScope(name=_SCOPE), metrics=metrics)])
    whose = {
        Resource.DEPLOYMENT: SERVICE_COLLECTOR,
        Resource.NODE: platform.node(),
        "process.pid": str(os.getpid()),
    }
    group.resource.attributes.extend(_pair(key, text) for key, text in whose.items() if text)
    return ExportMetricsServiceRequest(resource_metrics=[group]).SerializeToString()


def _pair(key: str, text: str) -> KeyValue:
    return KeyValue(key=key, value=AnyValue(string_value=text))
