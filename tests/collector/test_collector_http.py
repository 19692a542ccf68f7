"""The way in, with a store that is never asked."""

from __future__ import annotations

import asyncio
import gzip
import io
import json
import time
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import zstandard
from google.rpc import status_pb2
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from base import signing
from collector import framing
from collector.auth import Door, Sender, open_door
from collector.config import SenderKey
from collector.log.admission import LogFullError
from tests.kits.collector_process import spans
from tests.kits.collector_way import KEY, PROTOBUF

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

FIXTURES = Path(__file__).parent.parent / "fixtures" / "triton" / "otlp_json"


async def test_a_replay_waits_until_its_store_is_known_and_is_then_taken_once(make: Callable[..., Any]):
    way = await make()
    body = spans(1, 1)
    status, _, headers = await way.post(body, X_Servescope_Batch=f"{signing.REPLAYED}1")
    assert (status, headers["Retry-After"]) == (503, "1")
    way.journal.bind("store")
    for repeat in (False, True):
        status, _, headers = await way.post(body, X_Servescope_Batch=f"{signing.REPLAYED}1")
        assert (status, signing.HEADER_REPEAT in headers) == (200, repeat)
    assert len(await way.logged()) == 1
    assert way.books()["dropped"] == 1


async def test_an_accepted_request_is_in_the_log_before_the_answer(make: Callable[..., Any]):
    way = await make()
    before = time.time_ns()
    status, body, headers = await way.post(spans(0, 3))
    assert (status, body, headers["Content-Type"]) == (200, b"", "application/x-protobuf")
    assert before <= int(headers["X-Servescope-Received-Ns"]) <= time.time_ns()
    frames = await way.logged()
    assert [f.records for f in frames] == [3]
    assert frames[0].message.startswith(spans(0, 3)[:20])
    assert way.books()["received"] == way.books()["pending"] == 3


async def test_whoever_sends_is_told_that_nobody_reads(make: Callable[..., Any]):
    way = await make()
    for number, unread in enumerate((False, True, False)):
        way.unread = unread
        _, _, headers = await way.post(spans(number, 1))
        assert (signing.HEADER_UNREAD in headers) == unread


@pytest.mark.parametrize(
    ("encoding", "pack"),
    [
        ("gzip", gzip.compress),
        ("zstd", zstandard.ZstdCompressor().compress),
        ("deflate", zlib.compress),
        ("identity", bytes),
        ("", bytes),
    ],
)
async def test_every_encoding_gives_the_same_bytes(make: Callable[..., Any], encoding: str, pack: Callable[..., bytes]):
    way = await make()
    body = spans(0, 50)
    assert (await way.post(pack(body), Content_Encoding=encoding))[0] == 200
    frame = (await way.logged())[0]
    assert frame.message[: len(body)] == body


@pytest.mark.parametrize(
    "streamed", [zstandard.ZstdCompressor().compressobj(), zlib.compressobj(wbits=31)], ids=["zstd", "gzip"]
)
async def test_a_cut_off_stream_is_malformed(make: Callable[..., Any], streamed: Any):
    way = await make()
    whole = streamed.compress(spans(0, 500)) + streamed.flush()
    encoding = "zstd" if whole[:1] == b"\x28" else "gzip"
    status, body, _ = await way.post(whole[:-9], Content_Encoding=encoding)
    assert status == 400
    assert b"ends too early" in body


@pytest.mark.parametrize("encoding", ["gzip", "zstd"])
async def test_a_bomb_is_refused_without_being_blown_up(make: Callable[..., Any], encoding: str):
    way = await make(max_body_bytes=100_000)
    data = bytes(50_000_000)
    bomb = gzip.compress(data, 1) if encoding == "gzip" else zstandard.ZstdCompressor().compress(data)
    assert len(bomb) < 400_000
    status, body, _ = await way.post(bomb[:99_000] if len(bomb) > 99_000 else bomb, Content_Encoding=encoding)
    assert status == 413
    assert b"100000 bytes" in body
    assert way.books()["rejected"] == 1


async def test_a_plain_body_over_the_bound(make: Callable[..., Any]):
    way = await make(max_body_bytes=2000)
    assert (await way.post(b"x" * 2001))[0] == 413

    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(30):
            yield b"x" * 100

    async with way.client.post("/v1/traces", data=pieces(), headers=PROTOBUF) as answer:
        assert answer.status == 413


