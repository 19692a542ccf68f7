"""The ground that all questions stand on: named SQL, filters as parameters, and what the store covers.

Statements live in ``analytics/sql/<module>.sql`` as blocks headed ``-- name: <name>``. Values reach them as
server-side parameters (``{name:Type}``) and in no other way; what varies in shape is one of a few fragments written
in this package, put where the block says ``/*fragment*/``. ``/*filter:requests*/``, ``/*filter:samples*/`` and
``/*filter:events*/`` become the conditions of a `Filter`. Requests are those that ask something of a model;
``/*filter:any_requests*/`` takes all, and ``/*filter:rollup*/`` is for the rollup, which has no others.
"""

from __future__ import annotations

import hashlib
import math
import re
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeVar, get_args
from urllib.parse import quote

from analytics import settled
from analytics.shapes import By
from analytics.sli import OPERATION
from analytics.window import Answer, Coverage, Exactness, Filter, Level, State, Window
from base.errors import ServescopeError
from base.named_sql import filled, statements

T = TypeVar("T")

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

EXACT_LIMIT: Final = 5_000_000
"""Requests up to which percentiles are exact: an exact one keeps every value in memory (8 bytes each), and a reader
has 400 MB. Above it they are estimated within 1 % (DDSketch) and labelled ``derived``. Exact ones interpolate linearly
between the two nearest values (numpy's default, Hyndman & Fan's type 7) and count each row once: ``weight`` is 1."""

_SQL: Final = Path(__file__).parent / "sql"
_PARAMETER: Final = re.compile(r"\{(\w+):([\w(), ]+)\}")
_ROOM: Final = 1000
"""Bytes of a list of names in a URL; a statement has a few of them."""
_WORST: Final[tuple[Exactness, ...]] = ("means", "derived", "exact")
_NARROWED: Final = {
    "requests": "requests",
    "any_requests": "requests",
    "rollup": "requests",
    "samples": "samples",
    "events": "events",
}
"""``/*filter:<word>*/`` of a statement → the table that its conditions are of."""
_ABSENT_FROM: Final[dict[str, frozenset[str]]] = {
    "requests": frozenset(),
    "samples": frozenset({"tenant"}),
    "events": frozenset({"tenant"}),
}


class Reader(Protocol):
    """The part of `collector.store.client.Store` that questions use."""

    def rows(
        self,
        sql: str,
        parameters: Mapping[str, object] | None = None,
        settings: Mapping[str, object] | None = None,
    ) -> list[dict[str, Any]]:
        """Rows of a SELECT as dictionaries."""


class QuestionError(ServescopeError):
    """A question was asked wrongly; names what and how to ask it."""


def blocks(module: str) -> Mapping[str, str]:
    """The named statements of ``analytics/sql/<module>.sql``."""
    return statements(_SQL / f"{module}.sql")


def conditions(filter: Filter, table: str, prefix: str = "only") -> tuple[str, dict[str, Any]]:  # noqa: A002 the contract's word
    """``AND …`` conditions of a filter on ``requests``, ``samples`` or ``events``, and their parameters.

    Parameters are named ``<prefix>_<column>``, so that one statement can hold several filters.
    """
    parts: list[str] = []
    parameters: dict[str, Any] = {}
    for column, values in filter.chosen():
        if column in _ABSENT_FROM[table]:
            continue
        name = f"{prefix}_{column}"
        wide = f" OR {column} = ''" if table == "events" else ""
        test, parameters[name] = one_of(column, name, values)
        parts.append(f"AND ({test}{wide})" if wide else f"AND {test}")
    if filter.recording != "include":
        parts.append(f"AND recording {'=' if filter.recording == 'exclude' else '!='} ''")
    return " ".join(parts), parameters


def one_of(column: str, parameter: str, values: Sequence[str]) -> tuple[str, list[str]]:
    """The condition that a column has one of several values, and the parameter's value.

    Parameters travel in the URL, which has room for few kilobytes: long names are compared by their MD5 sums.
    """
    if not values or len(quote(repr(list(values)))) <= _ROOM:
        return f"{column} IN {{{parameter}:Array(String)}}", list(values)
    sums = [hashlib.md5(value.encode(), usedforsecurity=False).hexdigest() for value in values]
    return f"lower(hex(MD5({column}))) IN {{{parameter}:Array(String)}}", sums


