"""A question is one file of the folder, with its statements beside it: asked by name and from the command line."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner

from analytics import questions
from analytics.ask import about_a_window, ask
from analytics.question import QuestionError
from base import found
from servescope import cli

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.analytics.lab import Lab

WEATHER = '''"""How it is outside."""

from dataclasses import dataclass

from analytics.inquiry import Inquiry
from analytics.question import Command, Option
from analytics.selection import Filter
from base.named_sql import beside

COMMAND = Command((Option("least_seconds", "Only requests that took so long.", float),))


@dataclass(frozen=True)
class Weather:
    """The sum."""

    slow: int


def ask(store, window, filter=Filter(), *, least_seconds=0.0):
    inquiry = Inquiry(store, window, filter, beside(__file__))
    cover = inquiry.coverage()
    slow = int(inquiry.ask("slow", least=least_seconds)[0]["n"])
    return inquiry.answer(Weather(slow), cover, level="rows", exactness="exact", rows=slow)
'''
SLOW = """-- name: slow
SELECT count() AS n FROM requests
WHERE time >= fromUnixTimestamp64Milli({from_ms:Int64}) AND time < fromUnixTimestamp64Milli({to_ms:Int64})
  AND e2e_seconds >= {least:Float64} /*filter:requests*/
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setattr(questions, "__path__", [*questions.__path__, str(tmp_path)])
    (tmp_path / "weather.py").write_text(WEATHER)
    (tmp_path / "weather.sql").write_text(SLOW)
    yield tmp_path
    for name in [name for name in sys.modules if name.startswith("analytics.questions.")]:
        if str(tmp_path) in str(sys.modules[name].__file__):
            del sys.modules[name]
            delattr(questions, name.rpartition(".")[2])


def test_a_question_is_one_file_with_its_statements(folder: Path, lab: Lab):
    told = ask("weather", lab.store, lab.window, least_seconds=2.0)
    expected = sum(row["e2e_seconds"] >= 2.0 for row in lab.rows())
    assert told["rows"] == expected > 0
    assert "weather" in about_a_window()
    with pytest.raises(QuestionError, match="weather takes no colour") as refused:
        ask("weather", lab.store, lab.window, colour="red")
    assert refused.value.fix == "It takes least_seconds"


def test_what_declares_a_command_has_one_with_its_options(folder: Path, lab: Lab):
    start, end = lab.window.start.isoformat(), lab.window.end.isoformat()
    words = ["weather", "--from", start, "--to", end, "--least-seconds", "2", "--model", "llama", "--json"]
    done = CliRunner().invoke(cli.main, [*words, "--clickhouse", lab.store.address.url])
    assert done.exit_code == 0, done.output
    told = json.loads(done.output)
    assert told["filters"]["model"] == ["llama"]
    assert told["rows"] == sum(row["e2e_seconds"] >= 2.0 and row["model"] == "llama" for row in lab.rows())
    assert "Only requests that took so long." in CliRunner().invoke(cli.main, ["weather", "--help"]).output


def test_the_list_of_commands_reads_questions_and_imports_none(folder: Path):
    (folder / "broken.py").write_text('"""Breaks."""\nCOMMAND = None\nraise RuntimeError("imported")\n')
    (folder / "silent.py").write_text('"""Has no command: COMMAND stands in its words alone."""\n')
    listed = CliRunner().invoke(cli.main, ["--help"]).output
    assert "How it is outside." in listed
    assert "Breaks." in listed
    assert "silent" not in listed
    assert "silent" in found.names(questions)


def test_every_question_has_what_makes_it_one():
    for name, asked in found.members(questions, "ask").items():
        assert callable(asked), name
        assert found.summary(f"{questions.__name__}.{name}").endswith("."), name
    assert set(found.declaring(questions, "COMMAND")) == {
        "batching", "budget", "causes", "kvcache", "latency", "phases", "queue", "tenants", "traffic"
    }  # fmt: skip


def test_one_requests_story_is_about_no_window(lab: Lab):
    with pytest.raises(QuestionError, match="story is about no window"):
        ask("story", lab.store, lab.window)
