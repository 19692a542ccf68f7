"""Ad hoc SQL, read only."""

from __future__ import annotations

import codecs
import sys
from dataclasses import replace
from typing import TYPE_CHECKING

import click

from base.errors import ConfigError
from base.foreign_text import steady
from collector.embedded.statement import before_data, output_clause
from collector.store.address import locate
from collector.store.client import Store
from servescope import options
from servescope.launch import borrowed
from servescope.launch.running import meant
from servescope.options import say

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path


@click.command()
@click.argument("statement")
@click.option("--format", "format_", default=None, metavar="F", help="ClickHouse output format.")
@options.asks_the_store
def sql(statement: str, format_: str | None, as_json: bool, clickhouse: str, data: Path | None) -> None:
    """Ad hoc SQL, read only, over the running store or one started for the moment."""
    if not before_data(statement).strip():
        raise ConfigError("the statement is empty", "Give one, such as 'SELECT count() FROM requests'")
    own = output_clause(statement)[1]
    if sum((bool(own), bool(format_), as_json)) > 1:
        raise click.UsageError("Say the format once: FORMAT in the statement, --format or --json")
    plain = "PrettyCompact" if sys.stdout.isatty() else "TabSeparatedWithNames"
    wanted = "" if own else format_ or ("JSONEachRow" if as_json else plain)
    folder = meant(data, clickhouse)
    with borrowed.store(folder, clickhouse, say) as url:
        # What somebody writes by hand waits behind the questions of dashboard and commands.
        store = Store(replace(locate(folder, url, role="reader"), token=""))
        answer = store.stream(statement, wanted)
        for chunk in _shown(answer) if sys.stdout.isatty() else answer:
            sys.stdout.buffer.write(chunk)
        sys.stdout.buffer.flush()


def _shown(answer: Iterable[bytes]) -> Iterator[bytes]:
    # What stands in the tables is whatever clients say; a file or a pipe gets it byte by byte.
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    for chunk in answer:
        yield steady(decoder.decode(chunk)).encode()
    yield steady(decoder.decode(b"", final=True)).encode()