async def test_unknown_types_and_encodings(make: Callable[..., Any]):
    way = await make()
    status, body, _ = await way.post(b"", Content_Type="text/plain")
    assert status == 415
    assert b"text/plain" in body
    assert (await way.post(b"", Content_Encoding="br"))[0] == 415


@pytest.mark.parametrize("cut", [1, 7, 100])
async def test_a_truncated_request_names_the_fault(make: Callable[..., Any], cut: int):
    way = await make()
    status, body, headers = await way.post(spans(0, 5)[:-cut])
    assert status == 400
    fault = status_pb2.Status.FromString(body)
    assert fault.code == 3
    assert "not an OTLP traces request" in fault.message
    assert headers["Content-Type"] == "application/x-protobuf"
    assert way.books() | {} == {
        "received": 1, "recovered": 0, "stored": 0, "rejected": 1, "dropped": 0, "pending": 0, "balance": 0,
    }  # fmt: skip


async def test_tritons_own_json(make: Callable[..., Any]):
    way = await make()
    for name in ("0001.json.gz", "0002.json"):
        data = (FIXTURES / name).read_bytes()
        plain = gzip.decompress(data) if name.endswith("gz") else data
        status, body, headers = await way.post(plain, Content_Type="application/json")
        assert (status, body, headers["Content-Type"]) == (200, b"{}", "application/json")
    document = json.loads((FIXTURES / "0002.json").read_text())
    frames = await way.logged()
    request = ExportTraceServiceRequest.FromString(frames[1].message)
    sent = [s for r in document["resourceSpans"] for g in r["scopeSpans"] for s in g["spans"]]
    got = [s for r in request.resource_spans for g in r.scope_spans for s in g.spans]
    assert [(s.trace_id.hex(), s.span_id.hex(), s.parent_span_id.hex(), s.name) for s in got] == [
        (s["traceId"], s["spanId"], s.get("parentSpanId", ""), s["name"]) for s in sent
    ]
    assert [s.start_time_unix_nano for s in got] == [int(s["startTimeUnixNano"]) for s in sent]
    assert [[e.time_unix_nano for e in s.events] for s in got] == [
        [int(e["timeUnixNano"]) for e in s.get("events", [])] for s in sent
    ]
    assert frames[1].records == len(sent)


@pytest.mark.parametrize(
    ("body", "fault"),
    [
        (b"{", "not JSON"),
        (b"[]", "not a JSON object"),
        (b'{"resourceSpans": 5}', "resource_spans is not a JSON array"),
        (b'{"resourceSpans":[{"scopeSpans":[{"spans":[{"traceId":"zz"}]}]}]}', "traceId and spanId are hexadecimal"),
        (b'{"a":' * 3000, "not JSON"),
        (
            b'{"resourceSpans":[{"scopeSpans":[{"spans":[{"startTimeUnixNano":"1e400"}]}]}]}',
            "startTimeUnixNano can't be read",
        ),
        (b"\xff\xfe", "not JSON"),
    ],
)
async def test_broken_json_names_the_fault(make: Callable[..., Any], body: bytes, fault: str):
    way = await make()
    status, answer, _ = await way.post(body, Content_Type="application/json")
    assert status == 400
    assert fault in json.loads(answer)["message"]


async def test_signed_requests(make: Callable[..., Any]):
    way = await make(Door({signing.key_id(KEY): KEY}, {signing.key_id(KEY): "a7"}, require_signature=True))
    body = zstandard.ZstdCompressor().compress(spans(0, 1))
    now = int(time.time() * 1000)

    def headers(**changes: Any) -> dict[str, str]:
        arguments = {"key": KEY, "method": "POST", "path": "/v1/traces", "body": body, "now_ms": now} | changes
        return signing.signed_headers(**arguments) | {"Content-Encoding": "zstd"}

    assert (await way.post(body, **headers()))[0] == 200
    assert b"a7" in (await way.logged())[0].message
    for wrong in (
        headers(key=b"z" * 32),
        headers(path="/v1/logs"),
        headers(body=body + b"x"),
        headers(now_ms=now - 301_000),
        headers() | {"X-Servescope-Signature": "v1=00"},
        {"Content-Encoding": "zstd", "X-Servescope-Timestamp": str(now)},
        {"Content-Encoding": "zstd"},
    ):
        status, _, answered = await way.post(body, **wrong)
        assert status == 401
        assert answered["WWW-Authenticate"]
    assert way.books()["rejected"] == 7


