from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.errors import DataFolderInUseError
from alerts import journal as journals
from alerts.journal import Journal

if TYPE_CHECKING:
    from pathlib import Path


def test_what_was_written_is_there_after_a_restart(tmp_path: Path):
    journal = Journal(tmp_path)
    assert journal.fresh
    journal.write({"a": {"x": 1, "y": 2}}, [("t", {"n": 1}), ("t", {"n": 2})])
    journal.write({"a": {"x": None}})
    journal.mirrored(1)
    journal.close()
    again = Journal(tmp_path)
    assert not again.fresh
    assert again.section("a") == {"y": 2}
    assert again.waiting_rows() == [(2, ("t", {"n": 2}))]
    again.write({}, [("t", {"n": 3})])
    assert [number for number, _ in again.waiting_rows()] == [2, 3]
    again.close()


def test_numbers_never_come_back_after_all_rows_are_mirrored(tmp_path: Path):
    for expected in (1, 2, 3):
        journal = Journal(tmp_path)
        journal.write({}, [("t", {})])
        assert [number for number, _ in journal.waiting_rows()] == [expected]
        journal.mirrored(expected)
        journal.close()


def test_a_torn_line_costs_the_last_transaction_alone(tmp_path: Path):
    journal = Journal(tmp_path)
    journal.write({"a": {"x": 1}})
    journal.write({"a": {"x": 2}})
    journal.close()
    path = tmp_path / "journal.jsonl"
    whole = path.read_bytes()
    for cut in range(len(whole) - len(whole.splitlines(keepends=True)[-1]) + 1, len(whole)):
        path.write_bytes(whole[:cut])
        again = Journal(tmp_path)
        assert again.get("a", "x") == 1
        again.close()


def test_two_pagers_never_share_a_folder(tmp_path: Path):
    journal = Journal(tmp_path)
    with pytest.raises(DataFolderInUseError):
        Journal(tmp_path)
    journal.close()
    Journal(tmp_path).close()


def test_a_full_disk_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    journal = Journal(tmp_path)
    journal.write({"a": {"x": 1}})
    size = (tmp_path / "journal.jsonl").stat().st_size
    true_write = os.write

    def half(descriptor: int, data: memoryview) -> int:
        if len(data) > 10:
            return true_write(descriptor, data[:10])
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(journals.os, "write", lambda d, data: half(d, data) if len(data) < 60 else half(d, data[:10]))
    with pytest.raises(OSError, match="No space"):
        journal.write({"a": {"x": 2}}, [("t", {})])
    monkeypatch.undo()
    assert journal.get("a", "x") == 1
    assert journal.waiting_rows() == []
    assert (tmp_path / "journal.jsonl").stat().st_size == size
    journal.close()


def test_the_file_stays_small_and_rows_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(journals, "REWRITE_BYTES", 10_000)
    monkeypatch.setattr(journals, "MAX_ROWS", 50)
    journal = Journal(tmp_path)
    for number in range(500):
        journal.write({"a": {"x": number}}, [("t", {"n": number, "pad": "p" * 100})])
    assert (tmp_path / "journal.jsonl").stat().st_size < 60_000
    assert journal.dropped_rows == 450
    assert [row["n"] for _, (_, row) in journal.waiting_rows(3)] == [450, 451, 452]
    journal.close()


@settings(max_examples=30, deadline=None)
@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("set"), st.sampled_from("abc"), st.none() | st.integers()),
            st.tuples(st.just("row"), st.integers(), st.none()),
            st.tuples(st.just("mirror"), st.integers(0, 3), st.none()),
            st.just(("restart", 0, None)),
        ),
        max_size=40,
    )
)
def test_a_journal_equals_a_dictionary_and_a_queue(tmp_path_factory: pytest.TempPathFactory, steps: list[tuple]):
    folder = tmp_path_factory.mktemp("journal")
    journal, values, rows, number = Journal(folder), {}, [], 0
    for kind, first, second in steps:
        if kind == "set":
            journal.write({"s": {first: second}})
            values[first] = second
            values = {key: value for key, value in values.items() if value is not None}
        elif kind == "row":
            number += 1
            journal.write({}, [("t", {"n": first})])
            rows.append((number, ("t", {"n": first})))
        elif kind == "mirror" and rows:
            upto = rows[min(first, len(rows) - 1)][0]
            journal.mirrored(upto)
            rows = [row for row in rows if row[0] > upto]
        elif kind == "restart":
            journal.close()
            journal = Journal(folder)
        assert journal.section("s") == values
        assert journal.waiting_rows() == rows
    journal.close()
