from __future__ import annotations

import json
import os
import secrets
import time
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from agent.spool.framing import CHECKED, FOOTER_BYTES, seal
from agent.spool.reader import Lane, SpoolReader
from agent.spool.writer import SUFFIX, SpoolWriter
from base.framed import varint

if TYPE_CHECKING:
    from pathlib import Path

FIRST = f"{1:020d}-1"


def lane_of(tmp_path: Path, **options: float) -> Lane:
    return Lane(tmp_path / "tap" / "traces", "spool", **options)  # type: ignore[arg-type]


def sealed(tmp_path: Path, data: bytes, name: str = FIRST) -> None:
    folder = tmp_path / "tap" / "traces"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}{SUFFIX}").write_bytes(data)


def framed(*bodies: bytes) -> bytes:
    return b"".join(varint(len(body)) + body for body in bodies)


def test_a_batch_on_its_way_comes_back_unchanged_after_a_crash(tmp_path: Path):
    writer = SpoolWriter(tmp_path / "tap")
    writer.append("traces", b"a")
    first = lane_of(tmp_path).next_batch()
    writer.append("traces", b"b")  # would be merged if the plan were made anew
    again = lane_of(tmp_path)
    assert again.next_batch() == first
    assert first is not None
    again.acknowledge(first)
    after = again.next_batch()
    assert after is not None
    assert (after.body, after.batch_id != first.batch_id) == (b"b", True)


def _all_sent(lane: Lane) -> None:
    while (batch := lane.next_batch()) is not None:
        lane.acknowledge(batch)
    os.utime(lane.folder, ns=(10**9, 10**9))  # what has just changed may change again under the same time


def test_a_quiet_lane_is_not_looked_into_and_hears_of_each_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    writer, lane, looks, listdir = SpoolWriter(tmp_path / "tap"), lane_of(tmp_path), [0], os.listdir

    def look(path: Path) -> list[str]:
        looks[0] += 1
        return listdir(path)

    monkeypatch.setattr(os, "listdir", look)
    writer.append("traces", b"a")
    _all_sent(lane)
    looks[0] = 0
    assert [lane.next_batch() for _ in range(20)] == [None] * 20
    assert looks[0] == 1
    writer.append("traces", b"b")
    batch = lane.next_batch()
    assert batch is not None
    assert batch.body == b"b"
    lane.acknowledge(batch)
    _all_sent(lane)
    lane.next_batch()
    writer.close()  # which no time tells
    clock = time.monotonic
    monkeypatch.setattr(time, "monotonic", lambda: clock() + 10)
    assert lane.next_batch() is None
    assert not [name for name in listdir(lane.folder) if name.endswith(SUFFIX)]


def test_of_two_writers_the_earlier_is_heard_too(tmp_path: Path):
    writers, lane = [SpoolWriter(tmp_path / "tap") for _ in range(2)], lane_of(tmp_path)
    for writer in writers:
        writer.append("traces", b"a")
    _all_sent(lane)
    assert lane.next_batch() is None
    writers[0].append("traces", b"b")
    batch = lane.next_batch()
    assert batch is not None
    assert batch.body == b"b"


def test_a_state_that_the_disk_takes_a_part_of_leaves_the_one_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    writer, lane = SpoolWriter(tmp_path / "tap"), lane_of(tmp_path)
    writer.append("traces", b"a")
    batch = lane.next_batch()
    assert batch is not None
    write = os.write
    with monkeypatch.context() as full:
        full.setattr(os, "write", lambda descriptor, data: write(descriptor, data[:-2]))
        lane.acknowledge(batch)
    assert lane_of(tmp_path).next_batch() == batch


def test_an_acknowledged_batch_does_not_come_back(tmp_path: Path):
    writer = SpoolWriter(tmp_path / "tap")
    writer.append("traces", b"a")
    lane = lane_of(tmp_path)
    batch = lane.next_batch()
    assert batch is not None
    lane.acknowledge(batch)
    assert lane_of(tmp_path).next_batch() is None


def test_ids_differ_between_spools_and_signals(tmp_path: Path):
    ids = set()
    for spool_id, signal in (("one", "traces"), ("two", "traces"), ("one", "logs")):
        folder = tmp_path / "tap" / signal
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{FIRST}{SUFFIX}").write_bytes(framed(b"a"))
        (folder / "state.json").unlink(missing_ok=True)
        batch = Lane(folder, spool_id).next_batch()
        assert batch is not None
        ids.add(batch.batch_id)
    assert len(ids) == 3


@pytest.mark.parametrize("tail", [b"\x05ab", b"\x80", b"\x00" * 64, b"\xff" * 64])
def test_a_torn_or_damaged_tail_is_skipped_and_counted_once(tmp_path: Path, tail: bytes):
    sealed(tmp_path, framed(b"good") + tail)
    lane = lane_of(tmp_path)
    batch = lane.next_batch()
    assert batch is not None
    assert batch.body == b"good"
    lane.acknowledge(batch)
    assert lane.next_batch() is None
    assert lane.next_batch() is None
    assert lane.dropped == {"damaged": 1}
    assert not list(lane.folder.glob(f"*{SUFFIX}"))


