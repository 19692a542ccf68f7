"""What a statement becomes once each name stands for its text is known before the engine tries."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from collector.embedded.canonical import Canonical
from collector.embedded.expansion import selects
from collector.embedded.guard import _selects
from collector.embedded.reader import SELECTS
from collector.embedded.refusal import FenceError
from tests.kits.effort import in_proportion

if TYPE_CHECKING:
    from collections.abc import Callable

MANY = 10**6


def count(sql: str, most: int = MANY) -> int:
    return selects(Canonical(sql).outline, most)


def nested(levels: int) -> str:
    sql = "SELECT 1 AS x"
    for _ in range(levels):
        sql = f"WITH c AS ({sql}) SELECT a.x + b.x AS x FROM c AS a, c AS b"
    return sql


@pytest.mark.parametrize(
    ("sql", "wanted"),
    [
        ("SELECT 1", 1),
        ("SHOW TABLES", 0),
        ("SELECT * FROM (SELECT 1) AS t", 2),
        ("SELECT t.a, t.b, t.c FROM (SELECT 1 AS a) AS t WHERE t.a = 1", 2),
        ("SELECT 'SELECT', `SELECT` FROM (SELECT 1 AS `SELECT`)", 2),
        ("WITH a AS (SELECT 1) SELECT 2", 1),
        ("WITH a AS (SELECT 1) SELECT * FROM a", 2),
        ("WITH a AS (SELECT 1) SELECT * FROM a AS b, a AS c WHERE 1 IN (a)", 4),
        ("WITH a AS MATERIALIZED (SELECT 1) SELECT * FROM a, a AS b", 3),
        ("WITH a(x) AS (SELECT 1) SELECT * FROM a, a AS b", 3),
        ("WITH `the a` AS (SELECT 1) SELECT * FROM `the a`, `the a` AS b", 3),
        ("WITH b AS (SELECT * FROM a), a AS (SELECT 1) SELECT * FROM b, b AS c", 5),
        ("WITH events AS (SELECT * FROM events) SELECT * FROM events AS q WHERE q.events = 1", 2),
        ("SELECT count() AS requests FROM requests WHERE requests.time > 0", 11),
        ("SELECT 1 FROM servescope.requests AS a, `requests` AS b", 21),
        ("WITH a AS (SELECT 1 FROM requests) SELECT * FROM a, a AS b", 23),
        ("SELECT count(requests.time), requests.key FROM servescope.requests", 11),
        ("WITH RECURSIVE t AS (SELECT 1 AS n UNION ALL SELECT n + 1 FROM t) SELECT * FROM t", 3),
        ("WITH a AS (WITH b AS (SELECT 1) SELECT * FROM b, b AS c) SELECT * FROM a, a AS d", 7),
        ("SELECT (SELECT 1) AS a, a + a AS b, b + b", 8),
        ("WITH (SELECT 1) AS a SELECT a, a", 4),
        ("WITH 1 + coalesce((SELECT 1), 2) AS a SELECT a", 3),
        ("SELECT [(SELECT 1), 2] AS a, a, a", 4),
        ("SELECT (SELECT 1) IN (1) AS a, a, a", 4),
        ("SELECT (SELECT 1) IS DISTINCT FROM 2 AS a, a, a", 4),
        ("SELECT (SELECT 1) + t.ON AS a, a, a FROM (SELECT 1 AS ON) AS t", 5),
        ("SELECT tuple((SELECT 1), 2) AS a, a.1, a.1", 4),
        ("SELECT tuple((SELECT 1), 2).1 AS a, a", 3),
        ("SELECT (SELECT 1) AS a FROM t INNER JOIN u ON a WHERE a = 1", 4),
        ("SELECT 1 FROM t INNER JOIN u ON a + a WHERE (SELECT 1) AS a", 4),
        ("SELECT t.a, b.1 FROM (SELECT 1 AS a) AS t ARRAY JOIN [(SELECT (1, 2))] AS b", 4),
        ("SELECT (SELECT 1) AS JOIN, JOIN, `JOIN`", 4),
        ("SELECT 1 AS a, a AS b, b, a FROM (SELECT 1)", 2),
        ("SELECT x + 1 AS y FROM (SELECT y AS x FROM (SELECT 1 AS y))", 3),
    ],
)
def test_names_count_as_often_as_they_are_used(sql: str, wanted: int):
    assert count(sql) == wanted


@pytest.mark.parametrize(
    ("sql", "wanted"),
    [
        ("SELECT (SELECT 1), 2 FROM t ORDER BY 1 ASC", 3),
        ("SELECT (SELECT 1), 2 FROM t ORDER BY -2 DESC, (1) ASC, (-1) ASC", 5),
        ("SELECT (SELECT 1), 2 FROM t ORDER BY a ASC, b.1 + 2 ASC, round(a, 1) ASC, 1.5 ASC", 2),
        ("SELECT (SELECT 1), 2 FROM t ORDER BY 1 ASC WITH FILL FROM 1 TO 5, 2 ASC", 4),
        ("SELECT (SELECT 1), 2 FROM t GROUP BY 1, 2, true", 5),
        ("SELECT (SELECT 1), 2 FROM t GROUP BY GROUPING SETS ((1, 2), (1), (a))", 5),
        ("SELECT (SELECT 1), 2 FROM t GROUP BY ALL HAVING a IN (1, 2) ORDER BY ALL ASC", 4),
        ("SELECT (SELECT 1), 2 FROM t LIMIT 1 BY 1, 2", 4),
        ("SELECT (SELECT 1) AS a, a + a FROM t ORDER BY 1 ASC", 7),
        ("SELECT (SELECT 1), (SELECT 2) ORDER BY 1 ASC", 5),
        ("SELECT BY, 1, (SELECT 1) FROM t ORDER BY 3 ASC", 3),
        ("SELECT sum(a) OVER (PARTITION BY 1 ORDER BY 1 ASC), (SELECT 1) FROM t", 2),
        ("SELECT 1 FROM t WHERE a IN (SELECT a IN (SELECT 1) FROM t GROUP BY 1) ORDER BY 1 ASC", 4),
        ("SELECT a IN (SELECT a IN (SELECT 1) FROM t GROUP BY 1) FROM t ORDER BY 1 ASC", 7),
        ("SELECT (SELECT 1) FROM t UNION ALL SELECT 1 FROM t ORDER BY 1 ASC", 3),
        ("WITH a AS (SELECT (SELECT 1) FROM t ORDER BY 1 ASC) SELECT * FROM a AS b, a AS c", 7),
    ],
)
def test_a_number_for_a_column_counts_as_all_of_them(sql: str, wanted: int):
    assert count(sql) == wanted


NUMBERS = ", ".join(map(str, range(1, 27)))


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT * APPLY x -> (x IN (SELECT 1)) FROM t",
        "SELECT * EXCEPT a APPLY toString APPLY x -> (x IN (SELECT 1)) FROM t",
        "SELECT COLUMNS('a') APPLY x -> f(x, (SELECT 1)), 1 FROM t",
        "WITH (SELECT 1) AS a SELECT t.* APPLY x -> (x + a) FROM t",
        "WITH x -> (x IN (SELECT 1)) AS f SELECT tuple(* APPLY f) FROM t",
        "SELECT * REPLACE ((SELECT 1) AS a) FROM t",
        f"SELECT (SELECT 1) FROM t GROUP BY {NUMBERS}",
    ],
)
def test_what_nobody_can_tell_how_often_it_stands_is_too_much(sql: str):
    assert count(sql) == MANY + 1


@pytest.mark.parametrize(
    ("sql", "wanted"),
    [
        ("SELECT * APPLY x -> (x + 1), (SELECT 1) FROM t WHERE a IN (SELECT 2)", 3),
        ("SELECT f(* APPLY toString), (SELECT 1) FROM t", 2),
        ("SELECT * REPLACE ('' AS a) FROM (SELECT 1)", 2),
        ("SELECT REPLACE((SELECT 'a'), 'b', 'c'), APPLY + 1 FROM (SELECT 1 AS APPLY)", 3),
        (f"SELECT a FROM (SELECT 1 AS a) GROUP BY {NUMBERS}", 2),
        (f"SELECT (SELECT 1) FROM t WHERE a IN ({NUMBERS}) ORDER BY a ASC", 2),
    ],
)
def test_what_copies_no_select_is_as_often_as_it_is_written(sql: str, wanted: int):
    assert count(sql) == wanted


@pytest.mark.parametrize("levels", [3, 9, 18])
def test_a_name_within_its_own_text_is_no_way_around(levels: int):
    assert count(nested(levels)) >= 2 ** (levels + 1) - 1


def test_names_that_stand_for_each_other_are_too_many():
    sql = "SELECT (SELECT max(b) FROM t) AS a FROM (SELECT 1) UNION ALL SELECT (SELECT max(a) FROM t) AS b"
    assert count(sql) == MANY + 1


def made(head: str, piece: str, size: int) -> str:
    return (head + "".join(piece.format(*range(index, index + 8)) for index in range(size // len(piece) + 1)))[:size]


SHAPES = {
    "aliases": ("SELECT (SELECT 1) AS y0", ", y{} + 1 AS y{}"),
    "one name": ("SELECT (SELECT 1) AS y", ", y + 1 AS y"),
    "the same name": ("SELECT (SELECT 1) AS x, x", " AS x"),
    "names in brackets": ("SELECT (SELECT 1) AS x, x", ", (x) AS y{}"),
    "uses": ("WITH c AS (SELECT 1) SELECT 1", ", c"),
    "brackets": ("SELECT (SELECT 1 AS c)", ", ((c))"),
    "deep brackets": ("SELECT (SELECT 1 AS c)", "(c, "),
    "a path": ("SELECT 1 FROM requests", ".requests"),
    "paths": ("SELECT (SELECT 1) AS a", ", a.a"),
    "tables": ("WITH c AS (SELECT 1) SELECT * FROM c", ", (SELECT c AS c) AS c"),
    "joins": ("SELECT (SELECT 1) AS a FROM t", " INNER JOIN a AS b ON a"),
    "backquotes": ("SELECT (SELECT 1) AS `a b`, `a b`", ", `a b`"),
    "numbers": ("SELECT (SELECT 1) AS c, c FROM t ORDER BY 1", ", 1"),
    "numbers without tables": ("SELECT (SELECT 1) AS c ORDER BY 1", ", c, 1"),
    "sets": ("SELECT (SELECT 1) AS c, c GROUP BY 1", ", GROUPING SETS ((1), c)"),
    "many columns": ("SELECT (SELECT 1) AS c, c", ", * APPLY c"),
    "columns": ("WITH a AS (SELECT 1) SELECT 1, 1 AS c(c", ") AS (c"),
}


def counted(text: str) -> Callable[[], None]:
    tokens = Canonical(text).outline

    def counting() -> None:
        with contextlib.suppress(FenceError):
            selects(tokens, SELECTS)

    return counting


def counted_in_proportion(head: str, piece: str) -> bool:
    short, long = (counted(made(head, piece, size)) for size in (8_192, 262_144))
    # 32 times the text: what is quadratic takes a thousand times as long.
    return in_proportion(short, long, 300)


@pytest.mark.parametrize(("head", "piece"), SHAPES.values(), ids=SHAPES)
def test_counting_takes_time_in_proportion(head: str, piece: str):
    assert counted_in_proportion(head, piece)


HEADS = (
    "SELECT (SELECT 1) AS a, a, ",
    "WITH a AS (SELECT 1), b AS (SELECT a) SELECT ",
    "SELECT 1 FROM (SELECT 1 AS b) AS a, ",
)
PARTS = (
    *("a", "b", "c{}", "`a`", "`a b`", "'s'", "1", "1.5", "(", ")", "[", "]", ",", ".", "+", "="),
    *(" AS ", " AS a", " AS c{}", "SELECT ", "(SELECT 1)", " FROM ", " INNER JOIN ", " ARRAY JOIN ", " WHERE ", " IN "),
    *(" ORDER BY 1", ", 1", " GROUP BY ", " APPLY ", "* REPLACE (", "SETS ("),
    *("requests", "system.one", " DISTINCT FROM ", " AS MATERIALIZED (", "a AS (", "a(b) AS (", "f(", ") AS a", "{}"),
)


@settings(max_examples=40, deadline=None)
@given(st.sampled_from(HEADS), st.lists(st.sampled_from(PARTS), min_size=1, max_size=7).map("".join))
def test_any_shape_is_counted_in_proportion(head: str, piece: str):
    assert counted_in_proportion(head, piece)


@pytest.mark.parametrize(
    ("text", "what"),
    [
        (made("SELECT (SELECT 1) AS a", ", a", 400_000), "has more than 200000 words and signs"),
        (made("SELECT (SELECT 1)", ", 1 AS a{}", 200_000), "gives more than 5000 names"),
        (made("SELECT (SELECT 1) AS c", ", f(c)", 200_000), "has more than 30000 names, brackets and commas"),
        (made("WITH (SELECT 1) AS c SELECT 1", ", c AS d", 40_000), "makes more than 3000 uses of names"),
        ("SELECT (SELECT 1) AS AS, AS", "the word AS"),
    ],
)
def test_what_is_too_much_to_count_is_refused_by_name(text: str, what: str):
    with pytest.raises(FenceError, match=what):
        count(text)


def test_names_in_quotes_are_bounded():
    with pytest.raises(FenceError, match="more than 20000 names in quotes"):
        _selects(Canonical(f"SELECT (SELECT 1){', `a b`' * 20_001}"), SELECTS)
