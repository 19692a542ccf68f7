"""The settings of commands that start parts, checked with all that they name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from agent.discovery.local import find_local
from agent.discovery.static import targets_of as named_by
from alerts.config import AlertsConfig
from alerts.rules import file as rules_file
from servescope import config_file
from servescope.launch import newcomers

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


def configured(config: Path | None, slos: Path | None) -> tuple[dict[str, Any], Path | None]:
    """The settings and the SLO file, both checked, with all that they name."""
    settings = config_file.read_settings(config, files=True)
    slos = slos or config_file.slo_file(settings, config)
    if slos is not None:
        rules_file.load(slos)
    AlertsConfig.model_validate(settings.get("alerts", {})).check()
    return settings, slos


async def targets_of(urls: Sequence[str], settings: dict[str, Any], *, tap: bool) -> list[dict[str, Any]]:
    """The servers to watch, as settings: those typed, else those configured, else what listens on this machine."""
    agent = settings.get("agent") or {}
    configured = agent.get("targets") or []
    if configured and not urls:
        return [{**target, "tap": tap and target.get("tap", True)} for target in configured]
    if not urls and agent.get("discovery"):
        return []  # they are the agent's to find
    found = named_by(urls) if urls else await find_local()
    return [newcomers.described(target, tap=tap) for target in found]
