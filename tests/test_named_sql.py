"""Statements by name: read from files whose faults are named, filled with fragments and nothing else."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from base import named_sql

if TYPE_CHECKING:
    from pathlib import Path


def test_a_file_is_read_by_its_names(tmp_path: Path):
    file = tmp_path / "two.sql"
    file.write_text("-- What the file is about.\n\n-- name: first\n-- Why.\nSELECT 1;\n\n-- name: second\nSELECT 2\n")
    assert named_sql.statements(file) == {"first": "-- Why.\nSELECT 1", "second": "SELECT 2"}
    assert named_sql.beside(str(tmp_path / "two.py")) is named_sql.statements(file)


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("-- name: a\nSELECT 1\n-- name: a\nSELECT 2\n", "'a' is there twice"),
        ("-- name: a b\nSELECT 1\n", "'a b' is no single word"),
        ("-- name: \nSELECT 1\n", "'' is no single word"),
    ],
)
def test_a_name_that_tells_nothing_apart_is_refused(tmp_path: Path, text: str, fault: str):
    file = tmp_path / "bad.sql"
    file.write_text(text)
    with pytest.raises(ValueError, match=rf"bad\.sql: the name {fault}"):
        named_sql.statements(file)


def test_fragments_fill_statements_and_each_other():
    fragments = {"what": "a, /*more*/", "more": "b", "filter:requests": "AND 1"}
    filled = named_sql.filled("SELECT /*what*/ FROM t WHERE {x:Int64} /*filter:requests*/ /* a remark */", fragments)
    assert filled == "SELECT a, b FROM t WHERE {x:Int64} AND 1 /* a remark */"
    with pytest.raises(KeyError, match="else"):
        named_sql.filled("SELECT /*else*/", fragments)
