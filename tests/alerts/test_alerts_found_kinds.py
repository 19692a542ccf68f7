"""A kind of rule is one file: what is put beside the others can be written in a rules file, and pages."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from alerts.rules import kinds
from alerts.rules.file import RulesError, parse, summary
from base import found
from tests.kits.alerts_stage import Stage

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

FULL = '''
"""More work than places."""

from typing import Literal

from alerts.measure.needs import Needs
from alerts.rules.condition import Condition
from alerts.rules.reading import Reading, apart, trailing_run


class When(Condition):
    """More running requests than `places`."""

    kind: Literal["full"]
    places: float

    def needs(self, scope):
        return Needs(columns={"running": "sum"}, look_back=5.0, replays=scope.replays)

    def identity(self):
        return ("instance",)

    def judge(self, scope, measured, now):
        readings = []
        for labels, context, samples in apart(self.identity(), scope, measured.series):
            values = [(one.at, one.values["running"]) for one in samples if "running" in one.values]
            run = trailing_run([(at, value > self.places, value) for at, value in values])
            if run is not None:
                said = f"{labels['instance']} is full: {run.seen.value:g}"
                readings.append(Reading(labels, run.seen, said, self.places, 0.0, context))
        return readings

    def blind(self, scope, held):
        if self.places <= 0:
            yield ("when", "places"), "a server has some: give their number"
'''
RULES = "rules:\n  - {name: f, when: {kind: full, places: 8}, runbook: docs/full.md}\n"


@pytest.fixture
def full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    folder = tmp_path / "kinds"
    folder.mkdir()
    (folder / "full.py").write_text(FULL)
    monkeypatch.setattr(kinds, "__path__", [*kinds.__path__, str(folder)])
    yield
    monkeypatch.undo()
    assert "full" not in found.names(kinds)


def test_a_kind_is_one_file_and_pages_through_the_loop(full: None, tmp_path: Path):
    stage = Stage(tmp_path / "alerts", text=RULES)
    try:
        stage.run(10, running=8)
        assert stage.pages == []
        stage.run(10, running=9)
        assert stage.pages == ["trigger"]
        (message,) = stage.sent.messages
        assert (message.title, message.source, message.severity) == ("a is full: 9", "a", "critical")
        assert stage.engine.watch.measurer is stage
        assert [rule.needs().columns for rule in stage.engine.rules] == [{"running": "sum"}]
        stage.run(30, running=1)
        assert stage.pages == ["trigger", "resolve"]
    finally:
        stage.journal.close()


def test_what_is_wrong_with_it_is_told_by_line_and_field(full: None):
    for change, said in (
        (("places: 8", "places: many"), "r.yaml:2: rules[0].when.places: must be a number (got 'many')"),
        (("places: 8", "places: 8, plaices: 9"), "r.yaml:2: rules[0].when.plaices: no such field"),
        (("places: 8", "places: 0"), "r.yaml:2: rules[0].when.places: a server has some: give their number"),
        (
            ("kind: full", "kind: empty"),
            "r.yaml:2: rules[0].when: kind 'empty' is none of 'contract', 'full', ",
        ),
    ):
        with pytest.raises(RulesError) as caught:
            parse(RULES.replace(*change), "r.yaml")
        assert caught.value.faults[0].startswith(said), caught.value.faults
    assert summary(parse(RULES))["rules"][0]["kind"] == "full"  # type: ignore[index]


def test_without_its_file_there_is_no_such_kind():
    with pytest.raises(RulesError, match="kind 'full' is none of 'contract', 'share', 'signal', 'silent', 'wedged'"):
        parse(RULES)


@pytest.mark.parametrize("name", found.names(kinds))
def test_each_file_bears_the_word_that_people_write(name: str):
    field = found.module(kinds, name).When.model_fields["kind"]
    assert field.annotation.__args__ == (name,)
