"""Ingest a recording at its own times."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import click

from agent.recording import replay as replaying
from servescope import data_folder, options
from servescope.launch import borrowed
from servescope.options import say


@click.command()
@click.argument("folder", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option("--shift-to-now", is_flag=True, help="Move all times so that the recording ends now.")
@click.option("--loop", is_flag=True, help="Play in real time, over and over.")
@click.option("--again", is_flag=True, help="Store what was stored before once more, its rows being gone.")
@options.clickhouse
@options.as_json
@options.data
def replay(
    folder: Path,
    shift_to_now: bool,
    loop: bool,
    again: bool,
    clickhouse: str,
    as_json: bool,
    data: Path | None,
) -> None:
    """Ingest a recording at its own times, through the same code path as live data."""
    with borrowed.collector(data or data_folder.default(), clickhouse, say) as (otlp, keys):
        report = asyncio.run(
            replaying.replay(folder, otlp, shift_to_now=shift_to_now, loop=loop, again=again, keys=keys)
        )
    if report["batches"] and report["repeated"] == report["batches"]:
        say("All of it had been stored before and is left as it is; if its rows are gone since, add --again")
    click.echo(json.dumps(report) if as_json else ", ".join(f"{key} {value}" for key, value in report.items()))
