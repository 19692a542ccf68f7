"""However the bytes are cut, the client gets the same bytes and the record is the same."""

from __future__ import annotations

import gzip
import itertools
import json
import zlib
from unittest.mock import patch

from hypothesis import given, settings
from hypothesis import strategies as st

from agent.tap.framing import ChunkedBody, LengthBody
from agent.tap.gaps import EXACT_GAPS, Gaps
from agent.tap.head import HttpFault, parse_response
from agent.tap.observe import AnswerWatch
from agent.tap.sse import MAX_EVENT_BYTES, SseSplitter
from tests.kits.tap import DONE, chunked, event

ERROR = b'data: {"error":{"type":"Boom"}}\n\n'
PIECES = [
    event("a"),
    event("b", "stop"),
    event(""),
    DONE,
    ERROR,
    b": ping\n\n",
    b"\n",
    b"data: {\n\n",
    b"data: one\ndata: two\n\n",
    b"event: error\ndata: {}\n\n",
    b"id: 1\nretry: 5\n\n",
    b'data: {"choices":[],"usage":{"prompt_tokens":2,"completion_tokens":4}}\n\n',
    b'data: {"model_name":"m","word":"x"}\n\n',
    b"data: [DONE]",
    b"data",
]
ENDS = [b"\n", b"\r\n", b"\r"]


def cut(data: bytes, cuts: list[int]) -> list[bytes]:
    places = sorted({0, len(data), *(c % (len(data) + 1) for c in cuts)})
    return [data[a:b] for a, b in itertools.pairwise(places)]


def watch(data: list[bytes], *fields: bytes) -> tuple[object, ...]:
    head = b"\r\n".join([b"HTTP/1.1 200 OK", b"content-type: text/event-stream", *fields, b"", b""])
    seen = AnswerWatch(parse_response(head))
    for n, piece in enumerate(data):
        seen.feed([piece], float(n))
    seen.finish()
    return seen.facts, seen.gaps.count, seen.size, seen.ended_at, seen.has_content


@given(
    st.lists(st.sampled_from(PIECES), max_size=12), st.sampled_from(ENDS), st.lists(st.integers(0, 10_000), max_size=30)
)
@settings(max_examples=400, deadline=None)
def test_stream_facts_do_not_depend_on_the_cuts(pieces: list[bytes], line_end: bytes, cuts: list[int]):
    data = b"".join(pieces).replace(b"\n", line_end)
    whole = watch([data])
    assert watch(cut(data, cuts)) == whole
    assert watch([data[n : n + 1] for n in range(len(data))]) == whole


@given(st.lists(st.sampled_from(PIECES), max_size=8), st.lists(st.integers(0, 10_000), max_size=10))
def test_packed_stream_facts_do_not_depend_on_the_cuts(pieces: list[bytes], cuts: list[int]):
    data = gzip.compress(b"".join(pieces))
    packed = b"content-encoding: gzip"
    facts, gaps, *_ = watch([data], packed)
    assert watch(cut(data, cuts), packed)[:2] == (facts, gaps)
    assert (facts, gaps) == watch([b"".join(pieces)])[:2]


@given(st.binary(max_size=400), st.lists(st.integers(0, 500), max_size=10))
def test_any_bytes_can_be_watched(data: bytes, cuts: list[int]):
    for kind in (b"text/event-stream", b"application/json", b"application/octet-stream"):
        for more in (b"", b"content-encoding: gzip\r\n", b"inference-header-content-length: 7\r\n"):
            head = b"HTTP/1.1 500 OK\r\ncontent-type: " + kind + b"\r\n" + more + b"\r\n"
            seen = AnswerWatch(parse_response(head))
            for piece in cut(data, cuts):
                seen.feed([piece], 0.0)
            seen.finish()
            assert seen.size == len(data)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                [
                    "id",
                    "model",
                    "choices",
                    "delta",
                    "text",
                    "usage",
                    "error",
                    "type",
                    "index",
                    "finish_reason",
                    "code",
                    "message",
                    "prompt_tokens",
                    "completion_tokens",
                    "prompt_tokens_details",
                    "cached_tokens",
                    "response",
                    "object",
                    "tokens_predicted",
                    "stop",
                    "stop_reason",
                ]
            ),
            inner,
            max_size=5,
        )
    ),
    max_leaves=12,
)


