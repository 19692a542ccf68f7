"""A notifier is one file: what is put beside the others has a section of the configuration, and is told of pages."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from alerts import process
from alerts.config import AlertsConfig, read_config
from alerts.deliver import notify
from base import found
from base.errors import ConfigError
from base.yamlfile import FileError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

LETTER = '''
"""Letters in a folder."""

import json
from pathlib import Path

from alerts.deliver.notifier import Delivery, NotifierSettings
from base.errors import ConfigError


class Settings(NotifierSettings):
    """Where letters are laid."""

    folder: Path
    paper: str = "white"

    def check(self):
        if not self.folder.is_dir():
            raise ConfigError(f"alerts.letter.folder {self.folder} is no folder", "Name one")

    def notifier(self, around):
        return Letter(self.folder, around.clock)


class Letter:
    name = "letter"

    def __init__(self, folder, clock):
        self.destination, self._folder, self._clock = f"file:{folder}", folder, clock

    def render(self, message):
        return {"action": message.action, "title": message.title}

    def send(self, payload):
        (self._folder / f"{self._clock():.0f}.json").write_text(json.dumps(payload))
        return Delivery("sent")

    def close(self):
        (self._folder / "closed").touch()
'''
RULES = """
rules:
  - {name: waiting, when: {kind: signal, signal: waiting, above: 20}}
"""


class Samples:
    """A store with one server that has a queue."""

    def __init__(self) -> None:
        self.now = 1_800_000_000.0

    def rows(self, sql: str, *_: object, **__: object) -> list[dict[str, Any]]:
        if "min(up) AS up" not in sql:
            return []
        place = {"instance": "a", "model": "m", "deployment": "d", "engine": "vllm", "region": "", "version": ""}
        told = {"at": int(self.now * 1000), "replayed": 0, "up": 1, "scrape_seconds": 0.1, "interval_seconds": 1.0}
        return [{**place, **told, "waiting": 57.0}]

    def insert(self, *_: object) -> None:
        """Takes everything."""

    def close(self) -> None:
        """Nothing is open."""


@pytest.fixture
def letter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    beside = tmp_path / "notify"
    beside.mkdir()
    (beside / "letter.py").write_text(LETTER)
    monkeypatch.setattr(notify, "__path__", [*notify.__path__, str(beside)])
    letters = tmp_path / "letters"
    letters.mkdir()
    yield letters
    monkeypatch.undo()
    assert "letter" not in found.names(notify)


def configured(folder: Path, text: str) -> AlertsConfig:
    (folder / "servescope.yaml").write_text(text)
    return read_config(folder / "servescope.yaml")


def test_a_notifier_is_one_file_and_is_told_through_the_loop(letter: Path, tmp_path: Path):
    (tmp_path / "rules.yaml").write_text(RULES)
    config = configured(
        tmp_path,
        f"alerts:\n  slos: rules.yaml\n  letter: {{folder: {letter}}}\n  routes: [{{notify: [letter]}}]\n"
        "  health_port: 0\n",
    )
    store = Samples()
    pager = process.build(config, tmp_path, store, clock=lambda: store.now)  # type: ignore[arg-type]
    try:
        assert pager.outbox.names == ("letter", "pagerduty")
        assert {worker.name for worker in pager.workers} >= {"send-letter", "send-pagerduty"}
        pager.once()
        store.now += 5
        pager.once()
        pager.outbox.deliver("letter")
        (told,) = [json.loads(one.read_text()) for one in letter.glob("*.json")]
        assert told == {"action": "trigger", "title": "waiting 57 on a, model m, limit 20, for 0 s"}
        assert pager.outbox.counts()["sent"] == 1  # the route names nobody else
    finally:
        pager.close()
    assert (letter / "closed").exists()


def test_its_section_is_checked_by_field_and_its_secrets_by_itself(letter: Path, tmp_path: Path):
    for section, said in (
        ("{}", "servescope.yaml:2: alerts.letter.folder: is missing"),
        ("{folder: x, papier: red}", "servescope.yaml:2: alerts.letter.papier: no such field"),
        ("5", "servescope.yaml:2: alerts.letter: must be a mapping"),
    ):
        with pytest.raises(FileError) as caught:
            configured(tmp_path, f"alerts:\n  letter: {section}\n")
        assert said in caught.value.faults[0]
    with pytest.raises(ConfigError, match=r"alerts\.letter\.folder nosuch is no folder"):
        configured(tmp_path, "alerts: {letter: {folder: nosuch}}").check()


def test_a_route_names_those_that_are_there(letter: Path, tmp_path: Path):
    def faults(text: str) -> str:
        with pytest.raises(FileError) as caught:
            configured(tmp_path, text)
        return caught.value.faults[0]

    route = "routes: [{notify: [slack]}]"
    assert faults(f"alerts: {{{route}}}").endswith("slack is no notifier: there is pagerduty")
    both = f"alerts: {{letter: {{folder: {letter}}}, {route}}}"
    assert faults(both).endswith("slack is no notifier: there is letter and pagerduty")


def test_without_its_file_there_is_no_such_section(tmp_path: Path):
    with pytest.raises(FileError, match=r"alerts\.letter: no such field"):
        configured(tmp_path, f"alerts: {{letter: {{folder: {tmp_path}}}}}")


@pytest.mark.parametrize("name", found.names(notify))
def test_each_file_has_settings_and_the_manual_knows_them(name: str):
    assert AlertsConfig.sections()[name].__module__ == f"alerts.deliver.notify.{name}"
