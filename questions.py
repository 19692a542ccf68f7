"""Commands that ask: the questions of analytics, SQL, incidents and rules."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, ParamSpec, TypeVar

import click
from click.core import ParameterSource

import configuration
import momentary
import wiring
from agent.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from analytics.objective import Objective

_P = ParamSpec("_P")
_R = TypeVar("_R")
_LONGEST_SECONDS: Final = 100 * 365 * 86400.0
_FIRST_YEAR: Final = 1971
_LAST_YEAR: Final = 2100
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_SHOWN_VALUES = 8


def _say(line: str) -> None:
    click.echo(line, err=True)


def _options(command: Callable[_P, _R]) -> Callable[_P, _R]:
    """The options of every command that asks the store."""
    for option in (
        click.option("--clickhouse", default="", help="URL of a ClickHouse server."),
        click.option("--data", type=click.Path(path_type=Path), default=None, help="Data folder."),
        click.option("--json", "as_json", is_flag=True, help="Print JSON of a stable shape."),
    ):
        command = option(command)
    return command


def _window_options(command: Callable[_P, _R], since: bool | str = True) -> Callable[_P, _R]:
    """The options of a window; ``since`` is what the help calls the default of ``--since``."""
    for option in (
        click.option("--to", "end", default=None, metavar="TIME", help="ISO 8601 or Unix seconds; now if absent."),
        click.option("--from", "start", default=None, metavar="TIME", help="ISO 8601 or Unix seconds."),
        click.option("--since", default="10m", show_default=since, metavar="AGE", help="Such as 90s, 10m, 6h, 2d."),
    ):
        command = option(command)
    return command


@click.command()
@click.argument("statement")
@click.option("--format", "format_", default=None, metavar="F", help="ClickHouse output format.")
@_options
def sql(statement: str, format_: str | None, as_json: bool, clickhouse: str, data: Path | None) -> None:
    """Ad hoc SQL, read only, over the running store or one started for the moment."""
    from collector.embedded.statement import before_data, output_clause  # noqa: PLC0415 - commands load only their needs
    from collector.store import Store, locate  # noqa: PLC0415 - as above

    if not before_data(statement).strip():
        raise ConfigError("the statement is empty", "Give one, such as 'SELECT count() FROM requests'")
    own = output_clause(statement)[1]
    if sum((bool(own), bool(format_), as_json)) > 1:
        raise click.UsageError("Say the format once: FORMAT in the statement, --format or --json")
    plain = "PrettyCompact" if sys.stdout.isatty() else "TabSeparatedWithNames"
    wanted = "" if own else format_ or ("JSONEachRow" if as_json else plain)
    folder = data or wiring.default_data()
    with momentary.store(folder, clickhouse, _say) as url:
        # What somebody writes by hand waits behind the questions of dashboard and commands.
        store = Store(replace(locate(folder, url, role="reader"), token=""))
        for chunk in store.stream(statement, wanted):
            sys.stdout.buffer.write(chunk)
        sys.stdout.buffer.flush()


_OWN: Final = {
    "latency": click.option("--signal", default=None, help="Which latency, such as ttft_seconds."),
    "budget": click.option("--slos", type=click.Path(path_type=Path), default=None, help="SLO file."),
}
"""What only one question takes."""


def _question(name: str, text: str) -> click.Command:
    @click.command(name, help=text)
    @partial(_window_options, since="each SLO's own period" if name == "budget" else True)
    @click.option("--model", multiple=True, help="Only these models.")
    @click.option("--tenant", multiple=True, help="Only these tenants.")
    @click.option("--instance", multiple=True, help="Only these instances.")
    @_OWN.get(name, lambda command: command)
    @_options
    def command(
        since: str, start: str | None, end: str | None, model: tuple[str, ...], tenant: tuple[str, ...],
        instance: tuple[str, ...], as_json: bool, clickhouse: str, data: Path | None, signal: str | None = None,
        slos: Path | None = None,
    ) -> None:  # fmt: skip
        from analytics.ask import ask  # noqa: PLC0415 - commands load only what they need
        from analytics.window import Filter, Window  # noqa: PLC0415 - as above
        from collector.store import Store, locate  # noqa: PLC0415 - as above

        first, last = _between(since, start, end)
        folder = data or wiring.default_data()
        options: dict[str, object] = {"signal": signal} if signal else {}
        if name == "budget":
            objectives = tuple(_objectives(slos or _slos_of(folder)))
            options["objectives"] = objectives
            source = click.get_current_context().get_parameter_source("since")
            if not start and source is ParameterSource.DEFAULT and objectives:
                first = last - timedelta(seconds=_period(objectives))
        with momentary.store(folder, clickhouse, _say) as url:
            store = Store(locate(folder, url, role="reader"))
            narrowed = Filter(model=model, tenant=tenant, instance=instance)
            envelope = ask(name, store, Window(first, last), narrowed, **options)
        if as_json:
            click.echo(json.dumps(envelope))
        else:
            _print(envelope)

    return command


def _period(objectives: Sequence[Objective]) -> float:
    """Seconds that the budgets are for; the longest where they differ, which is said."""
    longest = max(objective.period_seconds for objective in objectives)
    for objective in objectives:
        if objective.period_seconds < longest:
            _say(
                f"{objective.name} is for {objective.period_seconds:g} s and is judged over {longest:g} s here; "
                f"--since {objective.period_seconds:g}s tells its own"
            )
    return longest


def _objectives(path: Path) -> Iterator[Objective]:
    from alerts.objectives import objective_of  # noqa: PLC0415 - commands load only what they need
    from alerts.rulesfile import load  # noqa: PLC0415 - as above

    for slo in load(path).slos:
        objective = objective_of(slo)
        if objective is None:
            _say(f"{slo.name} is left out: goodput and patterns in filters have no budget line; see the dashboard")
        else:
            yield objective


def _slos_of(folder: Path) -> Path:
    run = folder / "run.yaml"
    named = configuration.read_settings(run, check=False).get("alerts", {}) if run.exists() else {}
    if not named.get("slos"):
        raise ConfigError("no SLO file is known", "Name one: --slos FILE, or alerts.slos in servescope.yaml")
    return Path(named["slos"])


@click.group()
def incidents() -> None:
    """Incidents: what is wrong, what was."""


@incidents.command(name="list")
@_window_options
@click.option("--state", multiple=True, type=click.Choice(["open", "acknowledged", "resolved"]))
@_options
def incidents_list(
    since: str, start: str | None, end: str | None, state: tuple[str, ...], as_json: bool, clickhouse: str,
    data: Path | None,
) -> None:  # fmt: skip
    """Incidents of a window, newest first."""
    from alerts import history, report  # noqa: PLC0415 - commands load only what they need
    from collector.store import Store, locate  # noqa: PLC0415 - as above

    first, last = _between(since, start, end)
    folder = data or wiring.default_data()
    with momentary.store(folder, clickhouse, _say) as url:
        found = history.incidents(Store(locate(folder, url, role="reader")), first, last, states=state)
    click.echo(json.dumps(report.listing_json(found)) if as_json else report.listing(found))


@incidents.command(name="show")
@click.argument("incident_id", metavar="ID")
@click.option("--markdown", is_flag=True, help="As Markdown, for a report.")
@_options
def incidents_show(incident_id: str, markdown: bool, as_json: bool, clickhouse: str, data: Path | None) -> None:
    """One incident with its timeline, alerts, pages and evidence."""
    from alerts import history, report  # noqa: PLC0415 - commands load only what they need
    from collector.store import Store, locate  # noqa: PLC0415 - as above

    folder = data or wiring.default_data()
    with momentary.store(folder, clickhouse, _say) as url:
        story = history.story(Store(locate(folder, url, role="reader")), incident_id)
    if as_json:
        click.echo(json.dumps(report.story_json(story)))
    else:
        click.echo(report.story_markdown(story) if markdown else report.story_text(story))


@click.group()
def rules() -> None:
    """SLOs and rules."""


@rules.command(name="check")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print JSON of a stable shape.")
def rules_check(file: Path, as_json: bool) -> None:
    """Check a rules file; every fault names file, line and field."""
    from alerts import rulesfile  # noqa: PLC0415 - commands load only what they need

    click.echo(json.dumps(rulesfile.summary(rulesfile.load(file))) if as_json else rulesfile.check(file))


def _age(text: str) -> float:
    try:
        seconds = float(text[:-1]) * _UNITS[text[-1]]
    except (ValueError, KeyError, IndexError):
        seconds = 0.0
    if not 0 < seconds <= _LONGEST_SECONDS:
        raise ConfigError(f"--since {text!r} is no age", "Give a number and s, m, h or d, such as 10m")
    return seconds


def _moment(text: str, option: str) -> datetime:
    try:
        try:
            moment = datetime.fromtimestamp(float(text), UTC)
        except ValueError:
            moment = datetime.fromisoformat(text)
    except (ValueError, OverflowError, OSError):
        moment = None
    if moment is None or not _FIRST_YEAR <= moment.year <= _LAST_YEAR:
        fix = f"Give ISO 8601 (2026-01-31T12:00:00Z) or Unix seconds, between {_FIRST_YEAR} and {_LAST_YEAR}"
        raise ConfigError(f"{option} {text!r} is no time", fix)
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _between(since: str, start: str | None, end: str | None) -> tuple[datetime, datetime]:
    last = _moment(end, "--to") if end else datetime.now(UTC)
    first = _moment(start, "--from") if start else last - timedelta(seconds=_age(since))
    if first >= last:
        what, fix = ("--to", "Swap the two times") if end else ("now", "Give an earlier --from, or --to as well")
        raise ConfigError(f"--from {first.isoformat()} is not before {what} {last.isoformat()}", fix)
    return first, last


def _print(envelope: dict[str, Any]) -> None:
    window = envelope["window"]
    click.echo(f"{window['start']} to {window['end']}, {envelope['rows']} {envelope['level']}")
    _tree(envelope["result"], "")


def _tree(value: dict[str, Any], indent: str) -> None:
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
            click.echo(f"{indent}{name}: {_series(item)}")
        else:
            click.echo(f"{indent}{name}: {_short(item)}")


def _series(values: list[Any]) -> str:
    if len(values) <= _SHOWN_VALUES:
        return ", ".join(_short(value) for value in values) or "none"
    numbers = [value for value in values if isinstance(value, int | float)]
    told = f", last {_short(numbers[-1])}, highest {_short(max(numbers))}" if numbers else ""
    return f"{len(values)} values{told}"


def _short(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, dict):
        return "(" + ", ".join(f"{name} {_short(entry)}" for name, entry in value.items()) + ")"
    return "–" if value is None else str(value)


COMMANDS = [
    _question("latency", "How long requests take: percentiles over time."),
    _question("phases", "Where an average request spends its time."),
    _question("queue", "How work piles up: arrivals, waiting, time to drain."),
    _question("kvcache", "How full the KV cache is, preemptions and prefix hits."),
    _question("batching", "How much work shares one engine step or execution."),
    _question("traffic", "The state of the service at a glance."),
    _question("tenants", "Who asks for what, and how it goes for them."),
    _question("budget", "What is left of the error budget of each SLO."),
    incidents,
    rules,
]
