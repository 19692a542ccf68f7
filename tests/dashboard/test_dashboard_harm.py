"""Who harms whom: pairs as a matrix that loses no second, the first line in words, and names that are text."""

from __future__ import annotations

import random
import re
from datetime import UTC, datetime, timedelta
from urllib.parse import parse_qs, urlsplit

import pytest

from analytics.causes.harm import Harm, Pair
from analytics.questions.causes import Causes
from analytics.selection import Filter, Selection
from analytics.window import Window
from dashboard.harm_in_words import DRIVERS, cells, matrix, nobody, who_harms_whom
from dashboard.linked_table import Cell, Head, linked
from dashboard.theme import DARK

START = datetime(2026, 1, 1, tzinfo=UTC)
SELECTION = Selection(Window(START, START + timedelta(minutes=15)), Filter(model=("m",)))


def drawn(seed: int, tenants: int) -> list[Pair]:
    chance = random.Random(seed)
    names = [f"t{number}" for number in range(tenants)] + [""]
    pairs = [
        Pair(driver, victim, cause, chance.expovariate(0.1), 3)
        for driver in names[:-1]
        for victim in names
        for cause in ("kv_cache_full", "batch_interference")
        if chance.random() < 0.5
    ]
    return sorted(pairs, key=lambda pair: -pair.seconds)


def told(*pairs: Pair, nobodys: float = 0.0, requests: int = 100) -> Causes:
    return Causes(requests, 60.0, [], 0.0, 0.0, harm=Harm(list(pairs), nobodys_seconds=nobodys))


@pytest.mark.parametrize(("seed", "tenants"), [(1, 3), (2, 8), (3, 12)])
def test_the_matrix_has_every_second_of_its_drivers_once(seed: int, tenants: int) -> None:
    pairs = drawn(seed, tenants)
    found = matrix(Harm(pairs), ())
    drivers = {pair.driver for pair in pairs}
    assert len(found.rows) == min(len(drivers), DRIVERS)
    assert found.left_out == len(drivers) - len(found.rows)
    for row in found.rows:
        mine = [pair for pair in pairs if pair.driver == row.driver]
        assert row.others + row.itself == pytest.approx(sum(pair.seconds for pair in mine))
        assert row.itself == pytest.approx(sum(pair.seconds for pair in mine if pair.victim == row.driver))
        assert sum(row.victims) + row.rest == pytest.approx(row.others)
        assert row.causes
    assert [row.others for row in found.rows] == sorted((row.others for row in found.rows), reverse=True)
    heads, lines = cells(found, SELECTION)
    assert {len(line) for line in lines} == {len(heads)}


def test_a_chosen_tenant_shows_what_it_does_and_what_it_suffers() -> None:
    pairs = [
        Pair("a", "b", "preemption", 4.0, 1),
        Pair("b", "c", "preemption", 3.0, 1),
        Pair("c", "c", "preemption", 2.0, 1),
    ]
    found = matrix(Harm(pairs), ("b",))
    assert {(row.driver, row.others, row.itself) for row in found.rows} == {("a", 4.0, 0.0), ("b", 3.0, 0.0)}
    assert matrix(Harm(pairs), ("nobody",)).rows == []


def test_the_first_line_names_driver_victim_and_cause_and_leads_to_them() -> None:
    pairs = [
        Pair("hog", "hog", "kv_cache_full", 90.0, 9), Pair("hog", "small", "kv_cache_full", 12.0, 4),
        Pair("hog", "other", "batch_interference", 3.0, 2),
    ]  # fmt: skip
    said = who_harms_whom(told(*pairs), SELECTION)
    text = "".join(piece for piece, _ in said)
    assert (
        text == "The work of hog took 15 s from others' requests of 15 min, most from small (12 s), by KV cache full."
    )
    where = {piece: parse_qs(urlsplit(address).query) for piece, address in said if address}
    assert where["hog"]["tenant"] == ["hog"]
    assert where["small"]["tenant"] == ["small"]
    assert where["small"]["model"] == ["m"]


@pytest.mark.parametrize(
    ("answer", "word"),
    [
        (told(), "No tenant's work took time"),
        (told(requests=0), "too few requests"),
        (told(nobodys=40.0), "no tenant's stands out"),
        (told(Pair("a", "a", "preemption", 2.0, 1)), "own work alone"),
    ],
)
def test_quiet_is_told_as_quiet(answer: Causes, word: str) -> None:
    assert word in nobody(answer, ())
    assert word in "".join(piece for piece, _ in who_harms_whom(answer, SELECTION))


def test_names_in_the_table_are_text() -> None:
    hostile = '"><img src=x onerror=y><b>bold</b>'
    table = linked(
        [Head(hostile, hostile, words=True)], [[Cell(hostile, "requests?tenant=%3Cb%3E")]], DARK, called=hostile
    )
    assert not re.search(r"<(img|b)\b", table)
    assert set(re.findall(r"<(\w+)", table)) == {"div", "table", "thead", "tr", "th", "tbody", "a"}
