"""What a statement becomes once each name stands for its text is known before the engine tries."""

from __future__ import annotations

import time

import pytest

from collector.embedded.canonical import Canonical
from collector.embedded.expansion import selects
from collector.embedded.reader import SELECTS

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
        ("WITH RECURSIVE t AS (SELECT 1 AS n UNION ALL SELECT n + 1 FROM t) SELECT * FROM t", 3),
        ("WITH a AS (WITH b AS (SELECT 1) SELECT * FROM b, b AS c) SELECT * FROM a, a AS d", 7),
        ("SELECT (SELECT 1) AS a, a + a AS b, b + b", 8),
        ("WITH (SELECT 1) AS a SELECT a, a", 4),
        ("WITH 1 + coalesce((SELECT 1), 2) AS a SELECT a", 3),
        ("SELECT x + 1 AS y FROM (SELECT y AS x FROM (SELECT 1 AS y))", 3),
    ],
)
def test_names_count_as_often_as_they_are_used(sql: str, wanted: int):
    assert count(sql) == wanted


@pytest.mark.parametrize("levels", [3, 9, 18])
def test_a_name_within_its_own_text_is_no_way_around(levels: int):
    assert count(nested(levels)) >= 2 ** (levels + 1) - 1


def test_names_that_stand_for_each_other_are_too_many():
    sql = "SELECT (SELECT max(b) FROM t) AS a FROM (SELECT 1) UNION ALL SELECT (SELECT max(a) FROM t) AS b"
    assert count(sql) == MANY + 1


SHAPES = {
    "aliases": ("SELECT (SELECT 1) AS y0", ", y{} + 1 AS y{}"),
    "one name": ("SELECT (SELECT 1) AS y", ", y + 1 AS y"),
    "uses": ("WITH c AS (SELECT 1) SELECT 1", ", c"),
    "brackets": ("SELECT (SELECT 1 AS c)", ", ((c))"),
    "tables": ("WITH c AS (SELECT 1) SELECT * FROM c", ", (SELECT c AS c) AS c"),
}


@pytest.mark.parametrize(("head", "piece"), SHAPES.values(), ids=SHAPES)
def test_the_longest_text_is_counted_in_time(head: str, piece: str):
    text = head
    for index in range(262_144 // len(piece)):
        text += piece.format(index, index + 1)
    tokens = Canonical(text[:262_144]).outline
    begun = time.process_time()
    selects(tokens, SELECTS)
    assert time.process_time() - begun < 5
