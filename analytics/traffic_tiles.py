"""Tiles of the overview: each figure from rows where they are, from metrics where they are not, and it says which."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from analytics.grid import Grid
from analytics.latencies import metric_lines, quantiles_sql
from analytics.samples import MODEL, STEP, WHOLE, last, line_of, peak, sampled, share_of
from analytics.series import Tile, Unit
from analytics.signals import SIGNALS
from analytics.slo import BAD
from analytics.values import number, ratio
from base.named_sql import beside

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from analytics.answer import Coverage, Exactness
    from analytics.inquiry import Inquiry
    from analytics.latencies import LatencyLine

Latency = str
"""``ttft`` or ``e2e``."""

_SQL: Final = beside(__file__)
_PLACES: Final = {"p50": 0, "p99": 3}
_UNSEEN: Final = "no request in this window has one"


@dataclass(frozen=True)
class Readings:
    """All that the overview reads, read once.

    Attributes:
        inquiry, cover, grid: The question, what the store covers, the steps.
        rows, row_models, row_whole: `overview_rows` per step, per model and over the window (empty without rows).
        steps, sample_models, sample_whole: Engine samples likewise.
        metric_lines: Latency from metrics, where no row has it.
        exactness: Of percentiles from rows.
    """

    inquiry: Inquiry
    cover: Coverage
    grid: Grid
    rows: list[dict[str, Any]]
    row_models: list[dict[str, Any]]
    row_whole: dict[str, Any]
    steps: list[dict[str, Any]]
    sample_models: list[dict[str, Any]]
    sample_whole: dict[str, Any]
    metric_lines: dict[Latency, LatencyLine | None]
    exactness: Exactness

    @classmethod
    def read(cls, inquiry: Inquiry, points: int) -> Readings:
        """Asks the store."""
        cover = inquiry.coverage()
        grid = Grid.of(inquiry.window, points)
        fragments: dict[str, str] = {}
        exactness: Exactness = "exact"
        for latency in ("ttft", "e2e"):
            about = SIGNALS[f"{latency}_seconds"]
            sql, exactness = quantiles_sql(cover, latency, f"has_{latency}")
            fragments |= {
                f"{latency}_value": about.value,
                f"{latency}_present": about.present,
                f"{latency}_quantiles": sql,
            }
        found = inquiry.ask("overview_rows", fragments, _SQL, step_ms=grid.step_ms, bad=list(BAD)) if cover.rows else []
        whole = next((row for row in found if row["no_slot"] and row["no_name"] and row["n"]), {})
        samples = sampled(inquiry, grid, (STEP, MODEL, WHOLE), beside_rows=cover.rows > 0)
        lines: dict[Latency, LatencyLine | None] = {}
        for latency in ("ttft", "e2e"):
            known = ("",) if whole.get(f"{latency}_rows") else ()
            lines[latency] = next(iter(metric_lines(inquiry, SIGNALS[f"{latency}_seconds"], grid, "all", known)), None)
        return cls(
            inquiry=inquiry,
            cover=cover,
            grid=grid,
            rows=[row for row in found if not row["no_slot"]],
            row_models=settled_of(row for row in found if not row["no_name"]),
            row_whole=whole,
            steps=samples[STEP],
            sample_models=samples[MODEL],
            sample_whole=next(iter(samples[WHOLE]), {}),
            metric_lines=lines,
            exactness=exactness,
        )

    @property
    def split(self) -> bool:
        """Whether metrics may add to rows: not where what they do not know is asked for, as a tenant."""
        return self.inquiry.of_all

    @property
    def total(self) -> float | None:
        """Requests that arrived (rows) plus those finished or failed where no rows are; None when nobody reports."""
        known = [number(self.row_whole.get("n"))]
        if self.split:
            known.append(self.ended_elsewhere)
        found = [value for value in known if value is not None]
        return sum(found) if found else None if self.cover.state == "no_data" else 0.0

    @property
    def ended_elsewhere(self) -> float | None:
        """Requests that servers without rows say have ended."""
        return number(self.sample_whole.get("ended_elsewhere"))

    def per_second(self, arrived: float | None, ended: float | None) -> float:
        """Rate of arrivals, over the time in which they are complete, and of ends, over the whole window."""
        by_end = (ended or 0.0) / self.inquiry.window.seconds if self.split else 0.0
        return (arrived or 0.0) / self.inquiry.settled_seconds + by_end

    def lately(self, line: list[float | None]) -> list[float | None]:
        """A line of arrivals up to the settled edge; one that no row is in goes on to the end."""
        return self.grid.settled(line, self.inquiry.settled_ms) if self.cover.rows else line

    @property
    def flow_exactness(self) -> Exactness:
        """``derived`` when counters of finished requests stand in for arrivals."""
        return "derived" if self.split and number(self.sample_whole.get("ended_elsewhere")) else "exact"

    def tile(
        self,
        value: float | None,
        unit: Unit,
        line: list[float | None],
        *,
        rows: int,
        exactness: Exactness = "exact",
        reason: str = "",
    ) -> Tile:
        """A tile with its state: nothing served is told apart from nothing known."""
        if value is not None:
            return Tile(value, unit, "value", "", line, peak(line), exactness, rows)
        if self.cover.state == "no_data":
            return Tile(None, unit, "no_data", "nobody reported in this window", line, None, exactness, 0)
        if not self.total:
            return Tile(None, unit, "no_traffic", "no request in this window", line, None, exactness, 0)
        return Tile(None, unit, "no_data", reason, line, None, exactness, 0)

    def requests(self) -> Tile:
        """Requests per second; 0 with the state *no traffic* when servers report and nobody asked."""
        total = self.total
        amounts = self._amounts("n", ("ended_elsewhere",))
        if total is not None:
            amounts = [amount or 0.0 for amount in amounts]
        value = None if total is None else self.per_second(number(self.row_whole.get("n")), self.ended_elsewhere)
        made = self.tile(
            value,
            "per_second",
            self.lately(self.grid.rates(amounts)),
            rows=int(total or 0),
            exactness=self.flow_exactness,
        )
        if total == 0:
            return Tile(0.0, made.unit, "no_traffic", "no request in this window", made.line, 0.0, "exact", 0)
        return made

    def errors(self) -> Tile:
        """Share of requests that ended in the service's fault; where no rows are, what the server calls failed."""
        bad, of = number(self.row_whole.get("bad")), number(self.row_whole.get("n"))
        if self.split:
            failed, judged = (number(self.sample_whole.get(f"{name}_elsewhere")) for name in ("failed", "judged"))
            bad = failed if bad is None else bad + (failed or 0.0)
            of = judged if of is None else of + (judged or 0.0)
        amounts = self._amounts("bad", ("failed_elsewhere",))
        asked = self._amounts("n", ("judged_elsewhere",))
        line = [ratio(a or 0.0, b) if bad is not None else None for a, b in zip(amounts, asked, strict=True)]
        return self.tile(
            ratio(bad, of),
            "ratio",
            self.lately(line),
            rows=int(of or 0),
            exactness=self.flow_exactness,
            reason="this server counts no failures",
        )

    def rate(self, column: str, row_column: str, unit: Unit) -> Tile:
        """Something per second from the engines' counters, else from rows."""
        seconds = self.inquiry.window.seconds
        amount = number(self.sample_whole.get(column)) if self.split else None
        if amount is not None:
            line = self.grid.rates(line_of(self.steps, self.grid, column))
            return self.tile(amount / seconds, unit, line, rows=self.cover.samples)
        line = self.lately(self.grid.rates(line_of(self.rows, self.grid, row_column)))
        value = ratio(number(self.row_whole.get(row_column)), self.inquiry.settled_seconds)
        reason = "no server shows it" if self.split else "servers count it, and do not know what is asked for"
        return self.tile(value, unit, line, rows=self.cover.rows, reason=reason)

    def latency(self, name: Latency, figure: str) -> Tile:
        """``p50``, ``p99`` or ``mean`` of a latency."""
        rows = int(self.row_whole.get(f"{name}_rows") or 0)
        if rows and figure == "mean":
            value, line = number(self.row_whole[f"{name}_mean"]), line_of(self.rows, self.grid, f"{name}_mean")
            return self.tile(value, "seconds", self.lately(line), rows=rows)
        if rows:
            place = _PLACES[figure]
            line = self.grid.blank()
            for row in self.rows:
                line[self.grid.at(row["slot"])] = number(row[f"{name}_q"][place])
            value = number(self.row_whole[f"{name}_q"][place])
            return self.tile(value, "seconds", self.lately(line), rows=rows, exactness=self.exactness)
        found = self.metric_lines[name]
        if found is None:
            return self.tile(None, "seconds", self.grid.blank(), rows=0, reason=_UNSEEN)
        return self.tile(
            found.total[figure],
            "seconds",
            getattr(found, figure),
            rows=found.rows,
            exactness=found.exactness,
            reason="these servers show sums alone: a mean and no percentile",
        )

    def gauge(self, column: str, unit: Unit, highest: float | None = None) -> Tile:
        """The newest value of a gauge; ``highest`` is its peak where the line is of means."""
        line = line_of(self.steps, self.grid, column)
        made = self.tile(last(line), unit, line, rows=self.cover.samples, reason="no server shows it")
        return made if highest is None or made.peak is None else replace(made, peak=highest)

    def share(self, part: str, whole: str, reason: str) -> Tile:
        """One counter over another."""
        value = ratio(number(self.sample_whole.get(part)), number(self.sample_whole.get(whole)))
        line = share_of(self.steps, self.grid, part, whole)
        return self.tile(value, "ratio", line, rows=self.cover.samples, reason=reason)

    def _amounts(self, row_column: str, sample_columns: Sequence[str]) -> list[float | None]:
        lines = [line_of(self.rows, self.grid, row_column)]
        if self.split:
            lines += [line_of(self.steps, self.grid, column) for column in sample_columns]
        return [
            sum(value for value in values if value is not None) if any(v is not None for v in values) else None
            for values in zip(*lines, strict=True)
        ]


def settled_of(rows: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Of the two rows of a name, settled first, the one that speaks: the later one only where there is no other."""
    found: dict[str, dict[str, Any]] = {}
    for row in rows:
        found.setdefault(str(row["name"]), row)
    return list(found.values())