@given(JSON, st.sampled_from(["", "message_start", "message_delta", "response.completed", "response.failed", "error"]))
def test_any_json_can_be_read(value: object, kind: str):
    if isinstance(value, dict) and kind:
        value["type"] = kind
    data = b"data: " + json.dumps(value).encode() + b"\n\n"
    facts = watch([data])[0]
    assert facts.usage.prompt is None or facts.usage.prompt >= 0


@given(
    st.lists(st.binary(min_size=1, max_size=40), max_size=6),
    st.lists(st.integers(0, 400), max_size=20),
    st.binary(max_size=9),
)
def test_chunks_do_not_depend_on_the_cuts(pieces: list[bytes], cuts: list[int], after: bytes):
    raw = chunked(*pieces)[:-2] + b"X-T: y\r\n\r\n"
    reader = ChunkedBody()
    taken = 0
    payload = b""
    for piece in cut(raw + after, cuts):
        if reader.done:
            break
        count, parts = reader.feed(piece)
        taken += count
        payload += b"".join(parts)
    assert reader.done
    assert taken == len(raw)
    assert payload == b"".join(pieces)


@given(st.binary(max_size=200), st.lists(st.integers(0, 200), max_size=10))
def test_any_bytes_as_chunks_end_alike(data: bytes, cuts: list[int]):
    def run(pieces: list[bytes]) -> object:
        reader = ChunkedBody()
        payload = b""
        try:
            for piece in pieces:
                payload += b"".join(reader.feed(piece)[1])
        except HttpFault as fault:
            return fault.status
        return reader.done, payload

    assert run(cut(data, cuts)) == run([data])


def test_length_body_takes_no_more_than_its_own():
    reader = LengthBody(5)
    assert reader.feed(b"abc") == (3, [b"abc"])
    assert not reader.done
    assert reader.feed(b"defg") == (2, [b"de"])
    assert reader.done


def test_endless_event_is_bounded_and_counted_once():
    splitter = SseSplitter()
    for _ in range(100):
        assert splitter.feed(b"data: " + b"x" * 10_000) == []
        assert len(splitter._buffer) <= MAX_EVENT_BYTES
    events = splitter.feed(b"\n\n" + event("a"))
    assert [e.data is None for e in events] == [True, False]
    assert events[-1].end == 100 * 10_006 + 2 + len(event("a"))


