"""One question's conversation with the store: named statements, filters as parameters, and what the store covers.

Statements are named blocks of a ``.sql`` file (`base.named_sql`). Values reach them as server-side parameters
(``{name:Type}``) and in no other way; what varies in shape is one of a few fragments written in this package, put where
the block says ``/*fragment*/``. ``/*filter:requests*/``, ``/*filter:samples*/`` and ``/*filter:events*/`` become the
conditions of a `Selection`, ``/*filter:hosts*/`` and ``/*filter:hardware*/`` those of its filter that such rows know,
and ``/*filter:recording*/`` none but whether recordings count. Requests are those that ask something of a model;
``/*filter:any_requests*/`` takes all. ``/*filter:rollup*/`` is for the rollup, which has no others, and goes by the
filter alone, as ``/*filter:arrived*/`` of requests does. ``/*filter:servers*/`` is for samples that are added up: a
router's requests are its servers' too.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeVar

from analytics import counters, settled
from analytics.answer import Answer, Coverage, Exactness, Level, State
from analytics.conditions import conditions, of_requests
from analytics.slo import OPERATION
from analytics.values import moment, names, number
from base.named_sql import beside, filled

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    import pyarrow as pa

    from analytics.selection import Filter, Selection
    from analytics.window import Window
    from collector.store.asker import Asker


T = TypeVar("T")
_SQL: Final = beside(__file__)
_PARAMETER: Final = re.compile(r"\{(\w+):([\w(), ]+)\}")
_NARROWED: Final = {
    "requests": "requests",
    "any_requests": "requests",
    "arrived": "requests",
    "rollup": "requests",
    "samples": "samples",
    "servers": "samples",
    "events": "events",
    "hardware": "hardware",
    "hosts": "hosts",
    "recording": "recording",
}
"""``/*filter:<word>*/`` of a statement → the table that its conditions are of."""
_MODEL_OPERATIONS: Final = frozenset({"requests", "arrived"})
_ROWS_ONE_BY_ONE: Final = frozenset({"requests", "any_requests"})


class Reader(Protocol):
    """The part of `collector.store.client.Store` that questions use."""

    @property
    def asker(self) -> Asker:
        """Who asks: part of the key of everything that is kept of what this reader read."""

    def rows(
        self,
        sql: str,
        parameters: Mapping[str, object] | None = None,
        settings: Mapping[str, object] | None = None,
    ) -> list[dict[str, Any]]:
        """Rows of a SELECT as dictionaries."""

    def arrow(
        self,
        sql: str,
        parameters: Mapping[str, object] | None = None,
        settings: Mapping[str, object] | None = None,
    ) -> pa.Table:
        """A SELECT as an Arrow table."""


@dataclass
class Inquiry:
    """One question's conversation with the store: asks named blocks and keeps what was asked.

    Args:
        store: Where to ask.
        selection: Its window is ``{from_ms:Int64}`` and ``{to_ms:Int64}``, the rest what ``/*filter:…*/`` becomes.
        sql: The question's own statements.
        asked: Statements that were asked, written out.
        now: The present: what arrived lately may still be open.
        settled_ms: ``{settled_ms:Int64}``: arrivals before it are complete; the window's end until `coverage` was
            asked, and where nothing of the window is settled.
    """

    store: Reader
    selection: Selection
    sql: Mapping[str, str] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    now: datetime = field(default_factory=lambda: datetime.now(UTC))
    settled_ms: int = 0

    def __post_init__(self) -> None:
        self.settled_ms = self.window.to_ms

    @property
    def window(self) -> Window:
        """Of the selection."""
        return self.selection.window

    @property
    def filter(self) -> Filter:
        """Of the selection."""
        return self.selection.filter

    @property
    def of_all(self) -> bool:
        """Whether servers' metrics can tell of this selection: not where it asks for what they do not know."""
        return not self.selection.of_rows

    @property
    def settled_seconds(self) -> float:
        """Seconds of the window before the settled edge, the divisor of rates of arrivals."""
        return max(self.settled_ms - self.window.from_ms, 1) / 1000

    def ask(
        self,
        name: str,
        fragments: Mapping[str, str] | None = None,
        sql: Mapping[str, str] | None = None,
        promised: Filter | None = None,
        **parameters: Any,
    ) -> list[dict[str, Any]]:
        """Rows of one named statement, of the question's own or of ``sql``.

        ``promised`` is an objective's filter, which narrows the selection's further, by `analytics.patterns`.
        """
        return self.store.rows(*self._statement(name, fragments, sql, promised, parameters))

    def arrow(
        self,
        name: str,
        fragments: Mapping[str, str] | None = None,
        sql: Mapping[str, str] | None = None,
        **parameters: Any,
    ) -> pa.Table:
        """The columns of one named statement, for what is too much for rows."""
        return self.store.arrow(*self._statement(name, fragments, sql, None, parameters))

    def _statement(
        self,
        name: str,
        fragments: Mapping[str, str] | None,
        sql: Mapping[str, str] | None,
        promised: Filter | None,
        parameters: Mapping[str, Any],
    ) -> tuple[str, dict[str, object]]:
        """A named statement and what it is given."""
        bound: dict[str, object] = {
            "from_ms": self.window.from_ms,
            "to_ms": self.window.to_ms,
            "settled_ms": self.settled_ms,
            **parameters,
        }
        shapes = {"router": counters.ROUTER, **(fragments or {})}
        one_by_one, extra = of_requests(self.selection)
        bound |= extra
        for whose, table in _NARROWED.items():
            narrowed, extra = conditions(self.filter, table)
            if promised is not None:
                also, more = conditions(promised, table, "promised", patterns=True)
                narrowed, extra = f"{narrowed} {also}", extra | more
            narrowed += f" {one_by_one}" if whose in _ROWS_ONE_BY_ONE else ""
            narrowed += f" AND {OPERATION}" if whose in _MODEL_OPERATIONS else ""
            narrowed += counters.once(self.filter, promised) if whose == "servers" else ""
            shapes[f"filter:{whose}"] = narrowed
            bound |= extra
        text = filled((self.sql if sql is None else sql)[name], shapes)
        used = {match.group(1) for match in _PARAMETER.finditer(text)}
        bound = {key: value for key, value in bound.items() if key in used}
        self.asked.append(written_out(text, bound))
        return text, bound

    def answer(
        self,
        result: T,
        cover: Coverage,
        *,
        level: Level,
        exactness: Exactness,
        rows: int,
        samples_used: bool = False,
        notes: Sequence[str] = (),
        state: State | None = None,
        by_arrival: bool = True,
        goes_by: Collection[str] | None = None,
    ) -> Answer[T]:
        """The answer, with everything it owes its reader.

        ``state`` is worked out when it is not given: without rows behind the result, *no traffic* where servers
        report, *no data* where none does or the requests there are lack what was asked for. What is not ``by_arrival``
        knows no settled edge. ``goes_by`` names the fields of a selection that the result goes by, where that is not
        all of them: the others, where they are chosen, are told in the notes.
        """
        if state is None:
            state = "value" if rows else "no_data" if cover.rows else cover.state
        return Answer(
            result=result,
            level=level,
            exactness=exactness,
            rows=rows,
            freshness=cover.freshness,
            sql=tuple(self.asked),
            recordings=cover.recordings,
            coverage=cover,
            notes=(
                *notes,
                *(self._late(cover, level) if by_arrival else ()),
                *_rest_notes(cover, self.selection, samples_used=samples_used, goes_by=goes_by),
            ),
            state=state,
            selection=self.selection,
            by_arrival=by_arrival,
        )

    def _late(self, cover: Coverage, level: Level) -> tuple[str, ...]:
        if level == "metrics" or cover.settled is None or cover.settled >= self.window.end:
            return ()
        if cover.settled <= self.window.start:
            return ("A request that arrived before this window is still open: figures are of those that are over.",)
        return (f"Figures by arrival are of what arrived before {cover.settled:%H:%M:%S} UTC: later ones may be open.",)

    def coverage(self) -> Coverage:
        """What the store holds for window and filter, and how many requests are selected of those."""
        cover = Coverage()
        one_by_one, _ = of_requests(self.selection)
        counted = f"countIf({one_by_one.removeprefix('AND ')})" if one_by_one else "count()"
        found = {str(row["part"]): row for row in self.ask("coverage", {"counted": counted}, sql=_SQL)}
        rows, samples = found.get("rows"), found.get("samples")
        recordings: set[str] = set()
        for part in found.values():
            recordings |= {str(name) for name in part["recordings"] if name}
        if rows is not None and rows["newest"]:
            cover = Coverage(
                rows=int(rows["n"]),
                last_row=moment(rows["newest"]),
                row_instances=names(rows["seen"]),
                edge_instances=names(rows["good"]),
                settled=self._settled(),
            )
        if samples is None or not samples["n"]:
            return replace(cover, recordings=tuple(sorted(recordings)))
        return replace(
            cover,
            samples=int(samples["n"]),
            last_sample=moment(samples["newest"]),
            instances_up=names(samples["good"]),
            instances_down=names(samples["bad"]),
            instances_left=names(samples["gone"]),
            sample_instances=names(samples["seen"]),
            recordings=tuple(sorted(recordings)),
        )

    def _settled(self) -> datetime:
        if not settled.asks(self.window, self.now):
            return self.window.end
        # a round time, so that viewers who ask at nearly the same one share the statement
        round_ms = int(self.now.timestamp() // 5) * 5000
        since = round_ms - int(settled.LOOK_BACK.total_seconds()) * 1000
        rows = self.ask("taps", sql=settled.SQL, now_ms=round_ms + 5000, limit=settled.TAPS, since_ms=since)
        taps = settled.taps_of(rows, self.filter)
        longest = 0.0
        if settled.told_by_taps(taps, self.now) is None:
            longest = number(self.ask("longest", sql=settled.SQL, since_ms=since)[0]["seconds"]) or 0.0
        edge = settled.edge_of(taps, longest, self.window, self.now).until
        if edge > self.window.start:
            self.settled_ms = min(int(edge.timestamp() * 1000), self.window.to_ms)
        return edge


def written_out(sql: str, parameters: Mapping[str, object]) -> str:
    """The statement with its parameters as literals: for people to read and paste, never to run from here."""
    return _PARAMETER.sub(lambda match: _literal(parameters.get(match.group(1))), sql)


def _rest_notes(
    cover: Coverage, selection: Selection, *, samples_used: bool, goes_by: Collection[str] | None
) -> tuple[str, ...]:
    """Sentences that every answer owes its reader about what it could not see."""
    found: list[str] = []
    if goes_by is not None and (left := [name for name in selection.chosen() if name not in goes_by]):
        found.append(f"This does not go by {_listed(left)}: it is the same for all.")
    elif samples_used and selection.of_rows:
        known = _listed(selection.of_rows)
        found.append(f"Server metrics know no {known}: figures from them are of all requests.")
    engine_only = [name for name in cover.row_instances if name not in cover.edge_instances]
    if engine_only:
        found.append(
            f"Nothing stands in front of {', '.join(engine_only)}: failed and aborted requests are unseen there."
        )
    if cover.rows and cover.metrics_only:
        found.append(f"No request rows from {', '.join(cover.metrics_only)}: only metrics are known there.")
    if cover.instances_down:
        found.append(f"Down at the end of the window: {', '.join(cover.instances_down)}.")
    return tuple(found)


def _listed(names: Sequence[str]) -> str:
    """Fields in words."""
    words = [name.replace("_", " ") for name in names]
    return " and ".join(part for part in (", ".join(words[:-1]), words[-1]) if part)


def _literal(value: object) -> str:
    if isinstance(value, str):
        escaped = value.replace("\\", "\\\\").replace("'", "\\'")
        return f"'{escaped}'"
    if isinstance(value, bool):
        return str(int(value))
    if isinstance(value, list | tuple):
        return f"[{', '.join(_literal(item) for item in value)}]"
    return "NULL" if value is None else repr(value)
