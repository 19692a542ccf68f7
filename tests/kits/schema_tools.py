"""OTLP messages to feed a landing table with, and a database of its own for a test module."""

from __future__ import annotations

import gzip
import os
import re
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

from google.protobuf.internal.encoder import _VarintBytes  # type: ignore[attr-defined]
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from collector.store import migrate
from collector.store.address import StoreAddress
from collector.store.client import Store

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from google.protobuf.message import Message

    from tests.conftest import StoreServer

FIXTURES = Path(__file__).parent.parent / "fixtures"
NOW_MS = 1_795_487_207_357
RESOURCE = {
    "service.name": "chat",
    "service.instance.id": "vllm-a",
    "service.version": "0.32.0",
    "servescope.engine": "vllm",
    "cloud.region": "eu-west-1",
}


_spare: Final[dict[str, list[str]]] = {}
"""Emptied databases by their server: to migrate a new one takes seconds."""
_SHAPE: Final = """
SELECT name, create_table_query FROM system.tables WHERE database = {database:String} ORDER BY name
"""

_WRITTEN: Final = """
SELECT name, create_table_query FROM system.tables
WHERE database = {database:String} AND name IN (SELECT table FROM system.parts WHERE database = {database:String})
"""
_WINDOW: Final = re.compile(r"(non_replicated_deduplication_window) = \d+")


@contextmanager
def fresh_store(server: StoreServer) -> Iterator[Store]:
    """An owner's store on a migrated database without rows."""
    spare = _spare.setdefault(server.url, [])
    name = spare.pop() if spare else f"t_{os.urandom(6).hex()}"
    with Store(StoreAddress(server.url, name, "owner", server.owner_password)) as store:
        migrate.apply(store)
        shape = store.rows(_SHAPE, {"database": name})
        try:
            yield store
        finally:
            # By a client of its own: a test may have closed or bent that one.
            with Store(StoreAddress(server.url, name, "owner", server.owner_password)) as after:
                if after.rows(_SHAPE, {"database": name}) == shape:
                    empty(after)
                    spare.append(name)
                else:
                    after.command(f"DROP DATABASE {name} SYNC", use_database=False)


def empty(store: Store) -> None:
    """Take all rows out of a migrated database, what is remembered of them, and give it another identity."""
    applied = store.rows("SELECT name, checksum FROM schema_migrations FINAL")
    for table in store.rows(_WRITTEN, {"database": store.address.database}):
        name, window = table["name"], _WINDOW.search(table["create_table_query"])
        store.command(f"TRUNCATE TABLE {name}")
        if window:  # rows that are gone would keep their equals out
            store.command(f"ALTER TABLE {name} MODIFY SETTING {window[1]} = 0")
            store.command(f"ALTER TABLE {name} MODIFY SETTING {window[0]}")
    store.insert("schema_migrations", applied)


def framed(*messages: Message | bytes) -> bytes:
    """Messages as a segment holds them: varint length, bytes."""
    bodies = [m if isinstance(m, bytes) else m.SerializeToString() for m in messages]
    return b"".join(_VarintBytes(len(body)) + body for body in bodies)


def token() -> str:
    return os.urandom(8).hex()


def recorded(path: str) -> ExportTraceServiceRequest:
    return ExportTraceServiceRequest.FromString(gzip.decompress((FIXTURES / path).read_bytes()))


def attributes(values: Mapping[str, object]) -> list[KeyValue]:
    return [KeyValue(key=key, value=any_value(value)) for key, value in values.items()]


def any_value(value: object) -> AnyValue:
    made = AnyValue()
    match value:
        case bool():
            made.bool_value = value
        case int():
            made.int_value = value
        case float():
            made.double_value = value
        case bytes():
            made.bytes_value = value
        case list():
            made.array_value.values.extend(any_value(item) for item in value)
        case dict():
            made.kvlist_value.values.extend(attributes(value))
        case _:
            made.string_value = str(value)
    return made


def span_id(ms: int, random_bits: int) -> bytes:
    """A tap's span id: 42 bits of Unix ms, 22 random ones."""
    return ((ms << 22) | random_bits).to_bytes(8, "big")


