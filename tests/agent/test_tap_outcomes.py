from __future__ import annotations

import asyncio
import gzip
import json
from pathlib import Path

import pytest

from agent.otlp.request_wire import to_otlp
from agent.tap.credentials import hash_key
from base.vocabulary import Edge, Outcome
from tests.kits.tap import (
    DONE,
    PATIENCE,
    SALT,
    STREAM_HEAD,
    Memory,
    Peer,
    answer,
    chunked,
    connect,
    event,
    one,
    post,
    replying,
    talk,
    tap,
    upstream,
)

FIXTURES = Path(__file__).parents[1] / "fixtures"


async def test_vllm_stream_as_recorded():
    recorded = (FIXTURES / "vllm/sse_completion_with_headers.txt").read_bytes()
    body = recorded.replace(b"\r\n", b"\n").partition(b"transfer-encoding: chunked\n\n")[2]
    assert body.endswith(b"data: [DONE]\n\n")
    request = post(b"/v1/completions", b'{"model":"asked","stream":true,"prompt":"p"}', b"X-Request-Id: my-req-1")
    got, record = await one(replying(STREAM_HEAD, chunked(body)), request)
    assert body in got
    assert record.outcome is Outcome.OK
    assert (record.request_model, record.response_model, record.response_id) == ("asked", "tiny", "cmpl-my-req-1")
    assert (record.prompt_tokens, record.completion_tokens, record.tokens_counted) == (2, 4, False)
    assert record.finish_reasons == ("length",)
    assert record.request_id == "my-req-1"
    assert record.stream
    assert record.itl_gaps == 3
    assert record.response_bytes == len(body)
    assert (record.route, record.operation, record.method) == ("/v1/completions", "text_completion", "POST")


async def test_triton_stream_as_recorded():
    text = (FIXTURES / "triton/sse_generate_stream.txt").read_text()
    body = "".join(line[2:] + "\n" for line in text.splitlines() if line.startswith("< "))
    body = body.partition("Transfer-Encoding: chunked\n\n")[2].encode()
    request = post(b"/v2/models/stream_words/generate_stream", b'{"id":"sse-1","prompt":"the quick brown fox"}')
    _, record = await one(replying(STREAM_HEAD, chunked(body)), request)
    assert (record.request_model, record.response_model, record.response_id) == (
        "stream_words",
        "stream_words",
        "sse-1",
    )
    assert (record.completion_tokens, record.tokens_counted, record.itl_gaps) == (4, True, 3)
    assert record.route == "/v2/models/{model}/generate_stream"


def exchanges() -> list[tuple[bytes, bytes]]:
    found = []
    for name in ("infer_http_request_response", "infer_http_binary_headers"):
        for part in (FIXTURES / f"triton/{name}.txt").read_text().split("\n# "):
            lines = part.splitlines()
            asked = [line[2:] for line in lines if line.startswith("> ")]
            told = [line[2:] for line in lines if line.startswith("<")]
            found.append(("\r\n".join(asked).encode(), "\r\n".join(told).encode()))
    return found


async def test_triton_exchanges_as_recorded():
    outcomes = []
    for asked, told in exchanges():
        status, body = told.partition(b"\r\n")[0].partition(b" ")[2], told.rpartition(b"\r\n")[2]
        kind = b"text/plain" if b"text/plain" in told else b"application/json"
        if b"<80 bytes" in body:  # the binary one: its tensors are only described in the file
            header = told.split(b"\r\n")[-2]
            body = header + b"\0" * 80
            fields = (b"Inference-Header-Content-Length: %d" % len(header),)
            reply = answer(body, status, b"application/octet-stream", *fields)
        else:
            reply = answer(body, status, kind)
        target = asked.split(b" ")[1]
        _, record = await one(replying(reply), post(target, b"{}"))
        outcomes.append((record.request_model, record.response_id, record.status, record.outcome, record.error_type))
    assert outcomes == [
        ("ranker", "by-hand-1", 200, Outcome.OK, ""),
        ("ranker", "by-hand-2", 200, Outcome.OK, ""),
        ("flaky", "", 500, Outcome.SERVER_ERROR, "500"),
        ("ranker", "", 400, Outcome.CLIENT_ERROR, "400"),
        ("no_such_model", "", 404, Outcome.CLIENT_ERROR, "404"),
        ("vision_classifier", "", 503, Outcome.REJECTED, "queue_full"),
        ("vision_classifier", "by-hand-6", 200, Outcome.OK, ""),
    ]


