"""The glossary has every phase, outcome, signal, latency, level and exactness; the wire every attribute."""

from __future__ import annotations

import re
from typing import get_args

from agent.engine_table import tables
from alerts.measure.signals import REQUEST_SIGNALS, SAMPLE_SIGNALS
from alerts.rules.rule import SEVERITIES
from analytics.answer import Exactness, Level, State
from analytics.signals import PHASES, SIGNALS
from analytics.slo import BAD
from base import signing, vocabulary
from base.vocabulary import Distribution, Edge, Outcome, Resource, Signal
from tests.kits.docs import REFERENCE, ROOT, first_cells, sections

GLOSSARY = ROOT / "docs" / "glossary.md"
WIRE = REFERENCE / "wire.md"


def words(text: str) -> set[str]:
    return set(re.findall(r"`([^`\s]+)`", text))


def constants(holder: type) -> set[str]:
    return {value for name, value in vars(holder).items() if name.isupper()}


def test_phases_in_the_order_of_the_code():
    assert tuple(first_cells(sections(GLOSSARY)["Phases of a request"])) == PHASES


def test_outcomes_and_which_are_bad():
    text = sections(GLOSSARY)["Outcomes"]
    assert set(first_cells(text)) == set(Outcome)
    bad = set(re.findall(r"^\| `(\w+)` \|.*\| yes \|$", text, re.MULTILINE))
    assert bad == set(BAD)


def test_signals_and_distributions():
    text = sections(GLOSSARY)["Samples"]
    assert set(first_cells(text)) == set(Signal)
    assert set(Distribution) <= words(text)


def test_latencies():
    named = words(sections(GLOSSARY)["Latencies"])
    assert set(SIGNALS) | set(REQUEST_SIGNALS) <= named


def test_levels_exactness_and_states():
    named = words(sections(GLOSSARY)["Levels and exactness"].replace(",", " "))
    assert {*get_args(Level), *get_args(Exactness), *get_args(State)} <= named


def test_engines_and_severities():
    named = words(GLOSSARY.read_text())
    assert set(tables()) | set(SEVERITIES) <= named


def test_signals_that_a_rule_may_name():
    named = words((REFERENCE / "configuration.md").read_text())
    assert {name for name in SAMPLE_SIGNALS if not name.endswith("_per_second")} <= named


def test_attributes_scopes_and_headers_of_the_wire():
    named = words(WIRE.read_text())
    scopes = {value for name, value in vars(vocabulary).items() if name.startswith("SCOPE_")}
    headers = {value for name, value in vars(signing).items() if name.startswith("HEADER_")}
    for wanted in (constants(Resource), constants(Edge), scopes, headers):
        assert wanted
        assert wanted - named == set()
