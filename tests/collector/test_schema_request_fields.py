"""The store's side of a request's fields: what a record declares is what a row of ``requests`` has."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import pytest

from agent.otlp.request import FIELDS, Field, RequestRecord
from agent.otlp.request_wire import to_otlp
from base.vocabulary import Edge, Outcome
from tests.kits.schema_tools import NOW_MS, RESOURCE, framed, fresh_store, span_id, token

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.conftest import StoreServer

TRACE = os.urandom(16)
RECORD = RequestRecord(
    trace_id=TRACE, span_id=span_id(NOW_MS, 7), start_ns=NOW_MS * 1_000_000, end_ns=(NOW_MS + 900) * 1_000_000,
    method="PUT", route="/v1/completions", outcome=Outcome.SERVER_ERROR, status=507, operation="text_completion",
    request_model="told", response_model="told", response_id="cmpl-1", request_id="r", tenant="team",
    finish_reasons=("length",), error_type="storage", stream=True, prompt_tokens=21, completion_tokens=22,
    cached_tokens=23, tokens_counted=True, caller_sampled=False, unsampled=True, request_bytes=24, response_bytes=25,
    edge_seconds=0.01, ttft_seconds=0.02, e2e_seconds=0.9, itl_mean_seconds=0.04, itl_p50_seconds=0.05,
    itl_p99_seconds=0.06, itl_max_seconds=0.07, itl_gaps=26,
)  # fmt: skip


@pytest.fixture(scope="module")
def row(store_server: StoreServer) -> Iterator[dict[str, Any]]:
    with fresh_store(store_server) as store:
        store.insert_segment("land_traces", framed(to_otlp(RECORD, RESOURCE)), token())
        (found,) = store.rows("SELECT * FROM requests WHERE trace_id = {t:String}", {"t": TRACE.hex()})
        yield found


def kept(field: Field) -> Any:
    """What the store makes of a field's value."""
    value = getattr(RECORD, field.name)
    match field.kind:
        case "texts":
            return value[0]
        case "flag":
            return ("yes" if value else "no") if field.name == "caller_sampled" else int(value)
        case "seconds":
            return pytest.approx(value, rel=1e-6)
    return value


@pytest.mark.parametrize("field", [field for field in FIELDS if field.column], ids=lambda field: field.name)
def test_a_declared_field_is_its_column_of_the_view(field: Field, row: dict[str, Any]):
    assert row[field.column] == kept(field)


def test_every_word_of_an_edge_span_is_declared_once():
    keys = [field.wire.key for field in FIELDS]
    assert sorted(keys) == sorted(value for key, value in vars(Edge).items() if key.isupper())
