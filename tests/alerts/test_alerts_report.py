"""An incident as text: names from strangers become no markup."""

from __future__ import annotations

import re
from datetime import UTC, datetime

import pytest

from alerts.incidents.history import AlertRow, IncidentRow, IncidentStory, NotificationRow, TimelineEntry
from alerts.incidents.report import story_markdown
from alerts.text import markdown

HOSTILE = (
    "[click](http://evil.test)",
    "![p](https://evil.test/p.png)",
    "<img src=x onerror=alert(1)>",
    "`code` and `more`",
    "a | b | c",
    "https://evil.test/x",
    "www.evil.test",
    "ask @everyone about #1",
    "# title",
    "- item",
    "1. one",
    "***bold*** ~~gone~~ __low__ $x$ &lt;",
    "line\n\n# title\r\n| row |",
)


def story(name: str) -> IncidentStory:
    now = datetime(2026, 1, 1, tzinfo=UTC)
    row = IncidentRow("i", now, now, None, "open", "critical", name, name, {"tenant": name}, name, 1.0)
    return IncidentStory(
        row,
        [TimelineEntry(now, name, name, {})],
        [AlertRow("r", {"tenant": name}, "firing", now, 1.0, 1.0, name, "i")],
        [NotificationRow("n", now, "webhook", "trigger", "k", "failed", 1, name, "http://h", {}, None)],
        {"tenants": [{"tenant": name, "seconds": 1.0}]},
    )


@pytest.mark.parametrize("name", HOSTILE)
def test_no_name_becomes_markup(name: str):
    text = story_markdown(story(name))
    lines = text.splitlines()
    assert len(lines) == len(story_markdown(story("plain")).splitlines())
    bare = re.sub(r"\\.", "", text)  # without what is escaped
    for mark in ("](", "![", "<img", "***", "~~", "http://evil", "https://evil", "www.", "@everyone"):
        assert mark not in bare
    assert bare.count("`") == 2  # of the incident's own id
    (row,) = [line for line in lines if line.startswith("| 2026")]
    assert len(re.findall(r"(?<!\\)\|", row)) == 4
    assert sum(line.startswith("#") for line in lines) == 4


@pytest.mark.parametrize("name", ["llama-3.1-8b", "triton-a, model m, limit 20, for 6 s", "Zoë", "模型"])
def test_ordinary_names_stay_readable(name: str):
    assert markdown(name) == name
