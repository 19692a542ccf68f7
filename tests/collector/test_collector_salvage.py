from __future__ import annotations

import errno
import os
import zlib
from typing import TYPE_CHECKING

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from collector import aside, framing
from collector.journal import Journal, identity
from collector.log.recovery import recover
from collector.log.write_ahead import WriteAheadLog

if TYPE_CHECKING:
    from pathlib import Path

BODIES = st.lists(st.one_of(st.binary(max_size=40), st.binary(min_size=90, max_size=400)), min_size=1, max_size=7)


def frames_of(bodies: list[bytes]) -> list[bytes]:
    return [
        framing.encode(body, records=1, digest=identity("traces", bytes([n]) + body), received_ns=1)
        for n, body in enumerate(bodies)
    ]


def whole(data: bytes) -> list[bytes]:
    found = list(framing.LAYOUT.pieces(data))
    assert [piece.start for piece in found] == [0, *(piece.end for piece in found)][: len(found)]
    assert not data or found[-1].end == len(data)
    return [piece.frame.message for piece in found if piece.frame is not None]


def messages(frames: list[bytes]) -> list[bytes]:
    return [frame[framing.LAYOUT.frame_end(frame, 0) - len(frame) + length_width(frame) :] for frame in frames]


def length_width(frame: bytes) -> int:
    return next(n for n, byte in enumerate(frame, 1) if byte < 0x80)


@given(BODIES, st.integers(0, 10**6), st.integers(1, 255))
@example([b"x" * 200] * 4, 0, 0x80)  # the length's width changes
@example([b"x"] * 6, 1, 1)  # equal frames: a wrong length may end where another frame does
def test_one_changed_byte_costs_its_request_at_most(bodies: list[bytes], at: int, flip: int):
    frames = frames_of(bodies)
    data = bytearray(b"".join(frames))
    at %= len(data)
    data[at] ^= flip
    start, hit = 0, 0
    while start + len(frames[hit]) <= at:
        start, hit = start + len(frames[hit]), hit + 1
    expected = messages(frames)
    if at - start >= length_width(frames[hit]):
        del expected[hit]
    assert whole(bytes(data)) == expected


@given(BODIES, st.integers(0, 10**6), st.integers(1, 60), st.binary(max_size=60))
def test_a_stretch_of_rubbish_costs_what_it_touches(bodies: list[bytes], at: int, width: int, rubbish: bytes):
    frames = frames_of(bodies)
    data = b"".join(frames)
    at %= len(data)
    changed = data[:at] + rubbish + data[at + width :]
    start = 0
    untouched = []
    for frame, message in zip(frames, messages(frames), strict=True):
        if start + len(frame) <= at or start >= at + width:
            untouched.append(message)
        start += len(frame)
    found = whole(changed)
    assert [message for message in found if message in untouched] == untouched


@given(st.lists(st.binary(max_size=60), max_size=3), st.binary(max_size=200))
def test_rubbish_without_end_is_a_tail(bodies: list[bytes], rubbish: bytes):
    frames = frames_of(bodies)
    found = list(framing.LAYOUT.pieces(b"".join(frames) + rubbish))
    assert [piece.frame.message for piece in found if piece.frame] == messages(frames)


def test_a_body_full_of_footers_does_not_take_for_ever():
    footer = frames_of([b""])[0][-34:]
    frames = frames_of([footer * 20_000, b"next"])
    data = bytearray(b"".join(frames))
    data[len(frames[0]) // 2] ^= 1
    assert whole(bytes(data)) == messages(frames)[1:]


def test_a_log_written_without_checksums_of_lengths_is_read():
    frame = frames_of([b"body"])[0]
    message = frame[length_width(frame) : -framing._CRC_BYTES]

    old = message + framing._CRC_OF_MESSAGE + zlib.crc32(message).to_bytes(4, "little")
    assert whole(framing.varint(len(old)) + old) == [old]


async def test_a_flipped_length_loses_nothing_and_a_flipped_body_is_kept_beside(tmp_path: Path):
    frames = frames_of([b"a" * 300, b"b" * 300, b"c" * 300, b"d" * 300])
    data = bytearray(b"".join(frames))
    data[len(frames[0])] ^= 4
    data[len(frames[0]) + len(frames[1]) + 50] ^= 4
    torn = b"\x7fabc"
    (tmp_path / "traces-1-a.seg").write_bytes(bytes(data) + torn)
    log = WriteAheadLog(tmp_path, Journal(tmp_path / "journal"), max_bytes=1 << 20, seal_bytes=1 << 20)
    recovered = log.start()
    await log.close()
    assert (recovered.mended, recovered.damaged, recovered.torn_bytes) == (1, 1, len(torn))
    assert [segment.records for segment in recovered.segments] == [3]
    assert (tmp_path / "traces-1-a.seg").read_bytes() == frames[0] + frames[1] + frames[3]
    start = len(frames[0]) + len(frames[1])
    assert (tmp_path / "damaged" / f"traces-1-a-{start}.damaged").read_bytes() == bytes(
        data[start : start + len(frames[2])]
    )
    assert (tmp_path / "damaged" / f"traces-1-a-{len(data)}.tail").read_bytes() == torn


def test_nothing_is_cut_before_it_is_synced_aside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    frames = frames_of([b"a" * 300, b"b" * 300])
    data = bytearray(b"".join(frames))
    data[100] ^= 4
    path = tmp_path / "traces-1-a.seg"
    path.write_bytes(bytes(data))
    (tmp_path / "traces-2-a.seg").write_bytes(frames[1])
    with monkeypatch.context() as patch:

        def refuse(descriptor: int) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        patch.setattr(os, "fsync", refuse)
        recovered = recover(tmp_path, lambda _: None)
        assert (recovered.postponed, [s.id for s in recovered.segments]) == (1, ["traces-2-a"])
        assert path.read_bytes() == bytes(data)
    assert [s.records for s in recover(tmp_path, lambda _: None).segments] == [1, 1]


def test_damaged_requests_are_never_given_up_for_room_and_tails_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(aside, "DAMAGED_MAX_BYTES", 1000)
    monkeypatch.setattr(aside, "TAILS_MAX_BYTES", 1000)
    kept = aside.Aside(tmp_path / "damaged")
    kept.put("a.damaged", bytes(900))
    with pytest.raises(aside.AsideError, match="move them away"):
        kept.put("b.damaged", bytes(200))
    for number in range(5):
        kept.put(f"{number}.tail", bytes(400))
        os.utime(tmp_path / "damaged" / f"{number}.tail", (number, number))
    assert sorted(path.name for path in (tmp_path / "damaged").iterdir()) == ["3.tail", "4.tail", "a.damaged"]
