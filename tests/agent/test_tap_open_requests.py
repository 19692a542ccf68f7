"""The table of open requests: what a process that is gone has left becomes one row each, and only what has none."""

from __future__ import annotations

import fcntl
import os
import secrets
from typing import TYPE_CHECKING

from agent.otlp.request import time_coded_span_id
from agent.otlp.request_wire import to_otlp
from agent.spool.writer import SpoolWriter
from agent.tap.open_requests import FOLDER, KILLED, TABLE, OpenRequest, OpenRequests, find_left, settle
from base.vocabulary import Edge, Outcome
from tests.kits.tap import answer, attribute, one, post, replying, spooled, tap

if TYPE_CHECKING:
    from pathlib import Path

START = 1_700_000_000_000_000_000


def request(number: int = 0, **fields: object) -> OpenRequest:
    known = {
        "span_id": time_coded_span_id(START, number),
        "trace_id": secrets.token_bytes(16),
        "parent_span_id": b"",
        "flags": 1,
        "start_ns": START + number,
        "method": "POST",
        "route": "/v1/completions",
        "operation": "text_completion",
        "declared": "",
        "key": "v1:abc",
        "request_id": f"r{number}",
    }
    return OpenRequest(**known | fields)  # type: ignore[arg-type]


def die(opened: OpenRequests) -> None:
    """What the kernel does of a killed process: it lets go of the lock."""
    fcntl.flock(opened._lock, fcntl.LOCK_UN)


def folder_of(tmp_path: Path) -> Path:
    return tmp_path / "tap-one"


async def settled(tmp_path: Path) -> list[object]:
    folder = folder_of(tmp_path)
    async with tap(1) as served:
        own = OpenRequests(folder, 4)
        spool = SpoolWriter(folder, begun=lambda _, path: own.link(path))
        await settle(folder, served.core, {"service.instance.id": "one"}, lambda body: spool.append("traces", body))
        spool.close()
        own.close()
    return spooled(tmp_path)


async def test_what_a_dead_process_left_open_is_recorded_once(tmp_path: Path):
    opened = OpenRequests(folder_of(tmp_path), 8)
    for number in range(4):
        opened.begin(request(number, parent_span_id=b"p" * 8 if number else b""))
    named = request(9, declared="team a", key="")
    opened.begin(named)
    opened.name_model(named.span_id, "tiny" * 100)
    opened.name_model(b"no such.", "tiny")
    done = request(10)
    opened.begin(done)
    opened.done(done.span_id)
    opened.done(done.span_id)
    opened.beat()
    die(opened)
    for _ in range(2):
        spans = await settled(tmp_path)
        assert sorted(attribute(s, Edge.REQUEST_ID) for s in spans) == ["r0", "r1", "r2", "r3", "r9"]
    by_id = {attribute(s, Edge.REQUEST_ID): s for s in spans}
    span = by_id["r9"]
    assert attribute(span, Edge.OUTCOME) == Outcome.SERVER_ERROR
    assert attribute(span, Edge.ERROR_TYPE) == KILLED
    assert attribute(span, Edge.TENANT) == "team a"
    assert ("tiny" * 100).startswith(attribute(span, Edge.REQUEST_MODEL))
    assert attribute(by_id["r1"], Edge.TENANT) == "v1:abc"
    assert (by_id["r0"].parent_span_id, by_id["r1"].parent_span_id) == (b"", b"p" * 8)
    assert span.start_time_unix_nano == named.start_ns
    assert span.end_time_unix_nano > named.start_ns
    assert not list((folder_of(tmp_path) / FOLDER).iterdir())


async def test_a_request_whose_record_was_written_is_not_recorded_again(tmp_path: Path):
    _, record = await one(replying(answer(b"{}")), post())
    opened = OpenRequests(folder_of(tmp_path), 8)
    spool = SpoolWriter(folder_of(tmp_path), begun=lambda _, path: opened.link(path), segment_bytes=1)
    opened.begin(request(1))
    opened.begin(request(2, span_id=record.span_id))
    assert spool.append("traces", to_otlp(record, {}))
    assert spool.append("traces", to_otlp(record, {}).replace(record.span_id, b"another1"))  # the next segment
    spool.close()
    for segment in folder_of(tmp_path).glob("traces/*.seg"):
        segment.unlink()  # its reader was done with it
    die(opened)
    spans = await settled(tmp_path)
    assert [attribute(s, Edge.REQUEST_ID) for s in spans] == ["r1"]


async def test_a_kill_right_after_settling_repeats_nothing(tmp_path: Path):
    folder = folder_of(tmp_path)
    first = OpenRequests(folder, 4)
    first.begin(request(1))
    die(first)
    (left,) = find_left(folder)
    left.release()
    second = OpenRequests(folder, 4)
    spool = SpoolWriter(folder, begun=lambda _, path: second.link(path))
    async with tap(1) as served:
        # As settle() does, but for the removal, before which its process is killed.
        await settle(folder, served.core, {}, lambda body: bool(spool.append("traces", body)) and False)
    assert len(spooled(tmp_path)) == 1
    die(second)
    assert len(await settled(tmp_path)) == 1


def test_a_living_process_is_left_alone(tmp_path: Path):
    opened = OpenRequests(folder_of(tmp_path), 4)
    opened.begin(request())
    assert find_left(folder_of(tmp_path)) == []
    opened.close()
    assert find_left(folder_of(tmp_path)) == []


def test_more_requests_than_slots_and_odd_texts_fit(tmp_path: Path):
    opened = OpenRequests(folder_of(tmp_path), 2)
    for number in range(5):
        opened.begin(request(number, request_id="é" * 2_000, model="x" * 900))
    assert len(opened) == 5
    assert opened.oldest_seconds(START + 3_000_000_000) == 3.0
    die(opened)
    (left,) = find_left(folder_of(tmp_path))
    assert len(left.requests) == 2
    for number in range(5):
        opened.done(request(number).span_id)
    left.release()


def test_a_table_that_is_damaged_or_half_made_is_cleared_away(tmp_path: Path):
    folder = folder_of(tmp_path) / FOLDER
    for name, content in (("a", b""), ("b", b"\xff" * 5_000), ("c", os.urandom(40_000))):
        (folder / name).mkdir(parents=True)
        (folder / name / TABLE).write_bytes(content)
    (folder / "d").mkdir()
    os.utime(folder / "d", (0, 0))
    for left in find_left(folder_of(tmp_path)):
        assert not left.requests
        left.remove()
        left.release()
    assert not list(folder.iterdir())


async def test_without_room_for_the_table_requests_are_served(tmp_path: Path):
    (tmp_path / "tap-one").write_text("a file, not a folder")
    opened = OpenRequests(folder_of(tmp_path), 4)
    opened.begin(request())
    assert len(opened) == 1
    opened.done(request().span_id)
    opened.close()
