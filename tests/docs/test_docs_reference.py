"""The reference names every setting, command, option, table and column there is, and none that is not."""

from __future__ import annotations

import re
from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING

import click
import pytest
import yaml

from agent import discovery
from agent.config import AgentConfig, TargetConfig
from agent.tap.config import TapLimits, TenantConfig
from alerts.config import AlertsConfig
from alerts.deliver.route import Route
from alerts.rules.model import Threshold
from alerts.rules.slo import Slo
from base import found
from collector import retention
from collector.config import CollectorConfig, SenderKey
from dashboard.config import DashboardConfig
from servescope import config_file
from servescope.cli import main
from tests.kits.docs import REFERENCE, ROOT, blocks, first_cells, sections

if TYPE_CHECKING:
    from pathlib import Path

    from pydantic import BaseModel
    from pydantic.fields import FieldInfo

SETTINGS: dict[str, type[BaseModel]] = {
    "agent": AgentConfig,
    "agent.targets[]": TargetConfig,
    **{f"agent.discovery[{name}]": kind for name, kind in found.members(discovery, "Settings").items()},
    "agent.tenant": TenantConfig,
    "agent.tap": TapLimits,
    "collector": CollectorConfig,
    "collector.sender_keys[]": SenderKey,
    "alerts": AlertsConfig,
    **{f"alerts.{name}": settings for name, settings in AlertsConfig.sections().items()},
    "alerts.routes[]": Route,
    "dashboard": DashboardConfig,
}
PARTS = {
    "agent": "agent.__main__",
    "tap": "agent.tap.__main__",
    "collector": "collector.__main__",
    "alerts": "alerts.__main__",
    "dashboard": "dashboard.__main__",
}
CONFIGURATION = REFERENCE / "configuration.md"
SCHEMA = ROOT / "collector" / "schema"
INNER = re.compile(
    r"land_\w+|requests_t|instance_gpus_t|gpu_pods_t|pod_servers_t|instance_lives_t|request_(?:keys|orphans|claims)|triton_spans|schema_migrations"
)


@cache
def commands() -> dict[str, click.Command]:
    """Every command by its words; a part is the command of its own process."""
    found: dict[str, click.Command] = {}

    def walk(group: click.Group, path: str) -> None:
        context = click.Context(group)
        for name in group.list_commands(context):
            command = group.get_command(context, name)
            assert command is not None
            words = f"{path} {name}".strip()
            if isinstance(command, click.Group):
                walk(command, words)
            else:
                found[words] = import_module(PARTS[words]).main if words in PARTS else command

    walk(main, "")
    return found


def long_options(command: click.Command) -> set[str]:
    return {
        name
        for option in command.params
        if isinstance(option, click.Option)
        for name in option.opts
        if name[:2] == "--"
    }


def stated_default(setting: FieldInfo) -> str | None:
    """What the table's second cell must say; None where it may be free text."""
    if setting.is_required():
        return "required"
    value = setting.get_default(call_default_factory=True)
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, str):
        return f"`{value}`" if value else '`""`'
    if isinstance(value, int | float):
        return f"`{value}`"
    return "none" if value is None else None


def tables() -> dict[str, set[str]]:
    """Columns of every table, nested ones as ``outer.inner``; those that ``SELECT *`` leaves out are left out."""
    text = "".join(path.read_text() for path in sorted(SCHEMA.glob("*.sql")))
    found: dict[str, set[str]] = {}
    for name, body in re.findall(
        r"CREATE TABLE IF NOT EXISTS \{database\}\.(\w+) \{on_cluster\}\n\(\n(.*?)\n\)\n", text, re.DOTALL
    ):
        columns, outer = set(), ""
        for line in body.splitlines():
            word, _, kind = line.strip().partition(" ")
            if kind.startswith("Nested ("):
                outer = f"{word}."
            elif word.startswith(")"):
                outer = ""
            elif re.fullmatch(r"[A-Za-z]\w*", word) and word != "INDEX" and " MATERIALIZED " not in kind:
                columns.add(outer + word)
        # a table that is replaced is made beside the one whose place it takes
        found[name.removesuffix("_next")] = columns
    for name, body in re.findall(r"ALTER TABLE \{database\}\.(\w+) \{on_cluster\}(.*?);", text, re.DOTALL):
        if name in found:
            found[name] |= set(re.findall(r"ADD COLUMN IF NOT EXISTS (\w+)", body))
    return found