@given(st.lists(st.floats(1e-5, 100), min_size=1, max_size=2_500))
@settings(max_examples=30)
def test_gaps_are_exact_then_within_one_percent(values: list[float]):
    gaps = Gaps()
    for value in values:
        gaps.add(value)
    ranked = sorted(values)
    for share in (0.5, 0.99):
        exact = ranked[max(1, -(-len(values) * round(share * 100) // 100)) - 1]
        allowed = 0.0 if len(values) <= EXACT_GAPS else 0.0101
        assert abs(gaps.quantile(share) - exact) <= allowed * exact
    assert gaps.longest == ranked[-1]
    assert gaps.count == len(values)


def test_gaps_stay_small_however_many():
    gaps = Gaps()
    for n in range(200_000):
        gaps.add(1e-6 * 1.0001**n)
    assert len(gaps._recent) <= EXACT_GAPS
    assert len(gaps._buckets) <= 1_300


TEXTS = st.sampled_from(["a", "", '\\"', '","finish_reason":"stop"', "\\u00e9", "é", "}", "\\\\", '","x":"', "b c"])
SHAPES = st.sampled_from(
    [
        '{"id":"1","choices":[{"index":0,"text":"%s","finish_reason":null}]}',
        '{"id":"1","choices":[{"index":0,"text":"%s","finish_reason":"length"}]}',
        '{"id":"2","choices":[{"index":0,"delta":{"content":"%s"}}]}',
        '{"id":"2","choices":[{"index":0,"delta":{"role":"a","content":"%s"}}],"usage":{"completion_tokens":3}}',
        '{"choices":[{"text":"%s"},{"text":"b"}]}',
        '{"error":"","content":"%s"}',
        '{"error":{"content":"%s"}}',
        '{"model_name":"m","text":"%s"}',
        '["text","%s"]',
    ]
)


@given(st.lists(st.tuples(SHAPES, TEXTS), max_size=12))
@settings(max_examples=400)
def test_events_that_look_like_the_last_one_say_what_parsing_says(events: list[tuple[str, str]]):
    data = b"".join(b"data: " + (shape % text).encode() + b"\n\n" for shape, text in events)
    quick = watch([data])
    with patch("agent.tap.observe.likeness", return_value=None):
        assert watch([data]) == quick


FRAMES = st.sampled_from(
    [
        "data: %s\n\n",
        "data:%s\r\n\r\n",
        "event: content_block_delta\ndata: %s\n\n",
        "event: error\ndata: %s\n\n",
        ": note\ndata: %s\nid: 1\n\n",
        "data: %s\n",
        "\ndata: %s\n\n",
        "data: %s\r\r",
        "data: [\ndata: %s]\n\n",
        "error: %s\n\n",
        "data: [DONE]\n\ndata: %s\n\n",
    ]
)


@given(st.lists(st.tuples(FRAMES, SHAPES, TEXTS, st.integers(1, 3)), max_size=8))
@settings(max_examples=600, deadline=None)
def test_pieces_that_look_like_the_last_one_say_what_reading_them_says(pieces: list[tuple[str, str, str, int]]):
    data = [(frame % (shape % text)).encode() for frame, shape, text, times in pieces for _ in range(times)]
    quick = watch(data)
    with patch("agent.tap.observe.Likeness.within", return_value=None):
        assert watch(data) == quick


def test_a_piece_with_another_text_is_not_split_again():
    seen = AnswerWatch(parse_response(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n"))
    seen.feed([event("one")], 1.0)
    with patch.object(SseSplitter, "feed", side_effect=AssertionError):
        seen.feed([event("two"), event("three")], 3.0)
    assert (seen.facts.content_chunks, seen.gaps.count, seen.gaps.total) == (3, 2, 2.0)


LINES = [b"5", b"05", b"0x5", b"+5", b" 5", b"5 ", b"5_0", b"5;a=b", b"A", b"a", b"1F", b"1f", b"", b"0", b"-1"]


@given(st.lists(st.tuples(st.sampled_from(LINES), st.sampled_from([5, 10, 31, 0, 256])), min_size=1, max_size=3))
@settings(max_examples=400)
def test_chunks_that_come_whole_are_read_as_chunks_that_come_in_bytes(chunks: list[tuple[bytes, int]]):
    pieces = [line + b"\r\n" + b"x" * size + b"\r\n" for line, size in chunks]
    pieces += [b"%x\r\n%s\r\n" % (n, b"\n" * n) for n in (1, 15, 16, 255, 256, 4_096)]

    def read(parts: list[bytes]) -> tuple[object, ...]:
        reader = ChunkedBody()
        payload = b""
        try:
            for part in parts:
                consumed, found = reader.feed(part)
                payload += b"".join(found)
                if consumed < len(part):
                    break
        except HttpFault as fault:
            return "refused", fault.reason
        return payload, reader.done

    whole = b"".join(pieces)
    assert read(pieces) == read([whole[n : n + 1] for n in range(len(whole))])


def test_a_packed_stream_of_several_members_is_one_stream():
    parts = [event("a"), event("b", "stop"), DONE]
    packed = [gzip.compress(part) for part in parts]
    facts = watch(parts)[0]
    assert watch(packed, b"content-encoding: gzip")[0] == facts
    assert watch([b"".join(packed)], b"content-encoding: gzip")[0] == facts
    assert watch([bytes([byte]) for byte in b"".join(packed)], b"content-encoding: gzip")[0] == facts


def test_deflate_is_read_with_and_without_its_wrapper():
    parts = [event("a"), event("b", "stop"), DONE]
    for bits in (15, -15):
        engine = zlib.compressobj(wbits=bits)
        packed = [engine.compress(part) + engine.flush(zlib.Z_SYNC_FLUSH) for part in parts]
        assert watch(packed, b"content-encoding: deflate")[:2] == watch(parts)[:2], bits
    packed = [bytes([byte]) for byte in zlib.compress(b"".join(parts))]
    assert watch(packed, b"content-encoding: deflate")[0] == watch(parts)[0]