def test_a_torn_tail_of_a_live_segment_is_waited_for(tmp_path: Path):
    writer = SpoolWriter(tmp_path / "tap")
    writer.append("traces", b"a")
    (segment,) = (tmp_path / "tap" / "traces").glob(f"*{SUFFIX}")
    with segment.open("ab") as file:
        file.write(seal(b"bc")[:5])
    lane = lane_of(tmp_path)
    batch = lane.next_batch()
    assert batch is not None
    lane.acknowledge(batch)
    assert lane.next_batch() is None
    with segment.open("ab") as file:
        file.write(seal(b"bc")[5:])
    batch = lane.next_batch()
    assert batch is not None
    assert batch.body == b"bc"


def test_a_batch_is_bounded_but_holds_one_record(tmp_path: Path):
    sealed(tmp_path, framed(b"x" * 400, b"y" * 400, b"z" * 5000, b"w"))
    lane = lane_of(tmp_path, max_batch_bytes=1000)
    sizes = []
    while (batch := lane.next_batch()) is not None:
        sizes.append(len(batch.body))
        lane.acknowledge(batch)
    assert sizes == [800, 5000, 1]


def test_a_refused_batch_is_halved_down_to_the_bad_record(tmp_path: Path):
    bodies = [b"g%d" % number for number in range(7)] + [b"BAD"] + [b"g%d" % number for number in range(7, 12)]
    sealed(tmp_path, framed(*bodies))
    lane = lane_of(tmp_path)
    taken = []
    for _ in range(40):
        batch = lane.next_batch()
        if batch is None:
            break
        if b"BAD" in batch.body:
            lane.refuse(batch)
        else:
            taken.append(batch.body)
            lane.acknowledge(batch)
    assert b"".join(taken) == b"".join(body for body in bodies if body != b"BAD")
    assert lane.dropped == {"rejected": 1}
    assert [path.read_bytes() for path in (lane.folder / "rejected").iterdir()] == [b"BAD"]


def test_new_data_flows_while_a_backlog_drains(tmp_path: Path):
    sealed(tmp_path, framed(*[b"old"] * 1000), name=FIRST)
    sealed(tmp_path, framed(b"new"), name=f"{time.time_ns():020d}-1")
    lane = lane_of(tmp_path, max_batch_bytes=30)
    early = []
    for _ in range(3):
        batch = lane.next_batch()
        assert batch is not None
        early.append(batch.body[-3:])
        lane.acknowledge(batch)
    assert b"new" in early


def test_above_the_bound_the_oldest_sealed_segments_go_and_are_counted(tmp_path: Path):
    now = time.time_ns()
    for number in range(4):
        sealed(tmp_path, framed(*[b"x" * 99] * 10), name=f"{now + number:020d}-1")
    lane = lane_of(tmp_path, max_bytes=2500)
    lane.trim()
    assert lane.dropped == {"full": 20}
    assert lane.pending_bytes() == 2000


def test_segments_past_their_age_go_and_are_counted(tmp_path: Path):
    sealed(tmp_path, framed(b"a", b"b"), name=FIRST)
    sealed(tmp_path, framed(b"c"), name=f"{time.time_ns():020d}-1")
    lane = lane_of(tmp_path)
    lane.trim()
    assert lane.dropped == {"old": 2}
    batch = lane.next_batch()
    assert batch is not None
    assert batch.body == b"c"


def test_a_live_segment_is_never_given_up(tmp_path: Path):
    writer = SpoolWriter(tmp_path / "tap")
    writer.append("traces", b"x" * 500)
    lane = lane_of(tmp_path, max_bytes=100)
    lane.trim()
    assert lane.dropped == {}


@pytest.mark.parametrize("text", ["", "{", "[]", '{"a": 1}', "null"])
def test_an_unreadable_state_sends_again_instead_of_losing(tmp_path: Path, text: str):
    sealed(tmp_path, framed(b"a"))
    (tmp_path / "tap" / "traces" / "state.json").write_text(text)
    batch = lane_of(tmp_path).next_batch()
    assert batch is not None
    assert batch.body == b"a"


def test_a_plan_whose_bytes_a_power_loss_took_is_made_anew(tmp_path: Path):
    sealed(tmp_path, framed(b"a", b"b"))
    planned = lane_of(tmp_path).next_batch()
    sealed(tmp_path, framed(b"a"))
    batch = lane_of(tmp_path).next_batch()
    assert batch is not None
    assert planned is not None
    assert (batch.body, batch.batch_id != planned.batch_id) == (b"a", True)