async def test_a_wrong_signature_is_refused_where_none_is_needed(make: Callable[..., Any]):
    way = await make()
    body = spans(0, 1)
    headers = signing.signed_headers(b"z" * 32, "POST", "/v1/traces", body, now_ms=int(time.time() * 1000))
    assert (await way.post(body, **headers))[0] == 401
    assert (await way.post(body))[0] == 200


def test_unsigned_requests_come_from_loopback_only():
    door = Door({})
    assert door.admit("/v1/traces", {}, b"", "127.0.0.1", 0) == Sender(peer="127.0.0.1")
    assert door.admit("/v1/traces", {}, b"", "::ffff:127.0.0.1", 0) == Sender(peer="127.0.0.1")
    for remote in ("10.0.0.1", "::2", "fe80::1%eth0", "", None, "nonsense"):
        with pytest.raises(Exception, match="loopback"):
            door.admit("/v1/traces", {}, b"", remote, 0)


def test_further_keys_come_from_files(tmp_path: Path):
    file = tmp_path / "key"
    file.write_text(KEY.hex() + "\n")
    door = open_door(b"own", [SenderKey(file=file, tenant="a7")], require_signature=False)
    assert door.keys[signing.key_id(KEY)] == KEY
    assert door.tenants == {signing.key_id(KEY): "a7"}
    file.write_text("not hex")
    with pytest.raises(Exception, match="holds no key"):
        open_door(b"own", [SenderKey(file=file, tenant="")], require_signature=False)
    assert KEY.hex() not in repr(door)
    assert repr(KEY) not in repr(door)


async def test_a_repeated_batch_is_answered_and_dropped(make: Callable[..., Any]):
    way = await make()
    for body in (spans(0, 2), spans(10, 2)):  # a retry may even be packed anew
        assert (await way.post(body, X_Servescope_Batch="b-1"))[0] == 200
    assert (await way.post(spans(0, 2), X_Servescope_Batch="b-2"))[0] == 200
    assert len(await way.logged()) == 2
    assert way.books()["dropped"] == 2
    assert way.ledger.reasons() == {"dropped:repeat": 2}


async def test_a_repeat_without_a_batch_id_is_known_by_its_content(make: Callable[..., Any]):
    way = await make()
    body = spans(0, 4)
    assert (await way.post(body))[0] == (await way.post(gzip.compress(body), Content_Encoding="gzip"))[0] == 200
    assert len(await way.logged()) == 1
    assert way.books()["dropped"] == 4


async def test_repeats_may_be_kept(make: Callable[..., Any]):
    way = await make(drop_repeats=False)
    for _ in range(2):
        assert (await way.post(spans(0, 1)))[0] == 200
    assert len(await way.logged()) == 2


async def test_a_repeat_during_the_commit_waits_for_it(make: Callable[..., Any], monkeypatch: pytest.MonkeyPatch):
    way = await make()
    gate = asyncio.Event()
    real = way.log.append

    async def slow(*arguments: Any) -> None:
        await gate.wait()
        await real(*arguments)

    monkeypatch.setattr(way.log, "append", slow)
    body = spans(0, 1)
    first, second = (asyncio.create_task(way.post(body)) for _ in range(2))
    while len(way.intake._committing) < 1 or way.ledger.books(way.log)["traces"]["received"]:  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    gate.set()
    assert [(await first)[0], (await second)[0]] == [200, 200]
    assert len(await way.logged()) == 1
    assert way.books()["received"] == 2


@pytest.mark.parametrize("batch", ["x" * 65, "tab\there"])
async def test_odd_batch_ids(make: Callable[..., Any], batch: str):
    way = await make()
    assert (await way.post(spans(0, 1), X_Servescope_Batch=batch))[0] == 400


