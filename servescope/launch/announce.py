"""What a person at the terminal is told when everything has started."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from collections.abc import Sequence

    from servescope.launch.plan import Plan


def announce(plan: Plan, notes: Sequence[str] = ()) -> None:
    """Print the addresses of a running Servescope, and ``notes`` below them."""
    lines = ["", "Servescope is running.", "", f"  Dashboard   {plan.urls['dashboard']}"]
    for instance, url in plan.urls["taps"].items():
        lines.append(f"  Tap         {url}  in front of {instance}: send clients here to see every request")
    lines += [
        f"  OTLP        {plan.urls['otlp']}  any OpenTelemetry SDK or Collector (HTTP)",
        f"  ClickHouse  {plan.urls['store']}  servescope sql, curl, any ClickHouse client",
        f"  Data        {plan.data}",
        *(f"  {note}" for note in notes),
        "",
        "Ctrl-C stops everything; the data stays.",
    ]
    click.echo("\n".join(lines), err=True)