def test_a_full_disk_does_not_stop_the_sending(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    sealed(tmp_path, framed(b"a"))
    lane = lane_of(tmp_path)

    def full(*_arguments: object, **_options: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pathlib.Path.write_text", full)
    batch = lane.next_batch()
    assert batch is not None
    lane.acknowledge(batch)
    assert lane.next_batch() is None
    assert lane.delivered == 1


def test_the_removal_of_a_used_up_segment_survives_a_crash(tmp_path: Path):
    sealed(tmp_path, framed(b"a"))
    (tmp_path / "tap" / "traces" / "state.json").write_text(json.dumps({f"{FIRST}{SUFFIX}": [-1, 0, ""]}))
    assert lane_of(tmp_path).next_batch() is None
    assert not os.path.exists(tmp_path / "tap" / "traces" / f"{FIRST}{SUFFIX}")  # noqa: PTH110


def test_producers_that_come_later_are_found(tmp_path: Path):
    reader = SpoolReader(tmp_path)
    assert reader.lanes() == []
    SpoolWriter(tmp_path / "tap-b").append("logs", b"a")
    assert [(lane.producer, lane.signal) for lane in reader.lanes()] == [("tap-b", "logs")]
    reader.close()


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.binary(min_size=1, max_size=300), max_size=30), st.integers(min_value=0, max_value=400))
def test_any_cut_loses_at_most_the_torn_record(tmp_path_factory: pytest.TempPathFactory, bodies: list[bytes], cut: int):
    tmp_path = tmp_path_factory.mktemp("cut")
    whole = framed(*bodies)
    data = whole[: max(0, len(whole) - cut)]
    sealed(tmp_path, data)
    kept, position = [], 0
    for body in bodies:
        position += len(varint(len(body))) + len(body)
        if position <= len(data):
            kept.append(body)
    lane = lane_of(tmp_path, max_batch_bytes=500)
    taken = []
    while (batch := lane.next_batch()) is not None:
        taken.append(batch.body)
        lane.acknowledge(batch)
    assert b"".join(taken) == b"".join(kept)
    assert not list(lane.folder.glob(f"*{SUFFIX}"))


def checked(tmp_path: Path, data: bytes) -> None:
    sealed(tmp_path, data, FIRST + CHECKED)


def delivered(lane: Lane) -> list[bytes]:
    """Everything that comes, acknowledged batch by batch; each batch is asked for twice, as after a crash."""
    found = []
    while (batch := lane.next_batch()) is not None:
        assert lane_again(lane).next_batch() == batch
        found.append(batch.body)
        lane.acknowledge(batch)
    return found


def lane_again(lane: Lane) -> Lane:
    return Lane(lane.folder, "spool")


BODIES = st.lists(st.binary(min_size=1, max_size=300), min_size=1, max_size=6)


@given(BODIES, st.integers(0, 10**6), st.integers(1, 255))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=60)
def test_one_changed_byte_costs_its_record_at_most(tmp_path: Path, bodies: list[bytes], at: int, flip: int):
    records = [seal(body) for body in bodies]
    data = bytearray(b"".join(records))
    at %= len(data)
    data[at] ^= flip
    hit, start = 0, 0
    while start + len(records[hit]) <= at:
        start, hit = start + len(records[hit]), hit + 1
    width = len(records[hit]) - len(bodies[hit]) - FOOTER_BYTES
    lost = at - start >= width
    folder = tmp_path / secrets.token_hex()
    checked(folder, bytes(data))
    lane = lane_of(folder)
    assert b"".join(delivered(lane)) == b"".join(body for n, body in enumerate(bodies) if n != hit or not lost)
    assert sum(lane.dropped.values()) == lane.dropped["damaged"] == lost
    assert not list(lane.folder.glob(f"*{SUFFIX}"))


def test_a_torn_end_behind_whole_records_costs_itself_alone(tmp_path: Path):
    checked(tmp_path, seal(b"a") + seal(b"b" * 200)[:90])
    lane = lane_of(tmp_path)
    assert delivered(lane) == [b"a"]
    assert lane.dropped == {"damaged": 1}


def test_what_is_given_up_behind_damage_is_counted_to_the_record(tmp_path: Path):
    damaged = bytearray(seal(b"b" * 200))
    damaged[0] = 0xFF
    damaged[50] ^= 1
    checked(tmp_path, seal(b"a") + damaged + seal(b"c") + seal(b"d"))
    lane = lane_of(tmp_path, max_bytes=10)
    lane.trim()
    assert lane.dropped == {"full": 3}


def test_segments_of_an_older_version_are_read_as_they_were(tmp_path: Path):
    sealed(tmp_path, framed(b"a", b"b", seal(b"c")[1:]))
    assert delivered(lane_of(tmp_path)) == [b"ab" + seal(b"c")[1:]]


def test_any_protobuf_tool_reads_a_segment(tmp_path: Path):
    from google.protobuf.internal.decoder import _DecodeVarint  # noqa: PLC0415

    body = ExportTraceServiceRequest()
    body.resource_spans.add().scope_spans.add().spans.add(name="s")
    data = seal(body.SerializeToString())
    length, at = _DecodeVarint(data, 0)
    read = ExportTraceServiceRequest.FromString(data[at : at + length])
    assert read.resource_spans == body.resource_spans
    assert len(data) == at + length
