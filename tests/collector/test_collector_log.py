from __future__ import annotations

import asyncio
import errno
import os
import time
from typing import TYPE_CHECKING

import pytest

from base.signing import REPLAYED
from collector import framing
from collector.journal import Journal, identity
from collector.log.admission import LogFullError
from collector.log.write_ahead import WriteAheadLog

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

MIB = 1 << 20


def frame(text: str, records: int = 1) -> tuple[bytes, int, bytes]:
    digest = identity("traces", text.encode())
    return framing.encode(text.encode(), records=records, digest=digest, received_ns=1), records, digest


def make(folder: Path, **bounds: int) -> WriteAheadLog:
    return WriteAheadLog(folder, Journal(folder / "journal"), **({"max_bytes": MIB, "seal_bytes": MIB} | bounds))


def sizes(folder: Path) -> list[int]:
    return [path.stat().st_size for path in sorted(folder.glob("*.seg"))]


@pytest.fixture
async def log(tmp_path: Path) -> AsyncIterator[WriteAheadLog]:
    made = make(tmp_path)
    made.start()
    yield made
    await made.close()


async def test_appended_frames_are_one_segment_in_order(log: WriteAheadLog):
    for number in range(5):
        await log.append("traces", *frame(f"body-{number}", records=2))
    assert log.pending("traces") == 10
    segment = await log.take("traces", seal_seconds=lambda: 0)
    with segment.path.open("rb") as file:
        found = list(framing.read(file))
    assert [f.message[:6] for f in found] == [f"body-{n}".encode() for n in range(5)]
    assert (segment.records, segment.bodies, segment.bytes) == (10, 5, segment.path.stat().st_size)
    log.finished(segment)
    assert log.pending("traces") == 0
    await log.unlink([segment])
    assert not segment.path.exists()
    assert log.bytes == 0


async def test_a_segment_waits_visibly_while_it_is_sealed(log: WriteAheadLog, monkeypatch: pytest.MonkeyPatch):
    await log.append("traces", *frame("body"))
    loop = asyncio.get_running_loop()
    real, seen = loop.call_soon_threadsafe, []
    monkeypatch.setattr(loop, "call_soon_threadsafe", lambda *call: (seen.append(log.segments()), real(*call))[1])
    await log.seal_all()
    assert min(seen) == 1
    assert log.segments() == 1


async def test_a_segment_counts_while_the_loop_has_not_heard_that_it_is_sealed(log: WriteAheadLog):
    await log.append("traces", *frame("body"))
    sealing = asyncio.create_task(log.seal_all())
    await asyncio.sleep(0)
    time.sleep(0.2)  # noqa: ASYNC251 - the thread goes on, the loop hears nothing
    assert log.segments() == 1
    await sealing


async def test_waiting_requests_share_a_sync(log: WriteAheadLog, monkeypatch: pytest.MonkeyPatch):
    syncs = []
    real = os.fdatasync
    monkeypatch.setattr(os, "fdatasync", lambda fd: (syncs.append(fd), real(fd)))
    await asyncio.gather(*(log.append("logs", *frame(f"{n}")) for n in range(200)))
    assert 1 <= len(syncs) < 200


