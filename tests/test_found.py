"""What a folder holds is what there is: files put beside a package's own are found, their shared files are not."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner

from base import found
from servescope import cli, commands

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(commands, "__path__", [*commands.__path__, str(tmp_path)])
    return tmp_path


def test_a_command_is_one_file(folder: Path):
    (folder / "greet.py").write_text(
        '"""Greets."""\nimport click\n\n@click.command()\n@click.argument("whom")\ndef greet(whom):\n'
        '    """Greet somebody."""\n    click.echo(f"Hello {whom}")\n'
    )
    (folder / "_shared.py").write_text("raise RuntimeError('nobody imports it')\n")
    assert re.search(r"^  greet +Greets\.$", CliRunner().invoke(cli.main, ["--help"]).output, re.MULTILINE)
    assert CliRunner().invoke(cli.main, ["greet", "you"]).output == "Hello you\n"
    assert "_shared" not in found.names(commands)
    assert CliRunner().invoke(cli.main, ["no-such"]).exit_code == 2


def test_a_list_of_commands_imports_none(folder: Path):
    (folder / "broken.py").write_text('"""Breaks."""\nraise RuntimeError("imported")\n')
    assert "Breaks." in CliRunner().invoke(cli.main, ["--help"]).output


def test_a_file_without_what_makes_it_one_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(commands, "__path__", [str(folder)])
    (folder / "empty.py").write_text('"""Has nothing."""\n')
    with pytest.raises(found.NotFoundError, match=r"empty\.py has no flavour"):
        found.members(commands, "flavour")
