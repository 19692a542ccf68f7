"""Segments while they are written, in the thread that calls: what is told of each frame, and when the disk refuses."""

from __future__ import annotations

import asyncio
import errno
import os
from typing import TYPE_CHECKING

import pytest

from collector import framing
from collector.journal import Journal, identity
from collector.log.committer import Append
from collector.log.identities import Identities
from collector.log.open_segments import OpenSegments

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence
    from pathlib import Path

    from collector.log.admission import LogFullError
    from collector.log.segment import Segment


class Heard:
    """Writes down what it is told."""

    def __init__(self) -> None:
        self.kept_frames: list[bytes] = []
        self.refused_frames: list[bytes] = []
        self.sealed_segments: list[Segment] = []
        self.at_seal: Callable[[], None] = lambda: None

    def kept(self, _: str, run: Sequence[Append]) -> None:
        self.kept_frames += [item.frame for item in run]

    def refused(self, run: Sequence[Append], error: LogFullError) -> None:
        assert error.reason == "disk"
        self.refused_frames += [item.frame for item in run]

    def sealed(self, segment: Segment) -> None:
        self.at_seal()
        self.sealed_segments.append(segment)


class Bench:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.heard = Heard()
        self.journal = Journal(folder / "journal")
        self.open = OpenSegments(folder, Identities(self.journal), self.heard, seal_bytes=1000)

    def append(self, text: str, signal: str = "traces") -> Append:
        digest = identity(signal, text.encode())
        frame = framing.encode(text.encode(), records=2, digest=digest, received_ns=1)
        return Append(signal, frame, 2, digest, asyncio.Future())

    def files(self) -> list[bytes]:
        return [path.read_bytes() for path in sorted(self.folder.glob("*.seg"))]


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    made = Bench(tmp_path)
    yield made
    made.open.close()
    made.journal.close()


def refusing(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    for name in names:
        monkeypatch.setattr(os, name, refuse)


async def test_a_group_is_one_sync_for_each_signal_in_it(bench: Bench, monkeypatch: pytest.MonkeyPatch):
    syncs = []
    real = os.fdatasync
    monkeypatch.setattr(os, "fdatasync", lambda fd: (syncs.append(fd), real(fd)))
    bench.open.commit([bench.append("a"), bench.append("l", "logs"), bench.append("b"), bench.append("c")])
    assert (len(syncs), bench.open.commits, len(bench.open)) == (2, 2, 2)
    assert len(bench.heard.kept_frames) == 4
    of_traces = bench.open.of("traces")
    assert of_traces is not None
    assert (of_traces.segment.records, of_traces.segment.bodies) == (6, 3)
    assert of_traces.segment.bytes == of_traces.segment.path.stat().st_size


async def test_a_frame_that_does_not_fit_begins_the_next_segment(bench: Bench):
    group = [bench.append(letter * 600) for letter in "abc"]
    bench.open.commit(group)
    assert bench.files() == [item.frame for item in group]
    assert [segment.records for segment in bench.heard.sealed_segments] == [2, 2]
    assert bench.heard.kept_frames == [item.frame for item in group]


async def test_a_frame_larger_than_a_segment_gets_one_of_its_own(bench: Bench):
    group = [bench.append("a" * 5000), bench.append("b")]
    bench.open.commit(group)
    assert bench.files() == [item.frame for item in group]


@pytest.mark.parametrize("what", ["write", "fdatasync"])
async def test_a_refused_write_is_told_and_leaves_nothing(bench: Bench, monkeypatch: pytest.MonkeyPatch, what: str):
    bench.open.commit([first := bench.append("a")])
    with monkeypatch.context() as patch:
        refusing(patch, what)
        bench.open.commit([lost := bench.append("b"), also := bench.append("c")])
    assert bench.heard.refused_frames == [lost.frame, also.frame]
    assert lost.digest not in bench.journal  # its sender comes again
    bench.open.commit([second := bench.append("d")])
    assert bench.heard.kept_frames == [first.frame, second.frame]
    assert bench.files() == [first.frame + second.frame]


async def test_a_part_that_can_not_be_cut_holds_up_writes_and_the_seal(bench: Bench, monkeypatch: pytest.MonkeyPatch):
    bench.open.commit([first := bench.append("a")])
    with monkeypatch.context() as patch:
        refusing(patch, "fdatasync", "ftruncate")
        bench.open.commit([bench.append("b")])
        assert bench.open.seal("traces") is False
        bench.open.commit([bench.append("c")])
    assert (len(bench.heard.refused_frames), bench.heard.sealed_segments, len(bench.open)) == (2, [], 1)
    assert bench.open.seal("traces") is True
    assert bench.files() == [first.frame]


async def test_where_there_is_no_new_file_the_good_one_goes_on(bench: Bench, monkeypatch: pytest.MonkeyPatch):
    bench.open.commit([first := bench.append("a" * 600)])
    with monkeypatch.context() as patch:
        refusing(patch, "open")
        bench.open.commit([second := bench.append("b" * 600)])
    assert bench.heard.kept_frames == [first.frame, second.frame]
    assert bench.files() == [first.frame + second.frame]


async def test_where_there_is_no_file_at_all_the_frame_is_refused(bench: Bench, monkeypatch: pytest.MonkeyPatch):
    with monkeypatch.context() as patch:
        refusing(patch, "open")
        bench.open.commit([bench.append("a")])
    assert (len(bench.heard.refused_frames), len(bench.open), bench.files()) == (1, 0, [])


async def test_a_sealed_segment_is_told_before_it_is_open_no_more(bench: Bench):
    seen: list[int] = []
    bench.heard.at_seal = lambda: seen.append(len(bench.open))
    bench.open.commit([bench.append("a")])
    assert bench.open.seal("traces") is True
    assert (seen, len(bench.open), bench.open.of("traces")) == ([1], 0, None)
    assert bench.open.seal("traces") is True
    assert len(bench.heard.sealed_segments) == 1


async def test_an_empty_segment_is_thrown_away(bench: Bench, monkeypatch: pytest.MonkeyPatch):
    with monkeypatch.context() as patch:
        refusing(patch, "write")
        bench.open.commit([bench.append("a")])
    assert bench.files() == [b""]
    assert bench.open.seal("traces") is True
    assert (bench.files(), bench.heard.sealed_segments, len(bench.open)) == ([], [], 0)


async def test_a_journal_that_refuses_holds_up_no_seal(bench: Bench, monkeypatch: pytest.MonkeyPatch):
    bench.open.commit([one := bench.append("a")])
    with monkeypatch.context() as patch:
        refusing(patch, "write")
        assert bench.open.seal("traces") is True
    bench.open.commit([bench.append("b")])
    assert bench.open.seal("traces") is True
    again = Journal(bench.folder / "journal")
    assert one.digest in again
    again.close()


async def test_a_fault_in_the_middle_of_a_write_leaves_no_part_of_a_frame(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
):
    real = os.write

    def dies(descriptor: int, data: bytes) -> int:
        real(descriptor, data[:20])
        raise MemoryError

    bench.open.commit([first := bench.append("a")])
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", dies)
        with pytest.raises(MemoryError):
            bench.open.commit([bench.append("b")])
    bench.open.commit([second := bench.append("c")])
    assert bench.files() == [first.frame + second.frame]