async def test_acknowledged_means_written_and_synced(
    log: WriteAheadLog, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    events: list[str] = []
    real = os.fdatasync
    monkeypatch.setattr(os, "fdatasync", lambda fd: (real(fd), events.append("synced")))
    await log.append("traces", *frame("a"))
    events.append("acknowledged")
    assert events == ["synced", "acknowledged"]
    assert sum(sizes(tmp_path)) == len(frame("a")[0])


async def test_a_segment_is_sealed_by_size_and_never_grows_beyond(tmp_path: Path):
    log = make(tmp_path, seal_bytes=1000)
    log.start()
    for number in range(10):
        await log.append("traces", *frame(f"{number}" * 300))
    assert len(sizes(tmp_path)) == 5
    assert max(sizes(tmp_path)) <= 1000
    await log.close()


async def test_take_waits_for_age_but_not_for_more(log: WriteAheadLog):
    waiting = asyncio.create_task(log.take("metrics", seal_seconds=lambda: 0.2))
    await asyncio.sleep(0.01)
    assert not waiting.done()
    await log.append("metrics", *frame("a"))
    segment = await asyncio.wait_for(waiting, 30)
    assert segment.records == 1
    assert await log.take("metrics", seal_seconds=lambda: 60) is segment


async def test_a_segment_goes_when_it_may_no_longer_wait(log: WriteAheadLog):
    longest = 600.0
    waiting = asyncio.create_task(log.take("metrics", seal_seconds=lambda: longest))
    await log.append("metrics", *frame("a"))
    await asyncio.sleep(0.05)
    assert not waiting.done()
    longest = 0.0
    log.reconsider()
    assert (await asyncio.wait_for(waiting, 30)).records == 1


async def test_the_bound_refuses_and_gives_way_again(tmp_path: Path):
    log = make(tmp_path, max_bytes=2000)
    log.start()
    await log.append("traces", *frame("x" * 1500))
    with pytest.raises(LogFullError, match="bound"):
        await log.append("traces", *frame("y" * 1500))
    segment = await log.take("traces", seal_seconds=lambda: 0)
    log.finished(segment)
    await log.unlink([segment])
    await log.append("traces", *frame("y" * 1500))
    await log.close()


async def test_a_request_that_the_disk_refused_takes_no_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    log = make(tmp_path, max_bytes=2000)
    log.start()
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", full)
        for _ in range(3):
            with pytest.raises(LogFullError, match="disk"):
                await log.append("traces", *frame("x" * 1500))
    await log.append("traces", *frame("x" * 1500))
    await log.close()


async def test_a_full_disk_leaves_no_torn_frame(log: WriteAheadLog, monkeypatch: pytest.MonkeyPatch):
    await log.append("traces", *frame("first"))
    real = os.write

    def half(descriptor: int, data: bytes) -> int:
        if len(data) > 40:
            return real(descriptor, data[:20])
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", half)
        with pytest.raises(LogFullError, match="disk"):
            await log.append("traces", *frame("lost"))
    await log.append("traces", *frame("second"))
    segment = await log.take("traces", seal_seconds=lambda: 0)
    with segment.path.open("rb") as file:
        found = list(framing.read(file))
    assert [(f.intact, f.message[:5]) for f in found] == [(True, b"first"), (True, b"secon")]
    assert found[-1].end == segment.path.stat().st_size == segment.bytes


async def test_a_failing_sync_is_no_acknowledgement(
    log: WriteAheadLog, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    def broken(_: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fdatasync", broken)
        with pytest.raises(LogFullError, match="disk"):
            await log.append("traces", *frame("a"))
    assert log.pending("traces") == 0
    assert sizes(tmp_path) == [0]


async def test_replaced_segments_take_their_parents_place(log: WriteAheadLog):
    for text in ("a", "b"):
        await log.append("traces", *frame(text))
    parent = await log.take("traces", seal_seconds=lambda: 0)
    await log.append("traces", *frame("later"))
    await log.replace(parent, [(f"{parent.id}-0", [frame("a")[0]]), (f"{parent.id}-1", [frame("b")[0]])])
    assert not parent.path.exists()
    assert log.pending("traces") == 3
    order = []
    for _ in range(3):
        segment = await log.take("traces", seal_seconds=lambda: 0)
        order.append(segment.id.removeprefix(parent.id))
        log.finished(segment)
        await log.unlink([segment])
    assert order[:2] == ["-0", "-1"]
    assert (log.pending("traces"), log.bytes) == (0, 0)


async def test_restart_finds_what_was_acknowledged(tmp_path: Path):
    log = make(tmp_path)
    log.start()
    await log.append("traces", *frame("a", records=4))
    await log.append("metrics", *frame("m", records=2))
    await log.close()
    size = sum(sizes(tmp_path))

    journal = Journal(tmp_path / "journal")
    again = WriteAheadLog(tmp_path, journal, max_bytes=MIB, seal_bytes=MIB)
    recovered = again.start()
    assert sorted((s.signal, s.records) for s in recovered.segments) == [("metrics", 2), ("traces", 4)]
    assert (again.pending("traces"), again.bytes) == (4, size)
    assert identity("traces", b"a") in journal
    assert (await again.take("traces", seal_seconds=lambda: 60)).records == 4
    await again.close()


@pytest.mark.parametrize("tail", [b"\x80", b"\x7fabc", bytes(50), frame("torn" * 20)[0][:-1], b"\xff" * 9])
async def test_a_torn_tail_is_cut(tmp_path: Path, tail: bytes):
    path = tmp_path / "traces-1-a.seg"
    path.write_bytes(frame("a")[0] + frame("b")[0] + tail)
    log = make(tmp_path)
    recovered = log.start()
    await log.close()
    assert recovered.torn_bytes == len(tail)
    assert recovered.damaged == 0
    assert path.read_bytes() == frame("a")[0] + frame("b")[0]


async def test_a_damaged_request_is_set_aside_and_its_neighbours_stay(tmp_path: Path):
    path = tmp_path / "traces-1-a.seg"
    bad = bytearray(frame("middle")[0])
    bad[3] ^= 1
    path.write_bytes(frame("a")[0] + bytes(bad) + frame("b")[0])
    log = make(tmp_path)
    recovered = log.start()
    await log.close()
    assert recovered.damaged == 1
    assert path.read_bytes() == frame("a")[0] + frame("b")[0]
    assert [p.read_bytes() for p in (tmp_path / "damaged").iterdir()] == [bytes(bad)]


async def test_an_empty_or_wholly_torn_segment_goes(tmp_path: Path):
    (tmp_path / "traces-1-a.seg").write_bytes(b"")
    (tmp_path / "traces-2-a.seg").write_bytes(b"\x7fzz")
    log = make(tmp_path)
    assert log.start().segments == []
    await log.close()
    assert sizes(tmp_path) == []


def test_journal_survives_a_restart_and_a_torn_write(tmp_path: Path):
    journal = Journal(tmp_path)
    taken = [identity("traces", f"{n}".encode()) for n in range(3)]
    journal.persist(taken)
    journal.close()
    with (tmp_path / "taken.current").open("ab") as file:
        file.write(b"torn")
    again = Journal(tmp_path)
    assert all(digest in again for digest in taken)
    again.persist([identity("logs", b"x")])
    again.close()
    last = Journal(tmp_path)
    assert identity("logs", b"x") in last
    last.close()


def test_journal_forgets_the_oldest_generation_only(tmp_path: Path):
    journal = Journal(tmp_path, generation_limit=10)
    digests = [identity("traces", f"{n}".encode()) for n in range(25)]
    for digest in digests:
        journal.add(digest)
        journal.persist([digest])
    assert len(journal) <= 20
    assert digests[0] not in journal
    assert all(digest in journal for digest in digests[-10:])
    journal.close()
    again = Journal(tmp_path, generation_limit=10)
    assert all(digest in again for digest in digests[-10:])
    again.close()


def test_a_replay_is_known_whatever_came_since_but_in_its_own_store_alone(tmp_path: Path):
    replayed = identity("traces", b"old", f"{REPLAYED}1")
    journal = Journal(tmp_path, generation_limit=10)
    journal.bind("one store")
    journal.add(replayed)
    journal.persist([replayed])
    for n in range(50):
        live = identity("traces", f"{n}".encode())
        journal.add(live)
        journal.persist([live])
    journal.close()
    again = Journal(tmp_path, generation_limit=10)
    assert not again.knows_store
    again.bind("one store")
    assert replayed in again
    again.bind("a store made anew")
    assert replayed not in again
    again.close()


def test_replays_found_in_the_log_belong_to_the_store_that_will_take_them(tmp_path: Path):
    replayed = [identity("traces", f"{n}".encode(), f"{REPLAYED}{n}") for n in range(2)]
    journal = Journal(tmp_path)
    journal.add(replayed[0])
    journal.persist([replayed[1]])
    assert all(digest in journal for digest in replayed)
    journal.bind("store")
    journal.close()
    again = Journal(tmp_path)
    again.bind("store")
    assert all(digest in again for digest in replayed)
    again.close()


async def test_identities_found_in_the_log_outlive_its_segments(tmp_path: Path):
    crashed = make(tmp_path)
    crashed.start()
    await crashed.append("traces", *frame("a"))
    await crashed.close()
    (tmp_path / "journal" / "taken.current").write_bytes(b"")  # killed before the segment was sealed
    journal = Journal(tmp_path / "journal")
    log = WriteAheadLog(tmp_path, journal, max_bytes=MIB, seal_bytes=MIB)
    log.start()
    segment = await log.take("traces", seal_seconds=lambda: 0)
    log.finished(segment)
    await log.unlink([segment])
    await log.close()
    journal.close()
    last = Journal(tmp_path / "journal")
    assert identity("traces", b"a") in last
    last.close()


def test_identity_tells_signals_and_batches_apart():
    assert identity("traces", b"x") != identity("logs", b"x")
    assert identity("traces", b"x", "b1") == identity("traces", b"y", "b1")
    assert identity("traces", b"b1") != identity("traces", b"x", "b1")
