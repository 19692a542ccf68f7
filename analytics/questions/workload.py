"""What is asked: how requests end, by which routes they come and with which status, how long prompts and answers are.

From rows; without any, endings and lengths alone, of the engines' counters and histograms, which know no tenant.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from analytics import other_signals
from analytics.buckets import Buckets
from analytics.grid import Grid
from analytics.inquiry import Inquiry
from analytics.latencies import histogram_rows, quantiles_sql
from analytics.question import Command
from analytics.series import Line
from analytics.signals import Signal
from analytics.values import number
from base.named_sql import beside
from base.vocabulary import Distribution

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from analytics.answer import Answer, Exactness
    from analytics.inquiry import Reader
    from analytics.selection import Selection

COMMAND: Final = Command()
_SQL: Final = beside(__file__)
_LEVELS: Final = (0.5, 0.95, 0.99)
_ENDINGS: Final = 12
"""Ways to end that are told apart: outcomes, and the reasons that servers usually give."""
_WAYS: Final = 50
"""Routes with a status that are told, those with most requests."""
_TOKENS: Final = {"prompt": "prompt_tokens", "answer": "completion_tokens"}
"""What has a length → its column, and the engines' histogram of it."""
_REASONS: Final = {
    other_signals.delta(f"finished_{reason}_total"): reason
    for reason in ("stop", "length", "abort", "error", "repetition")
}
"""What an engine counts → why generation stopped."""
_ENDING: Final = "multiIf(outcome NOT IN ('', 'ok'), outcome, finish_reason != '', finish_reason, 'not told')"


@dataclass(frozen=True, slots=True)
class Way:
    """Requests of one route that were answered with one status.

    Attributes:
        route: Path; empty where nothing in front of the server saw it.
        status: HTTP status that the client got; 0 where nobody saw one.
        requests: How many.
        e2e_mean_seconds: Mean end-to-end time of those that have one.
    """

    route: str
    status: int
    requests: int
    e2e_mean_seconds: float | None


@dataclass(frozen=True, slots=True)
class LengthBin:
    """Requests of a length.

    Attributes:
        tokens_from, tokens_to: The least and the most tokens; the latter is None where nothing bounds them.
        requests: How many.
    """

    tokens_from: int
    tokens_to: int | None
    requests: int


@dataclass(frozen=True, slots=True)
class Length:
    """How long prompts or answers are, in tokens, of those that have any.

    Attributes:
        name: ``prompt`` or ``answer``.
        requests: How many have any.
        p50, p95, p99: Percentiles.
        largest: The most; None where histograms alone tell.
        bins: The distribution, from short to long.
    """

    name: str
    requests: int
    p50: float | None
    p95: float | None
    p99: float | None
    largest: int | None
    bins: list[LengthBin]


@dataclass(frozen=True, slots=True)
class Workload:
    """What is asked and how it ends.

    Attributes:
        step: Seconds of a step.
        times: Starts of the steps.
        endings: Requests per second by arrival, by how they ended: the outcome where that is not ``ok``, else why
            generation stopped; ``other`` beyond the commonest twelve. Without rows: by their end, by the engines' own
            counts of why generation stopped.
        ended: The same over the window: how many, the commonest first.
        ways: By route and status, those with most requests first.
        lengths: Of prompts and answers.
    """

    step: int
    times: list[datetime]
    endings: list[Line]
    ended: dict[str, int]
    ways: list[Way]
    lengths: list[Length]


