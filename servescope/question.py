"""Commands that ask: one for each question that has a text here."""

from __future__ import annotations

import json
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click
from click.core import ParameterSource

from base.errors import ConfigError
from servescope import config_file, options
from servescope.launch import borrowed
from servescope.launch.running import meant
from servescope.options import say
from servescope.printing import print_answer
from servescope.times import between

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from analytics.objective import Objective

TEXTS: Final = {
    "latency": "How long requests take: percentiles over time.",
    "phases": "Where an average request spends its time.",
    "queue": "How work piles up: arrivals, waiting, time to drain.",
    "kvcache": "How full the KV cache is, preemptions and prefix hits.",
    "batching": "How much work shares one engine step or execution.",
    "traffic": "The state of the service at a glance.",
    "tenants": "Who asks for what, and how it goes for them.",
    "budget": "What is left of the error budget of each SLO.",
}
"""Questions that have a command, and what its help says."""

_OWN: Final = {
    "latency": click.option("--signal", default=None, help="Which latency, such as ttft_seconds."),
    "budget": click.option("--slos", type=click.Path(path_type=Path), default=None, help="SLO file."),
}
"""What only one question takes."""


def question(name: str) -> click.Command:
    """The command that asks one question."""

    @click.command(name, help=TEXTS[name])
    @partial(options.of_a_window, since="each SLO's own period" if name == "budget" else True)
    @click.option("--model", multiple=True, help="Only these models.")
    @click.option("--tenant", multiple=True, help="Only these tenants.")
    @click.option("--instance", multiple=True, help="Only these instances.")
    @_OWN.get(name, lambda command: command)
    @options.asks_the_store
    def command(
        since: str, start: str | None, end: str | None, model: tuple[str, ...], tenant: tuple[str, ...],
        instance: tuple[str, ...], as_json: bool, clickhouse: str, data: Path | None, signal: str | None = None,
        slos: Path | None = None,
    ) -> None:  # fmt: skip
        from analytics.ask import ask  # noqa: PLC0415 - commands load only what they need
        from analytics.window import Filter, Window  # noqa: PLC0415 - as above
        from collector.store.address import locate  # noqa: PLC0415 - as above
        from collector.store.client import Store  # noqa: PLC0415 - as above

        first, last = between(since, start, end)
        folder = meant(data, clickhouse)
        own: dict[str, object] = {"signal": signal} if signal else {}
        if name == "budget":
            objectives = tuple(_objectives(slos or _slos_of(folder)))
            own["objectives"] = objectives
            source = click.get_current_context().get_parameter_source("since")
            if not start and source is ParameterSource.DEFAULT and objectives:
                first = last - timedelta(seconds=_period(objectives))
        with borrowed.store(folder, clickhouse, say) as url:
            store = Store(locate(folder, url, role="reader"))
            narrowed = Filter(model=model, tenant=tenant, instance=instance)
            envelope = ask(name, store, Window(first, last), narrowed, **own)
        if as_json:
            click.echo(json.dumps(envelope))
        else:
            print_answer(envelope)

    return command


def _period(objectives: Sequence[Objective]) -> float:
    """Seconds that the budgets are for; the longest where they differ, which is said."""
    longest = max(objective.period_seconds for objective in objectives)
    for objective in objectives:
        if objective.period_seconds < longest:
            say(
                f"{objective.name} is for {objective.period_seconds:g} s and is judged over {longest:g} s here; "
                f"--since {objective.period_seconds:g}s tells its own"
            )
    return longest


def _objectives(path: Path) -> Iterator[Objective]:
    from alerts.rules.file import load  # noqa: PLC0415 - as above
    from alerts.rules.objectives import objective_of  # noqa: PLC0415 - commands load only what they need

    for slo in load(path).slos:
        objective = objective_of(slo)
        if objective is None:
            say(f"{slo.name} is left out: goodput and patterns in filters have no budget line; see the dashboard")
        else:
            yield objective


def _slos_of(folder: Path) -> Path:
    run = folder / "run.yaml"
    named = config_file.read_settings(run, check=False).get("alerts", {}) if run.exists() else {}
    if not named.get("slos"):
        raise ConfigError("no SLO file is known", "Name one: --slos FILE, or alerts.slos in servescope.yaml")
    return Path(named["slos"])
