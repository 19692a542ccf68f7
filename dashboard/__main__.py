"""Serve the dashboard: ``python -m dashboard --data DIR [--clickhouse URL] [--port N]``."""

from __future__ import annotations

import os
import socket
import sys
from pathlib import Path

import click
from streamlit.web import bootstrap

from agent.logs import log_to_stderr
from dashboard.options import OPTIONS

HERE = Path(__file__).parent


@click.command()
@click.option("--data", type=click.Path(path_type=Path), default=None, help="Data folder of the Servescope to show.")
@click.option(
    "--clickhouse",
    envvar="SERVESCOPE_CLICKHOUSE",
    default="",
    help="URL of ClickHouse, instead of the data folder's own store.",
)
@click.option("--slos", type=click.Path(path_type=Path), default=None, help="SLO file.")
@click.option("--host", default="127.0.0.1", show_default=True)
@click.option("--port", default=8501, show_default=True, type=click.IntRange(1, 65535))
@click.option("--refresh", default=5.0, show_default=True, help="Seconds between two looks of a live page.")
def main(data: Path | None, clickhouse: str, slos: Path | None, host: str, port: int, refresh: float) -> None:
    """Serve until SIGTERM or SIGINT."""
    log_to_stderr()
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            click.echo(
                f"The dashboard cannot listen on {host}:{port}: {error.strerror}. Choose another --port", err=True
            )
            sys.exit(1)
    for name, value in (("DATA", data), ("CLICKHOUSE", clickhouse), ("SLOS", slos), ("REFRESH", refresh)):
        if value:
            os.environ[f"SERVESCOPE_{name}"] = str(value)
    options = {**OPTIONS, "server.address": host, "server.port": port}
    bootstrap.load_config_options(flag_options={key.replace(".", "_"): value for key, value in options.items()})
    sys.path.insert(0, str(HERE.parent))
    bootstrap.run(str(HERE / "app.py"), is_hello=False, args=[], flag_options={})


if __name__ == "__main__":
    main()
