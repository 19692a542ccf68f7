from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from base.errors import ConfigError
from servescope import config_file

if TYPE_CHECKING:
    from pathlib import Path


def test_a_relative_slo_file_lies_beside_the_configuration(tmp_path: Path):
    (tmp_path / "slo.yaml").write_text("version: 1\n")
    settings = {"alerts": {"slos": "slo.yaml"}}
    assert config_file.slo_file(settings, tmp_path / "servescope.yaml") == tmp_path / "slo.yaml"


def test_else_in_the_folder_of_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "slo.yaml").write_text("version: 1\n")
    (tmp_path / "etc").mkdir()
    monkeypatch.chdir(tmp_path)
    settings = {"alerts": {"slos": "slo.yaml"}}
    assert config_file.slo_file(settings, tmp_path / "etc" / "servescope.yaml") == tmp_path / "slo.yaml"
    assert config_file.slo_file(settings, None) == tmp_path / "slo.yaml"


def test_none_is_named():
    assert config_file.slo_file({}, None) is None
    assert config_file.slo_file({"alerts": None}, None) is None


def test_a_file_that_is_not_there_is_named_at_once(tmp_path: Path):
    with pytest.raises(ConfigError, match=r"gone\.yaml"):
        config_file.slo_file({"alerts": {"slos": "gone.yaml"}}, tmp_path / "servescope.yaml")
