"""What several commands share: options, and what is said beside an answer."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, ParamSpec, TypeVar

import click

from base.vocabulary import Outcome

if TYPE_CHECKING:
    from collections.abc import Callable

_P = ParamSpec("_P")
_R = TypeVar("_R")

data = click.option("--data", type=click.Path(path_type=Path), default=None, help="Data folder.")
config = click.option(
    "--config", type=click.Path(path_type=Path, exists=True, dir_okay=False), default=None, help="servescope.yaml."
)
clickhouse = click.option("--clickhouse", default="", help="URL of a ClickHouse server; the embedded store if absent.")
as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON of a stable shape.")
targets = click.option(
    "--target", "targets", multiple=True, metavar="URL", help="A model server; found by itself when absent."
)
port_base = click.option(
    "--port-base", type=click.IntRange(1024, 65000), default=None, help="First of a row of fixed ports."
)


def asks_the_store(command: Callable[_P, _R]) -> Callable[_P, _R]:
    """The options of every command that asks the store."""
    for option in (clickhouse, data, as_json):
        command = option(command)
    return command


def of_a_window(command: Callable[_P, _R], since: bool | str = True) -> Callable[_P, _R]:
    """The options of a window; ``since`` is what the help calls the default of ``--since``."""
    for option in (
        click.option("--to", "end", default=None, metavar="TIME", help="ISO 8601 or Unix seconds; now if absent."),
        click.option("--from", "start", default=None, metavar="TIME", help="ISO 8601 or Unix seconds."),
        click.option("--since", default="10m", show_default=since, metavar="AGE", help="Such as 90s, 10m, 6h, 2d."),
    ):
        command = option(command)
    return command


def of_requests(command: Callable[_P, _R]) -> Callable[_P, _R]:
    """The options that narrow by what only rows of requests know."""
    seconds = "[LATENCY=]DURATION"
    for option in (
        click.option("--not", "lacking", multiple=True, metavar="COLUMN=VALUE", help="All but those; as --only."),
        click.option(
            "--only",
            multiple=True,
            metavar="COLUMN=VALUE",
            help="Requests with it: route=/v1/chat, prompt_tokens=900.. or =..900.",
        ),
        click.option("--request", default="", metavar="ID", help="One request, by its id or its trace's."),
        click.option("--faster-than", default=None, metavar=seconds, help="As --slower-than; both may be given."),
        click.option(
            "--slower-than",
            default=None,
            metavar=seconds,
            help="Such as 2s or ttft_seconds=500ms.",
        ),
        click.option(
            "--outcome",
            multiple=True,
            type=click.Choice([one.value for one in Outcome]),
            help="Only requests that ended so.",
        ),
    ):
        command = option(command)
    return command


def say(line: str) -> None:
    """Print a line beside a command's answer; SERVESCOPE_QUIET keeps it out of what is no terminal."""
    if sys.stderr.isatty() or not os.environ.get("SERVESCOPE_QUIET"):
        click.echo(line, err=True)
