"""Answers of many servers, each a folder: what the server says, and what the record of it must be.

``answer.json``: ``pieces`` (seconds to wait, text), ``head``, ``status``, ``path``, ``request``, ``request_type``,
``fill`` (bytes more in the request's file), ``long`` (characters in place of each ``…``), ``end`` (``cut``: the
connection breaks; ``close``: it ends the body).
``expect.json``: fields of the record, and ``first_content``: seconds until the first piece of the answer.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from agent.otlp.request import RequestRecord
from agent.otlp.request_wire import to_otlp
from agent.tap.account import Account
from agent.tap.core import Core
from agent.tap.counters import Counters
from agent.tap.head import parse_request, parse_response
from agent.tap.limits import Limits
from agent.tap.tenants import BoundedNames, Tenants
from agent.tap.upstream import Pool
from base.vocabulary import Outcome
from tests.kits.tap import SALT, Memory

ANSWERS = Path(__file__).parents[1] / "fixtures/answers"
NEAR = 1e-6


def core() -> Core:
    return Core(
        pool=Pool("http", "127.0.0.1", 1, connect_seconds=1, idle_seconds=1, max_idle=1),
        records=Memory(),
        counters=Counters(),
        tenants=Tenants(SALT, header="x-tenant-id", key_header="authorization", names={}, bound=BoundedNames(10)),
        models=BoundedNames(10),
        limits=Limits(),
    )


def play(told: dict[str, Any]) -> dict[str, Any]:
    """The record of an answer, with the time of its first content on the clock of the pieces."""
    body = told.get("request", '{"model":"tiny"}').encode()
    body = body.replace(b"RIFF", b"RIFF" + b"z" * told.get("fill", 0))
    path = told.get("path", "/v1/chat/completions")
    kind = told.get("request_type", "application/json")
    asked = f"POST {path} HTTP/1.1\r\nHost: t\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n"
    now = arrived = time.monotonic()
    account = Account(core(), parse_request(asked.encode()), arrived, time.time_ns())
    account.request_payload([body])
    account.request_ended()
    end = told.get("end", "whole")
    fields = [*told.get("head", ["content-type: text/event-stream"])]
    fields += [] if end == "close" else ["transfer-encoding: chunked"]
    lines = [f"HTTP/1.1 {told.get('status', '200 OK')}", *fields, "", ""]
    account.answer_began(parse_response("\r\n".join(lines).encode()))
    for wait, text in told["pieces"]:
        now += wait
        account.answer_payload([text.replace("…", "x" * told.get("long", 1)).encode()], now)
        account.handed_over(now)
    record = account.close(*((Outcome.UPSTREAM_RESET, "answer_cut") if end == "cut" else (None, "")))
    assert record is not None
    assert not account._broken
    return {**record._asdict(), "first_content": record.ttft_seconds}


@pytest.mark.parametrize("folder", sorted(f.name for f in ANSWERS.iterdir()))
def test_the_record_of_an_answer(folder: str):
    told = json.loads((ANSWERS / folder / "answer.json").read_text())
    expect = json.loads((ANSWERS / folder / "expect.json").read_text())
    row = play(told)
    assert expect
    for name, value in expect.items():
        got = list(row[name]) if isinstance(row[name], tuple) else row[name]
        assert got == (pytest.approx(value, abs=NEAR) if isinstance(value, float) else value), name


PROSE = "what somebody wrote"


@pytest.mark.parametrize(
    "told",
    [
        {"pieces": [[0, f'data: {{"choices":[{{"index":0,"delta":{{"content":"{PROSE}"}}}}]}}\n\n']]},
        {"pieces": [[0, f"data: {PROSE}\n\n"]]},
        {"pieces": [[0, f"error: {PROSE}\n\n"]]},
        {"pieces": [[0, f'error: {{"message":"{PROSE}","type":"{PROSE}","code":"{PROSE}"}}\n\n']]},
        {"pieces": [[0, f'event: error\ndata: {{"error":{{"message":"{PROSE}"}},"error_type":"{PROSE}"}}\n\n']]},
        {"pieces": [[0, f'{{"detail":"{PROSE}"}}']], "status": "422 No", "head": ["content-type: application/json"]},
        {"pieces": [[0, "{}"]], "request": f'{{"model":{{"a":"{PROSE}"}},"prompt":"{PROSE}"}}', "head": []},
        {"pieces": [[0, "{}"]], "request": f"prompt={PROSE}", "request_type": "text/plain", "head": []},
    ],
)
def test_nothing_that_somebody_wrote_is_in_the_record(told: dict[str, Any]):
    row = play(told)
    row.pop("first_content")
    assert PROSE.encode() not in to_otlp(RequestRecord(**row), {})
