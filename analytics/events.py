"""What happened, and when: marks and bands for every chart."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from analytics.window import Answer, Filter, Window

if TYPE_CHECKING:
    from datetime import datetime

    from analytics.ground import Reader


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


def timeline(
    store: Reader,
    window: Window,
    filter: Filter = Filter(),  # noqa: A002, B008
    *,
    events: tuple[str, ...] = (),
    limit: int = 500,
) -> Answer[Timeline]:
    """Events (of these names, all when empty) and incidents; an event about no instance belongs to every filter."""
    raise NotImplementedError
