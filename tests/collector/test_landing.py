"""A small segment's rows are the same to the byte whether they are made by the collector or by the engine's views."""

from __future__ import annotations

import math
import os
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.metrics.v1.metrics_pb2 import NumberDataPoint
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from collector import framing, landing
from collector.auth import Sender
from collector.landing import Landing
from collector.log.segment_file import SegmentFile
from collector.plain.metrics import LAND_NUMBERS, LAND_SAMPLES, SAMPLES
from collector.plain.traces import LAND_SPANS
from collector.store.client import StoreUnavailable
from tests.kits.schema_tools import (
    NOW_MS,
    attributes,
    edge_span,
    engine_span,
    fresh_store,
    metrics,
    traces,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from google.protobuf.message import Message

    from collector.store.client import Store
    from collector.store.rows import Rows
    from tests.conftest import StoreServer

NOW_NS = NOW_MS * 1_000_000
CAME = NOW_NS + 123_456_789

TEXTS = st.one_of(
    st.sampled_from(["", "a", 'q"\\/\b\f\n\r\t', "\x00\x1b\x7f", "\u2028\u2029\u202a", "é😀", "{}", "0"]),
    st.text(max_size=8),
)
FLOATS = st.one_of(
    st.sampled_from([0.0, -0.0, 0.0004, 1e15, 1e21, 1e-7, 5e-324, math.inf, -math.inf, 4294967295.0]), st.floats()
)
INTEGERS = st.one_of(st.sampled_from([0, 1, -1, 2**53 + 1, 2**63 - 1, -(2**63), 10**15]), st.integers(0, 5000))
PLAIN = st.one_of(TEXTS, FLOATS, INTEGERS, st.booleans(), st.binary(max_size=5))
VALUES = st.one_of(PLAIN, st.lists(PLAIN, max_size=3), st.dictionaries(TEXTS, PLAIN, max_size=3))
KEYS = st.one_of(
    st.sampled_from([
        "servescope.tenant", "servescope.instance", "service.instance.id", "service.name", "servescope.deployment",
        "host.name", "hw.id", "process.pid", "gen_ai.request.model", "gen_ai.usage.input_tokens", "http.route",
        "gen_ai.usage.prompt_tokens", "servescope.stream", "triton.model_name", "gen_ai.latency.e2e",
    ]),
    TEXTS,
)  # fmt: skip
RESOURCES = st.one_of(st.just({"service.name": "unknown_service:x"}), st.dictionaries(KEYS, VALUES, max_size=4))
TIMES = st.one_of(st.just(0), st.integers(NOW_NS - 10**9, NOW_NS))
IDS = st.one_of(st.just(b""), st.binary(min_size=8, max_size=8), st.just(b"ab" * 8))


@st.composite
def spans(draw: st.DrawFn) -> Span:
    made = draw(
        st.sampled_from([edge_span, engine_span, lambda **_: Span(trace_id=b"\x05" * 16, span_id=b"\x06" * 8)])
    )(bits=draw(st.integers(0, 2**22 - 1)))
    known = {one.key for one in made.attributes}
    extra = draw(st.dictionaries(KEYS, VALUES, max_size=5))
    made.attributes.extend(attributes({key: value for key, value in extra.items() if key not in known}))
    made.name = draw(st.sampled_from([made.name, "llm_request", "InferRequest", ""]))
    made.kind = draw(st.sampled_from([0, 2, 77, -1]))
    made.status.code = draw(st.sampled_from([0, 2, 9]))
    made.status.message = draw(TEXTS)
    made.trace_state = draw(TEXTS)
    made.start_time_unix_nano, made.end_time_unix_nano = draw(TIMES), draw(TIMES)
    made.dropped_attributes_count = draw(st.integers(0, 3))
    for _ in range(draw(st.integers(0, 2))):
        made.events.add(name=draw(st.sampled_from(["QUEUE_START", ""])), time_unix_nano=draw(TIMES))
        made.events[-1].attributes.extend(attributes(draw(st.dictionaries(TEXTS, VALUES, max_size=2))))
    for _ in range(draw(st.integers(0, 2))):
        made.links.add(trace_id=draw(IDS), span_id=draw(IDS), trace_state=draw(TEXTS))
        made.links[-1].attributes.extend(attributes(draw(st.dictionaries(TEXTS, VALUES, max_size=2))))
    return made


@st.composite
def span_requests(draw: st.DrawFn) -> ExportTraceServiceRequest:
    made = ExportTraceServiceRequest()
    for _ in range(draw(st.integers(1, 2))):
        scope = draw(st.sampled_from(["servescope.edge", "vllm.llm_engine", "triton-server", ""]))
        made.MergeFrom(traces(draw(st.lists(spans(), max_size=4)), scope, draw(RESOURCES)))
    return made


@st.composite
def metric_requests(draw: st.DrawFn) -> ExportMetricsServiceRequest:
    made = ExportMetricsServiceRequest()
    group = made.resource_metrics.add(schema_url=draw(TEXTS))
    group.resource.attributes.extend(attributes(draw(RESOURCES)))
    for _ in range(draw(st.integers(1, 3))):
        scoped = group.scope_metrics.add(schema_url=draw(TEXTS))
        scoped.scope.name = draw(st.sampled_from(["servescope.sample", "servescope.host", "servescope.gpu", "tap", ""]))
        scoped.scope.version = draw(TEXTS)
        scoped.scope.attributes.extend(attributes(draw(st.dictionaries(TEXTS, PLAIN, max_size=2))))
        scoped.scope.dropped_attributes_count = draw(st.integers(0, 2))
        for name in draw(st.lists(st.sampled_from(["up", "running", "state", "hw.power", "else", ""]), max_size=5)):
            metric = scoped.metrics.add(name=name, description=draw(TEXTS), unit=draw(TEXTS))
            kind = draw(st.sampled_from(["gauge", "sum", "histogram", "nothing"]))
            sample = scoped.scope.name in SAMPLES
            if kind == "histogram" and sample:
                for _ in range(draw(st.integers(0, 2))):
                    metric.histogram.data_points.add(
                        time_unix_nano=draw(TIMES),
                        count=3,
                        sum=draw(FLOATS),
                        bucket_counts=[1, 2],
                        explicit_bounds=[0.5],
                    )
            elif kind in {"gauge", "sum"}:
                points = getattr(metric, kind).data_points
                points.extend(draw(st.lists(number_points(nan=sample), max_size=2)))
            if kind == "sum":
                metric.sum.aggregation_temporality = draw(st.sampled_from([0, 1, 2, 9]))
                metric.sum.is_monotonic = draw(st.booleans())
    return made


@st.composite
def number_points(draw: st.DrawFn, *, nan: bool) -> NumberDataPoint:
    made = NumberDataPoint(start_time_unix_nano=draw(TIMES), time_unix_nano=draw(TIMES), flags=draw(st.integers(0, 1)))
    made.attributes.extend(attributes(draw(st.dictionaries(KEYS, VALUES, max_size=3))))
    if draw(st.booleans()):
        made.as_int = draw(INTEGERS)
    else:
        value = draw(FLOATS)
        made.as_double = value if nan or not math.isnan(value) else 0.0
    return made


@pytest.fixture(scope="module")
def stores(store_server: StoreServer) -> Iterator[tuple[Store, Store]]:
    with fresh_store(store_server) as engines, fresh_store(store_server) as ours:
        yield engines, ours


class RowsAlone:
    """A store that takes rows alone, or forgets them."""

    def __init__(self, store: Store | None) -> None:
        self._store = store
        self.left_to_engine = 0

    def insert_rows(self, rows: Sequence[Rows], token: str) -> None:
        if self._store is not None:
            self._store.insert_rows(rows, token)

    def insert_segment(self, *_: object) -> None:
        self.left_to_engine += 1


def name(signal: str) -> str:
    return f"{signal}-{0:020d}-{landing.MARK}{os.urandom(4).hex()}"


def segment(folder: Path, messages: Sequence[Message | bytes], **more: Any) -> Path:
    path = folder / "one.seg"
    more = {"received_ns": CAME, "sender": Sender("k-1", "t-1", "peer")} | more
    bodies = [m if isinstance(m, bytes) else m.SerializeToString() for m in messages]
    path.write_bytes(b"".join(framing.encode(body, records=1, digest=bytes(16), **more) for body in bodies))
    return path


def contents(store: Store) -> dict[str, list[bytes]]:
    """Rows by table, as they are once all is merged."""
    found: dict[str, list[bytes]] = {}
    tables = "SELECT name, engine FROM system.tables WHERE database = currentDatabase() AND engine LIKE '%MergeTree'"
    for row in store.rows(tables):
        columns = "SELECT name FROM system.columns WHERE database = currentDatabase() AND table = {table:String}"
        names = [column["name"] for column in store.rows(columns, {"table": row["name"]})]
        kept = ", ".join(f"`{name}`" for name in names if name not in {"inserted_at", "applied_at"})
        final = "" if row["engine"] == "MergeTree" else "FINAL"
        rows = b"".join(store.stream(f"SELECT {kept} FROM {row['name']} {final}", "JSONCompactEachRow"))
        found[row["name"]] = sorted(rows.splitlines())
    return found


@given(
    st.sampled_from([Sender("k-1", "t-1", "peer"), Sender()]),
    st.lists(span_requests(), max_size=8),
    st.lists(metric_requests(), max_size=8),
)
@settings(max_examples=4, phases=[Phase.generate], suppress_health_check=list(HealthCheck))
def test_both_ways_bring_the_same_rows(
    stores: tuple[Store, Store],
    tmp_path: Path,
    sender: Sender,
    spans_told: list[ExportTraceServiceRequest],
    metrics_told: list[ExportMetricsServiceRequest],
):
    engines, ours = stores
    for signal, messages in (("traces", spans_told), ("metrics", metrics_told)):
        path, token = segment(tmp_path, messages, sender=sender), name(signal)
        strict = RowsAlone(ours)
        Landing(strict).insert_segment(f"land_{signal}", path, token)
        assert not strict.left_to_engine
        engines.insert_segment(f"land_{signal}", path, token)
    made = contents(ours)
    for table, rows in contents(engines).items():
        assert (table, made[table]) == (table, rows)


def test_an_insert_that_broke_off_between_two_tables_is_completed_by_its_repetition(
    stores: tuple[Store, Store], tmp_path: Path
):
    class Breaking:
        """Takes the samples and then breaks off."""

        def insert_rows(self, rows: Sequence[Rows], token: str) -> None:
            assert [len(of.values) for of in rows] == [1, 1]
            stores[1].insert_rows(rows[:1], token)
            raise StoreUnavailable("it went away", "Start it.")

        def insert_segment(self, *_: object) -> None:
            raise AssertionError("not by its bytes")

    both = [metrics(scope, {"load1": 0.5}, resource={"host.name": "broken"}) for scope in ("servescope.host", "other")]
    path, token = segment(tmp_path, both), name("metrics")
    with pytest.raises(StoreUnavailable):
        Landing(Breaking()).insert_segment("land_metrics", path, token)
    stores[0].insert_segment("land_metrics", path, token)
    for _ in range(2):
        Landing(stores[1]).insert_segment("land_metrics", path, token)
        for table, where in (("host_samples", "node"), ("otel_metrics_gauge", "ResourceAttributes['host.name']")):
            assert stores[1].rows(f"SELECT count() AS n FROM {table} WHERE {where} = 'broken'") == [{"n": 1}]


def test_types_are_the_tables(stores: tuple[Store, Store]):
    for table, types in (("land_spans", LAND_SPANS), ("land_samples", LAND_SAMPLES), ("land_numbers", LAND_NUMBERS)):
        found = {row["name"]: row["type"] for row in stores[0].rows(f"DESCRIBE TABLE {table}")}
        assert types.items() <= found.items()
        assert all(column.startswith("exemplar_") for column in found.keys() - types.keys())


def odd_ones() -> Iterator[tuple[str, Message | bytes]]:
    twice = edge_span()
    twice.attributes.extend(attributes({"http.route": "/again"}))
    nested = edge_span()
    nested.attributes.extend(attributes({"deep": [[1]]}))
    far = edge_span()
    far.end_time_unix_nano = 2**64 - 1
    yield from (("traces", traces([span])) for span in (twice, nested, far))
    plain = traces([edge_span()]).SerializeToString()
    wrong_type = Span(name="x").SerializeToString() + b"\x38\x01"  # a start time as a varint
    scope_spans = b"\x12" + bytes([len(wrong_type)]) + wrong_type
    resource_spans = b"\x12" + bytes([len(scope_spans)]) + scope_spans
    yield "traces", b"\x0a" + bytes([len(resource_spans)]) + resource_spans
    yield "traces", plain + b"\xfa\x07\x00"  # a field that nobody knows
    exemplar = metrics("other", {"up": 1})
    exemplar.resource_metrics[0].scope_metrics[0].metrics[0].gauge.data_points[0].exemplars.add(as_double=1)
    yield "metrics", exemplar
    yield "metrics", metrics("other", {"up": math.nan})
    drawn = metrics("other", {"up": 1})
    drawn.resource_metrics[0].scope_metrics[0].metrics.add(name="h").histogram.data_points.add(count=1)
    yield "metrics", drawn


@pytest.mark.parametrize(("signal", "message"), list(odd_ones()))
def test_what_is_odd_is_left_to_the_engine(tmp_path: Path, signal: str, message: Message | bytes):
    store = RowsAlone(None)
    good = traces([edge_span()]) if signal == "traces" else metrics("other", {"up": 1})
    Landing(store).insert_segment(f"land_{signal}", segment(tmp_path, [good]), name(signal))
    assert not store.left_to_engine
    Landing(store).insert_segment(f"land_{signal}", segment(tmp_path, [good, message]), name(signal))
    assert store.left_to_engine == 1


def test_large_damaged_undated_and_older_segments_are_left_to_the_engine(tmp_path: Path):
    store = RowsAlone(None)
    body = traces([edge_span()])
    Landing(store).insert_segment("land_traces", segment(tmp_path, [body]), "traces-00000000000000000001-0a1b2c3d")
    Landing(store).insert_segment("land_traces", segment(tmp_path, [body], received_ns=0), name("traces"))
    path = segment(tmp_path, [body] * (landing.SMALL_BYTES // body.ByteSize()))
    Landing(store).insert_segment("land_traces", path, name("traces"))
    data = bytearray(segment(tmp_path, [body]).read_bytes())
    data[20] ^= 1
    path.write_bytes(data)
    Landing(store).insert_segment("land_traces", path, name("traces"))
    assert store.left_to_engine == 4


def test_a_segment_of_the_log_is_marked(tmp_path: Path):
    made = SegmentFile(tmp_path, "traces")
    made.append(segment(tmp_path, [traces([edge_span()])]).read_bytes())
    made.close()
    store = RowsAlone(None)
    for token in (made.segment.id, f"{made.segment.id}-s-0"):
        Landing(store).insert_segment("land_traces", made.segment.path, token)
    assert not store.left_to_engine