@pytest.mark.parametrize(
    ("status", "body", "outcome", "error_type"),
    [
        (b"404 Not Found", b'{"error":{"type":"NotFoundError","code":404}}', Outcome.CLIENT_ERROR, "NotFoundError"),
        (b"400 Bad Request", b'{"object":"error","type":"BadRequestError"}', Outcome.CLIENT_ERROR, "BadRequestError"),
        (b"429 Too Many", b'{"error":{"code":"rate_limited"}}', Outcome.REJECTED, "rate_limited"),
        (b"503 Unavailable", b'{"error":"model is loading"}', Outcome.SERVER_ERROR, "503"),
        (b"500 Oops", b"<html>", Outcome.SERVER_ERROR, "500"),
        (b"500 Oops", b'{"error":{"type":"a prompt of somebody"}}', Outcome.SERVER_ERROR, "500"),
        (b"200 OK", b'{"error":{"type":"InternalError"}}', Outcome.SERVER_ERROR, "InternalError"),
        (b"302 Found", b"", Outcome.OK, ""),
    ],
)
async def test_outcome_by_status_and_body(status: bytes, body: bytes, outcome: Outcome, error_type: str):
    _, record = await one(replying(answer(body, status)))
    assert (record.outcome, record.error_type, record.status) == (outcome, error_type, int(status[:3]))


async def test_usage_of_a_whole_answer():
    body = {
        "id": "chatcmpl-7",
        "model": "m",
        "choices": [
            {"index": 1, "message": {"content": "b"}, "finish_reason": "length"},
            {"index": 0, "message": {"content": "a"}, "finish_reason": "stop"},
        ],
        "usage": {"prompt_tokens": 9, "completion_tokens": 5, "prompt_tokens_details": {"cached_tokens": 8}},
    }
    _, record = await one(replying(answer(json.dumps(body).encode())), post(b"/v1/chat/completions"))
    assert (record.prompt_tokens, record.completion_tokens, record.cached_tokens) == (9, 5, 8)
    assert record.finish_reasons == ("stop", "length")
    assert (record.operation, record.stream, record.itl_gaps) == ("chat", False, 0)
    assert record.ttft_seconds is None  # a whole answer has no first token
    assert record.e2e_seconds is not None


async def test_usage_at_the_end_of_an_answer_too_long_to_parse():
    body = (
        b'{"id":"embd-1","model":"m","data":[' + b"0.5," * 100_000 + b'0],"usage":{"prompt_tokens":7,"total_tokens":7}}'
    )
    _, record = await one(replying(answer(body)), post(b"/v1/embeddings"))
    assert (record.prompt_tokens, record.response_id, record.operation) == (7, "embd-1", "embeddings")


async def test_model_in_front_of_a_request_too_long_to_parse():
    prompt = b'\\"model\\": \\"fake\\" ' * 10_000
    body = (
        b'{"tools":[{"model":"nested"}],"prompt":"'
        + prompt[:2_000]
        + b'","model":"real","stream":true,"x":"'
        + prompt
        + b'"}'
    )
    _, record = await one(replying(answer(b"{}")), post(b"/v1/completions", body))
    assert record.request_model == "real"
    body = b'{"prompt":"' + prompt + b'","model":"last"}'
    _, record = await one(replying(answer(b"{}")), post(b"/v1/completions", body))
    assert record.request_model == "last"


async def test_gzipped_answers_are_read_and_left_alone():
    plain = event("a") + event("b", "stop") + DONE
    packed = gzip.compress(plain)
    head = STREAM_HEAD.replace(b"\r\n\r\n", b"\r\ncontent-encoding: gzip\r\n\r\n")
    got, record = await one(replying(head, chunked(packed[:30], packed[30:])))
    assert chunked(packed[:30], packed[30:]) in got
    assert (record.completion_tokens, record.itl_gaps, record.finish_reasons) == (2, 1, ("stop",))