def view_columns() -> set[str]:
    """Columns of the view ``requests``."""
    text = [
        text for path in sorted(SCHEMA.glob("*.sql")) if " VIEW {database}.requests " in (text := path.read_text())
    ][-1]
    body = re.search(r"CREATE OR REPLACE VIEW .*?\nSELECT\n(.*?)\nFROM", text, re.DOTALL)
    assert body is not None
    plain = re.sub(r"--.*", "", body[1])
    while (inner := re.sub(r"\([^()]*\)", "", plain)) != plain:
        plain = inner
    return {piece.split()[-1] for piece in plain.split(",")}


@pytest.mark.parametrize("prefix", SETTINGS)
def test_every_setting_is_documented_with_its_default(prefix: str):
    stated = first_cells(CONFIGURATION.read_text())
    model = SETTINGS[prefix]
    mine = {name for name in stated if name.rpartition(".")[0] == prefix}
    sections = AlertsConfig.sections() if model is AlertsConfig else {}
    assert mine == {f"{prefix}.{name}" for name in (*model.model_fields, *sections)}
    for name, setting in model.model_fields.items():
        wanted = stated_default(setting)
        if wanted is not None:
            assert stated[f"{prefix}.{name}"] == wanted, f"default of {prefix}.{name}"


def test_every_field_of_the_slo_file_is_documented():
    text = sections(CONFIGURATION)["The SLO file"]
    words = set(re.findall(r"`([a-z_]+)`", text))
    fields = {setting.alias or name for model in (Slo, Threshold) for name, setting in model.model_fields.items()}
    assert fields - words == set()


@pytest.mark.parametrize("document", ["docs/reference/configuration.md", "deploy/README.md", "README.md"])
def test_examples_of_the_configuration_are_right(tmp_path: Path, document: str):
    checked = 0
    file = tmp_path / "servescope.yaml"
    for block in blocks((ROOT / document).read_text(), "yaml"):
        if not {"slos", "rules", "version"} & set(yaml.safe_load(block)):
            file.write_text(block)
            config_file.read_settings(file)
            checked += 1
    assert checked


def test_every_command_and_option_is_documented():
    stated = sections(REFERENCE / "commands.md")
    known = commands()
    assert {title.removeprefix("servescope ") for title in stated if title.startswith("servescope ")} == set(known)
    for words, command in known.items():
        text = stated[f"servescope {words}"]
        documented = {cell.split()[0] for cell in first_cells(text) if cell.startswith("--")}
        assert documented == long_options(command), words


def test_every_benchmark_that_is_documented_is_there():
    named = first_cells(sections(REFERENCE / "commands.md")["Benchmarks"])
    assert named
    assert [name for name in named if not (ROOT / "benchmarks" / f"{name}.py").exists()] == []


def test_every_term_of_retention_is_documented():
    stated = first_cells(sections(REFERENCE / "configuration.md")["collector.retention_days"])
    assert set(stated) == set(retention.defaults())
    for name, days in retention.defaults().items():
        assert f"| `{name}` | {days} |" in (REFERENCE / "configuration.md").read_text()


def test_every_table_and_column_is_documented():
    stated = sections(REFERENCE / "tables.md")
    inner = first_cells(stated["Behind them"])
    known = tables()
    assert len(known) > 20
    for name, columns in known.items():
        if INNER.fullmatch(name):
            assert name in inner
        elif name.startswith("otel_"):
            assert set(re.findall(r"`([\w.]+)`", stated[name])) == columns, name
        else:
            assert set(first_cells(stated[name])) == columns, name
    assert set(first_cells(stated["requests"])) == view_columns()
    assert set(inner) - set(known) == {"schema_migrations"}


def test_every_view_is_documented():
    text = "".join(path.read_text() for path in SCHEMA.glob("*.sql"))
    views = set(re.findall(r"CREATE MATERIALIZED VIEW IF NOT EXISTS \{database\}\.(\w+)", text))
    assert views
    named = set(re.findall(r"`(\w+_mv)`", sections(REFERENCE / "tables.md")["Behind them"]))
    assert named == views
