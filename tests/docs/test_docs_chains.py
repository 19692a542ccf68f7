"""What docs/causes.md says may lead to what is what chains are told by."""

from __future__ import annotations

import re
from pathlib import Path

from analytics.causes.mechanisms import BEGINNINGS, LEADS

PAGE = Path(__file__).parents[2] / "docs" / "causes.md"


def told() -> dict[tuple[str, str], set[str]]:
    """By ``("event" or "cause", name)`` what the table has behind it; rows of the same name add up."""
    _, _, rest = PAGE.read_text().partition("| From | To |\n|---|---|\n")
    found: dict[tuple[str, str], set[str]] = {}
    for line in rest.split("\n\n", 1)[0].splitlines():
        origin, led = line.strip("| ").split(" | ")
        kind = "event" if origin.startswith("event") else "cause"
        for name in re.findall(r"`(\w+)`", origin):
            found.setdefault((kind, name), set()).update(re.findall(r"`(\w+)`", led))
    return found


def test_the_table_of_what_leads_to_what_is_that_of_the_mechanisms():
    known = {("cause", cause): set(led) for cause, led in LEADS.items()}
    assert told() == known | {("event", event): set(led) for event, led in BEGINNINGS.items()}
