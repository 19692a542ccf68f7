from __future__ import annotations

import resource
import shutil
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alerts import journal as journals
from alerts.journal import META, TAKEN_UP, Journal
from base.errors import DataFolderInUseError

if TYPE_CHECKING:
    from pathlib import Path


def test_what_was_written_is_there_after_a_restart(tmp_path: Path):
    journal = Journal(tmp_path)
    journal.write({"a": {"x": 1, "y": 2}}, [("t", {"n": 1}), ("t", {"n": 2})])
    journal.write({"a": {"x": None}})
    journal.mirrored(1)
    journal.close()
    again = Journal(tmp_path)
    assert again.section("a") == {"y": 2}
    assert again.waiting_rows() == [(2, ("t", {"n": 2}))]
    again.write({}, [("t", {"n": 3})])
    assert [number for number, _ in again.waiting_rows()] == [2, 3]
    again.close()


def test_it_stays_fresh_until_what_the_store_knows_was_taken_up(tmp_path: Path):
    for _ in range(3):  # restarts while the store is away
        journal = Journal(tmp_path)
        assert journal.fresh
        journal.write({"alerts": {"x": 1}})
        journal.close()
    journal = Journal(tmp_path)
    journal.write({META: {TAKEN_UP: True}})
    journal.close()
    journal = Journal(tmp_path)
    assert not journal.fresh
    journal.close()


def test_numbers_never_come_back_after_all_rows_are_mirrored(tmp_path: Path):
    for expected in (1, 2, 3):
        journal = Journal(tmp_path)
        journal.write({}, [("t", {})])
        assert [number for number, _ in journal.waiting_rows()] == [expected]
        journal.mirrored(expected)
        journal.close()


OLD = """\
{"set": {"a": {"x": 1, "y": 2}, "outbox": {"m": {"id": "m"}}}, "rows": [[4, "t", {"n": 4}], [5, "t", {"n": 5}]]}
{"set": {"a": {"y": null}}}
not json
{"mirrored": 4}
{"set": {"a": {"x": 9}}}"""


def test_a_journal_of_lines_is_taken_over_once(tmp_path: Path):
    (tmp_path / "journal.jsonl").write_text(OLD)  # the last line is torn
    for _ in range(2):
        journal = Journal(tmp_path)
        assert not journal.fresh
        assert journal.section("a") == {"x": 1}
        assert journal.get("outbox", "m") == {"id": "m"}
        assert journal.waiting_rows() == [(5, ("t", {"n": 5}))]
        journal.close()
    assert not (tmp_path / "journal.jsonl").exists()
    (tmp_path / "journal.jsonl").write_text(OLD.replace('"x": 1', '"x": 3'))
    journal = Journal(tmp_path)
    assert journal.get("a", "x") == 1
    journal.write({}, [("t", {"n": 6})])
    assert [number for number, _ in journal.waiting_rows()] == [5, 6]
    journal.close()


@pytest.mark.parametrize("damage", ["no database", "torn in the middle"])
def test_a_file_that_is_broken_is_set_aside_and_the_store_asked(tmp_path: Path, damage: str):
    journal = Journal(tmp_path)
    journal.write({META: {TAKEN_UP: True}, "a": {str(n): "x" * 200 for n in range(200)}})
    journal.close()
    path = tmp_path / "journal.sqlite"
    whole = path.read_bytes()
    path.write_bytes(b"garbage" * 1000 if damage == "no database" else whole[:100] + b"\xff" * (len(whole) - 100))
    journal = Journal(tmp_path)
    assert journal.fresh
    assert journal.section("a") == {}
    assert (tmp_path / "journal.broken").exists()
    journal.write({"a": {"x": 1}})
    assert journal.error == ""
    journal.close()


def test_a_transaction_is_on_disk_when_write_returns(tmp_path: Path):
    folder, copy = tmp_path / "journal", tmp_path / "copy"
    journal = Journal(folder)
    journal.write({"a": {"x": 1}}, [("t", {"n": 1})])
    shutil.copytree(folder, copy)  # as a kill leaves it: no last words
    again = Journal(copy)
    assert again.get("a", "x") == 1
    assert again.waiting_rows() == [(1, ("t", {"n": 1}))]
    again.close()
    journal.close()


def test_two_pagers_never_share_a_folder(tmp_path: Path):
    journal = Journal(tmp_path)
    with pytest.raises(DataFolderInUseError):
        Journal(tmp_path)
    journal.close()
    Journal(tmp_path).close()


def fill(journal: Journal, *, full: bool) -> None:
    """No page more than there are; or as many as one likes."""
    assert journal._database is not None
    (pages,) = journal._database.execute("PRAGMA page_count").fetchone()
    journal._database.execute(f"PRAGMA max_page_count = {pages if full else 1_000_000}")


def test_a_full_disk_costs_nothing_and_all_is_written_when_there_is_room(tmp_path: Path):
    journal = Journal(tmp_path)
    journal.write({"a": {"x": 1, "gone": 1}})
    fill(journal, full=True)
    big = "y" * 20_000
    journal.write({"a": {"x": big, "gone": None}}, [("t", {"n": 1})])
    assert "full" in journal.error
    assert journal.get("a", "x") == big
    assert journal.waiting == 1
    journal.write({"a": {"z": big}}, [("t", {"n": 2})])
    fill(journal, full=False)
    journal.flush()
    assert journal.error == ""
    journal.close()
    again = Journal(tmp_path)
    assert again.section("a") == {"x": big, "z": big}
    assert [row["n"] for _, (_, row) in again.waiting_rows()] == [1, 2]
    again.close()


def test_a_write_that_the_system_refuses_costs_nothing(tmp_path: Path):
    journal = Journal(tmp_path)
    journal.write({"a": {"x": 1}})
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (16_384, before[1]))
    try:
        for number in range(20):
            journal.write({"a": {f"k{number}": "y" * 4000}})
        told = journal.error
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert told
    assert len(journal.section("a")) == 21
    journal.flush()
    assert journal.error == ""
    journal.close()
    again = Journal(tmp_path)
    assert len(again.section("a")) == 21
    again.close()


def test_a_file_that_was_taken_away_is_made_again(tmp_path: Path):
    journal = Journal(tmp_path)
    journal.write({"a": {"x": 1}}, [("t", {"n": 1})])
    (tmp_path / "journal.sqlite").unlink()
    journal.write({"a": {"y": 2}})
    assert journal.error == ""
    journal.close()
    again = Journal(tmp_path)
    assert again.section("a") == {"x": 1, "y": 2}
    assert again.waiting == 1
    again.close()


def test_what_is_no_json_changes_nothing(tmp_path: Path):
    journal = Journal(tmp_path)
    journal.write({"a": {"x": 1}})
    with pytest.raises(ValueError, match="JSON"):
        journal.write({"a": {"x": 2, "y": float("nan")}}, [("t", {})])
    assert journal.section("a") == {"x": 1}
    assert journal.waiting == 0
    journal.close()


def test_the_file_stays_small_and_rows_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(journals, "MAX_ROWS", 50)
    journal = Journal(tmp_path)
    for number in range(300):
        journal.write({"a": {"x": number}}, [("t", {"n": number, "pad": "p" * 100})])
    assert journal.dropped_rows == 250
    assert [row["n"] for _, (_, row) in journal.waiting_rows(3)] == [250, 251, 252]
    journal.close()
    assert (tmp_path / "journal.sqlite").stat().st_size < 60_000
    again = Journal(tmp_path)
    assert again.waiting == 50
    again.close()


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
