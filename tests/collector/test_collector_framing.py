from __future__ import annotations

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from collector import framing
from collector.auth import Sender
from tests.kits.collector_process import spans

DIGEST = bytes(range(16))
SENDER = Sender("k1", "t", "192.0.2.1")


def encode(body: bytes, batch: str = "b", sender: Sender = SENDER, records: int = 3) -> bytes:
    return framing.encode(body, records=records, digest=DIGEST, received_ns=7, batch=batch, sender=sender)


@given(st.lists(st.binary(max_size=300), max_size=8), st.text("abc-1", max_size=64))
def test_frames_come_back_in_order(bodies: list[bytes], batch: str):
    data = b"".join(encode(body, batch) for body in bodies)
    frames = list(framing.read(io.BytesIO(data)))
    assert [f.message[: len(b)] for f, b in zip(frames, bodies, strict=True)] == bodies
    assert all(f.intact and f.records == 3 and f.digest == DIGEST for f in frames)
    assert (frames[-1].end if frames else 0) == len(data)


@given(st.binary(min_size=1, max_size=200), st.data())
def test_any_changed_byte_of_a_message_is_noticed(body: bytes, data: st.DataObject):
    frame = bytearray(encode(body))
    at = data.draw(st.integers(2, len(frame) - 1))
    frame[at] ^= data.draw(st.integers(1, 255))
    assert not any(f.intact for f in framing.read(io.BytesIO(bytes(frame))))


@given(st.integers(0, 399))
def test_a_torn_frame_ends_the_reading(cut: int):
    whole = encode(b"x" * 100)
    torn = encode(b"y" * 300)
    data = whole + torn[: min(cut, len(torn) - 1)]
    frames = list(framing.read(io.BytesIO(data)))
    assert [f.end for f in frames] == [len(whole)]


def test_the_message_is_an_otlp_request_with_columns_appended():
    body = spans(0, 2)
    frame = next(
        framing.read(io.BytesIO(encode(body, batch="batch-1", sender=Sender("0badc0de", "a7", "2001:db8::1"))))
    )
    request = ExportTraceServiceRequest.FromString(frame.message)
    request.DiscardUnknownFields()
    assert request.SerializeToString() == body
    assert b"batch-1" in frame.message
    for part in (b"a7", b"0badc0de", b"2001:db8::1"):
        assert part in frame.message


def test_a_repaired_body_keeps_its_columns():
    first = next(framing.read(io.BytesIO(encode(spans(0, 2), batch="batch-1", records=2))))
    again = next(framing.read(io.BytesIO(framing.reframe(spans(5, 1), first.message))))
    assert again.intact
    assert again.digest == DIGEST
    assert again.records == 2
    assert framing.columns_of(again.message)[:-4] == framing.columns_of(first.message)[:-4]


def test_a_frame_of_an_older_log_keeps_its_columns_too():
    (frame,) = framing.read(io.BytesIO(encode(spans(0, 2), records=2)))
    columns = framing.columns_of(frame.message)
    sender = b"".join(
        framing.varint(number << 3 | 2) + b"%c%s" % (len(text), text)
        for number, text in ((15007, b"k1"), (15008, b"192.0.2.1"))
    )
    assert sender in columns
    without = frame.message.replace(sender, b"")
    assert framing.columns_of(without) == columns.replace(sender, b"")


def test_columns_of_a_foreign_message():
    with pytest.raises(ValueError, match="own fields"):
        framing.columns_of(b"x" * 100)


def test_a_zeroed_tail_is_no_request():
    data = encode(b"x") + bytes(64)
    frames = list(framing.read(io.BytesIO(data)))
    assert [f.intact for f in frames] == [True] + [False] * 64
