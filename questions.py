"""Commands that ask: the questions of analytics, SQL, incidents and rules."""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

import momentary
import wiring
from agent.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def _say(line: str) -> None:
    click.echo(line, err=True)


def _store_options(command: Callable[..., Any]) -> Callable[..., Any]:
    command = click.option("--clickhouse", default="", help="URL of a ClickHouse server.")(command)
    return click.option("--data", type=click.Path(path_type=Path), default=None, help="Data folder.")(command)


_json = click.option("--json", "as_json", is_flag=True, help="Print JSON of a stable shape.")


@click.command()
@click.argument("statement")
@click.option("--format", "format_", default=None, metavar="F", help="ClickHouse output format.")
@_json
@_store_options
def sql(statement: str, format_: str | None, as_json: bool, clickhouse: str, data: Path | None) -> None:
    """Ad hoc SQL, read only, over the running store or one started for the moment."""
    from collector.store import Store, locate  # noqa: PLC0415 - commands load only what they need

    shape = format_ or (
        "JSONEachRow" if as_json else "PrettyCompact" if sys.stdout.isatty() else "TabSeparatedWithNames"
    )
    folder = data or wiring.default_data()
    with momentary.store(folder, clickhouse, _say) as url:
        store = Store(locate(folder, url, role="reader"))
        for chunk in store.stream(statement, shape):
            sys.stdout.buffer.write(chunk)
        sys.stdout.buffer.flush()


def _question(name: str, asked: str, text: str) -> click.Command:
    @click.command(name, help=text)
    @click.option("--since", default="10m", show_default=True, metavar="AGE", help="Such as 90s, 10m, 6h, 2d.")
    @click.option("--from", "start", default=None, metavar="TIME", help="ISO 8601 or Unix seconds.")
    @click.option("--to", "end", default=None, metavar="TIME", help="ISO 8601 or Unix seconds; now if absent.")
    @click.option("--model", multiple=True)
    @click.option("--tenant", multiple=True)
    @click.option("--instance", multiple=True)
    @(
        click.option("--signal", default=None, help="Which latency (latency only).")
        if name == "latency"
        else (lambda f: f)
    )
    @_json
    @_store_options
    def command(
        since: str,
        start: str | None,
        end: str | None,
        model: tuple[str, ...],
        tenant: tuple[str, ...],
        instance: tuple[str, ...],
        as_json: bool,
        clickhouse: str,
        data: Path | None,
        signal: str | None = None,
    ) -> None:
        from analytics.ask import ask  # noqa: PLC0415 - commands load only what they need
        from analytics.window import Filter, Window  # noqa: PLC0415 - as above
        from collector.store import Store, locate  # noqa: PLC0415 - as above

        now = datetime.now(UTC)
        last = _moment(end, "--to") if end else now
        first = _moment(start, "--from") if start else last - timedelta(seconds=_age(since))
        narrowed = Filter(model=model, tenant=tenant, instance=instance)
        folder = data or wiring.default_data()
        options: dict[str, object] = {"signal": signal} if signal else {}
        with momentary.store(folder, clickhouse, _say) as url:
            store = Store(locate(folder, url, role="reader"))
            envelope = ask(asked, store, Window(first, last), narrowed, **options)
        if as_json:
            click.echo(json.dumps(envelope))
        else:
            _print(envelope)

    return command


def _age(text: str) -> float:
    try:
        seconds = float(text[:-1]) * _UNITS[text[-1]]
    except (ValueError, KeyError, IndexError):
        seconds = 0.0
    if seconds <= 0:
        raise ConfigError(f"--since {text!r} is no age", "Give a number and s, m, h or d, such as 10m")
    return seconds


def _moment(text: str, option: str) -> datetime:
    try:
        return datetime.fromtimestamp(float(text), UTC)
    except ValueError:
        pass
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise ConfigError(
            f"{option} {text!r} is no time", "Give ISO 8601 (2026-01-31T12:00:00Z) or Unix seconds"
        ) from None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _print(envelope: dict[str, Any]) -> None:
    window = envelope["window"]
    click.echo(f"{window['start']} to {window['end']} · {envelope['rows']} {envelope['level']}")
    _tree(envelope["result"], "")


def _tree(value: object, indent: str) -> None:
    if not isinstance(value, dict):
        click.echo(f"{indent}{value}")
        return
    for name, item in value.items():
        if isinstance(item, dict):
            click.echo(f"{indent}{name}")
            _tree(item, indent + "  ")
        elif isinstance(item, list) and item and isinstance(item[0], dict):
            click.echo(f"{indent}{name}")
            for row in item:
                plain = {key: entry for key, entry in row.items() if not isinstance(entry, list)}
                click.echo(indent + "  " + "  ".join(f"{key}={_short(entry)}" for key, entry in plain.items()))
        elif isinstance(item, list):
            click.echo(f"{indent}{name}: {len(item)} values" if len(item) > 8 else f"{indent}{name}: {item}")  # noqa: PLR2004
        else:
            click.echo(f"{indent}{name}: {_short(item)}")


def _short(value: object) -> object:
    return f"{value:.4g}" if isinstance(value, float) else value


COMMANDS = [
    _question("latency", "latency", "How long requests take: percentiles over time."),
    _question("queue", "queue", "How work piles up: arrivals, waiting, time to drain."),
    _question("kvcache", "kvcache", "How full the KV cache is, preemptions and prefix hits."),
    _question("budget", "budget", "What is left of the error budget of each SLO."),
]
