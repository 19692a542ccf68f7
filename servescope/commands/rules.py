"""SLOs and rules."""

from __future__ import annotations

import json
from pathlib import Path

import click

from alerts.rules import file as rules_file


@click.group()
def rules() -> None:
    """SLOs and rules."""


@rules.command(name="check")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print JSON of a stable shape.")
def rules_check(file: Path, as_json: bool) -> None:
    """Check a rules file; every fault names file, line and field."""
    click.echo(json.dumps(rules_file.summary(rules_file.load(file))) if as_json else rules_file.check(file))
