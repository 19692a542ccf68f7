from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from collector import framing
from collector.journal import Journal, identity
from collector.log.write_ahead import WriteAheadLog
from collector.quarantine import Quarantine

if TYPE_CHECKING:
    from collections.abc import Callable

FULL = OSError(errno.ENOSPC, "No space left on device")


def frame(text: str) -> tuple[bytes, int, bytes]:
    digest = identity("traces", text.encode())
    return framing.encode(text.encode(), records=1, digest=digest, received_ns=1), 1, digest


def segments(folder: Path) -> list[bytes]:
    return [path.read_bytes() for path in sorted(folder.glob("*.seg"))]


def refuse_new_files(monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.open

    def refuse(path: object, flags: int, *rest: int, **named: int) -> int:
        if flags & os.O_CREAT:
            raise FULL
        return real(path, flags, *rest, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "open", refuse)


def watch_syncs(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    synced: list[str] = []
    real = os.fsync

    def sync(descriptor: int) -> None:
        real(descriptor)
        synced.append(Path(f"/proc/self/fd/{descriptor}").readlink().name)

    monkeypatch.setattr(os, "fsync", sync)
    return synced


def test_a_request_set_aside_is_on_the_disk_before_its_segment_may_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    synced = watch_syncs(monkeypatch)
    assert Quarantine(tmp_path / "quarantine", max_bytes=100).put("traces-1-0", b"x" * 60, "why")
    assert synced == ["traces-1-0.tmp", "quarantine"]
    assert [path.name for path in (tmp_path / "quarantine").iterdir()] == ["traces-1-0.pb"]


def test_a_request_that_cannot_be_set_aside_stays_in_its_segment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    quarantine = Quarantine(tmp_path / "quarantine", max_bytes=100)
    with monkeypatch.context() as patch:
        refuse_new_files(patch)
        with pytest.raises(OSError, match="No space left"):
            quarantine.put("a", b"x" * 60, "why")
    for _ in range(3):  # a crash between this and the end of the segment repeats it, and takes no more room
        assert quarantine.put("a", b"x" * 60, "why")
    assert not quarantine.put("b", b"x" * 60, "why")


async def test_a_log_that_gets_no_new_file_goes_on_in_its_good_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    log = WriteAheadLog(tmp_path, Journal(tmp_path / "journal"), max_bytes=1 << 20, seal_bytes=1000)
    log.start()
    await log.append("traces", *frame("a" * 600))
    with monkeypatch.context() as patch:
        refuse_new_files(patch)
        await log.append("traces", *frame("b" * 600))
    await log.append("traces", *frame("c" * 600))
    await log.close()
    assert segments(tmp_path) == [frame("a" * 600)[0] + frame("b" * 600)[0], frame("c" * 600)[0]]


@pytest.mark.parametrize("step", ["open", "first", "second"])
def test_a_journal_that_cannot_turn_over_goes_on_in_its_good_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
):
    journal = Journal(tmp_path, generation_limit=3)
    digests = [identity("traces", bytes([n])) for n in range(12)]

    def keep(journal: Journal, some: list[bytes]) -> None:
        for digest in some:
            journal.add(digest)
        journal.persist(some)

    keep(journal, digests[:2])
    with monkeypatch.context() as patch:
        if step == "open":
            refuse_new_files(patch)
        else:
            patch.setattr(Path, "replace", _failing_at(1 if step == "first" else 2, Path.replace))
        keep(journal, digests[2:4])
        keep(journal, digests[4:6])
    keep(journal, digests[6:8])
    assert all(digest in journal for digest in digests[:8])
    journal.close()
    again = Journal(tmp_path, generation_limit=3)
    assert all(digest in again for digest in digests[:8])
    keep(again, digests[8:])
    assert digests[0] not in again  # turned over twice since: no generation grows for ever
    again.close()


def test_a_part_of_an_identity_does_not_shift_those_that_follow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    journal = Journal(tmp_path)
    first, second = identity("traces", b"1"), identity("traces", b"2")
    real = os.write
    calls = iter([5])

    def short(descriptor: int, data: bytes) -> int:
        if (size := next(calls, None)) is None:
            raise FULL
        return real(descriptor, data[:size])

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", short)
        patch.setattr(os, "ftruncate", lambda *_: (_ for _ in ()).throw(FULL))
        with pytest.raises(OSError, match="No space left"):
            journal.persist([first])
    journal.persist([first, second])
    journal.close()
    again = Journal(tmp_path)
    assert first in again
    assert second in again
    again.close()


def _failing_at(number: int, real: Callable[..., object]) -> Callable[..., object]:
    calls = iter(range(1, 1000))

    def replace(self: Path, target: object) -> object:
        if next(calls) == number:
            raise FULL
        return real(self, target)

    return replace
