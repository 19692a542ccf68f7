"""Check this machine and the Servescope that runs on it."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from servescope import checkup, options
from servescope.config_file import read_settings
from servescope.launch.running import meant

if TYPE_CHECKING:
    from collections.abc import Mapping


@click.command()
@options.clickhouse
@options.as_json
@options.config
@options.data
def doctor(clickhouse: str, as_json: bool, config: Path | None, data: Path | None) -> None:
    """Check this machine and the Servescope that runs on it; exit code 1 when something is broken."""
    folder = meant(data, clickhouse)
    written = folder / "run.yaml"
    settings = read_settings(config or (written if written.is_file() else None), check=False)
    findings = checkup.examine(folder, clickhouse, _certificates(settings))
    if as_json:
        click.echo(json.dumps([finding.as_json() for finding in findings], indent=2))
    else:
        for finding in findings:
            click.echo(f"{finding.state:<8} {finding.name}: {finding.text}")
            if finding.fix:
                click.echo(f"{'':<8} → {finding.fix}")
    if any(finding.state == "broken" for finding in findings):
        sys.exit(1)


def _certificates(settings: Mapping[str, Any]) -> dict[str, Path]:
    """Files of certificates that a configuration names."""
    named = {
        "collector": ("certificate_file", "client_ca_file"),
        "agent": ("client_certificate_file",),
    }
    return {
        f"{section}.{setting}": Path(str(file))
        for section, names in named.items()
        for setting in names
        if (file := (settings.get(section) or {}).get(setting))
    }
