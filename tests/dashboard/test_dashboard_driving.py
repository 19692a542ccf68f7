"""What shows a cause names requests, each the way to it."""

from __future__ import annotations

import re
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from urllib.parse import parse_qs, urlsplit

from analytics.causes.advice import ADVICE, DRIVER, stage_of
from analytics.causes.driving import DrivingRequest, in_words
from analytics.causes.evidence import Cause
from analytics.selection import Filter, Selection
from analytics.window import Window
from dashboard.causes_in_words import charged

START = datetime(2026, 5, 4, 10, tzinfo=UTC)
EARLY = START - timedelta(minutes=2)
WHOLE = Selection(Window(START, START + timedelta(minutes=10)), Filter(tenant=("acme",)))


def a_cause(*driving: DrivingRequest) -> dict[str, object]:
    name, shown = "kv_cache_full", ["7 requests lost 9 s.", in_words(driving)]
    advice, book = ADVICE[name]
    return asdict(
        Cause(name, stage_of(name), "queue", DRIVER[name], {"tenant": "hooli"}, 9.0, 0.6, 7, shown, advice, book,
              list(driving))
    )  # fmt: skip


def test_each_request_that_took_the_time_is_the_way_to_it() -> None:
    told = charged(
        a_cause(
            DrivingRequest("1", EARLY, "hooli", "i", 0.04, response_id="7"),
            DrivingRequest("2", START, "hooli", "i", 0.03, trace_id="[x](http://evil)"),
            DrivingRequest("3", START, "hooli", "i", 0.02),
        ),
        WHOLE,
        15.0,
    )
    assert "7 requests lost 9 s" in told.replace("\\", ""), (
        "an id that stands elsewhere as a number leads nowhere there"
    )
    ways = re.findall(r"\[((?:\\.|[^\[\]])*)\]\((requests\?[^)]*find=[^)]*)\)", told)
    assert [re.sub(r"[\\\u2060]", "", name) for name, _ in ways] == ["7", "[x](http://evil)"]
    first, second = (parse_qs(urlsplit(way).query) for _, way in ways)
    assert (first["find"], second["find"]) == (["7"], ["[x](http://evil)"])
    assert float(first["from"][0]) < EARLY.timestamp(), "it came before what was looked at"
    assert "tenant" not in first, "and is another's"
    assert "](http" not in told


def test_what_names_no_request_is_as_it_was() -> None:
    told = charged(a_cause(), WHOLE, 15.0)
    assert "find=" not in told
