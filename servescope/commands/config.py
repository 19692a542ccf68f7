"""The configuration file."""

from __future__ import annotations

import json
from pathlib import Path

import click

from servescope import options
from servescope.settings import configured


@click.group()
def config() -> None:
    """The configuration."""


@config.command(name="check")
@click.argument("file", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@options.as_json
def config_check(file: Path, as_json: bool) -> None:
    """Check servescope.yaml; every fault names its line and field."""
    settings, slos = configured(file, None)
    if as_json:
        click.echo(json.dumps({"file": str(file), "sections": sorted(settings), "slos": str(slos) if slos else None}))
    else:
        click.echo(f"{file} is right")