def edge_span(ms: int = NOW_MS, bits: int = 1, trace: bytes = b"\x01" * 16, **more: object) -> Span:
    values: dict[str, object] = {
        "gen_ai.request.model": "tiny",
        "gen_ai.response.id": "cmpl-req-1",
        "gen_ai.response.finish_reasons": ["length"],
        "gen_ai.usage.input_tokens": 20,
        "gen_ai.usage.output_tokens": 8,
        "http.response.status_code": 200,
        "http.route": "/v1/completions",
        "servescope.request.id": "req-1",
        "servescope.tenant": "acme",
        "servescope.outcome": "ok",
        "servescope.stream": True,
        "servescope.edge_seconds": 0.001,
        "servescope.ttft_seconds": 0.075,
        "servescope.e2e_seconds": 0.14,
        "servescope.itl_mean_seconds": 0.01,
        "servescope.itl_gaps": 7,
    }
    values.update({key.replace("__", "."): value for key, value in more.items()})
    return Span(
        trace_id=trace,
        span_id=span_id(ms, bits),
        name="POST /v1/completions",
        kind=Span.SPAN_KIND_SERVER,
        start_time_unix_nano=ms * 1_000_000,
        end_time_unix_nano=(ms + 140) * 1_000_000,
        attributes=attributes(values),
    )


def engine_span(
    ms: int = NOW_MS, bits: int = 1, trace: bytes = b"\x01" * 16, own: bytes = b"\x02" * 8, **more: object
) -> Span:
    values: dict[str, object] = {
        "gen_ai.request.id": "cmpl-req-1-0",
        "gen_ai.usage.prompt_tokens": 20,
        "gen_ai.usage.completion_tokens": 8,
        "gen_ai.latency.time_in_queue": 0.01,
        "gen_ai.latency.time_to_first_token": 0.07,
        "gen_ai.latency.e2e": 0.13,
        "gen_ai.latency.time_in_model_prefill": 0.04,
        "gen_ai.latency.time_in_model_decode": 0.06,
    }
    values.update({key.replace("__", "."): value for key, value in more.items()})
    return Span(
        trace_id=trace,
        span_id=own,
        parent_span_id=span_id(ms, bits),
        name="llm_request",
        kind=Span.SPAN_KIND_SERVER,
        start_time_unix_nano=(ms + 2) * 1_000_000,
        end_time_unix_nano=(ms + 135) * 1_000_000,
        attributes=attributes(values),
    )


def traces(
    spans: Iterable[Span], scope: str = "servescope.edge", resource: Mapping[str, object] | None = None
) -> ExportTraceServiceRequest:
    made = ExportTraceServiceRequest()
    group = made.resource_spans.add()
    group.resource.attributes.extend(attributes(RESOURCE if resource is None else resource))
    scoped = group.scope_spans.add()
    scoped.scope.name = scope
    scoped.spans.extend(spans)
    return made


def metrics(
    scope: str,
    gauges: Mapping[str, float],
    sums: Mapping[str, float] | None = None,
    resource: Mapping[str, object] | None = None,
    ms: int = NOW_MS,
) -> ExportMetricsServiceRequest:
    made = ExportMetricsServiceRequest()
    group = made.resource_metrics.add()
    group.resource.attributes.extend(attributes(RESOURCE if resource is None else resource))
    scoped = group.scope_metrics.add()
    scoped.scope.name = scope
    for name, value in gauges.items():
        scoped.metrics.add(name=name).gauge.data_points.add(as_double=value, time_unix_nano=ms * 1_000_000)
    for name, value in (sums or {}).items():
        total = scoped.metrics.add(name=name).sum
        total.is_monotonic = True
        total.aggregation_temporality = 2 if name.endswith("_total") else 1
        total.data_points.add(as_double=value, time_unix_nano=ms * 1_000_000)
    return made


def event(name: str, text: str, values: Mapping[str, object], ms: int = NOW_MS) -> ExportLogsServiceRequest:
    made = ExportLogsServiceRequest()
    group = made.resource_logs.add()
    group.resource.attributes.extend(attributes(RESOURCE | {"servescope.model": "tiny"}))
    scoped = group.scope_logs.add()
    scoped.scope.name = "servescope.event"
    scoped.log_records.add(
        event_name=name, body=any_value(text), attributes=attributes(values), time_unix_nano=ms * 1_000_000
    )
    return made
