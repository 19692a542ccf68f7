"""Which row a finished request is given to: whose it may be, and that no request is two rows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from collector import framing
from collector.auth import NOBODY, Sender
from collector.settle import Settler
from tests.kits.probe_told import NOW_NS, finished, land, requests, settle_late
from tests.kits.schema_tools import NOW_MS, edge_span, engine_span, fresh_store, token, traces

if TYPE_CHECKING:
    from collections.abc import Iterator

    from opentelemetry.proto.trace.v1.trace_pb2 import Span

    from collector.store.client import Store
    from tests.conftest import StoreServer

FLEET = Sender("f1ee7000", "", "192.0.2.2")
ACME = Sender("0badc0de", "acme", "192.0.2.1")
RIVAL = Sender("0defaced", "rival", "192.0.2.9")
MS = 1_000_000


@pytest.fixture(scope="module")
def migrated(store_server: StoreServer) -> Iterator[Store]:
    with fresh_store(store_server) as made:
        yield made


@pytest.fixture
def store(migrated: Store) -> Store:
    """With nothing in it."""
    for table in ("requests_t", "request_orphans", "request_claims", "finished_requests", "engine_steps"):
        migrated.command(f"TRUNCATE TABLE {table}")
    return migrated


def spans(store: Store, *made: Span, scope: str = "servescope.edge", sender: Sender = NOBODY) -> None:
    body = traces(made, scope).SerializeToString()
    frame = framing.encode(body, records=1, digest=bytes(16), received_ns=NOW_NS, batch="", sender=sender)
    store.insert_segment("land_traces", frame, token())


def lost_span(ms: int, own: bytes, request_id: str = "cmpl-req-1-0") -> Span:
    """An engine's span whose parent nobody knows."""
    span = engine_span(ms=ms, trace=own * 2, own=own, gen_ai__request__id=request_id)
    span.parent_span_id = b""
    return span


def halves(store: Store, *more: str) -> list[tuple[Any, ...]]:
    return [tuple(row[name] for name in ("has_edge", "has_engine", *more)) for row in requests(store)]


@pytest.mark.parametrize("span", [False, True])
def test_what_the_fleet_tells_completes_a_tenants_edge(store: Store, span: bool):
    spans(store, edge_span(), sender=ACME)
    if span:
        spans(store, engine_span(), scope="vllm.llm_engine", sender=FLEET)
    finished(store, sender=FLEET)
    Settler(store).run()
    assert halves(store, "preemptions") == [(1, int(span), 0)], "an edge of the fleet may still come"
    settle_late(store)
    settle_late(store)
    assert halves(store, "preemptions", "tenant", "completion_tokens") == [(1, 1, 2, "acme", 8)]


def test_what_the_fleet_tells_goes_to_the_fleets_edge_first(store: Store):
    spans(store, edge_span(), sender=RIVAL)
    finished(store, sender=FLEET)
    Settler(store).run()
    spans(store, edge_span(trace=b"\x07" * 16), sender=FLEET)
    Settler(store).run()
    settle_late(store)
    assert sorted(halves(store, "preemptions", "sender_key_id")) == [(1, 0, 0, RIVAL.key_id), (1, 1, 2, FLEET.key_id)]


def test_an_id_that_two_tenants_have_is_nobodys_and_no_third_row(store: Store):
    for sender in (ACME, RIVAL):
        spans(store, edge_span(), sender=sender)
    finished(store, sender=FLEET)
    settle_late(store)
    assert halves(store, "preemptions") == [(1, 0, 0)] * 2


@pytest.mark.parametrize("owner", [FLEET, ACME, NOBODY], ids=["fleet", "tenant", "unsigned"])
def test_a_stranger_whose_id_it_guessed_gets_nothing_and_gives_nothing(store: Store, owner: Sender):
    """What a tenant's key signed completes nobody else's row, and hides none of its own."""
    spans(store, edge_span(), sender=owner)
    finished(store, sender=RIVAL)
    assert store.rows("SELECT sender_tenant, tenant FROM finished_requests") == [
        {"sender_tenant": "rival", "tenant": "rival"}
    ]
    settle_late(store)
    strangers, row = requests(store) if requests(store)[0]["has_edge"] == 0 else requests(store)[::-1]
    assert (row["has_edge"], row["has_engine"], row["preemptions"], row["finish_reason"]) == (1, 0, 0, "length")
    assert (strangers["has_edge"], strangers["tenant"], strangers["sender_key_id"]) == (0, "rival", RIVAL.key_id)


def prompts(store: Store, *parts: int, name: str = "req-1") -> None:
    n = len(parts)
    land(
        store,
        "finished_requests",
        {
            "finished_ns": [NOW_NS + 135 * MS + part for part in parts], "e2e_seconds": [0.13] * n,
            "queued_seconds": [0.01 * (part + 1) for part in parts], "prefill_seconds": [0.04] * n,
            "decode_seconds": [0.06 - 0.01 * part for part in parts], "preemptions": [1] * n, "prompt_tokens": [10] * n,
            "generation_tokens": [5] * n, "cached_tokens": [4] * n, "reason": ["length"] * n,
            "request_id": [f"cmpl-{name}-{part}" for part in parts],
        },
    )  # fmt: skip


