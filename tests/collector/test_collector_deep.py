"""A value that nests deeper than protobuf reads costs what lies too deep in it, and nothing else of its request."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

import pytest
from google.protobuf.json_format import MessageToDict
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest, ExportLogsServiceResponse

from base.framed import varint
from collector.decode import Decoded, MalformedError, decode
from collector.sift import KINDS
from tests.kits import deep

if TYPE_CHECKING:
    from collections.abc import Callable

PLACES = [(signal, place) for signal, places in deep.PLACES.items() for place in places]


def take(signal: str, document: dict[str, Any], *, as_json: bool) -> Decoded:
    return decode(signal, deep.encode(signal, document, as_json=as_json), as_json=as_json, store_prompts=False)


def kept(signal: str, decoded: Decoded) -> str:
    """The text of the value that nested."""
    found: list[str] = []

    def look(item: Any) -> None:
        if isinstance(item, list):
            for one in item:
                look(one)
        elif isinstance(item, dict):
            if item.get("key") == "deep" or "body" in item:
                found.append(item.get("value", item.get("body"))["stringValue"])
            for one in item.values():
                look(one)

    look(MessageToDict(KINDS[signal].FromString(decoded.body)))
    return next(text for text in found if text != "beside")


def levels(text: str) -> int:
    return text.count("[") + text.count("{")


@pytest.mark.parametrize("as_json", [False, True], ids=["protobuf", "json"])
@pytest.mark.parametrize("nest", [deep.lists, deep.maps])
@pytest.mark.parametrize(("signal", "place"), PLACES)
def test_what_lies_too_deep_is_left_out_and_all_else_is_kept(
    signal: str, place: str, nest: Callable[[int], dict[str, Any]], *, as_json: bool
):
    decoded = take(signal, deep.request(signal, place, nest(60)), as_json=as_json)
    assert (decoded.records, decoded.refusal, decoded.cuts.count, decoded.scrubbed) == (2, None, 1, 0)
    if place == "metadata":  # the store has no column for it
        return
    text = kept(signal, decoded)
    assert json.loads(text)
    assert text.count("null") == 1
    assert "leaf" not in text
    assert levels(text) >= 28


@pytest.mark.parametrize("as_json", [False, True], ids=["protobuf", "json"])
@pytest.mark.parametrize(("nest", "deepest"), [(deep.lists, 48), (deep.maps, 32)])
def test_as_deep_as_protobuf_reads_a_value_is_whole(
    nest: Callable[[int], dict[str, Any]], deepest: int, *, as_json: bool
):
    whole = take("logs", deep.request("logs", "body", nest(deepest)), as_json=as_json)
    cut = take("logs", deep.request("logs", "body", nest(deepest + 1)), as_json=as_json)
    assert (whole.cuts.count, cut.cuts.count) == (0, 1)
    assert kept("logs", cut) == kept("logs", whole).replace('"leaf"', "null")
    assert (levels(kept("logs", whole)), whole.scrubbed) == (deepest, 0)


@pytest.mark.parametrize("depth", [100, 3000])
def test_json_may_be_deeper_than_any_parser_goes(depth: int):
    text = r'{"stringValue":"\"]}"}'
    for _ in range(depth):
        text = '{"arrayValue":{"values":[' + text + ',{"stringValue":"}"}]}}'
    records = '{"body":' + text + '},{"body":{"stringValue":"beside"}}'
    body = '{"resourceLogs":[{"scopeLogs":[{"logRecords":[' + records + "]}]}]}"
    decoded = decode("logs", body.encode(), as_json=True, store_prompts=False)
    assert (decoded.records, decoded.cuts.count) == (2, 1)
    assert kept("logs", decoded) == "[" * 48 + "null" + ',"}"]' * 48


def test_protobuf_may_be_deeper_than_any_parser_goes():
    value = b"\x0a\x04leaf"
    for _ in range(3000):
        value = delimited(b"\x2a", delimited(b"\x0a", value))
    records = delimited(b"\x12", delimited(b"\x2a", value)) + delimited(b"\x12", b"")
    body = delimited(b"\x0a", delimited(b"\x12", records))
    decoded = decode("logs", body, as_json=False, store_prompts=False)
    assert (decoded.records, decoded.cuts.count) == (2, 1)
    record = ExportLogsServiceRequest.FromString(decoded.body).resource_logs[0].scope_logs[0].log_records[0]
    assert record.body.string_value == "[" * 48 + "null" + "]" * 48


def delimited(tag: bytes, payload: bytes) -> bytes:
    return tag + varint(len(payload)) + payload


@given(st.binary(min_size=1, max_size=80), st.integers(0, 2000))
def test_what_is_no_request_is_refused_as_before(noise: bytes, at: int):
    body = deep.encode("logs", deep.request("logs", "body", deep.lists(60)), as_json=False)
    broken = body[:at] + noise + body[at:]
    try:
        decoded = decode("logs", broken, as_json=False, store_prompts=False)
    except MalformedError as error:
        assert str(error)  # noqa: PT017 - either way is right
    else:
        assert ExportLogsServiceRequest.FromString(decoded.body).ByteSize() >= 0


@pytest.mark.parametrize("body", [b'{"resourceLogs":' * 3000, b"[" * 100_000, b'{"a":"' + b'\\"' * 400_000])
def test_json_that_never_closes_is_refused_at_once(body: bytes):
    before = time.process_time()
    with pytest.raises(MalformedError, match="not JSON"):
        decode("logs", body, as_json=True, store_prompts=False)
    assert time.process_time() - before < 5


@pytest.mark.parametrize("as_json", [False, True], ids=["protobuf", "json"])
async def test_the_sender_is_told_and_it_is_counted(make: Callable[..., Any], *, as_json: bool):
    way = await make()
    body = deep.encode("logs", deep.request("logs", "body", deep.lists(60)), as_json=as_json)
    kind = "application/json" if as_json else "application/x-protobuf"
    status, answer, _ = await way.post(body, "logs", Content_Type=kind)
    assert status == 200
    if as_json:
        told = json.loads(answer)["partialSuccess"]
        assert set(told) == {"errorMessage"}
        text = told["errorMessage"]
    else:
        partial = ExportLogsServiceResponse.FromString(answer).partial_success
        assert partial.rejected_log_records == 0
        text = partial.error_message
    assert text.startswith("1 list or map lay more than 100 messages deep")
    assert b'servescope_collector_cut_values_total{signal="logs"} 1.0' in way.ledger.page()
    assert [frame.records for frame in await way.logged("logs")] == [2]
    assert way.books("logs")["rejected"] == 0
