"""Watch the model servers of this machine: store, collector, agent, taps, alerts and dashboard."""

from __future__ import annotations

import asyncio
from functools import partial
from pathlib import Path

import click

from servescope import data_folder, options
from servescope.launch import newcomers
from servescope.launch.announce import announce
from servescope.launch.plan import make_plan
from servescope.launch.running import refuse_running
from servescope.launch.supervisor import Supervisor
from servescope.options import say
from servescope.settings import configured, targets_of


@click.command()
@options.targets
@click.option("--slos", type=click.Path(path_type=Path, exists=True, dir_okay=False), default=None, help="SLO file.")
@options.port_base
@click.option("--no-tap", is_flag=True, help="Start no tap in front of the servers.")
@options.clickhouse
@options.config
@options.data
def up(
    targets: tuple[str, ...],
    slos: Path | None,
    port_base: int | None,
    no_tap: bool,
    clickhouse: str,
    config: Path | None,
    data: Path | None,
) -> None:
    """Watch the model servers of this machine: store, collector, agent, taps, alerts and dashboard."""
    settings, slos = configured(config, slos)
    found = asyncio.run(targets_of(targets, settings, tap=not no_tap))
    folder = data_folder.made(data or settings.get("data"), "servescope")
    refuse_running(folder)
    # The parts' own agent is told what is found here, so that a tap stands in front of it.
    agent = settings.get("agent") or {}
    here = [one for one in agent.get("discovery") or () if one["kind"] == "local"]
    elsewhere = [one for one in agent.pop("discovery", None) or () if one["kind"] != "local"]
    looks = bool(agent.pop("discover", False) or here) or not (targets or agent.get("targets") or elsewhere)
    if elsewhere:
        agent["discovery"] = elsewhere
    plan = make_plan(folder, settings, found, clickhouse=clickhouse, slos=slos, port_base=port_base, say=say)
    if not found and looks:
        say(
            "No model server was found here yet; those that start later are watched too. Give one elsewhere with "
            "--target http://host:port; OpenTelemetry is taken meanwhile"
        )
    supervisor = Supervisor(folder, plan.parts, plan.urls, say)
    watch = partial(newcomers.watch, plan, supervisor, say, tap=not no_tap) if looks else None
    asyncio.run(supervisor.run(lambda: announce(plan), watch))
