"""Check this machine and the Servescope that runs on it."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

import click

from servescope import checkup, options
from servescope.launch.running import meant

if TYPE_CHECKING:
    from pathlib import Path


@click.command()
@options.clickhouse
@options.as_json
@options.data
def doctor(clickhouse: str, as_json: bool, data: Path | None) -> None:
    """Check this machine and the Servescope that runs on it; exit code 1 when something is broken."""
    findings = checkup.examine(meant(data, clickhouse), clickhouse)
    if as_json:
        click.echo(json.dumps([finding.as_json() for finding in findings], indent=2))
    else:
        for finding in findings:
            click.echo(f"{finding.state:<8} {finding.name}: {finding.text}")
            if finding.fix:
                click.echo(f"{'':<8} → {finding.fix}")
    if any(finding.state == "broken" for finding in findings):
        sys.exit(1)
