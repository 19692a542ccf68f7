"""What the numbers were when an incident opened, frozen; and what happened around it.

Evidence helps and never holds up a page: what can't be asked is named instead of shown.
"""

from __future__ import annotations

import math
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from alerts.text import plain
from analytics.questions import latency
from analytics.selection import Filter, Selection
from analytics.slo import BAD, FINISHED, LONGEST_SECONDS
from analytics.window import Window, iso
from base.errors import ServescopeError
from base.named_sql import filled, statements

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from alerts.incidents.incident import Incident
    from alerts.measure.rows import Rows

WINDOW_SECONDS: Final = 60.0
"""Span that the numbers are taken over, up to the moment of opening."""
LATENCY_SECONDS: Final = 300.0
"""Span of the latencies, by arrival: long enough to hold requests that still waited a minute before."""
AROUND_SECONDS: Final = 900.0
"""How long before the opening an event still belongs to the timeline."""
_SETTINGS: Final = {"max_execution_time": 2}
_SQL: Final = Path(__file__).with_name("evidence.sql")


def freeze(
    store: Rows,
    incident: Incident,
    now: float,
    *,
    ingest_delay_seconds: float = 3.0,
    longest_request_seconds: float = LONGEST_SECONDS,
) -> dict[str, Any]:
    """The numbers of the last minute for what the incident is about.

    Requests count when they end, as for the rules: by arrival, those that still wait would be missing, and they are the
    ones that the incident is about. What ended in the last ``ingest_delay_seconds`` may not be in the tables yet, so
    requests are taken over a window that ended so much earlier; samples are taken up to now. Latencies are what the
    latency page shows for the window that is named with them.

    Returns:
        ``window_seconds``, ``requests_per_second``, ``error_share``, ``latency_window`` (``start``, ``end``, by
        arrival), ``ttft_p50_seconds``, ``ttft_p99_seconds``, ``e2e_p99_seconds`` (None without any), ``tenants`` (by
        time taken: ``tenant, requests, tokens, seconds``), ``instances`` (``instance, running_max, waiting_max,
        kv_cache_usage_ratio_max, preemptions, version, up_min``), ``missing`` (what could not be asked, and why).
    """
    span = max([WINDOW_SECONDS, *(min(a.window_seconds, 900.0) for a in incident.firing)])
    about = _about(incident)
    parameters = {**about, "from": int((now - span) * 1000), "to": int(now * 1000) + 1}
    ended = now - ingest_delay_seconds
    requests_of = {
        **about,
        "from": int((ended - span) * 1000),
        "to": int(ended * 1000),
        "arrived_from": int((ended - span - longest_request_seconds) * 1000),
    }
    found: dict[str, Any] = {"window_seconds": span}
    missing: list[str] = []
    if totals := _ask(store, "requests", {**requests_of, "bad": list(BAD)}, missing):
        requests = float(totals[0]["requests"] or 0)
        found["requests_per_second"] = round(requests / span, 3)
        found["error_share"] = round(float(totals[0]["failed"]) / requests, 4) if requests else None
    found |= _latencies(store, about, Window(_at(ended - LATENCY_SECONDS), _at(ended)), missing)
    found["tenants"] = [_row(row) for row in _ask(store, "tenants", requests_of, missing)]
    found["instances"] = [_row(row) for row in _ask(store, "samples", parameters, missing)]
    if missing:
        found["missing"] = missing
    return found


def happenings(store: Rows, since: float, now: float) -> list[dict[str, Any]]:
    """Events of the fleet in a span, newest first.

    Returns:
        ``{"at": Unix seconds, "event", "message", "instance", "deployment", "model", "version"}``.

    Raises:
        ServescopeError: The store is away or refuses.
    """
    rows = store.rows(
        statements(_SQL)["events"], {"from": int(since * 1000), "to": int(now * 1000) + 1000}, settings=_SETTINGS
    )
    return [{**row, "at": int(row["at"]) / 1000} for row in rows]


def concerns(incident: Incident, event: Mapping[str, Any]) -> bool:
    """Whether an event of the fleet belongs to an incident's timeline: it contradicts no place of some alert."""
    for alert in incident.alerts.values():
        place = alert.place
        if "component" in place:
            continue
        pairs = [(place.get(n, ""), str(event.get(n) or "")) for n in ("deployment", "instance", "model")]
        if all(not ours or not theirs or ours == theirs for ours, theirs in pairs):
            return True
    return False


def asked_acknowledgements(store: Rows, incidents: Sequence[str]) -> list[dict[str, Any]]:
    """Acknowledgements that people asked for, oldest first: ``{"at", "incident_id", "who", "note"}``.

    Raises:
        ServescopeError: The store is away or refuses.
    """
    if not incidents:
        return []
    rows = store.rows(statements(_SQL)["acknowledgements"], {"incidents": list(incidents)}, settings=_SETTINGS)
    return [
        {
            "at": int(row["at"]) / 1000,
            "incident_id": str(row["incident_id"]),
            "who": str(row["attributes"].get("who", "")),
            "note": str(row["attributes"].get("note", "")),
        }
        for row in rows
    ]


def _about(incident: Incident) -> dict[str, list[str]]:
    """The narrowest filter that all alerts of an incident agree on."""
    firing = incident.firing
    return {
        f"{name}s": sorted({v for a in firing if (v := a.place.get(name))})
        if all(a.place.get(name) for a in firing)
        else []
        for name in ("deployment", "instance", "model")
    }


def _latencies(store: Rows, about: Mapping[str, Sequence[str]], window: Window, missing: list[str]) -> dict[str, Any]:
    """The latency page's own figures."""
    chosen = {name: tuple(about[f"{name}s"]) for name in ("deployment", "instance", "model")}
    selected = Selection(window, Filter(**chosen, recording="exclude"))
    found: dict[str, Any] = {"latency_window": {"start": iso(window.start), "end": iso(window.end)}}
    for signal, quantiles in (("ttft", ("p50", "p99")), ("e2e", ("p99",))):
        try:
            lines = latency.ask(store, selected, signal=f"{signal}_seconds", points=1).result.lines  # type: ignore[arg-type]
        except ServescopeError as error:
            missing.append(f"{signal}: {plain(error.what, 200)}")
            continue
        for name in quantiles:
            found[f"{signal}_{name}_seconds"] = _figure(lines[0].total.get(name)) if lines else None
    return found


def _at(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


def _ask(store: Rows, block: str, parameters: Mapping[str, Any], missing: list[str]) -> list[dict[str, Any]]:
    try:
        sql = filled(statements(_SQL)[block], {"finished": FINISHED})
        return store.rows(sql, parameters, settings=_SETTINGS)
    except ServescopeError as error:
        missing.append(f"{block}: {plain(error.what, 200)}")
        return []


def _row(row: Mapping[str, Any]) -> dict[str, Any]:
    return {name: _figure(value) for name, value in row.items()}


def _figure(value: Any) -> Any:
    if isinstance(value, str):
        return plain(value)
    if isinstance(value, float):
        return round(value, 4) if math.isfinite(value) else None
    return value
