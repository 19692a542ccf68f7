"""A question is one file of the folder, with its statements beside it: asked by name and from the command line."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner

from analytics import questions
from analytics.ask import all_questions, ask
from analytics.question import QuestionError
from analytics.selection import Selection
from base import found
from servescope import cli
from tests.analytics.truth import latencies

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.analytics.lab import Lab

WEATHER = '''"""How it is outside."""

from dataclasses import dataclass

from analytics.inquiry import Inquiry
from analytics.question import Command, Option
from base.named_sql import beside

COMMAND = Command((Option("least_seconds", "Only requests that took so long.", float),))


@dataclass(frozen=True)
class Weather:
    """The sum."""

    slow: int


def ask(store, selection, *, least_seconds=0.0):
    inquiry = Inquiry(store, selection, beside(__file__))
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
    told = ask("weather", lab.store, Selection(lab.window), least_seconds=2.0)
    expected = sum(row["e2e_seconds"] >= 2.0 for row in lab.rows())
    assert told["rows"] == expected > 0
    assert "weather" in all_questions()
    with pytest.raises(QuestionError, match="weather takes no colour") as refused:
        ask("weather", lab.store, Selection(lab.window), colour="red")
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


def test_a_command_narrows_by_what_rows_know(folder: Path, lab: Lab):
    start, end = lab.window.start.isoformat(), lab.window.end.isoformat()
    base = ["weather", "--from", start, "--to", end, "--json", "--clickhouse", lab.store.address.url]

    def told(*words: str) -> dict[str, Any]:
        done = CliRunner().invoke(cli.main, [*base, *words])
        assert done.exit_code == 0, done.output
        return dict(json.loads(done.output))

    rows = [r for r in lab.rows() if (r["outcome"] if r["has_edge"] else "ok") in {"timeout", "rejected"}]
    assert told("--outcome", "timeout", "--outcome", "rejected")["rows"] == len(rows) > 0
    among = told("--slower-than", "ttft_seconds=200ms", "--faster-than", "ttft_seconds=0.6s")
    values = latencies(lab.rows(), "ttft_seconds")
    assert among["rows"] == sum(0.2 <= value < 0.6 for value in values) > 0
    assert among["filters"]["latency"] == {"signal": "ttft_seconds", "at_least": 0.2, "below": 0.6}
    one = lab.rows()[11]
    for words in (one["request_id"], one["trace_id"].encode().hex()):
        assert told("--request", words)["rows"] == 1


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--slower-than", "soon"), "--slower-than 'soon' is no duration"),
        (("--slower-than", "1s", "--faster-than", "ttft_seconds=2s"), "e2e_seconds and ttft_seconds"),
        (("--slower-than", "warp=2s"), "no latency 'warp'"),
        (("--slower-than", "3s", "--faster-than", "2s"), "not less than"),
    ],
)
def test_a_range_that_a_command_can_not_read_is_named(folder: Path, lab: Lab, words: tuple[str, ...], said: str):
    done = CliRunner().invoke(cli.main, ["weather", "--clickhouse", lab.store.address.url, *words])
    assert done.exit_code != 0
    assert said in f"{done.output} {done.exception}"


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
        "batching", "budget", "causes", "configuration", "contract", "difference", "features", "gpus", "hosts",
        "instances", "kvblocks", "kvcache", "latency", "ledger", "phases", "queue", "routers", "steps", "tenants",
        "traffic", "workload",
    }  # fmt: skip


def test_one_requests_story_wants_its_id(lab: Lab):
    with pytest.raises(QuestionError, match="story is about one request"):
        ask("story", lab.store, Selection(lab.window))
