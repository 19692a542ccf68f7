"""Make a recording of what the agent sees of a model server."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from agent.recording import record as recording
from agent.recording.keep import keep
from base.errors import ConfigError
from servescope import config_file, data_folder, options
from servescope.options import say
from servescope.settings import targets_of

if TYPE_CHECKING:
    from agent.recording.writing import Recorded


@click.command()
@click.argument("out", type=click.Path(path_type=Path))
@options.targets
@click.option("--seconds", type=click.FloatRange(1), default=60.0, show_default=True)
@click.option("--past", is_flag=True, help="What the agent's black box holds: the last minutes, instead of the next.")
@options.config
@options.as_json
@options.data
def record(
    out: Path,
    targets: tuple[str, ...],
    seconds: float,
    past: bool,
    config: Path | None,
    as_json: bool,
    data: Path | None,
) -> None:
    """Make a recording of what the agent sees of a model server."""
    folder = data or data_folder.default()
    made = _past(folder, out) if past else _next(folder, out, targets, seconds, config)
    if as_json:
        click.echo(json.dumps([
            {"folder": str(one.folder), "instance": one.instance}
            | {what.replace(" ", "_"): count for what, count in one.counts.items()}
            for one in made
        ]))  # fmt: skip


def _past(data: Path, out: Path) -> list[Recorded]:
    if out.exists() and any(out.iterdir()):
        raise ConfigError(f"{out} is not empty", "Give a new folder")
    made = keep(data, out)
    if not made:
        raise ConfigError(
            f"there is no black box in {data}", "An agent keeps one while it runs: name its data folder with --data"
        )
    for one in made:
        say(f"{one.folder}: " + ", ".join(f"{count} {what}" for what, count in one.counts.items() if count))
    return made


def _next(data: Path, out: Path, targets: tuple[str, ...], seconds: float, config: Path | None) -> list[Recorded]:
    settings = config_file.read_settings(config)
    found = asyncio.run(targets_of(targets, settings, tap=False))
    if not found:
        raise ConfigError("no model server was found here", "Give one with --target http://host:port")
    return asyncio.run(recording.record(out, found, seconds=seconds, spool=data / "spool", say=say))
