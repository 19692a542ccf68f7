"""``python -m alerts``: evaluate rules and page until SIGTERM."""

from __future__ import annotations

import base.quiet  # noqa: F401 - before all others

# isort: split
from pathlib import Path

import click
import structlog

from alerts.config import read_config
from alerts.process import build
from alerts.stopping import stop_event
from base.command import ending_in_words
from base.logs import log_to_stderr
from collector.store.address import locate
from collector.store.client import Store
from collector.store.frames import without_frames

log = structlog.get_logger()

STORE_TIMEOUT_SECONDS = 10.0


@click.command()
@click.option("--config", "config_file", type=click.Path(dir_okay=False, path_type=Path), envvar="SERVESCOPE_CONFIG")
@click.option("--data", type=click.Path(file_okay=False, path_type=Path), required=True, envvar="SERVESCOPE_DATA")
@click.option("--clickhouse", envvar="SERVESCOPE_CLICKHOUSE", help="URL of the store; default: what runs in --data.")
@click.option("--slos", type=click.Path(dir_okay=False, path_type=Path), help="Rules file, before the configuration's.")
@click.option("--dashboard-url", help="For links in pages.")
@click.option(
    "--port", "health_port", type=click.IntRange(0, 65535), help="Port of /healthz and /metrics; 0 takes a free one."
)
@click.option(
    "--receiver-port",
    type=click.IntRange(0, 65535),
    help="Port of the built-in receiver, which runs without a PagerDuty key.",
)
def main(
    config_file: Path | None,
    data: Path,
    clickhouse: str | None,
    slos: Path | None,
    dashboard_url: str | None,
    health_port: int | None,
    receiver_port: int | None,
) -> None:
    """Evaluate rules and page."""
    log_to_stderr()
    without_frames()
    stop = stop_event()
    given = {
        "slos": slos,
        "dashboard_url": dashboard_url,
        "health_port": health_port,
        "receiver_port": receiver_port,
    }
    with ending_in_words("alerts", f"Check the data folder {data} and its permissions"):
        config = read_config(config_file).model_copy(update={k: v for k, v in given.items() if v is not None})
        store = Store(locate(data, clickhouse, role="owner"), timeout_seconds=STORE_TIMEOUT_SECONDS)
        pager = build(config, data, store)
    pager.run(stop)
    log.info("alerts_stopped")


if __name__ == "__main__":
    main()
