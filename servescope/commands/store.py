"""The embedded ClickHouse, alone."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import click

from base.keys import ensure_keys
from servescope import data_folder, options
from servescope.launch.plan import store_part
from servescope.launch.ports import Ports
from servescope.launch.running import refuse_running
from servescope.launch.supervisor import Supervisor
from servescope.options import say

if TYPE_CHECKING:
    from pathlib import Path


@click.command()
@click.option(
    "--port", type=click.IntRange(1, 65535), default=None, help="Port; 8123, or the next free one, if absent."
)
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@options.data
def store(port: int | None, host: str, data: Path | None) -> None:
    """The embedded ClickHouse, alone; its keys are made in the data folder when there are none.

    Commands over the same data folder find it.
    """
    folder = data_folder.made(data)
    refuse_running(folder)
    ports = Ports(say)  # kept until the end: so long is the port ours
    part, url = store_part(folder, ensure_keys(folder / "keys"), ports.take("the store", 8123, port), host)
    keys = folder / "keys"

    def announce() -> None:
        click.echo(f"The store listens on {url}; its data are in {folder / 'store'}, its keys in {keys}", err=True)

    asyncio.run(Supervisor(folder, [part], {"store": url}, say).run(announce))