@dataclass
class Inquiry:
    """One question's conversation with the store: asks named blocks and keeps what was asked.

    Args:
        store: Where to ask.
        module: Whose SQL file.
        window: Bounds ``{from_ms:Int64}`` and ``{to_ms:Int64}``.
        filter: What ``/*filter:…*/`` becomes.
        now: The present: what arrived lately may still be open.
        settled_ms: ``{settled_ms:Int64}``: arrivals before it are complete; the window's end until `coverage` was
            asked, and where nothing of the window is settled.
    """

    store: Reader
    module: str
    window: Window
    filter: Filter
    asked: list[str] = field(default_factory=list)
    now: datetime = field(default_factory=lambda: datetime.now(UTC))
    settled_ms: int = 0

    def __post_init__(self) -> None:
        self.settled_ms = self.window.to_ms

    @property
    def settled_seconds(self) -> float:
        """Seconds of the window before the settled edge, the divisor of rates of arrivals."""
        return max(self.settled_ms - self.window.from_ms, 1) / 1000

    def ask(
        self, name: str, fragments: Mapping[str, str] | None = None, module: str = "", **parameters: Any
    ) -> list[dict[str, Any]]:
        """Rows of one named block."""
        bound: dict[str, object] = {
            "from_ms": self.window.from_ms,
            "to_ms": self.window.to_ms,
            "settled_ms": self.settled_ms,
            **parameters,
        }
        shapes = dict(fragments or {})
        for whose, table in _NARROWED.items():
            text, extra = conditions(self.filter, table)
            shapes[f"filter:{whose}"] = f"{text} AND {OPERATION}" if whose == "requests" else text
            bound |= extra
        sql = filled(blocks(module or self.module)[name], shapes)
        used = {match.group(1) for match in _PARAMETER.finditer(sql)}
        bound = {key: value for key, value in bound.items() if key in used}
        self.asked.append(written_out(sql, bound))
        return self.store.rows(sql, bound)

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
    ) -> Answer[T]:
        """The answer, with everything it owes its reader.

        ``state`` is worked out when it is not given: without rows behind the result, *no traffic* where servers
        report, *no data* where none does or the requests there are lack what was asked for.
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
            notes=(*notes, *self._late(cover, level), *rest_notes(cover, self.filter, samples_used=samples_used)),
            state=state,
        )

    def _late(self, cover: Coverage, level: Level) -> tuple[str, ...]:
        if level != "rows" or cover.settled is None or cover.settled >= self.window.end:
            return ()
        if cover.settled <= self.window.start:
            return ("A request that arrived before this window is still open: figures are of those that are over.",)
        return (f"Figures by arrival are of what arrived before {cover.settled:%H:%M:%S} UTC: later ones may be open.",)

    def coverage(self) -> Coverage:
        """What the store holds for the window and filter."""
        cover = Coverage()
        found = {str(row["part"]): row for row in self.ask("coverage", module="ground")}
        rows, samples = found.get("rows"), found.get("samples")
        recordings: set[str] = set()
        for part in found.values():
            recordings |= {str(name) for name in part["recordings"] if name}
        if rows is not None and rows["n"]:
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
            sample_instances=names(samples["seen"]),
            recordings=tuple(sorted(recordings)),
        )

    def _settled(self) -> datetime:
        if not settled.asks(self.window, self.now):
            return self.window.end
        # a round time, so that viewers who ask at nearly the same one share the statement
        round_ms = int(self.now.timestamp() // 5) * 5000
        since = round_ms - int(settled.LOOK_BACK.total_seconds()) * 1000
        rows = self.ask("taps", module="settled", now_ms=round_ms + 5000, limit=settled.TAPS, since_ms=since)
        taps = settled.taps_of(rows, self.filter)
        longest = 0.0
        if settled.told_by_taps(taps, self.now) is None:
            longest = number(self.ask("longest", module="settled", since_ms=since)[0]["seconds"]) or 0.0
        edge = settled.edge_of(taps, longest, self.window, self.now).until
        if edge > self.window.start:
            self.settled_ms = min(int(edge.timestamp() * 1000), self.window.to_ms)
        return edge


def written_out(sql: str, parameters: Mapping[str, object]) -> str:
    """The statement with its parameters as literals: for people to read and paste, never to run from here."""
    return _PARAMETER.sub(lambda match: _literal(parameters.get(match.group(1))), sql)


@dataclass(frozen=True, slots=True)
class Grid:
    """The steps of a window.

    Attributes:
        step: Seconds of one.
        times: Their starts.
        first: ``slot`` number of the first: Unix time over step, as in the statements.
        covered: Seconds of each that lie inside the window, the divisor of rates.
    """

    step: int
    times: list[datetime]
    first: int
    covered: list[float]

    @classmethod
    def of(cls, window: Window, points: int) -> Grid:
        """About ``points`` steps over the window."""
        step = window.step(points)
        return cls(step, window.times(step), window.from_ms // (step * 1000), window.covered(step))

    @property
    def step_ms(self) -> int:
        """Milliseconds of a step."""
        return self.step * 1000

    def blank(self) -> list[float | None]:
        """A line without data."""
        return [None] * len(self.times)

    def zeros(self) -> list[float]:
        """A line of zeros."""
        return [0.0] * len(self.times)

    def at(self, slot: object) -> int:
        """Position of a slot in `times`."""
        return int(str(slot)) - self.first

    def settled(self, line: Sequence[float | None], settled_ms: int) -> list[float | None]:
        """A line of arrivals without the steps that are not settled to their end; those of the window's end stay."""
        last_ms = (self.first + len(self.times)) * self.step_ms
        whole = settled_ms >= last_ms - self.step_ms + round(self.covered[-1] * 1000) if self.covered else True
        return [
            value if whole or (self.first + place + 1) * self.step_ms <= settled_ms else None
            for place, value in enumerate(line)
        ]

    def rates(self, amounts: Sequence[float | None]) -> list[float | None]:
        """Amounts per step as amounts per second."""
        return [
            None if amount is None else amount / seconds for amount, seconds in zip(amounts, self.covered, strict=True)
        ]


