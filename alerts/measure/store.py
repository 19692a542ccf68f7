"""Asks the store what the rules of a round need: one statement per shape of data, however many rules there are.

Long windows move slowly, so each is asked again only when it could have changed by half a percent of its length.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import structlog

from alerts.measure import counting, taps
from alerts.measure.measured import Breach, Group, Measured, Sample, Series
from alerts.measure.needs import together
from alerts.measure.signals import ALWAYS_ASKED, DIMENSIONS
from analytics import contract
from analytics.counters import ROUTER
from analytics.slo import FINISHED, LONGEST_SECONDS
from base.named_sql import filled, statements

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from alerts.measure.measured import Counted
    from alerts.measure.needs import Needs
    from alerts.measure.rows import Living, Rows
    from analytics.slo import Measure

log = structlog.get_logger()

MAX_GROUPS: Final = 50_000
MAX_SAMPLES: Final = 500_000
LOOK_BACK_SECONDS: Final = 30.0
"""Samples looked at beyond what a rule needs, so that late ones and a missed round change nothing."""
BREACHES_EVERY_SECONDS: Final = 15.0
"""A page must lack something for ten seconds before it is told at all."""
_SQL: Final = Path(__file__).with_name("store.sql")


class Measurer:
    """Measures for a fixed set of rules.

    Args:
        needs: What each of them needs.
        ingest_delay_seconds: How late rows may be; windows reach back so much further.
        longest_request_seconds: Requests that run longer may be missed by a short window; what exceeds the largest
            limit of any rule is looked for so much further back.
    """

    def __init__(
        self,
        needs: Iterable[Needs],
        *,
        ingest_delay_seconds: float = 3.0,
        longest_request_seconds: float = LONGEST_SECONDS,
    ) -> None:
        self._delay = ingest_delay_seconds
        self._needs = together(needs)
        # A request that exceeds a limit has run for as long at least: no window would ever hold it otherwise.
        limits = [seconds for need in self._needs.measures if need.source == "rows" for _, seconds in need.limits]
        self._longest = longest_request_seconds + max(limits, default=0.0)
        self._kept: dict[float, tuple[float, list[Group]]] = {}
        self._breaches: tuple[float, dict[str, list[Breach]]] = (float("-inf"), {})
        self._dimensions = tuple(name for name in DIMENSIONS if name in self._needs.dimensions)

    def measure(self, store: Living, now: float) -> Measured:
        """Ask the store.

        Args:
            store: Where to ask.
            now: Unix seconds at which windows end.

        Raises:
            ServescopeError: The store is away or refuses; nothing of the round is known then.
        """
        measured = Measured()
        needs = self._needs
        if not (needs.windows or needs.look_back or needs.remember or needs.breaches):
            store.alive()  # whether it answers is asked all the same
        if self._needs.windows:
            measured.counts = self._requests(store, now)
        if self._needs.look_back:
            measured.series = self._samples(store, now)
        if self._needs.remember:
            rows = self._seen(store, now)
            names = ("instance", "deployment", "engine", "region", "version")
            measured.last_seen = [(_labels(row, names), int(row["at"]) / 1000) for row in rows]
            measured.was_up = {str(row["instance"]) for row in rows if row["was_up"]}
        if needs.breaches:
            measured.breaches = self._broken(store, now)
        if needs.open_requests:
            measured.open_requests = taps.open_requests(store, now)
        return measured

    def _where_recordings(self) -> str:
        return "1" if self._needs.replays else "recording = ''"

    def _requests(self, store: Rows, now: float) -> dict[float, list[Group]]:
        due = [w for w in self._needs.windows if w not in self._kept or abs(now - self._kept[w][0]) >= w / 200]
        if due:
            found = self.count(store, sorted(due), now)
            for window in due:
                self._kept[window] = (now, found[window])
        return {window: self._kept[window][1] for window in self._needs.windows}

    def count(self, store: Rows, windows: Sequence[float], now: float) -> dict[float, list[Group]]:
        """Groups of requests that finished within each window (seconds) before `now`: one statement per source.

        Where routers counted some, who had samples beside them is asked too, in groups that count nothing.

        Raises:
            ServescopeError: The store is away or refuses.
        """
        found: dict[float, list[Group]] = {window: [] for window in windows}
        end = now - self._delay
        for source in dict.fromkeys(counting.source_of(measure) for measure in self._needs.measures):
            measures = [measure for measure in self._needs.measures if counting.source_of(measure) == source]
            for row in self._grouped(store, source, counting.columns(measures, windows, end), max(windows), now):
                for index, window in enumerate(windows):
                    counts = counting.counts(measures, index, row)
                    found[window].append(self._group(row, counts, router=bool(row.get("router"))))
        if any(group.router for groups in found.values() for group in groups):
            for row in self._grouped(store, "servers", counting.seen(windows, end), max(windows), now):
                for index, window in enumerate(windows):
                    if row[f"seen_{index}"]:
                        found[window].append(self._group(row, {}, served=True))
        return found

    def _grouped(
        self, store: Rows, statement: str, counted: tuple[list[str], dict[str, Any]], longest: float, now: float
    ) -> list[dict[str, Any]]:
        """Rows of a statement over the longest window, one per set of labels, with the columns that count."""
        columns, parameters = counted
        of_rows = statement == "request_counts"
        start = _ms(now - longest - self._delay)
        parameters = {**parameters, "from": start, "until": _ms(now + 60), "limit": MAX_GROUPS + 1}
        if of_rows:
            parameters["arrived_from"] = start - _ms(self._longest)
        keys: dict[str, str] = {name: name for name in self._dimensions if of_rows or name != "tenant"}
        if self._needs.replays:
            keys |= {"replayed": "recording != '' AS replayed"} | ({} if of_rows else {"recording": "recording"})
        if statement not in {"request_counts", "servers"}:
            keys["router"] = f"{ROUTER} AS router"
        fragments = {
            "columns": ",\n    ".join([*keys.values(), *columns]),
            "recordings": self._where_recordings(),
            "finished": FINISHED,
            "router": ROUTER,
            "group": f"GROUP BY {', '.join(keys)}" if keys else "",
        }
        rows = store.rows(filled(statements(_SQL)[statement], fragments), parameters)
        if len(rows) > MAX_GROUPS:
            log.error("rules_see_too_many_groups", limit=MAX_GROUPS, by=list(keys))
        return rows

    def _group(
        self, row: Mapping[str, Any], counts: Mapping[Measure, Counted], *, router: bool = False, served: bool = False
    ) -> Group:
        labels = _labels(row, [name for name in self._dimensions if name in row])
        return Group(labels, counts, router, str(row.get("recording", "")), served)

    def _samples(self, store: Rows, now: float) -> list[Series]:
        columns = "".join(f",\n    {how}({name}) AS {name}" for name, how in self._needs.columns.items())
        sql = filled(statements(_SQL)["samples"], {"columns": columns, "recordings": self._where_recordings()})
        start = now - self._needs.look_back - self._delay - LOOK_BACK_SECONDS
        rows = store.rows(sql, {"from": _ms(start), "limit": MAX_SAMPLES})
        if len(rows) >= MAX_SAMPLES:
            log.error("rules_see_too_many_samples", limit=MAX_SAMPLES)
        series: dict[tuple[str, str], Series] = {}
        told = (*ALWAYS_ASKED, *self._needs.columns)
        for row in rows:
            labels = _labels(row, ("instance", "model", "deployment", "engine", "region", "version"))
            kept = series.setdefault((labels["instance"], labels["model"]), Series(labels))
            kept.labels = labels
            values = {name: float(row[name]) for name in told if row.get(name) is not None}
            kept.samples.append(Sample(int(row["at"]) / 1000, values))
        return list(series.values())

    def _broken(self, store: Rows, now: float) -> dict[str, list[Breach]]:
        asked, found = self._breaches
        if abs(now - asked) < BREACHES_EVERY_SECONDS:
            return found
        sql = filled(contract.SQL["breaches"], {"filter:events": f"AND ({self._where_recordings()})"})
        asked_of = {"broken_from_ms": _ms(now - self._needs.breaches), "to_ms": _ms(now + 60), "most": MAX_GROUPS}
        found = {}
        for row in map(contract.standing, store.rows(sql, asked_of)):
            one = Breach(row.kind, row.what, row.since.timestamp(), row.known)
            found.setdefault(row.instance, []).append(one)
        self._breaches = (now, found)
        return found

    def _seen(self, store: Rows, now: float) -> list[dict[str, Any]]:
        sql = filled(statements(_SQL)["last_seen"], {"recordings": self._where_recordings()})
        return store.rows(sql, {"from": _ms(now - self._needs.remember), "limit": MAX_GROUPS})


def _labels(row: Mapping[str, Any], names: Iterable[str]) -> dict[str, str]:
    return {name: str(row[name]) for name in names} | {"replayed": str(int(row.get("replayed") or 0))}


def _ms(seconds: float) -> int:
    return int(seconds * 1000)
