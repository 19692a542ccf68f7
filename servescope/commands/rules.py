"""SLOs and rules."""

from __future__ import annotations

import json
from pathlib import Path

import click

from alerts import rulesfile


@click.group()
def rules() -> None:
    """SLOs and rules."""


@rules.command(name="check")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print JSON of a stable shape.")
def rules_check(file: Path, as_json: bool) -> None:
    """Check a rules file; every fault names file, line and field."""
    click.echo(json.dumps(rulesfile.summary(rulesfile.load(file))) if as_json else rulesfile.check(file))