def ask(store: Reader, selection: Selection, *, points: int = 120) -> Answer[Workload]:
    """How requests end, by route and status, and how long prompts and answers are."""
    inquiry = Inquiry(store, selection, sql=_SQL)
    cover = inquiry.coverage()
    grid = Grid.of(selection.window, points)
    if not cover.rows:
        lengths = _of_histograms(inquiry)
        endings, ended = _of_counters(inquiry, grid, cover.samples)
        known = [sum(ended.values()), *(one.requests for one in lengths)]
        return inquiry.answer(
            Workload(grid.step, grid.times, endings, ended, [], lengths), cover, level="metrics", exactness="derived",
            rows=max(known), samples_used=True,
        )  # fmt: skip
    counted: dict[str, list[float]] = {}
    for row in inquiry.ask("endings", {"ending": _ENDING}, step_ms=grid.step_ms, most=_ENDINGS):
        counted.setdefault(str(row["name"]), grid.zeros())[grid.at(row["slot"])] += float(row["n"])
    ended = dict(sorted(((name, int(sum(line))) for name, line in counted.items()), key=lambda one: (-one[1], one[0])))
    ways = [
        Way(str(row["route_of"]), int(row["status_of"]), int(row["n"]), number(row["e2e"]))
        for row in inquiry.ask("ways", most=_WAYS)
    ]
    percentiles = {name: quantiles_sql(cover, column, f"{column} > 0", _LEVELS) for name, column in _TOKENS.items()}
    exactness: Exactness = percentiles["prompt"][1]
    (whole,) = inquiry.ask("lengths", {name: sql for name, (sql, _) in percentiles.items()})
    bins: dict[str, list[LengthBin]] = {name: [] for name in _TOKENS}
    for row in sorted(inquiry.ask("sizes"), key=lambda row: int(row["power"])):
        low = 1 << int(row["power"])
        bins[str(row["name"])].append(LengthBin(low, 2 * low - 1, int(row["n"])))
    found = Workload(
        step=grid.step,
        times=grid.times,
        endings=[Line(name, grid.rates(counted[name]), "per_second", "exact", n) for name, n in ended.items()],
        ended=ended,
        ways=ways,
        lengths=[_length(name, bins[name], whole) for name in _TOKENS if bins[name]],
    )
    return inquiry.answer(found, cover, level="rows", exactness=exactness, rows=sum(ended.values()))


def _length(name: str, bins: Sequence[LengthBin], whole: dict[str, Any]) -> Length:
    p50, p95, p99 = (number(value) for value in whole[f"{name}_percentiles"])
    requests = sum(one.requests for one in bins)
    return Length(name, requests, p50, p95, p99, int(whole[f"{name}_most"]), list(bins))


def _of_counters(inquiry: Inquiry, grid: Grid, samples: int) -> tuple[list[Line], dict[str, int]]:
    """Why generation ended, by the engines' own counts."""
    heard = other_signals.told(inquiry, grid, list(_REASONS), samples if inquiry.of_all else 0)
    counted = {reason: heard.whole(name) for name, reason in _REASONS.items()}
    ended = {reason: round(count) for reason, count in sorted(counted.items(), key=_commonest) if count}
    names = {reason: name for name, reason in _REASONS.items()}
    return heard.lines({reason: heard.rates(names[reason]) for reason in ended}, "per_second"), ended


def _commonest(counted: tuple[str, float | None]) -> tuple[float, str]:
    return -(counted[1] or 0.0), counted[0]


def _of_histograms(inquiry: Inquiry) -> list[Length]:
    found = []
    for name, distribution in (("prompt", Distribution.PROMPT_TOKENS), ("answer", Distribution.COMPLETION_TOKENS)):
        about = Signal(str(distribution), name, "", "", str(distribution), "", "")
        buckets = Buckets()
        for row in histogram_rows(inquiry, about, Grid.of(inquiry.window, 1)):
            buckets.add(row["bounds"], row["buckets"], row["n"], row["total"])
        if not buckets.n:
            continue
        bounds, counts = buckets.merged()
        p50, p95, p99 = buckets.quantiles(_LEVELS)
        edges = [0, *(int(bound) for bound in bounds)]
        bins = [
            LengthBin(low + 1, int(bounds[place]) if place < len(bounds) else None, count)
            for place, (low, count) in enumerate(zip(edges, counts, strict=True))
            if count
        ]
        found.append(Length(name, buckets.n, p50, p95, p99, None, bins))
    return found
