"""An engine is one file: a table put beside the others is known by every door that a page comes through."""

from __future__ import annotations

import json
import textwrap
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner
from pydantic import ValidationError

from agent import engine_table, engines
from agent.config import TargetConfig
from servescope import cli

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

TABLE = """\
    from agent.engine_table import Rule, Table
    from base.vocabulary import Signal

    TABLE = Table(
        engine="newcomer",
        prefixes=("newcomer_",),
        rules=(Rule(Signal.RUNNING, "newcomer_active"), Rule(Signal.PROMPT_TOKENS_TOTAL, "newcomer_tokens_in_total")),
        model_labels=("model",),
    )
"""
PAGE = """\
# TYPE newcomer_active gauge
newcomer_active{model="m1"} 3
# TYPE newcomer_tokens_in_total counter
newcomer_tokens_in_total{model="m1"} 1200
# TYPE newcomer_moods gauge
newcomer_moods 1
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setattr(engines, "__path__", [*engines.__path__, str(tmp_path)])
    _forget()
    yield tmp_path
    monkeypatch.undo()
    _forget()


def _forget() -> None:
    engine_table.tables.cache_clear()
    engine_table.known_families.cache_clear()


def test_an_engine_is_one_file(folder: Path):
    (folder / "newcomer.py").write_text(textwrap.dedent(TABLE))
    (folder / "_shared.py").write_text("raise RuntimeError('nobody imports it')\n")
    (folder / "page.txt").write_text(PAGE)
    answer = CliRunner().invoke(cli.main, ["probe", str(folder / "page.txt")])
    assert answer.exit_code == 0, answer.output
    told = json.loads(answer.output)
    assert (told["engine"], told["models"]) == ("newcomer", ["m1"])
    assert told["signals"] == {"running": 3.0, "prompt_tokens_total": 1200.0}
    assert told["unmapped"] == ["newcomer_moods"]
    assert TargetConfig(instance="a", engine="newcomer", url="http://127.0.0.1:1").engine == "newcomer"


def test_without_its_file_it_is_unknown(folder: Path):
    (folder / "page.txt").write_text(PAGE)
    answer = CliRunner().invoke(cli.main, ["probe", str(folder / "page.txt")])
    assert answer.exit_code == 1
    with pytest.raises(ValidationError, match="is no engine known here"):
        TargetConfig(instance="a", engine="newcomer", url="http://127.0.0.1:1")
