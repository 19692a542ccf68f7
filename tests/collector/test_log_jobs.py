"""The jobs of the log, each by itself: room, the order of segments, the debt to the journal."""

from __future__ import annotations

import asyncio
import errno
import math
from pathlib import Path

import pytest

from collector.journal import Journal, identity
from collector.log.admission import Admission, LogFullError
from collector.log.backlog import Backlog
from collector.log.identities import Identities
from collector.log.segment import Segment

SOON = 30


def segment(name: str, records: int = 1, signal: str = "traces") -> Segment:
    return Segment(name, signal, Path(f"{name}.seg"), 10, records, 1, 0.0)


def refused(room: Admission, size: int) -> bool:
    try:
        room.reserve("traces", size)
    except LogFullError as error:
        return error.reason == "bound"
    room.give_back(size)
    return False


def test_what_is_on_its_way_takes_room_until_it_is_there_or_refused():
    room = Admission(100)
    room.reserve("traces", 60)
    assert refused(room, 41)
    assert not refused(room, 40)
    room.give_back(60)
    assert not refused(room, 100)
    assert refused(room, 101)


def test_what_is_on_disk_takes_room_until_it_is_removed():
    room = Admission(100)
    room.reserve("traces", 60)
    room.grew(60)
    assert refused(room, 1)  # counted twice for a moment, rather than for a moment not at all
    room.give_back(60)
    assert refused(room, 41)
    assert not refused(room, 40)
    room.grew(-60)
    assert not refused(room, 100)


def test_a_signal_is_quiet_since_its_last_request_that_found_room():
    room = Admission(100)
    assert refused(room, 101)
    assert room.quiet_seconds("traces") == math.inf
    room.reserve("traces", 1)
    assert room.quiet_seconds("traces") < SOON
    assert room.quiet_seconds("logs") == math.inf


def test_records_wait_from_their_sync_until_the_store_has_their_segment():
    backlog = Backlog()
    backlog.kept("traces", 3)
    assert (backlog.pending("traces"), backlog.first("traces")) == (3, None)
    one = segment("a", records=3)
    backlog.sealed(one)
    assert (backlog.pending("traces"), backlog.first("traces"), backlog.waiting()) == (3, one, [one])
    backlog.finished(one)
    assert (backlog.pending("traces"), backlog.first("traces"), backlog.waiting()) == (0, None, [])


def test_what_a_start_found_comes_first_and_counts():
    backlog = Backlog()
    found = [segment("a", 2), segment("m", 5, "metrics")]
    backlog.recovered(found)
    backlog.kept("traces", 1)
    backlog.sealed(later := segment("b", 1))
    assert (backlog.pending("traces"), backlog.pending("metrics"), backlog.pending("logs")) == (3, 5, 0)
    assert backlog.first("traces") is found[0]
    assert backlog.waiting() == [found[0], later, found[1]]


def test_a_segment_counts_from_its_first_record_until_it_is_stored():
    backlog = Backlog()
    assert (len(backlog), backlog.oldest()) == (0, None)
    backlog.kept("traces", 1)
    backlog.kept("traces", 1)
    assert len(backlog) == 1
    assert backlog.oldest() is not None
    backlog.sealed(one := segment("a", records=2))
    assert (len(backlog), backlog.oldest()) == (1, one.created)
    backlog.kept("traces", 1)
    assert len(backlog) == 2
    backlog.finished(one)
    assert len(backlog) == 1


def test_children_stand_in_their_parents_place_and_lose_what_was_set_aside():
    backlog = Backlog()
    backlog.recovered([parent := segment("a", 5), last := segment("b", 1)])
    children = [segment("a-0", 2), segment("a-1", 2)]
    backlog.replaced(parent, children)
    assert backlog.waiting() == [*children, last]
    assert backlog.pending("traces") == 5
    backlog.replaced(children[0], [])
    assert backlog.first("traces") is children[1]
    assert backlog.pending("traces") == 3


@pytest.mark.parametrize("what", ["kept", "sealed", "replaced", "wake"])
async def test_who_waits_for_a_change_of_its_signal_hears_of_it(what: str):
    backlog = Backlog()
    backlog.recovered([parent := segment("a")])
    changes = {
        "kept": lambda: backlog.kept("traces", 1),
        "sealed": lambda: backlog.sealed(segment("b")),
        "replaced": lambda: backlog.replaced(parent, []),
        "wake": backlog.wake,
    }
    async with asyncio.timeout(SOON):
        waiting = asyncio.create_task(backlog.change("traces", None))
        await asyncio.sleep(0)
        backlog.kept("logs", 1)
        await asyncio.sleep(0)
        assert not waiting.done()
        changes[what]()
        await waiting
        await backlog.change("traces", 0.01)  # and no longer than it was told to


def test_an_identity_is_known_at_once_and_owed_once_its_segment_is_sealed(tmp_path: Path):
    journal = Journal(tmp_path)
    debt = Identities(journal)
    one, two, three = (identity("traces", text) for text in (b"1", b"2", b"3"))
    debt.taken(one)
    debt.taken(two)
    debt.found(three)
    assert all(digest in journal for digest in (one, two, three))
    debt.sealed([one])
    debt.persist()
    journal.close()
    again = Journal(tmp_path)
    assert [digest in again for digest in (one, two, three)] == [True, False, True]
    again.close()


def test_a_debt_that_the_disk_refused_is_paid_the_next_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    journal = Journal(tmp_path)
    debt = Identities(journal)
    debt.sealed([identity("traces", b"1")])
    with monkeypatch.context() as patch:
        patch.setattr(journal, "persist", refuse)
        with pytest.raises(OSError, match="No space left"):
            debt.persist()
    debt.sealed([identity("traces", b"2")])
    debt.persist()
    journal.close()
    again = Journal(tmp_path)
    assert all(identity("traces", text) in again for text in (b"1", b"2"))
    again.close()
