"""Incidents: what is wrong, what was."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import click

from alerts.incidents import history, report
from collector.store.address import locate
from collector.store.client import Store
from servescope import options
from servescope.launch import borrowed
from servescope.launch.running import meant
from servescope.options import say
from servescope.times import between

if TYPE_CHECKING:
    from pathlib import Path


@click.group()
def incidents() -> None:
    """Incidents: what is wrong, what was."""


@incidents.command(name="list")
@options.of_a_window
@click.option("--state", multiple=True, type=click.Choice(["open", "acknowledged", "resolved"]))
@options.asks_the_store
def incidents_list(
    since: str, start: str | None, end: str | None, state: tuple[str, ...], as_json: bool, clickhouse: str,
    data: Path | None,
) -> None:  # fmt: skip
    """Incidents of a window, newest first."""
    first, last = between(since, start, end)
    folder = meant(data, clickhouse)
    with borrowed.store(folder, clickhouse, say) as url:
        found = history.incidents(Store(locate(folder, url, role="reader")), first, last, states=state)
    click.echo(json.dumps(report.listing_json(found)) if as_json else report.listing(found))


@incidents.command(name="show")
@click.argument("incident_id", metavar="ID")
@click.option("--markdown", is_flag=True, help="As Markdown, for a report.")
@options.asks_the_store
def incidents_show(incident_id: str, markdown: bool, as_json: bool, clickhouse: str, data: Path | None) -> None:
    """One incident with its timeline, alerts, pages and evidence."""
    folder = meant(data, clickhouse)
    with borrowed.store(folder, clickhouse, say) as url:
        story = history.story(Store(locate(folder, url, role="reader")), incident_id)
    if as_json:
        click.echo(json.dumps(report.story_json(story)))
    else:
        click.echo(report.story_markdown(story) if markdown else report.story_text(story))
