"""A cause as people read it: its name, where it is and whose work it was, each with the way to where it shows."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

from analytics.causes.advice import NAMES, SHARED
from dashboard import escape
from dashboard.links import link

if TYPE_CHECKING:
    from collections.abc import Mapping

    from analytics.selection import Selection

_PAGES: Final = {
    **dict.fromkeys(("kv_cache_full", "preemption", "cold_prefix_cache"), "kv-cache"),
    **dict.fromkeys(
        ("queue_saturated", "retry_storm", "router_imbalance", "prefill_interference", "engine_frozen"), "queue"
    ),
    **dict.fromkeys(("cpu_starved", "frontend_cpu"), "hardware"),
    "upstream_error": "requests",
}
"""Page on which a cause shows; of all others that of latencies."""
RUNBOOKS: Final = "docs/runbooks"
"""Folder of the pages that causes name."""


def named(cause: str, who: Mapping[str, str], selection: Selection) -> str:
    """Markdown of a cause: ``KV cache full on vllm-2, by tenant a7``, each a link.

    Args:
        cause: Its name (`analytics.causes`).
        who: Whose: ``instance``, ``tenant``, ``version``.
        selection: What was asked about; links narrow it.
    """
    here = _narrowed(selection, "instance", who)
    said = f"[{NAMES.get(cause, escape.markdown(cause.replace('_', ' ')))}]({link(page_of(cause), here)})"
    if instance := who.get("instance"):
        said += f" on [{escape.markdown(instance)}]({link('./', here)})"
    if version := who.get("version"):
        said += f", version {escape.markdown(version)}"
    if tenant := who.get("tenant"):
        preposition = "by" if cause in SHARED else "of"
        said += f", {preposition} [tenant {escape.markdown(tenant)}]"
        said += f"({link('requests', _narrowed(here, 'tenant', who))})"
    return said


def page_of(cause: str) -> str:
    """The page on which it shows."""
    return _PAGES.get(cause, "latency")


def runbook(name: str) -> str:
    """Markdown of the way to a runbook: a link where somebody said where they are, else its path."""
    where = os.environ.get("SERVESCOPE_RUNBOOKS", "").rstrip("/")
    path = f"{RUNBOOKS}/{name}"
    return f"[Runbook]({where}/{path})" if where else f"Runbook: `{path}`"


def _narrowed(selection: Selection, column: str, who: Mapping[str, str]) -> Selection:
    if not who.get(column):
        return selection
    return selection.but(filter=selection.filter.narrowed(**{column: (who[column],)}))
