"""The door of remote write: what a sender is answered, and what lies in the log."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import cramjam
import pytest
import zstandard
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

from base import signing
from collector.auth import open_door
from collector.config import SenderKey
from collector.prometheus import wire
from collector.receiver import Scene
from collector.receivers.remote_write import PATH, receiver

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.kits.collector_way import Way

HEADERS = {"Content-Type": "application/x-protobuf", "Content-Encoding": "snappy"}
V2 = HEADERS | {"Content-Type": "application/x-protobuf;proto=io.prometheus.write.v2.Request"}
AT = 1_790_000_000_000


def body(*names: str) -> bytes:
    request = wire.WriteRequest()
    for name in names:
        one = request.timeseries.add()
        for key, value in (("__name__", name), ("job", "chat"), ("instance", "a:1")):
            one.labels.add(name=key, value=value)
        one.samples.add(value=2.0, timestamp=AT)
    plain: bytes = request.SerializeToString()
    return plain


def snapped(plain: bytes) -> bytes:
    return bytes(cramjam.snappy.compress_raw(plain))


async def post(way: Way, data: bytes, headers: dict[str, str]) -> tuple[int, str, Any]:
    door = getattr(way, "door", None) or open_door(b"k" * 32, (), require_signature=False)
    application = web.Application()
    application.add_routes(receiver(Scene(way.config, door, way.intake, way.ledger, bool)).routes())
    client = TestClient(TestServer(application), auto_decompress=False)
    await client.server.start_server(auto_decompress=False)
    try:
        async with client.post(PATH, data=data, headers=headers) as answer:
            return answer.status, await answer.text(), answer.headers
    finally:
        await client.close()


async def test_what_is_written_is_durable_and_known_when_it_comes_again(make: Callable[..., Any]) -> None:
    way = await make()
    data = snapped(body("vllm:num_requests_running", "other"))
    assert (await post(way, data, HEADERS))[0] == 204
    assert (await post(way, data, HEADERS))[0] == 204
    (frame,) = await way.logged("metrics")
    request = ExportMetricsServiceRequest.FromString(frame.message)
    metrics = request.resource_metrics[0].scope_metrics[0].metrics
    assert [metric.name for metric in metrics] == ["vllm:num_requests_running", "other"]
    books = way.books("metrics")
    assert (books["received"], books["dropped"], way.ledger.reasons()) == (4, 2, {"dropped:repeat": 2})


@pytest.mark.parametrize("encoding", ["zstd", "identity"])
async def test_other_encodings_that_senders_use_are_taken(make: Callable[..., Any], encoding: str) -> None:
    way = await make()
    data = zstandard.compress(body("x")) if encoding == "zstd" else body("x")
    assert (await post(way, data, HEADERS | {"Content-Encoding": encoding}))[0] == 204
    assert way.books("metrics")["received"] == 1


async def test_version_two_is_told_what_was_written(make: Callable[..., Any]) -> None:
    way = await make()
    request = wire.Request()
    request.symbols.extend(["", "__name__", "x"])
    one = request.timeseries.add(labels_refs=[1, 2])
    one.samples.add(value=1, timestamp=AT)
    one.samples.add(value=2, timestamp=AT + 1000)
    status, _, headers = await post(way, snapped(request.SerializeToString()), V2)
    written = {what: headers[f"X-Prometheus-Remote-Write-{what}-Written"] for what in ("Samples", "Histograms")}
    assert (status, written) == (204, {"Samples": "2", "Histograms": "0"})
    assert way.books("metrics")["received"] == 2


async def test_a_request_that_only_describes_is_taken_and_nothing_is_written(make: Callable[..., Any]) -> None:
    way = await make()
    assert (await post(way, snapped(b""), HEADERS))[0] == 204
    assert way.books("metrics")["received"] == 0


async def test_a_sample_of_another_unit_of_time_is_refused_and_its_neighbours_stay(make: Callable[..., Any]) -> None:
    way = await make()
    request = wire.WriteRequest()
    one = request.timeseries.add()
    one.labels.add(name="__name__", value="x")
    for time in (AT, AT * 1000, -1):
        one.samples.add(value=1, timestamp=time)
    status, text, _ = await post(way, snapped(request.SerializeToString()), HEADERS)
    assert (status, text) == (400, f"x: the timestamp {AT * 1000} is none in milliseconds since 1970\n")
    books = way.books("metrics")
    assert (books["pending"], books["rejected"], way.ledger.reasons()) == (1, 2, {"rejected:malformed": 2})


@pytest.mark.parametrize("second", [False, True])
async def test_labels_that_would_be_copied_into_gigabytes_are_refused(make: Callable[..., Any], second: bool) -> None:
    way = await make(max_body_bytes=1 << 20)
    if second:
        request = wire.Request()
        request.symbols.extend(["", "__name__", "x", "l", "y" * 10_000])
        for _ in range(1000):
            request.timeseries.add(labels_refs=[1, 2, 3, 4]).samples.add(value=1, timestamp=AT)
    else:
        request = wire.WriteRequest()
        one = request.timeseries.add()
        for key, value in (("__name__", "x"), ("l", "y" * 10_000)):
            one.labels.add(name=key, value=value)
        for index in range(1000):
            one.samples.add(value=1, timestamp=AT + index)
    status, text, _ = await post(way, snapped(request.SerializeToString()), V2 if second else HEADERS)
    assert (status, "smaller batches" in text) == (413, True)
    assert way.books("metrics")["pending"] == 0
    assert way.intake._held == 0


async def test_a_series_without_a_name_is_refused_and_its_neighbours_stay(make: Callable[..., Any]) -> None:
    way = await make()
    status, text, _ = await post(way, snapped(body("", "x")), HEADERS)
    assert status == 400
    assert "name" in text
    books = way.books("metrics")
    assert (books["pending"], books["rejected"], way.ledger.reasons()) == (1, 1, {"rejected:unnamed": 1})


@pytest.mark.parametrize(
    ("data", "headers", "status", "told"),
    [
        (snapped(b"\xff\xff"), HEADERS, 400, "remote-write 1.0"),
        (snapped(b"\xff\xff"), V2, 400, "remote-write 2.0"),
        (b"\xff" * 9, HEADERS, 400, "does not begin with a size"),
        (b"\x64garbage", HEADERS, 400, "not a snappy block"),
        (b"\xff\xff\xff\x7f", HEADERS, 413, "decompressed"),
        (b"", HEADERS | {"Content-Type": "application/json"}, 415, "application/x-protobuf"),
        (b"", HEADERS | {"Content-Encoding": "br"}, 415, "br is none of"),
        (b"", HEADERS | {"Content-Type": "application/x-protobuf;proto=x.y"}, 415, "io.prometheus.write.v2.Request"),
        (b"", HEADERS | {"Authorization": "Bearer wrong"}, 400, "does not begin with a size"),
    ],
)
async def test_what_is_no_request_is_told_so(
    make: Callable[..., Any], data: bytes, headers: dict[str, str], status: int, told: str
) -> None:
    way = await make()
    answered, text, _ = await post(way, data, headers)
    assert (answered, told in text) == (status, True), text
    books = way.books("metrics")
    assert (books["pending"], books["rejected"]) == (0, 1)


async def test_a_key_may_come_as_it_is_where_that_is_allowed(make: Callable[..., Any], tmp_path: Path) -> None:
    key, other = "ab" * 32, "cd" * 32
    for name, text in (("key", key), ("other", other)):
        (tmp_path / name).write_text(text)
    senders = (
        SenderKey(file=tmp_path / "key", tenant="a7", bearer=True),
        SenderKey(file=tmp_path / "other"),
    )
    way = await make()
    way.door = open_door(b"k" * 32, senders, require_signature=True)
    data = snapped(body("x"))
    assert (await post(way, data, HEADERS | {"Authorization": f"Bearer {key}"}))[0] == 204
    for wrong in (other, "", (b"k" * 32).hex()):  # keys that must sign, and none
        status, text, headers = await post(way, data, HEADERS | {"Authorization": f"Bearer {wrong}"})
        assert (status, headers["WWW-Authenticate"]) == (401, "Bearer")
        assert "bearer" in text
    assert (await post(way, data, HEADERS))[0] == 401
    (frame,) = await way.logged("metrics")
    assert b"a7" in frame.message
    assert signing.key_id(bytes.fromhex(key)).encode() in frame.message
