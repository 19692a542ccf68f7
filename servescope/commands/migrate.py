"""Bring the schema up to date; the collector does it by itself at its start."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import click

from collector.store import migrate as migrations
from collector.store.address import locate
from collector.store.client import Store
from servescope import options
from servescope.launch import borrowed
from servescope.launch.running import meant
from servescope.options import say

if TYPE_CHECKING:
    from pathlib import Path


@click.command()
@options.clickhouse
@options.as_json
@options.data
def migrate(clickhouse: str, as_json: bool, data: Path | None) -> None:
    """Bring the schema up to date; the collector does it by itself at its start."""
    folder = meant(data, clickhouse)
    with borrowed.store(folder, clickhouse, say, new=True) as url:
        address = locate(folder, url, role="owner")
        with Store(address, timeout_seconds=migrations.TIMEOUT_SECONDS) as store:
            applied = migrations.apply(store)
    if as_json:
        click.echo(json.dumps({"applied": applied}))
    else:
        click.echo("\n".join(applied) if applied else "The schema is up to date")
