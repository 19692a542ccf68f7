"""Commands that ask: one for each question that declares one (`analytics.question.Command`)."""

from __future__ import annotations

import json
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click
from click.core import ParameterSource

from analytics import questions
from base import found
from base.durations import parse_duration
from base.errors import ConfigError, ServescopeError
from base.formats import spell
from servescope import config_file, options
from servescope.launch import borrowed
from servescope.launch.running import meant
from servescope.options import say
from servescope.printing import print_answer
from servescope.times import between

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from analytics.question import Command
    from analytics.selection import LatencyRange
    from analytics.slo import Objective


def question(name: str) -> click.Command:
    """The command that asks the question of a name.

    Raises:
        QuestionError: There is no such question.
    """
    from analytics.ask import ask, command_of, sentence_of  # noqa: PLC0415 - commands load only what they need

    declared = command_of(name)

    @click.command(name, help=found.summary(f"{questions.__name__}.{name}"))
    @partial(options.of_a_window, since="each SLO's own period" if declared.of_slos else True)
    @click.option("--model", multiple=True, help="Only these models.")
    @click.option("--tenant", multiple=True, help="Only these tenants.")
    @click.option("--instance", multiple=True, help="Only these instances.")
    @partial(_own, declared)
    @(_nothing if declared.of_slos else options.of_requests)
    @options.asks_the_store
    def command(
        since: str, start: str | None, end: str | None, model: tuple[str, ...], tenant: tuple[str, ...],
        instance: tuple[str, ...], as_json: bool, clickhouse: str, data: Path | None, slos: Path | None = None,
        outcome: tuple[str, ...] = (), slower_than: str | None = None, faster_than: str | None = None,
        request: str = "", only: tuple[str, ...] = (), lacking: tuple[str, ...] = (), **own: object,
    ) -> None:  # fmt: skip
        from analytics.selection import Filter, Selection  # noqa: PLC0415 - as above
        from analytics.traits import Trait  # noqa: PLC0415 - as above
        from analytics.window import Window  # noqa: PLC0415 - as above
        from collector.store.address import locate  # noqa: PLC0415 - as above
        from collector.store.client import Store, StoreError  # noqa: PLC0415 - as above
        from collector.store.said import NO_SCHEMA  # noqa: PLC0415 - as above

        first, last = between(since, start, end)
        folder = meant(data, clickhouse)
        own = {option: value for option, value in own.items() if value is not None}
        if declared.of_slos:
            objectives = tuple(_objectives(slos or _slos_of(folder)))
            own["objectives"] = objectives
            source = click.get_current_context().get_parameter_source("since")
            if not start and source is ParameterSource.DEFAULT and objectives:
                first = last - timedelta(seconds=_period(objectives))
        with borrowed.store(folder, clickhouse, say) as url:
            store = Store(locate(folder, url, role="reader"))
            selection = Selection(
                Window(first, last), Filter(model=model, tenant=tenant, instance=instance), outcome,
                latency_range(slower_than, faster_than),
                traits=(*map(Trait.of, only), *(Trait.of(text, lacking=True) for text in lacking)),
            ).found_by(request)  # fmt: skip
            try:
                envelope = ask(name, store, selection, **own)
            except StoreError as error:
                if error.code not in NO_SCHEMA:
                    raise
                fix = "Start a collector before it, or bring them: servescope migrate"
                raise ServescopeError(f"{url} has none of Servescope's tables, or not all", fix) from error
        if as_json:
            click.echo(json.dumps(envelope))
        else:
            print_answer(envelope, sentence_of(name, envelope))

    return command


def _nothing(command: Callable[..., None]) -> Callable[..., None]:
    return command


def latency_range(slower_than: str | None, faster_than: str | None) -> LatencyRange | None:
    """The latencies that ``--slower-than`` and ``--faster-than`` leave; None where neither is given.

    Raises:
        ConfigError: A text is no duration, or the two are of different latencies.
        WindowError: There is no such latency, or nothing lies between the two.
    """
    from analytics.selection import LatencyRange  # noqa: PLC0415 - commands load only what they need

    bounds: dict[str, float] = {}
    signals: set[str] = set()
    for option, name, text in (("--slower-than", "at_least", slower_than), ("--faster-than", "below", faster_than)):
        if text is None:
            continue
        signal, _, duration = text.rpartition("=")
        signals.add(signal or "e2e_seconds")
        try:
            bounds[name] = parse_duration(duration)
        except ValueError:
            raise ConfigError(f"{option} {text!r} is no duration", "Give 2s, or ttft_seconds=500ms") from None
    if len(signals) > 1:
        raise ConfigError(
            f"--slower-than and --faster-than are of {' and '.join(sorted(signals))}", "Name one latency in both"
        )
    return LatencyRange(signals.pop(), **bounds) if bounds else None  # type: ignore[arg-type]


def _own(declared: Command, command: Callable[..., None]) -> Callable[..., None]:
    """What only this question takes, as it declares it."""
    for option in reversed(declared.options):
        add = click.option(f"--{option.name.replace('_', '-')}", type=option.type, default=None, help=option.help)
        command = add(command)
    if declared.of_slos:
        command = click.option("--slos", type=click.Path(path_type=Path), default=None, help="SLO file.")(command)
    return command


def _period(objectives: Sequence[Objective]) -> float:
    """Seconds that the budgets are for; the longest where they differ, which is said."""
    longest = max(objective.period_seconds for objective in objectives)
    for objective in objectives:
        if objective.period_seconds < longest:
            say(
                f"{objective.name} is for {spell(objective.period_seconds)} and is judged over {spell(longest)} here; "
                f"--since {spell(objective.period_seconds).replace(' ', '')} tells its own"
            )
    return longest


def _objectives(path: Path) -> Iterator[Objective]:
    from alerts.rules.file import load  # noqa: PLC0415 - as above
    from alerts.rules.objectives import objective_of  # noqa: PLC0415 - commands load only what they need

    for slo in load(path).slos:
        yield objective_of(slo)


def _slos_of(folder: Path) -> Path:
    run = folder / "run.yaml"
    named = config_file.read_settings(run, check=False).get("alerts", {}) if run.exists() else {}
    if not named.get("slos"):
        raise ConfigError("no SLO file is known", "Name one: --slos FILE, or alerts.slos in servescope.yaml")
    return Path(named["slos"])