@pytest.mark.parametrize("apart", [False, True], ids=["together", "one by one"])
@pytest.mark.parametrize("span", [False, True], ids=["no span", "spans"])
def test_a_completion_of_several_prompts_is_one_row(store: Store, apart: bool, span: bool):
    spans(store, edge_span(gen_ai__usage__input_tokens=0, gen_ai__usage__output_tokens=0))
    if span:
        made = [engine_span(own=bytes([9, n] * 4), gen_ai__request__id=f"cmpl-req-1-{n}") for n in range(3)]
        spans(store, *made, scope="vllm.llm_engine")
    for parts in ((0,), (1,), (2,)) if apart else ((0, 1, 2),):
        prompts(store, *parts)
        Settler(store).run()
    settle_late(store)
    (row,) = requests(store)
    assert (row["has_edge"], row["has_engine"]) == (1, 1)
    assert (row["preemptions"], row["cached_tokens"]) == (3, 12)
    if not span:
        assert (row["prompt_tokens"], row["completion_tokens"]) == (30, 15)
        assert row["queue_seconds"] == pytest.approx(0.01), "the times of one of them, never of several"
        assert row["decode_seconds"] == pytest.approx(0.06)


def test_prompts_past_every_edge_are_rows_until_their_edge_comes(store: Store):
    prompts(store, 0, 1, 2)
    settle_late(store)
    assert halves(store, "preemptions", "prompt_tokens") == [(0, 1, 1, 10)] * 3
    assert {row["request_id"] for row in requests(store)} == {"req-1", "req-1-1", "req-1-2"}
    spans(store, edge_span())
    Settler(store).run()
    assert halves(store, "preemptions", "prompt_tokens") == [(1, 1, 3, 30)]


def test_an_id_that_ends_in_a_number_by_itself(store: Store):
    names = ("job", "job-1")
    edges = [
        edge_span(bits=n, trace=bytes([n]) * 16, servescope__request__id=name, gen_ai__response__id=f"cmpl-{name}")
        for n, name in enumerate(names, 1)
    ]
    spans(store, *edges)
    prompts(store, 0, 1, name="job")
    prompts(store, 0, name="job-1")
    settle_late(store)
    assert {row["request_id"]: row["preemptions"] for row in requests(store)} == {"job": 2, "job-1": 1}


def retried(store: Store) -> None:
    """Two edges of one id, 5 ms apart."""
    spans(store, edge_span(), edge_span(ms=NOW_MS + 5, bits=9, trace=b"\x09" * 16))


def test_of_two_finished_requests_nearest_to_one_edge_the_other_gets_the_other_edge(store: Store):
    retried(store)
    for begun, preemptions in ((4, 1), (6, 3)):
        finished(store, finished_ns=NOW_NS + (130 + begun) * MS, preemptions=preemptions)
    for _ in range(3):
        Settler(store).run()
    settle_late(store)
    rows = requests(store)
    assert [(row["has_edge"], row["has_engine"]) for row in rows] == [(1, 1)] * 2
    assert sorted(row["preemptions"] for row in rows) == [1, 3]


def test_of_two_spans_nearest_to_one_edge_the_other_gets_the_other_edge(store: Store):
    retried(store)
    spans(store, lost_span(NOW_MS + 4, b"\x04" * 8), lost_span(NOW_MS + 6, b"\x06" * 8), scope="vllm.llm_engine")
    for _ in range(3):
        Settler(store).run()
    assert halves(store) == [(1, 1)] * 2


@pytest.mark.parametrize("tied", [True, False], ids=["tied", "lost"])
def test_an_edge_that_has_a_spans_half_gets_no_other(store: Store, tied: bool):
    """Though a probe had filled it before: what comes then is another request's."""
    spans(store, edge_span())
    finished(store)
    Settler(store).run()
    first = engine_span() if tied else lost_span(NOW_MS, b"\x03" * 8)
    spans(store, first, scope="vllm.llm_engine")
    Settler(store).run()
    assert halves(store) == [(1, 1)]
    spans(store, lost_span(NOW_MS + 1, b"\x04" * 8), scope="vllm.llm_engine")
    Settler(store).run()
    Settler(store).run()
    assert sorted(halves(store)) == [(0, 1), (1, 1)]


@pytest.mark.parametrize("days", [-400, -2, 2])
def test_what_happened_on_another_day_than_it_came_is_left_alone(store: Store, days: int):
    spans(store, edge_span())
    finished(store)
    finished(store, "chatcmpl-far", finished_ns=NOW_NS + days * 86_400_000 * MS)
    settle_late(store)
    assert halves(store, "preemptions") == [(1, 1, 2)]


def test_a_time_of_1970_is_none(store: Store):
    finished(store, finished_ns=10**15)
    land(store, "engine_steps", {"counter": [1], "completed_ns": [10**15], "scheduled_ns": [10**17]})
    early = "SELECT count() AS n FROM {} WHERE {} < '2001-01-01'"
    assert store.rows(early.format("finished_requests", "finished_at")) == [{"n": 0}]
    assert store.rows(early.format("engine_steps", "time")) == [{"n": 0}]
    assert store.rows("SELECT scheduled_at FROM engine_steps WHERE counter = 1") == [{"scheduled_at": None}]