async def test_unreadable_coding_still_has_times_and_sizes():
    head = STREAM_HEAD.replace(b"\r\n\r\n", b"\r\ncontent-encoding: br\r\n\r\n")
    _, record = await one(replying(head, chunked(b"\x8b\x01")))
    assert (record.outcome, record.response_bytes, record.completion_tokens) == (Outcome.OK, 2, None)
    assert record.ttft_seconds is None  # its first bytes may be anything
    assert record.e2e_seconds is not None


@pytest.mark.parametrize(
    ("last", "error_type"),
    [
        (b'data: {"error":{"message":"boom","type":"InternalServerError","code":500}}\n\n', "InternalServerError"),
        (b'data: {"error":{"message":"boom","type":null,"code":400}}\n\n', "400"),
        (b'event: error\ndata: {"message":"boom"}\n\n', "error_in_answer"),
        (b'data: {"error":"boom"}\n\n', "error_in_answer"),
    ],
)
async def test_error_inside_a_stream(last: bytes, error_type: str):
    _, record = await one(replying(STREAM_HEAD, chunked(event("a"), last, DONE)))
    assert (record.outcome, record.status, record.error_type) == (Outcome.SERVER_ERROR, 200, error_type)


async def test_anthropic_stream():
    usage = {"input_tokens": 3, "cache_read_input_tokens": 7}
    events = [
        {"type": "message_start", "message": {"id": "msg_1", "model": "c", "usage": usage}},
        {"type": "content_block_start", "index": 0},
        {"type": "content_block_delta", "delta": {"text": "a"}},
        {"type": "ping"},
        {"type": "content_block_delta", "delta": {"text": "b"}},
        {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 2}},
        {"type": "message_stop"},
    ]  # fmt: skip
    body = b"".join(b"event: %s\r\ndata: %s\r\n\r\n" % (e["type"].encode(), json.dumps(e).encode()) for e in events)
    _, record = await one(replying(STREAM_HEAD, chunked(body)), post(b"/v1/messages"))
    assert (record.prompt_tokens, record.cached_tokens, record.completion_tokens) == (10, 7, 2)
    assert (record.response_id, record.finish_reasons, record.itl_gaps) == ("msg_1", ("end_turn",), 1)


async def test_responses_stream():
    events = [
        {"type": "response.created", "response": {"id": "resp_1", "model": "m", "error": None}},
        {"type": "response.output_text.delta", "delta": "a"},
        {"type": "response.output_text.delta", "delta": "b"},
        {"type": "response.completed", "response": {"id": "resp_1", "status": "completed",
         "usage": {"input_tokens": 4, "output_tokens": 2, "input_tokens_details": {"cached_tokens": 1}}}},
    ]  # fmt: skip
    body = b"".join(b"data: %s\n\n" % json.dumps(e).encode() for e in events)
    _, record = await one(replying(STREAM_HEAD, chunked(body)), post(b"/v1/responses"))
    assert (record.prompt_tokens, record.cached_tokens, record.completion_tokens) == (4, 1, 2)
    assert (record.response_id, record.finish_reasons, record.itl_gaps) == ("resp_1", ("stop",), 1)


@pytest.mark.parametrize(
    "bad", [b"data: {\n\n", b"data:\n\n", b"data: [1]\n\n", b": ping\n\n", b"\n\n\n", b"\xff\xfe\n\n"]
)
async def test_malformed_events_pass_and_do_no_harm(bad: bytes):
    got, record = await one(replying(STREAM_HEAD, chunked(event("a"), bad, event("b", "stop"), DONE)))
    assert bad in got
    assert (record.outcome, record.finish_reasons) == (Outcome.OK, ("stop",))


