"""``python -m collector``: takes OTLP and brings it into ClickHouse."""

from __future__ import annotations

import base.quiet  # noqa: F401 - before all others

# isort: split
import asyncio
import signal
from pathlib import Path
from typing import Any

import click
import structlog

from base.command import ending_in_words
from base.errors import ConfigError
from base.logs import log_to_stderr
from collector.config import load
from collector.server import Collector
from collector.store.frames import without_frames


@click.command()
@click.option("--data", type=click.Path(path_type=Path, file_okay=False), required=True, help="Data folder.")
@click.option(
    "--clickhouse", envvar="SERVESCOPE_CLICKHOUSE", help="URL of the store (HTTP interface), embedded or a server."
)
@click.option("--host", help="Address to listen on.")
@click.option("--port", type=click.IntRange(0, 65535), help="Port to listen on; 0 picks a free one.")
@click.option("--config", type=click.Path(path_type=Path, dir_okay=False), help="Configuration file.")
def main(data: Path, config: Path | None, **given: Any) -> None:
    """Receive OTLP over HTTP, keep it in a log on disk until ClickHouse has it."""
    log_to_stderr()
    without_frames()
    with ending_in_words("collector", f"Check the data folder {data} and its permissions"):
        settings = load(config).model_copy(update={k: v for k, v in given.items() if v is not None})
        asyncio.run(_serve(Collector(settings, data.absolute())))


async def _serve(collector: Collector) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)

    def reload() -> None:
        try:
            collector.reload()
        except ConfigError as error:
            structlog.get_logger().warning("reload_failed", error=str(error))

    loop.add_signal_handler(signal.SIGHUP, reload)
    await collector.run(stop)


if __name__ == "__main__":
    main()
