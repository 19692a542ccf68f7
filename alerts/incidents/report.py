"""Incidents as text: the lists and pages of ``servescope incidents``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from alerts.deliver.notifier import reached
from alerts.text import markdown, plain
from analytics.answer import as_plain
from analytics.window import iso
from base.formats import rounded

if TYPE_CHECKING:
    from collections.abc import Sequence

    from alerts.incidents.history import IncidentRow, IncidentStory


def listing(rows: Sequence[IncidentRow]) -> str:
    """A line per incident."""
    if not rows:
        return "No incidents."
    lines = []
    for row in rows:
        lasted = rounded(round(row.seconds))
        owner = f", {plain(row.owner)}" if row.owner else ""
        lines.append(
            f"{row.id}  {iso(row.opened_at)}  {row.severity:<8}  {row.state}{owner}, {lasted}  {plain(row.title, 160)}"
        )
    return "\n".join(lines)


def listing_json(rows: Sequence[IncidentRow]) -> dict[str, Any]:
    """``{"incidents": [{"id", "opened_at", …, "seconds"}]}``."""
    return {"incidents": as_plain(list(rows))}


def story_json(story: IncidentStory) -> object:
    """``{"incident", "timeline", "alerts", "notifications", "evidence", "why"}``."""
    return as_plain(story)


def story_text(story: IncidentStory) -> str:
    """One incident for a terminal."""
    one = story.incident
    lines = [
        f"{one.id}  {one.severity}  {one.state}" + (f" by {plain(one.owner)}" if one.owner else ""),
        plain(one.title, 300),
        f"opened {iso(one.opened_at)}" + (f", resolved {iso(one.resolved_at)}" if one.resolved_at else ", not over"),
        "",
        *(f"{iso(e.time)}  {e.kind:<20}  {plain(e.message, 200)}" for e in story.timeline),
    ]
    if story.evidence:
        lines += ["", *(f"{name}: {_brief(value)}" for name, value in story.evidence.items())]
    return "\n".join(lines)


def story_markdown(story: IncidentStory) -> str:
    """One incident as Markdown, to paste into a ticket or to begin a postmortem with."""
    one = story.incident
    lines = [
        f"# {markdown(one.title)}",
        "",
        f"- **Incident** `{one.id}`, {one.severity}, {one.state}"
        + (f", owner {markdown(one.owner)}" if one.owner else ""),
        f"- **Opened** {iso(one.opened_at)}",
        f"- **Resolved** {iso(one.resolved_at)} after {rounded(round(one.seconds))}"
        if one.resolved_at
        else "- **Not over**",
        f"- **About** {', '.join(f'{markdown(k)} {markdown(v)}' for k, v in one.labels.items()) or 'everything'}",
        "",
        "## What happened",
        "",
        "| Time (UTC) | What | |",
        "|---|---|---|",
        *(f"| {iso(e.time)} | {markdown(e.kind)} | {markdown(e.message)} |" for e in story.timeline),
    ]
    if story.evidence:
        lines += ["", "## The numbers when it opened", ""]
        lines += [f"- {name.replace('_', ' ')}: {markdown(_brief(value))}" for name, value in story.evidence.items()]
    lines += ["", "## Who was told", ""]
    lines += [
        f"- {iso(n.sent_at or n.time)} {n.action} to {reached(n.notifier, n.destination)}: {n.status}"
        + (f" ({markdown(n.last_error)})" if n.last_error else "")
        for n in story.notifications
    ] or ["Nobody."]
    return "\n".join(lines) + "\n"


def _brief(value: Any) -> str:
    if isinstance(value, list):
        return "; ".join(_brief(item) for item in value) or "none"
    if isinstance(value, dict):
        return ", ".join(f"{name} {_brief(item)}" for name, item in value.items())
    return "unknown" if value is None else f"{value:g}" if isinstance(value, float) else str(value)
