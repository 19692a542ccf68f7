"""Rows on their way to the store: some that it will never take, and a store that takes none for now."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from alerts.history_writer import HistoryWriter
from alerts.journal import ASIDE, MAX_ASIDE, Journal
from base.errors import ConfigError
from collector.store.client import StoreError, StoreUnavailable

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

AT = 1_800_000_000.0


class Picky:
    """A store that refuses whole batches for one row in them, as ClickHouse does."""

    def __init__(self, error: Exception) -> None:
        self.error, self.bad = error, set[str]()
        self.taken: list[Any] = []

    def insert(self, _table: str, rows: Sequence[Mapping[str, object]]) -> None:
        if any(row.keys() != rows[0].keys() for row in rows):
            raise ConfigError("the rows have different columns", "give all the same")
        if any(row["message"] in self.bad for row in rows):
            raise self.error
        self.taken += [row["message"] for row in rows]


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    made = Journal(tmp_path)
    yield made
    made.close()


def queue(journal: Journal, messages: Sequence[str], **more: object) -> None:
    journal.write({}, [("incident_events", {"time": AT, "message": text, **more}) for text in messages])


@pytest.mark.parametrize(
    "error",
    [
        StoreError(691, "UNKNOWN_ELEMENT_OF_ENUM", "Unknown element 'x' for enum"),
        StoreError(469, "VIOLATED_CONSTRAINT", "Constraint is violated"),
        StoreError(0, "DataError", "Failed to write column 'time'"),
        AttributeError("'int' object has no attribute 'encode'"),
        UnicodeEncodeError("utf-8", "x", 0, 1, "surrogates not allowed"),
    ],
)
def test_a_row_that_is_refused_for_good_is_set_aside_alone(tmp_path: Path, journal: Journal, error: Exception):
    store = Picky(error)
    texts = [f"m{number}" for number in range(2500)]
    store.bad = {"m7", "m1200", "m2499"}
    queue(journal, texts)
    assert HistoryWriter(journal).push(store) == len(texts)
    assert store.taken == [text for text in texts if text not in store.bad]
    assert journal.waiting == 0
    assert journal.aside_rows == 3
    kept = [one["row"]["message"] for _, one in sorted(journal.section(ASIDE).items(), key=lambda one: int(one[0]))]
    assert kept == ["m7", "m1200", "m2499"]
    assert all(str(error) in one["error"] for one in journal.section(ASIDE).values())
    journal.close()
    again = Journal(tmp_path)
    assert len(again.section(ASIDE)) == 3
    again.close()


@pytest.mark.parametrize(
    "error",
    [
        StoreUnavailable("the store does not answer", "start it"),
        StoreError(60, "UNKNOWN_TABLE", "Table incident_events does not exist"),
        StoreError(252, "TOO_MANY_PARTS", "Too many parts"),
        StoreError(241, "MEMORY_LIMIT_EXCEEDED", "Memory limit exceeded"),
        ConnectionResetError("reset"),
    ],
)
def test_what_passes_is_waited_for(journal: Journal, error: Exception):
    store = Picky(error)
    store.bad = {"b"}
    queue(journal, ["a", "b", "c"])
    with pytest.raises(type(error)):
        HistoryWriter(journal).push(store)
    assert (journal.waiting, journal.aside_rows, store.taken) == (3, 0, [])


def test_rows_of_other_columns_and_times_that_are_none_hold_up_nobody(journal: Journal):
    store = Picky(ValueError())
    queue(journal, ["old"])
    queue(journal, ["new"], kind="opened")
    journal.write({}, [("incident_events", {"time": 1e300, "message": "never"})])
    queue(journal, ["newest"], kind="opened")
    HistoryWriter(journal).push(store)
    assert sorted(store.taken) == ["new", "newest", "old"]
    assert (journal.waiting, journal.aside_rows) == (0, 1)


def test_what_was_set_aside_is_bounded(journal: Journal):
    store = Picky(ValueError("no"))
    texts = [f"m{number}" for number in range(MAX_ASIDE + 20)]
    store.bad = set(texts)
    queue(journal, texts)
    HistoryWriter(journal).push(store)
    assert journal.aside_rows == len(texts)
    assert [one["row"]["message"] for one in journal.section(ASIDE).values()] == texts[20:]
