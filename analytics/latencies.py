"""Percentiles over time as lines, from whatever exists: rows, else histograms, else sums."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, get_args

from analytics.buckets import Buckets
from analytics.conditions import one_of
from analytics.question import QuestionError
from analytics.series import By
from analytics.values import number, ratio
from base.named_sql import beside

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from analytics.answer import Coverage, Exactness, Level
    from analytics.grid import Grid
    from analytics.inquiry import Inquiry
    from analytics.signals import Signal


EXACT_LIMIT: Final = 5_000_000
"""Requests up to which percentiles are exact: an exact one keeps every value in memory (8 bytes each), and a reader
has 400 MB. Above it they are estimated within 1 % (DDSketch) and labelled ``derived``. Exact ones interpolate linearly
between the two nearest values (numpy's default, Hyndman & Fan's type 7) and count each row once: ``weight`` is 1."""
_SQL: Final = beside(__file__)
_WANTED: Final = (0.5, 0.9, 0.95, 0.99)
_NAMES: Final = ("p50", "p90", "p95", "p99")


@dataclass(frozen=True, slots=True)
class LatencyLine:
    """Percentiles of one signal over time, for one model, instance or the whole selection; seconds.

    Attributes:
        name: What it is of; empty for the whole selection.
        level: ``rows`` or ``metrics``; a mixed selection has lines of both.
        exactness: ``means`` lines have ``mean`` and no percentile.
        rows: Requests behind it (``exact``, ``derived``) or requests counted by the server (``means``).
        count: Requests per step.
        mean, p50, p90, p95, p99: One value per step, None where the step has none.
        total: The same over the whole window: ``{"count", "mean", "p50", "p90", "p95", "p99", "max"}``.
    """

    name: str
    level: Level
    exactness: Exactness
    rows: int
    count: list[float]
    mean: list[float | None]
    p50: list[float | None]
    p90: list[float | None]
    p95: list[float | None]
    p99: list[float | None]
    total: dict[str, float | None]


def latency_lines(
    inquiry: Inquiry, cover: Coverage, about: Signal, grid: Grid, by: By, limit: int
) -> tuple[list[LatencyLine], int]:
    """Lines of one latency, largest first, and how many more there are than ``limit``.

    A name that has rows with this latency is told from rows alone, one that has none from the engine's histograms,
    else from its sums. Metrics are not used where a tenant, an outcome or
    anything else is asked for that they do not know.
    """
    lines, left_out = _lines_of_rows(inquiry, cover, about, grid, by, limit) if cover.rows else ([], 0)
    lines += metric_lines(inquiry, about, grid, by, [line.name for line in lines])
    lines.sort(key=lambda line: (-line.rows, line.name))
    return lines[:limit], left_out + max(0, len(lines) - limit)


def metric_lines(inquiry: Inquiry, about: Signal, grid: Grid, by: By, known: Sequence[str]) -> list[LatencyLine]:
    """Lines from metrics alone, of names that are not ``known`` already."""
    if not inquiry.of_all or by == "tenant" or (by == "all" and known):
        return []
    lines = _lines_of_histograms(inquiry, about, grid, by, known)
    if by == "all" and lines:
        return lines
    return lines + _lines_of_sums(inquiry, about, grid, by, [*known, *(line.name for line in lines)])


def quantiles_sql(
    cover: Coverage, value: str, present: str = "1", levels: Sequence[float] = (0.5, 0.9, 0.95, 0.99)
) -> tuple[str, Exactness]:
    """SQL of an array of percentiles of ``value`` over rows where ``present`` holds, and how exact they are."""
    listed = ", ".join(map(str, levels))
    if cover.rows <= EXACT_LIMIT:
        return f"quantilesExactInclusiveIf({listed})({value}, {present})", "exact"
    # Below 1 the engine's sketch is off by up to three times its accuracy, above it is not: so in microseconds.
    sketch = f"quantilesDDIf(0.01, {listed})(toFloat32({value} * 1e6), {present})"
    return f"arrayMap(us -> us / 1e6, {sketch})", "derived"


def histogram_rows(
    inquiry: Inquiry, about: Signal, grid: Grid, by: By = "all", known: Sequence[str] = ()
) -> list[dict[str, Any]]:
    """Rows ``(name, slot, bounds, buckets, n, total)`` of the engines' histograms; none where metrics can't tell."""
    if not about.distribution or not inquiry.of_all:
        return []
    among, held = one_of(_by_sql(by), "known", known)
    return inquiry.ask(
        "percentiles_histograms",
        {"by": _by_sql(by), "known": among},
        sql=_SQL,
        step_ms=grid.step_ms,
        distribution=about.distribution,
        known=held,
    )


def _lines_of_rows(
    inquiry: Inquiry, cover: Coverage, about: Signal, grid: Grid, by: By, limit: int
) -> tuple[list[LatencyLine], int]:
    sql, exactness = quantiles_sql(cover, "value")
    column = _by_sql(by)
    fragments = {"by": column, "value": about.value, "present": about.present, "quantiles": sql}
    left_out, only, top = 0, "", list[str]()
    if by == "tenant":  # tenants may be very many: the statement must not return a line for each
        ranked = [str(row["name"]) for row in inquiry.ask("names_rows", fragments, sql=_SQL)]
        top, left_out = ranked[:limit], max(0, len(ranked) - limit)
        among, top = one_of(column, "top", top)
        only = f"AND {among}"
    rows = inquiry.ask("percentiles_rows", {**fragments, "only": only}, sql=_SQL, step_ms=grid.step_ms, top=top)
    lines: dict[str, LatencyLine] = {}
    for row in rows:
        if not row["n"]:  # the whole of nothing is one row of zeros
            continue
        line = lines.setdefault(str(row["name"]), _line(str(row["name"]), "rows", exactness, grid))
        if row["whole"]:
            if line.rows:  # of what arrived after the settled edge
                continue
            lines[line.name] = _with_total(line, row, row["q"], int(row["n"]), number(row["largest"]))
        else:
            _put(line, grid.at(row["slot"]), float(row["n"]), number(row["mean"]), map(number, row["q"]))
    return list(lines.values()), left_out


def _lines_of_histograms(
    inquiry: Inquiry, about: Signal, grid: Grid, by: By, known: Sequence[str]
) -> list[LatencyLine]:
    lines: dict[str, tuple[LatencyLine, Buckets, dict[int, Buckets]]] = {}
    for row in histogram_rows(inquiry, about, grid, by, known):
        name = str(row["name"])
        held = lines.setdefault(name, (_line(name, "metrics", "derived", grid), Buckets(), {}))
        for buckets in (held[1], held[2].setdefault(grid.at(row["slot"]), Buckets())):
            buckets.add(row["bounds"], row["buckets"], row["n"], row["total"])
    finished = []
    for line, whole, by_slot in lines.values():
        if not whole.n:
            continue
        for place, buckets in by_slot.items():
            _put(line, place, float(buckets.n), buckets.mean(), buckets.quantiles(_WANTED))
        finished.append(_with_total(line, {"mean": whole.mean()}, whole.quantiles(_WANTED), whole.n, None))
    return finished


def _lines_of_sums(inquiry: Inquiry, about: Signal, grid: Grid, by: By, known: Sequence[str]) -> list[LatencyLine]:
    if not about.total:
        return []
    among, held = one_of(_by_sql(by), "known", known)
    fragments = {"by": _by_sql(by), "total": about.total, "divisor": about.divisor, "known": among}
    lines: dict[str, LatencyLine] = {}
    sums: dict[str, list[float]] = {}
    for row in inquiry.ask("percentiles_sums", fragments, sql=_SQL, step_ms=grid.step_ms, known=held):
        name, n, seconds = str(row["name"]), float(row["n"]), float(row["seconds"])
        line = lines.setdefault(name, _line(name, "metrics", "means", grid))
        _put(line, grid.at(row["slot"]), n, seconds / n, [None] * len(_WANTED))
        whole = sums.setdefault(name, [0.0, 0.0])
        whole[0] += seconds
        whole[1] += n
    empty = [None] * len(_WANTED)
    return [
        _with_total(line, {"mean": ratio(*sums[name])}, empty, int(sums[name][1]), None) for name, line in lines.items()
    ]


def _by_sql(by: By) -> str:
    """The expression to group by."""
    if by not in get_args(By):
        raise QuestionError(f"Nothing is split by {by!r}", f"Use one of {', '.join(get_args(By))}")
    return "''" if by == "all" else by


def _line(name: str, level: Any, exactness: Exactness, grid: Grid) -> LatencyLine:
    return LatencyLine(
        name,
        level,
        exactness,
        0,
        grid.zeros(),
        grid.blank(),
        grid.blank(),
        grid.blank(),
        grid.blank(),
        grid.blank(),
        {},
    )


def _put(line: LatencyLine, place: int, n: float, mean: float | None, quantile: Iterable[float | None]) -> None:
    line.count[place] = n
    line.mean[place] = mean
    for values, value in zip((line.p50, line.p90, line.p95, line.p99), quantile, strict=True):
        values[place] = value


def _with_total(
    line: LatencyLine, whole: Mapping[str, object], quantile: Sequence[object], n: int, largest: float | None
) -> LatencyLine:
    total = {"count": float(n), "mean": number(whole["mean"])}
    total |= dict(zip(_NAMES, map(number, quantile), strict=True)) | {"max": largest}
    return LatencyLine(
        line.name, line.level, line.exactness, n, line.count, line.mean, line.p50, line.p90, line.p95, line.p99, total
    )