@pytest.mark.parametrize(("reason", "status"), [("bound", 429), ("disk", 503)])
async def test_a_full_log_says_when_to_come_again(
    make: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, reason: str, status: int
):
    way = await make()

    async def full(*_: object) -> None:
        raise LogFullError(reason)

    with monkeypatch.context() as patch:
        patch.setattr(way.log, "append", full)
        answered, body, headers = await way.post(spans(0, 1))
    assert answered == status
    assert int(headers["Retry-After"]) > 0
    assert status_pb2.Status.FromString(body).code in {8, 14}
    assert way.books()["received"] == 0
    assert (await way.post(spans(0, 1)))[0] == 200


async def test_memory_is_bounded(make: Callable[..., Any]):
    way = await make(max_inflight_bytes=4000)
    way.intake.hold(3000)
    status, _, headers = await way.post(b"x" * 1500)
    assert (status, headers["Retry-After"]) == (429, "1")
    way.intake.hold(-3000)
    assert (await way.post(spans(0, 1)))[0] == 200
    assert way.intake._held == 0


@pytest.mark.parametrize("bounds", [{"max_inflight_bytes": 3000}, {"log_max_bytes": 2524}, {"max_body_bytes": 1500}])
@pytest.mark.parametrize("encoding", ["identity", "gzip"])
async def test_what_no_bound_will_ever_let_in_is_not_told_to_come_again(
    make: Callable[..., Any], bounds: dict[str, int], encoding: str
):
    way = await make(**bounds)
    body = spans(0, 1, filler="x" * 2000)
    sent = gzip.compress(body) if encoding == "gzip" else body
    status, _, headers = await way.post(sent, Content_Encoding=encoding)
    assert (status, headers.get("Retry-After")) == (413, None)
    assert (await way.post(spans(0, 1)))[0] == 200
    assert way.intake._held == 0


async def test_prompts_never_reach_the_log(make: Callable[..., Any]):
    way = await make()
    secret = "my grandmother's recipe"
    body = spans(0, 2, **{"gen_ai.input.messages": secret, "gen_ai.request.model": "tiny"})
    assert (await way.post(body))[0] == 200
    message = (await way.logged())[0].message
    assert secret.encode() not in message
    assert b"tiny" in message
    text = way.ledger.page().decode()
    assert 'scrubbed_values_total{signal="traces"} 2.0' in text


async def test_prompts_stay_where_that_is_wanted(make: Callable[..., Any]):
    way = await make(store_prompts=True)
    assert (await way.post(spans(0, 1, **{"gen_ai.prompt": "kept"})))[0] == 200
    assert b"kept" in (await way.logged())[0].message


async def test_a_senders_own_columns_do_not_count(make: Callable[..., Any]):
    way = await make()
    body = spans(0, 1)
    forged = framing.encode(
        body, records=1, digest=bytes(16), received_ns=1, sender=Sender("their-key", "victim", "192.0.2.9")
    )
    frame = next(iter(framing.read(io.BytesIO(forged))))
    assert (await way.post(frame.message))[0] == 200
    message = (await way.logged())[0].message
    assert not any(part in message for part in (b"their-key", b"victim", b"192.0.2.9"))


async def test_who_sent_it_goes_into_the_log_with_it(make: Callable[..., Any]):
    key_id = signing.key_id(KEY)
    way = await make(Door({key_id: KEY}, {key_id: "a7"}))
    body = spans(0, 1)
    assert (
        await way.post(body, **signing.signed_headers(KEY, "POST", "/v1/traces", body, now_ms=int(time.time() * 1000)))
    )[0] == 200
    message = (await way.logged())[0].message
    assert all(part in message for part in (key_id.encode(), b"a7", b"127.0.0.1"))


def test_the_door_says_who_sends():
    key_id = signing.key_id(KEY)
    for tenant in ("a7", ""):
        door = Door({key_id: KEY}, {key_id: tenant} if tenant else {}, require_signature=True)
        for remote, peer in (
            ("192.0.2.7", "192.0.2.7"),
            ("::ffff:192.0.2.7", "192.0.2.7"),
            ("fe80::1%eth0", "fe80::1"),
            (None, ""),
        ):
            headers = signing.signed_headers(KEY, "POST", "/v1/logs", b"x", now_ms=7)
            assert door.admit("/v1/logs", headers, b"x", remote, 7) == Sender(key_id, tenant, peer)


async def test_an_empty_request_is_fine_and_leaves_nothing(make: Callable[..., Any]):
    way = await make()
    assert (await way.post(b""))[0] == 200
    assert way.books()["received"] == 0
    assert way.log.segments() == 0
