"""Make a recording of what the agent sees of a model server."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import click

from agent.recording import record as recording
from base.errors import ConfigError
from servescope import config_file, data_folder, options
from servescope.options import say
from servescope.settings import targets_of


@click.command()
@click.argument("out", type=click.Path(path_type=Path))
@options.targets
@click.option("--seconds", type=click.FloatRange(1), default=60.0, show_default=True)
@options.config
@options.as_json
@options.data
def record(
    out: Path, targets: tuple[str, ...], seconds: float, config: Path | None, as_json: bool, data: Path | None
) -> None:
    """Make a recording of what the agent sees of a model server."""
    settings = config_file.read_settings(config)
    found = asyncio.run(targets_of(targets, settings, tap=False))
    if not found:
        raise ConfigError("no model server was found here", "Give one with --target http://host:port")
    spool = (data or data_folder.default()) / "spool"
    made = asyncio.run(recording.record(out, found, seconds=seconds, spool=spool, say=say))
    if as_json:
        click.echo(json.dumps([
            {"folder": str(one.folder), "instance": one.instance}
            | {what.replace(" ", "_"): count for what, count in one.counts.items()}
            for one in made
        ]))  # fmt: skip
