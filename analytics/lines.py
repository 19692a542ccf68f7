"""Percentiles over time as lines, from whatever exists: rows, else histograms, else sums."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from analytics.buckets import Buckets
from analytics.ground import Grid, Inquiry, by_sql, number, one_of, quantiles_sql, ratio
from analytics.latency_shapes import LatencyLine

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from analytics.shapes import By
    from analytics.signals import Signal
    from analytics.window import Coverage, Exactness

_WANTED: Final = (0.5, 0.9, 0.95, 0.99)
_NAMES: Final = ("p50", "p90", "p95", "p99")


def latency_lines(
    inquiry: Inquiry, cover: Coverage, about: Signal, grid: Grid, by: By, limit: int
) -> tuple[list[LatencyLine], int]:
    """Lines of one latency, largest first, and how many more there are than ``limit``.

    A name that has rows with this latency is told from rows alone, one that has none from the engine's histograms,
    else from its sums. Metrics know no tenant and are not used when one is asked for.
    """
    lines, left_out = _lines_of_rows(inquiry, cover, about, grid, by, limit) if cover.rows else ([], 0)
    lines += metric_lines(inquiry, about, grid, by, [line.name for line in lines])
    lines.sort(key=lambda line: (-line.rows, line.name))
    return lines[:limit], left_out + max(0, len(lines) - limit)


def metric_lines(inquiry: Inquiry, about: Signal, grid: Grid, by: By, known: Sequence[str]) -> list[LatencyLine]:
    """Lines from metrics alone, of names that are not ``known`` already."""
    if inquiry.filter.tenant or by == "tenant" or (by == "all" and known):
        return []
    lines = _lines_of_histograms(inquiry, about, grid, by, known)
    if by == "all" and lines:
        return lines
    return lines + _lines_of_sums(inquiry, about, grid, by, [*known, *(line.name for line in lines)])


def _lines_of_rows(
    inquiry: Inquiry, cover: Coverage, about: Signal, grid: Grid, by: By, limit: int
) -> tuple[list[LatencyLine], int]:
    sql, exactness = quantiles_sql(cover, "value")
    column = by_sql(by)
    fragments = {"by": column, "value": about.value, "present": about.present, "quantiles": sql}
    left_out, only, top = 0, "", list[str]()
    if by == "tenant":  # tenants may be very many: the statement must not return a line for each
        ranked = [str(row["name"]) for row in inquiry.ask("names_rows", fragments, module="latency")]
        top, left_out = ranked[:limit], max(0, len(ranked) - limit)
        among, top = one_of(column, "top", top)
        only = f"AND {among}"
    rows = inquiry.ask("percentiles_rows", {**fragments, "only": only}, module="latency", step_ms=grid.step_ms, top=top)
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
    among, held = one_of(by_sql(by), "known", known)
    fragments = {"by": by_sql(by), "total": about.total, "divisor": about.divisor, "known": among}
    lines: dict[str, LatencyLine] = {}
    sums: dict[str, list[float]] = {}
    for row in inquiry.ask("percentiles_sums", fragments, module="latency", step_ms=grid.step_ms, known=held):
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


def histogram_rows(
    inquiry: Inquiry, about: Signal, grid: Grid, by: By = "all", known: Sequence[str] = ()
) -> list[dict[str, Any]]:
    """Rows ``(name, slot, bounds, buckets, n, total)`` of the engines' histograms; none when a tenant is asked for."""
    if not about.distribution or inquiry.filter.tenant:
        return []
    among, held = one_of(by_sql(by), "known", known)
    return inquiry.ask(
        "percentiles_histograms",
        {"by": by_sql(by), "known": among},
        module="latency",
        step_ms=grid.step_ms,
        distribution=about.distribution,
        known=held,
    )


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
