"""Patterns of names: read as fnmatch does, and by the store as in memory."""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from analytics.conditions import like_any
from analytics.patterns import is_pattern, matches

if TYPE_CHECKING:
    from tests.analytics.lab import Lab

LETTERS = "ab]-[!^*?.\\|$ é\n&~"


@given(st.text(LETTERS, max_size=8), st.text(LETTERS, max_size=8))
def test_a_pattern_is_read_as_fnmatch_does(value: str, pattern: str):
    assert matches(value, (pattern,)) == fnmatchcase(value, pattern)
    assert matches(value, ("never", pattern)) == (fnmatchcase(value, pattern) or value == "never")
    if not is_pattern(pattern):
        assert matches(value, (pattern,)) == (value == pattern)


VALUES = [
    "llama-3.1-8b", "llama-3x1", "a+b", "a b", "x\ny", "", "é", "[x]", "a-b", "a^b", "(a|b)", "\\d", "a&&b", "a]b",
    "模型",
]  # fmt: skip
PATTERNS = [
    ("llama-3.1*",), ("llama-3?1*",), ("a+b", "é"), ("a[ +]b",), ("*",), ("x*y",), ("?",), ("[[]x]",), ("a[!-]b",),
    ("a[]^-]b",), ("(a|b)",), ("\\d",), ("[z-a]*",), ("[!z-a]*",), ("a[&]&b",), ("模?",), ("[a",), ("a\\*",), ("",),
    ("a[a&&b]*",),
]  # fmt: skip


@pytest.mark.parametrize("patterns", PATTERNS)
def test_the_store_reads_it_so_too(lab: Lab, patterns: tuple[str, ...]):
    test, value = like_any("name", "which", patterns)
    rows = lab.store.rows(
        f"SELECT name FROM (SELECT arrayJoin({{names:Array(String)}}) AS name) WHERE {test}",
        {"names": VALUES, "which": value},
    )
    assert sorted(row["name"] for row in rows) == sorted(name for name in VALUES if matches(name, patterns))
