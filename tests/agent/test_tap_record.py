"""Each field of a record is what it says: no two texts, numbers or times have the same value here."""

from __future__ import annotations

import json

import pytest

from agent.otlp.request import RequestRecord
from agent.tap.account import Account
from agent.tap.core import Core
from agent.tap.counters import Counters
from agent.tap.head import parse_request, parse_response
from agent.tap.limits import Limits
from agent.tap.tenants import BoundedNames, Tenants
from agent.tap.upstream import Pool
from base.vocabulary import Outcome
from tests.kits.tap import SALT, Memory

ARRIVED, ARRIVED_NS = 100.0, 1_700_000_000_000_000_000
SPAN = b"edgespan"
BODY = b'{"model":"asked","stream":true}'
HEAD = (
    b"POST /v1/completions HTTP/1.1\r\nHost: t\r\nContent-Type: application/json\r\nX-Tenant-Id: team\r\n"
    b"X-Request-Id: mine\r\ntracestate: a=1\r\ntraceparent: 00-" + b"1" * 32 + b"-" + b"2" * 16 + b"-02\r\n"
    b"Content-Length: %d\r\n\r\n" % len(BODY)
)
ANSWER = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
USAGE = {"prompt_tokens": 11, "completion_tokens": 201, "prompt_tokens_details": {"cached_tokens": 7}}


def event(text: str, **more: object) -> bytes:
    choice = {"index": 0, "text": text, "finish_reason": more.pop("finish_reason", None)}
    said = {"id": "cmpl-1", "model": "told", "choices": [choice], **more}
    return b"data: %s\n\n" % json.dumps(said).encode()


def core() -> Core:
    return Core(
        pool=Pool("http", "127.0.0.1", 1, connect_seconds=1, idle_seconds=1, max_idle=1),
        records=Memory(),
        counters=Counters(),
        tenants=Tenants(SALT, header="x-tenant-id", key_header="authorization", names={}, bound=BoundedNames(10)),
        models=BoundedNames(10),
        limits=Limits(),
        sample=False,
    )


def test_a_record_says_each_thing_in_its_own_field():
    now = ARRIVED
    account = Account(core(), parse_request(HEAD), ARRIVED, ARRIVED_NS, lambda: now, SPAN)
    account.request_payload([BODY])
    account.request_ended()
    account.answer_began(parse_response(ANSWER))
    size = 0
    waits = [0.01] * 100 + [0.1] * 3 + [0.3]
    pieces = [
        (0.5, event("a")),
        *((wait, event("b")) for wait in waits),
        (0.2, event("", finish_reason="stop", usage=USAGE)),
    ]
    for wait, piece in pieces:
        now += wait
        account.answer_payload([piece], now)
        account.handed_over(now)
        size += len(piece)
    account.edge_seconds = 0.25
    now = ARRIVED + 9.0
    record = account.close(None, "")
    assert record is not None
    expected = RequestRecord(
        trace_id=b"\x11" * 16, span_id=SPAN, start_ns=ARRIVED_NS, end_ns=ARRIVED_NS + 9_000_000_000,
        outcome=Outcome.OK, method="POST", route="/v1/completions", parent_span_id=b"\x22" * 8, trace_state="a=1",
        flags=2, operation="text_completion", request_model="asked", response_model="told", tenant="team",
        error_type="", status=200, stream=True, tokens_counted=False, caller_sampled=False, unsampled=True,
        finish_reasons=("stop",), response_id="cmpl-1", request_id="mine", prompt_tokens=11, completion_tokens=201,
        cached_tokens=7, request_bytes=len(BODY), response_bytes=size, itl_gaps=104, edge_seconds=0.25,
        ttft_seconds=0.5, e2e_seconds=9.0, itl_mean_seconds=1.6 / 104, itl_p50_seconds=0.01, itl_p99_seconds=0.1,
        itl_max_seconds=0.3,
    )  # fmt: skip
    for name, value in expected._asdict().items():
        wanted = pytest.approx(value) if isinstance(value, float) else value
        assert getattr(record, name) == wanted, name


def test_a_failure_says_each_thing_in_its_own_field():
    head = parse_request(HEAD.replace(b"traceparent", b"x-other"))
    account = Account(core(), head, ARRIVED, ARRIVED_NS, lambda: ARRIVED + 1.0, SPAN)
    record = account.close(Outcome.UNREACHABLE, "connect_refused")
    assert record is not None
    assert (record.outcome, record.error_type) == (Outcome.UNREACHABLE, "connect_refused")
    assert (record.caller_sampled, record.unsampled, record.tokens_counted) == (None, False, False)
    assert (record.status, record.response_bytes, record.itl_gaps) == (None, 0, 0)
    assert (record.prompt_tokens, record.completion_tokens, record.cached_tokens) == (None, None, None)
    assert (record.request_model, record.response_model, record.finish_reasons) == ("", "", ())
