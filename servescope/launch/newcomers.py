"""Servers that start after ``servescope up``: a tap in front of each, and the agent told to watch it."""

from __future__ import annotations

import asyncio
import signal
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from agent.discovery.local import LOOK_SECONDS, NewServers
from agent.target import Target
from base.errors import ServescopeError
from base.redact import shown

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from servescope.launch.plan import Plan
    from servescope.launch.supervisor import Supervisor


def described(target: Target, *, tap: bool) -> dict[str, Any]:
    """A target as the configuration's ``agent.targets`` has it."""
    return {
        "instance": target.instance,
        "deployment": target.deployment,
        "engine": target.engine or "auto",
        "url": target.url,
        "metrics_url": target.metrics_url,
        "tap": tap and bool(target.url),
    }


async def watch(plan: Plan, supervisor: Supervisor, say: Callable[[str], None], *, tap: bool) -> None:
    """Look for new servers until cancelled.

    Args:
        plan: What runs; newcomers are added to it.
        supervisor: Runs it.
        say: Prints a line about each newcomer.
        tap: Whether to put a tap in front of each.

    """
    new_servers = NewServers()
    while True:
        try:
            await _look(new_servers, plan, supervisor, say, tap=tap)
        except (ServescopeError, OSError) as error:  # no port, a full disk: the next look may do better
            say(f"a look for new servers failed: {error}")
        await asyncio.sleep(LOOK_SECONDS)


async def _look(
    new_servers: NewServers, plan: Plan, supervisor: Supervisor, say: Callable[[str], None], *, tap: bool
) -> None:
    known = [_target(settings) for settings in plan.settings["agent"]["targets"]]
    found = await new_servers.find(known=known, skip_ports=_own_ports(plan.urls))
    if not found:
        return
    taps = plan.join([described(target, tap=tap) for target in found])
    supervisor.urls = dict(plan.urls)
    await supervisor.add(taps)
    supervisor.send("agent", signal.SIGHUP)
    for target in found:
        url = plan.urls["taps"].get(target.instance)
        through = f"; to see its requests, send clients to its tap, {url}" if url else ""
        say(f"{target.instance} was found at {shown(target.url)}{through}")


def _target(settings: Mapping[str, Any]) -> Target:
    return Target(
        settings["instance"],
        settings.get("deployment", ""),
        url=settings.get("url", ""),
        metrics_url=settings.get("metrics_url", ""),
        tap_port=settings.get("tap_port"),
    )


def _own_ports(urls: Mapping[str, Any]) -> set[int]:
    return {port for url in urls.values() if isinstance(url, str) and (port := urlsplit(url).port)}
