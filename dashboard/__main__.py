"""Serve the dashboard: ``python -m dashboard --data DIR [--clickhouse URL] [--port N]``."""

from __future__ import annotations

import base.quiet  # noqa: F401 - before all others

# isort: split
import asyncio
import contextlib
import os
import socket
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import structlog

from alerts.rules import file as rulesfile
from base import yamlfile
from base.command import ending_in_words
from base.errors import ConfigError, PortInUseError
from base.logs import log_to_stderr
from collector.store.address import StoreAddress
from dashboard.config import SLOWEST_REFRESH, SWIFTEST_REFRESH, DashboardConfig
from dashboard.options import OPTIONS

if TYPE_CHECKING:
    import uvicorn

HERE = Path(__file__).parent
_TICKS = 5
"""Of uvicorn's, a tenth of a second each, are one here: it looks whether it should stop, and what the time is."""


@click.command()
@click.option("--data", type=click.Path(path_type=Path), default=None, help="Data folder of the Servescope to show.")
@click.option(
    "--clickhouse",
    envvar="SERVESCOPE_CLICKHOUSE",
    default="",
    help="URL of ClickHouse, instead of the data folder's own store.",
)
@click.option("--config", type=click.Path(path_type=Path), help="YAML file with a section dashboard.")
@click.option("--slos", type=click.Path(path_type=Path), default=None, help="SLO file.")
@click.option("--host", help="Address to listen on, instead of the configuration's.")
@click.option("--port", type=click.IntRange(1, 65535), help="Port, instead of the configuration's.")
@click.option(
    "--refresh",
    "refresh_seconds",
    type=click.FloatRange(SWIFTEST_REFRESH, SLOWEST_REFRESH),
    help="Seconds between two looks of a live page, instead of the configuration's.",
)
@click.option(
    "--recordings",
    type=click.Choice(["exclude", "include"]),
    help="Whether pages begin with replayed rows among the live ones, instead of the configuration's.",
)
def main(data: Path | None, clickhouse: str, config: Path | None, slos: Path | None, **given: Any) -> None:
    """Serve until SIGTERM or SIGINT."""
    log_to_stderr()
    with ending_in_words("dashboard"):
        over = {name: (f"--{name}", value) for name, value in given.items() if value is not None}
        settings = yamlfile.settings(config, "dashboard", DashboardConfig, over)
        runbooks = yamlfile.read(config).section("alerts").get("runbook_url") if config else None
        _check(data, clickhouse, slos)
        _check_free(settings.host, settings.port)
    shown = {"DATA": data, "CLICKHOUSE": clickhouse, "SLOS": slos, "REFRESH": settings.refresh_seconds}
    shown |= {"RUNBOOKS": runbooks, "RECORDINGS": settings.recordings}
    os.environ |= {f"SERVESCOPE_{name}": str(value) for name, value in shown.items() if value}
    _serve(settings)


def _check(data: Path | None, clickhouse: str, slos: Path | None) -> None:
    if data is not None and not data.is_dir():
        raise ConfigError(f"the data folder {data} is not there", "Give that of a Servescope, or --clickhouse URL")
    if clickhouse:
        StoreAddress.parse(clickhouse)
    if slos is not None:
        rulesfile.load(slos)


def _check_free(host: str, port: int) -> None:
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise PortInUseError(
                f"cannot listen on {host}:{port}: {error.strerror}", "Choose another --port"
            ) from error


def _serve(settings: DashboardConfig) -> None:
    from streamlit.web import bootstrap  # noqa: PLC0415 - what is wrong is told before the second that this takes

    from dashboard import warm  # noqa: PLC0415 - as above

    options = {**OPTIONS, "server.address": settings.host, "server.port": settings.port}
    # every setting is given here: nobody waits for a change of the files that it would look at ten times a second
    bootstrap._install_config_watchers = _watch_nothing  # noqa: SLF001 - no setting leaves them out
    with contextlib.suppress(ImportError):  # earlier versions of Streamlit serve without it
        import uvicorn  # noqa: PLC0415 - as above

        uvicorn.Server.main_loop = _tick_seldom  # type: ignore[method-assign] # nor does one say how often it looks
    bootstrap.load_config_options(flag_options={key.replace(".", "_"): value for key, value in options.items()})
    sys.path.insert(0, str(HERE.parent))
    warm.up()
    structlog.get_logger().info("dashboard_starts", url=f"http://{settings.host}:{settings.port}")
    bootstrap.run(str(HERE / "app.py"), is_hello=False, args=[], flag_options={})


def _watch_nothing(flag_options: dict[str, Any]) -> None:
    """In the place of Streamlit's watchers of its configuration files."""


async def _tick_seldom(self: uvicorn.Server) -> None:
    """In the place of uvicorn's own clock, which wakes a server ten times a second that nobody asks."""
    ticks = 0
    while not await self.on_tick(ticks):
        ticks += _TICKS
        await asyncio.sleep(_TICKS / 10)


if __name__ == "__main__":
    main()
