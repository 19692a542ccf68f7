from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from base.errors import ConfigError
from collector.config import CollectorConfig, load

if TYPE_CHECKING:
    from pathlib import Path


def test_no_file_and_no_section_mean_defaults(tmp_path: Path):
    file = tmp_path / "servescope.yaml"
    file.write_text("agent: {}\n")
    assert load(None) == load(file) == CollectorConfig()


def test_fields_are_read(tmp_path: Path):
    file = tmp_path / "servescope.yaml"
    file.write_text("collector: {port: 5318, clickhouse: http://db:8123, store_prompts: true}\n")
    assert (load(file).port, load(file).clickhouse, load(file).store_prompts) == (5318, "http://db:8123", True)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("collector: {port: 99999}", "collector.port"),
        ("collector: {prot: 1}", "collector.prot"),
        ("a: [", "not YAML"),
    ],
)
def test_a_wrong_field_is_named(tmp_path: Path, text: str, named: str):
    file = tmp_path / "servescope.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=named):
        load(file)


def test_a_missing_file_is_named(tmp_path: Path):
    with pytest.raises(ConfigError, match=r"nothing\.yaml"):
        load(tmp_path / "nothing.yaml")
