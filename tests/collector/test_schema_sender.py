"""Whose row it is: a key's tenant beats what a sender says, and nobody's half gets into another's row."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Any

import pytest

from collector import framing
from collector.auth import NOBODY, Sender
from collector.settle import Settler
from tests.kits.schema_tools import (
    NOW_MS,
    RESOURCE,
    any_value,
    attributes,
    edge_span,
    engine_span,
    event,
    fresh_store,
    metrics,
    token,
    traces,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from google.protobuf.message import Message
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

    from collector.store.client import Store
    from tests.conftest import StoreServer

VLLM = "vllm.tracing.otel"
SAID = {"servescope.tenant": "victim"}
ACME = Sender("0badc0de", "acme", "192.0.2.1")
OTHER = Sender("0defaced", "rival", "192.0.2.9")
FLEET = Sender("f1ee7000", "", "192.0.2.2")


@pytest.fixture(scope="module")
def store(store_server: StoreServer) -> Iterator[Store]:
    with fresh_store(store_server) as made:
        yield made


def land(store: Store, signal: str, sender: Sender, *messages: Message) -> None:
    frames = b"".join(
        framing.encode(
            m.SerializeToString(), records=1, digest=bytes(16), received_ns=time.time_ns(), batch="", sender=sender
        )
        for m in messages
    )
    store.insert_segment(f"land_{signal}", frames, token())


def fresh() -> tuple[bytes, int]:
    return os.urandom(16), int.from_bytes(os.urandom(4), "big") >> 10


def edge(trace: bytes, bits: int, **more: object) -> ExportTraceServiceRequest:
    return traces([edge_span(trace=trace, bits=bits, **more)], resource=RESOURCE | SAID)


def engine(trace: bytes, bits: int, **more: object) -> ExportTraceServiceRequest:
    return traces([engine_span(trace=trace, bits=bits, **more)], VLLM, RESOURCE | SAID)


def rows(store: Store, trace: bytes) -> list[dict[str, Any]]:
    return store.rows(
        "SELECT tenant, sender_key_id, sender_peer, has_edge, has_engine, e2e_seconds, request_id, response_id"
        " FROM requests WHERE trace_id = {t:String} ORDER BY tenant, has_edge",
        {"t": trace.hex()},
    )


@pytest.mark.parametrize(("sender", "tenant"), [(ACME, "acme"), (NOBODY, "victim")], ids=["key", "unsigned"])
def test_the_tenant_of_the_key_is_that_of_every_row(store: Store, sender: Sender, tenant: str):
    name = f"by-{token()}"
    resource = RESOURCE | SAID | {"service.name": name, "service.instance.id": name}
    alone = fresh(), fresh()
    spans = []
    for (trace, bits), scope in zip(alone, ("servescope.edge", VLLM), strict=True):
        make = edge_span if scope == "servescope.edge" else engine_span
        spans.append(traces([make(trace=trace, bits=bits, servescope__tenant="victim")], scope, resource))
    land(store, "traces", sender, *spans)
    scopes = ("servescope.sample", "servescope.host", "servescope.gpu", "theirs")
    samples = [metrics(scope, {"running": 1}, {"x": 2}, resource | {"hw.id": name}) for scope in scopes]
    land(store, "metrics", sender, *samples, every_kind(resource))
    notes = [event(kind, "x", SAID) for kind in ("deploy", "instance_config")]
    for note in notes:
        del note.resource_logs[0].resource.attributes[:]
        note.resource_logs[0].resource.attributes.extend(attributes(resource))
    land(store, "logs", sender, *notes)
    wanted = [{"tenant": tenant, "sender_key_id": sender.key_id, "sender_peer": sender.peer}]
    found = "SELECT DISTINCT tenant, sender_key_id, sender_peer FROM"
    for table, column in TABLES:
        assert store.rows(f"{found} {table} WHERE {column} = {{n:String}}", {"n": name}) == wanted, table
    for trace, _ in alone:
        (row,) = rows(store, trace)
        assert {key: row[key] for key in wanted[0]} == wanted[0]


TABLES = [
    *((f"otel_{name}", "ServiceName") for name in ("traces", "logs")),
    *(
        (f"otel_metrics_{name}", "ServiceName")
        for name in ("gauge", "sum", "histogram", "exponential_histogram", "summary")
    ),
    *((name, "instance") for name in ("requests", "engine_samples", "engine_histograms", "host_samples", "events")),
    ("gpu_samples", "gpu"),
    ("instance_config", "instance"),
]


SUMS = {
    *("engine_steps_1s", "gpu_pods_t", "instance_gpus", "instance_gpus_t", "instance_lives_t", "pod_servers_t"),
    "requests_1m",
}
"""Of many rows one: whose by tenant and mostly key, which peers sent them is not kept."""
OURS = {
    *("alert_transitions", "cause_noise", "cause_references", "cause_seconds", "incident_events", "incidents"),
    *("notifications", "schema_migrations"),
}
"""What no sender sent, but alerts and collector write themselves."""
FINDERS = {"otel_traces_trace_id_ts", "request_claims", "request_keys", "request_orphans"}
"""What leads to rows that say it themselves."""


def test_every_table_says_who_sent_its_rows(store: Store):
    found = store.rows(
        "SELECT table, groupUniqArray(name) AS names FROM system.columns WHERE database = currentDatabase()"
        " AND NOT endsWith(table, '_mv') GROUP BY table"
    )
    lacking = {row["table"]: {"tenant", "sender_key_id", "sender_peer"} - set(row["names"]) for row in found}
    assert {table for table, columns in lacking.items() if columns} - SUMS == OURS | FINDERS
    assert all("tenant" not in lacking[table] for table in SUMS)
    assert len(lacking) > 25


def every_kind(resource: dict[str, str]) -> Message:
    made = metrics("theirs", {"gauge": 1}, {"sum": 1}, resource)
    scoped = made.resource_metrics[0].scope_metrics[0]
    now = NOW_MS * 1_000_000
    for name in ("histogram", "exponential_histogram", "summary"):
        point = getattr(scoped.metrics.add(name=name), name).data_points.add(count=1, time_unix_nano=now)
        point.attributes.extend(attributes(SAID))
    sampled = made.resource_metrics.add(resource=made.resource_metrics[0].resource).scope_metrics.add()
    sampled.scope.name = "servescope.sample"
    sampled.metrics.add(name="ttft_seconds").histogram.data_points.add(
        count=1, bucket_counts=[1, 0], explicit_bounds=[1], time_unix_nano=now
    )
    return made


def test_what_a_sender_says_nearest_to_a_row_counts_where_its_key_says_nothing(store: Store):
    name = f"near-{token()}"
    near = {"servescope.tenant": "near"}
    resource = {"service.name": name, "servescope.tenant": "far"}
    land(store, "traces", FLEET, traces([edge_span(**{"servescope.tenant": "near"})], resource=resource))
    note = event("deploy", "x", near)
    del note.resource_logs[0].resource.attributes[:]
    note.resource_logs[0].resource.attributes.extend(attributes(resource))
    land(store, "logs", FLEET, note)
    made = metrics("theirs", {"gauge": 1}, None, resource)
    made.resource_metrics[0].scope_metrics[0].metrics[0].gauge.data_points[0].attributes.extend(attributes(near))
    land(store, "metrics", FLEET, made)
    for table in ("otel_traces", "otel_logs", "otel_metrics_gauge"):
        found = store.rows(f"SELECT tenant FROM {table} WHERE ServiceName = {{n:String}}", {"n": name})
        assert found == [{"tenant": "near"}], table


@pytest.mark.parametrize("order", [(2, 0, 1), (0, 1, 2)], ids=["first", "last"])
def test_a_forged_half_stays_out_of_anothers_row(store: Store, order: tuple[int, ...]):
    trace, bits = fresh()
    halves = [
        (FLEET, edge(trace, bits, servescope__tenant="acme")),
        (FLEET, engine(trace, bits)),
        (OTHER, edge(trace, bits, servescope__tenant="acme", servescope__e2e_seconds=99.0, gen_ai__response__id="zzz")),
    ]
    for index in order:
        land(store, "traces", *halves[index])
    land(store, "traces", OTHER, engine(trace, bits, **{"gen_ai.latency.e2e": 98.0}))
    for _ in range(2):
        mine, theirs = rows(store, trace)
        assert (mine["tenant"], mine["sender_key_id"], mine["sender_peer"]) == ("acme", FLEET.key_id, FLEET.peer)
        assert (mine["has_edge"], mine["has_engine"], mine["response_id"]) == (1, 1, "cmpl-req-1")
        assert mine["e2e_seconds"] == pytest.approx(0.14)
        assert (theirs["tenant"], theirs["sender_key_id"]) == ("rival", OTHER.key_id)
        assert theirs["e2e_seconds"] == pytest.approx(99)
        Settler(store).run()


@pytest.mark.parametrize("first", ["edge", "engine"])
def test_a_tenants_own_edge_meets_the_fleets_engine_half(store: Store, first: str):
    trace, bits = fresh()
    halves = [(ACME, edge(trace, bits, servescope__tenant="victim")), (FLEET, engine(trace, bits))]
    settler = Settler(store)
    for half in halves if first == "edge" else halves[::-1]:
        land(store, "traces", *half)
        settler.run()
    (row,) = rows(store, trace)
    assert (row["tenant"], row["sender_key_id"]) == ("acme", ACME.key_id)
    assert (row["has_edge"], row["has_engine"]) == (1, 1)


def test_halves_of_one_tenant_meet_whatever_key_signed_them(store: Store):
    trace, bits = fresh()
    land(store, "traces", ACME, edge(trace, bits))
    land(store, "traces", Sender("another0", "acme", "192.0.2.8"), engine(trace, bits))
    (row,) = rows(store, trace)
    assert (row["tenant"], row["has_edge"], row["has_engine"]) == ("acme", 1, 1)
    assert (row["sender_key_id"], row["sender_peer"]) == (ACME.key_id, ACME.peer)


def test_an_orphan_is_given_to_no_other_tenants_edge(store: Store):
    trace, bits = fresh()
    name = f"req-{token()}"
    lost = engine_span(trace=bytes(15) + b"\x01", **{"gen_ai.request.id": f"cmpl-{name}-0"})
    lost.parent_span_id = b""
    land(store, "traces", OTHER, edge(trace, bits, servescope__request__id=name, gen_ai__response__id=f"cmpl-{name}"))
    land(store, "traces", FLEET, traces([lost], VLLM))
    settler = Settler(store)
    settler.run()
    assert [(row["has_edge"], row["has_engine"]) for row in rows(store, trace)] == [(1, 0)]
    mine, bits = fresh()
    land(store, "traces", FLEET, edge(mine, bits, servescope__request__id=name, gen_ai__response__id=f"cmpl-{name}"))
    settler.run()
    assert [(row["has_edge"], row["has_engine"]) for row in rows(store, mine)] == [(1, 1)]


def test_nobody_replaces_anothers_sample(store: Store):
    name = token()
    scopes = ("servescope.sample", "servescope.host", "servescope.gpu")
    for sender in (FLEET, OTHER, FLEET):
        made = [metrics(scope, {"up": 1, "threads": 1}, None, {"service.instance.id": name}) for scope in scopes]
        land(store, "metrics", sender, *made)
    for table in ("engine_samples", "host_samples", "gpu_samples"):
        found = f"SELECT sender_key_id FROM {table} FINAL WHERE instance = {{n:String}} ORDER BY 1"
        assert [row["sender_key_id"] for row in store.rows(found, {"n": name})] == [OTHER.key_id, FLEET.key_id], table


def test_a_tenants_triton_spans_stay_its_own(store: Store):
    trace = os.urandom(16)
    start = NOW_MS * 1_000_000
    request = engine_span(trace=trace, own=b"\x05" * 8)
    request.name = "InferRequest"
    del request.attributes[:]
    model = engine_span(trace=trace, own=b"\x06" * 8)
    model.name, model.parent_span_id = "m", request.span_id
    del model.attributes[:]
    model.attributes.extend(attributes({"triton.model_name": "m", "triton.request_id": "one"}))
    forged = type(model)()
    forged.CopyFrom(model)
    forged.attributes[0].value.CopyFrom(any_value("forged"))
    for index, name in enumerate(("QUEUE_START", "REQUEST_END", "INFER_RESPONSE_COMPLETE"), 1):
        model.events.add(name=name, time_unix_nano=start + index)
    land(store, "traces", ACME, traces([request, model], "triton-server"))
    land(store, "traces", OTHER, traces([forged], "triton-server"))
    Settler(store).run()
    (row,) = store.rows(
        "SELECT tenant, model, sender_key_id, has_engine FROM requests WHERE trace_id = {t:String}", {"t": trace.hex()}
    )
    assert row == {"tenant": "acme", "model": "m", "sender_key_id": ACME.key_id, "has_engine": 1}