async def test_tenants_and_trace_on_the_record():
    parent = b"traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00"
    _, record = await one(replying(answer(b"{}")), post(b"/x", b"", parent, b"tracestate: a=1", b"X-Tenant-Id: team a"))
    assert record.trace_id.hex() == "0af7651916cd43dd8448eb211c80319c"
    assert (record.parent_span_id.hex(), record.flags, record.trace_state) == ("b7ad6b7169203331", 0, "a=1")
    assert record.tenant == "team a"
    key = hash_key(SALT, b"sk-secret")
    for field in (b"Authorization: Bearer sk-secret", b"X-Api-Key: sk-secret"):
        _, record = await one(replying(answer(b"{}")), post(b"/x", b"", field))
        assert record.tenant == key
        assert b"sk-secret" not in to_otlp(record, {})
    _, record = await one(replying(answer(b"{}")), post(b"/x", b"", b"X-Api-Key: sk-secret"), names={key: "acme"})
    assert record.tenant == "acme"


async def test_server_gets_the_taps_span_as_parent():
    heads = []

    async def script(peer: Peer) -> None:
        head, _ = await peer.request()
        heads.append(head.decode())
        await peer.send(answer(b"{}", b"200 OK", b"application/json", b"X-Request-Id: servers"))

    got, record = await one(script, post(b"/x", b"", b"traceparent: 00-xyz", b"tracestate: gone=1"))
    assert f"traceparent: 00-{record.trace_id.hex()}-{record.span_id.hex()}-01\r\n" in heads[0]
    assert heads[0].count("traceparent") == 1
    assert "tracestate" not in heads[0]
    assert f"X-Request-Id: {record.request_id}\r\n" in heads[0]
    assert got.count(b"X-Request-Id") == 1
    assert record.parent_span_id == b""


async def test_probes_pass_unrecorded_unless_asked_for():
    memory = Memory()
    async with upstream(replying(answer(b"{}"))) as up, tap(up.port, memory=memory) as served:
        await talk(served.port, b"GET /health HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        await talk(served.port, post())
    assert [r.route for r in memory.records] == ["/v1/completions"]
    request = b"GET /v2/health/ready HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
    _, record = await one(replying(answer(b"{}")), request, record_probes=True)
    assert record.route == "/v2/health/ready"


async def test_last_bytes_wait_for_the_record():
    memory = Memory(hold=True)
    go_on = asyncio.Event()

    async def script(peer: Peer) -> None:
        while True:
            await peer.request()
            await peer.send(STREAM_HEAD, chunked(event("a"), end=False))
            await asyncio.wait_for(go_on.wait(), PATIENCE)
            await peer.send(chunked(event("b"), DONE))

    async with upstream(script) as up:  # noqa: SIM117
        async with tap(up.port, memory=memory) as served, connect(served.port) as client:
            await client.send(post(close=False))
            await client.head()
            go_on.set()
            await memory.wait()
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(client.reader.readuntil(b"[DONE]"), 0.2)
            memory.let_go()
            await asyncio.wait_for(client.reader.readuntil(b"[DONE]\n\n\r\n0\r\n\r\n"), PATIENCE)
            memory.hold = False
            await client.send(post(close=False))  # both connections go on
            await asyncio.wait_for(client.reader.readuntil(b"0\r\n\r\n"), PATIENCE)
            assert up.connections == 1


async def test_slow_client_is_edge_time():
    size = 30_000_000

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(answer(b"x" * size, b"200 OK", b"text/plain"))

    async with upstream(script) as up, tap(up.port) as served, connect(served.port) as client:
        client.writer.transport.pause_reading()
        await client.send(post())
        async with asyncio.timeout(PATIENCE):
            while not any(c.full for c in served.server._connections):  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        await asyncio.sleep(0.5)  # the client's slowness itself, nothing is awaited by it
        client.writer.transport.resume_reading()
        await client.reader.readuntil(b"\r\n\r\n")
        assert len(await client.reader.readexactly(size)) == size
        record = await served.memory.only()
    assert record.edge_seconds > 0.3
    assert record.e2e_seconds >= record.edge_seconds


async def test_record_on_the_wire_names_every_fact():
    got = to_otlp((await one(replying(answer(b'{"error":"x"}', b"500 Oops"))))[1], {"service.name": "d", "empty": ""})
    assert Edge.OUTCOME.encode() in got
    assert b"empty" not in got
