"""What happened, and when: marks and bands for every chart."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from analytics.answer import Answer, Coverage
from analytics.conditions import one_of
from analytics.inquiry import Inquiry
from analytics.selection import FILTER_COLUMNS
from analytics.values import moment, names
from base.named_sql import beside

if TYPE_CHECKING:
    from datetime import datetime

    from analytics.inquiry import Reader
    from analytics.selection import Filter, Selection

_SQL: Final = beside(__file__)


@dataclass(frozen=True, slots=True)
class Mark:
    """One event.

    Attributes:
        time: When.
        event: Its name: ``deploy``, ``instance_restarted``, ….
        message: One plain sentence.
        instance, deployment, engine, model, region, version: What it is about; empty where it is about all.
        recording: Recording it comes from, empty when live.
        attributes: Free texts.
    """

    time: datetime
    event: str
    message: str
    instance: str
    deployment: str
    engine: str
    model: str
    region: str
    version: str
    recording: str
    attributes: dict[str, str]


@dataclass(frozen=True, slots=True)
class Band:
    """One incident that overlaps the window.

    Attributes:
        id: Its id.
        start: When it opened.
        end: When it was resolved; None while it lasts.
        state: ``open``, ``acknowledged`` or ``resolved``.
        severity: As its rule said.
        title: For the band's label.
        labels: What it is about.
    """

    id: str
    start: datetime
    end: datetime | None
    state: str
    severity: str
    title: str
    labels: dict[str, str]


@dataclass(frozen=True, slots=True)
class Timeline:
    """Events and incidents of a window.

    Attributes:
        marks: In order of time, at most the asked number (the newest).
        bands: In order of start.
        left_out: Marks not shown.
    """

    marks: list[Mark]
    bands: list[Band]
    left_out: int


def ask(
    store: Reader,
    selection: Selection,
    *,
    events: tuple[str, ...] = (),
    limit: int = 500,
) -> Answer[Timeline]:
    """Events (of these names, all when empty) and incidents; an event about no instance belongs to every filter.

    An incident is shown unless one of its labels contradicts the filter.
    """
    inquiry = Inquiry(store, selection, sql=_SQL)
    only = "AND event IN {events:Array(String)}" if events else ""
    rows = inquiry.ask("marks", {"only": only}, limit=limit, events=list(events))
    marks = [_mark(row) for row in reversed(rows)]
    tests, bound = _labels(selection.filter)
    bands = [_band(row) for row in inquiry.ask("bands", {"labels": tests}, **bound)]
    newest = max((mark.time for mark in marks), default=None)
    cover = Coverage(rows=len(marks), last_row=newest, recordings=names([mark.recording for mark in marks]))
    left_out = int(rows[0]["found"]) - len(rows) if rows else 0
    return inquiry.answer(
        Timeline(marks, bands, left_out),
        cover,
        level="rows",
        exactness="exact",
        rows=len(marks) + len(bands),
        notes=("Events know no tenant: those of all are told.",) if selection.filter.tenant else (),
        goes_by=(*FILTER_COLUMNS,),
    )


def _labels(filter: Filter) -> tuple[str, dict[str, Any]]:  # noqa: A002
    tests: list[str] = []
    bound: dict[str, Any] = {}
    for column, values in filter.chosen():
        label = f"labels['{column}']"
        among, bound[f"label_{column}"] = one_of(label, f"label_{column}", values)
        tests.append(f"AND ({label} = '' OR {among})")
    return " ".join(tests), bound


def _mark(row: dict[str, Any]) -> Mark:
    return Mark(
        time=moment(row["time_ms"]),
        event=str(row["event"]),
        message=str(row["message"]),
        instance=str(row["instance"]),
        deployment=str(row["deployment"]),
        engine=str(row["engine"]),
        model=str(row["model"]),
        region=str(row["region"]),
        version=str(row["version"]),
        recording=str(row["recording"]),
        attributes=dict(row["attributes"]),
    )


def _band(row: dict[str, Any]) -> Band:
    return Band(
        id=str(row["id"]),
        start=moment(row["opened_ms"]),
        end=None if row["resolved_ms"] is None else moment(row["resolved_ms"]),
        state=str(row["state_now"]),
        severity=str(row["severity"]),
        title=str(row["title"]),
        labels=dict(row["labels"]),
    )