def moment(milliseconds: object) -> datetime:
    """Unix milliseconds as an aware datetime."""
    whole = int(str(milliseconds))
    return datetime.fromtimestamp(whole // 1000, UTC).replace(microsecond=whole % 1000 * 1000)


def number(value: object) -> float | None:
    """A figure as a float; None for NULL, NaN and infinity."""
    if value is None:
        return None
    figure = float(str(value)) if not isinstance(value, int | float) else float(value)
    return figure if math.isfinite(figure) else None


def ratio(part: float | None, whole: float | None) -> float | None:
    """``part / whole``; None where either is unknown or the whole is 0."""
    return part / whole if part is not None and whole else None


def names(values: Sequence[object]) -> tuple[str, ...]:
    """Sorted texts without the empty one."""
    return tuple(sorted({str(value) for value in values if value}))


def trace_hex(text: str) -> str:
    """A trace id as 32 lower-case hex digits.

    Raises:
        QuestionError: It is not one.
    """
    plain = text.strip().lower()
    if re.fullmatch(r"[0-9a-f]{32}", plain) is None:
        raise QuestionError(f"{text!r} is no trace id", "A trace id has 32 hex digits")
    return plain


def weakest(found: Sequence[Exactness]) -> Exactness:
    """The least exact of several; ``exact`` of none."""
    return min(found, key=_WORST.index, default="exact")


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


def by_sql(by: By) -> str:
    """The expression to group by."""
    if by not in get_args(By):
        raise QuestionError(f"Nothing is split by {by!r}", f"Use one of {', '.join(get_args(By))}")
    return "''" if by == "all" else by


def rest_notes(cover: Coverage, filter: Filter, *, samples_used: bool) -> tuple[str, ...]:  # noqa: A002
    """Sentences that every answer owes its reader about what it could not see."""
    found: list[str] = []
    if samples_used and filter.tenant:
        found.append("Server metrics know no tenant: figures from them are of all tenants.")
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


def _literal(value: object) -> str:
    if isinstance(value, str):
        escaped = value.replace("\\", "\\\\").replace("'", "\\'")
        return f"'{escaped}'"
    if isinstance(value, bool):
        return str(int(value))
    if isinstance(value, list | tuple):
        return f"[{', '.join(_literal(item) for item in value)}]"
    return "NULL" if value is None else repr(value)
