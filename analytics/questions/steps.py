"""What binds each engine step: KV blocks, sequences, the token budget or nothing; and how long steps take."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final, Literal

from analytics import engine_steps
from analytics.conditions import one_of
from analytics.grid import Grid
from analytics.inquiry import Inquiry
from analytics.question import Command
from analytics.series import Line
from analytics.values import number, ratio
from base.named_sql import beside

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from datetime import datetime

    from analytics.answer import Answer, Level
    from analytics.inquiry import Reader
    from analytics.selection import Selection

COMMAND: Final = Command()
_SQL: Final = beside(__file__)

BINDINGS: Final = ("kv_blocks", "sequences", "token_budget", "other", "nothing", "idle")
"""What may bind a step, the hardest first. ``other``: requests wait and nothing that is known is at its limit: the
server did not tell its limits, or another one holds (adapters, a transfer). ``idle``: nothing runs."""
KV_FULL: Final = 0.9
"""Share of the KV cache from which on it keeps requests out that wait."""
PROBE: Final = "pip install ./probe"
"""What brings steps, in the model server's environment."""
Source = Literal["steps", "seconds", "samples"]
_RAW: Final = timedelta(hours=1)
"""Longest window that is answered from single steps."""
_BUDGET_REACHED: Final = {"steps": 1.0, "seconds": 0.95, "samples": 0.95}
"""Share of the token budget that counts as all of it: a mean over a second holds its last, smaller steps too."""
_LONGEST_SAMPLE: Final = 15.0
_FIRST: Final = "fromUnixTimestamp64Milli({from_ms:Int64} - 60000)"
_LAST: Final = "fromUnixTimestamp64Milli({to_ms:Int64})"
_SEQUENCES: Final = ("max_num_seqs", "max_running_requests")
_TOKENS: Final = ("max_num_scheduled_tokens", "max_num_batched_tokens")


@dataclass(frozen=True, slots=True)
class BoundInstance:
    """One instance.

    Attributes:
        instance: Name.
        source: ``steps``: each step was told by a probe; ``seconds``: the same, kept by second; ``samples``: gauges of
            the metrics page, once a second.
        shares: Share of its told time by binding over the window, 0 to 1; one per word of `BINDINGS`.
        told_seconds: Seconds of which that is known, over its engine cores.
        lines: The same per step of the grid; None where nothing was told.
        steps: Engine steps; None where they were not told one by one, as all that follows.
        step_p50_seconds, step_p95_seconds, step_max_seconds: How long they took.
        tokens_per_step: Mean tokens in a step.
        preemptions: In these steps.
        max_sequences, max_tokens: Limits of a step as its configuration tells them; None where it does not.
    """

    instance: str
    source: Source
    shares: dict[str, float]
    told_seconds: float
    lines: list[Line]
    steps: int | None = None
    step_p50_seconds: float | None = None
    step_p95_seconds: float | None = None
    step_max_seconds: float | None = None
    tokens_per_step: float | None = None
    preemptions: float | None = None
    max_sequences: int | None = None
    max_tokens: int | None = None


@dataclass(frozen=True, slots=True)
class StepSize:
    """Steps of about one size.

    Attributes:
        reads_prompts: Whether they read prompts, or only decode.
        tokens_from, tokens_to: Tokens in the step, ``[from, to)``; of decoding alone about its sequences.
        steps: How many.
        p50_seconds, p95_seconds: How long they took.
    """

    reads_prompts: bool
    tokens_from: int
    tokens_to: int
    steps: int
    p50_seconds: float | None
    p95_seconds: float | None


@dataclass(frozen=True, slots=True)
class Steps:
    """What bound engine time.

    Attributes:
        step: Seconds of a step of the grid.
        times: Their starts.
        bindings: A line per word of `BINDINGS`: its share of the engine time that was told, over all instances.
        shares: The same over the window; empty where nothing was told.
        instances: The most bound first.
        sizes: Step time by tokens in the step.
    """

    step: int
    times: list[datetime]
    bindings: list[Line]
    shares: dict[str, float]
    instances: list[BoundInstance]
    sizes: list[StepSize]


def ask(store: Reader, selection: Selection, *, points: int = 120) -> Answer[Steps]:
    """What bound each step, or each second where steps were not told, and step time by size."""
    inquiry = Inquiry(store, selection, sql=_SQL)
    cover = inquiry.coverage()
    grid = Grid.of(selection.window, points)
    told: dict[str, tuple[Source, list[dict[str, Any]]]] = {}
    details: dict[str, dict[str, Any]] = {}
    sizes: list[dict[str, Any]] = []
    if selection.window.seconds <= _RAW.total_seconds():
        _add(told, "steps", _spans(inquiry, grid, "steps"))
    if told:
        details = {str(row["instance"]): row for row in _ask(inquiry, "by_instance", "steps")}
        sizes = _ask(inquiry, "sizes", "steps")
    else:
        _add(told, "seconds", _spans(inquiry, grid, "seconds"))
    probed = len(told)
    if cover.samples:
        _add(told, "samples", _spans(inquiry, grid, "samples", tuple(told)))
    instances = [_instance(grid, name, source, rows, details.get(name)) for name, (source, rows) in told.items()]
    every = [row for _, rows in told.values() for row in rows]
    result = Steps(
        step=grid.step,
        times=grid.times,
        bindings=_lines(grid, every),
        shares=_shares(every),
        instances=sorted(instances, key=lambda one: (*_free(one), one.instance)),
        sizes=[_size(row) for row in sizes],
    )
    level: Level = "steps" if probed else "metrics"
    rows = sum(one.steps or 0 for one in instances) if details else sum(int(row["spans"]) for row in every)
    return inquiry.answer(
        result, cover, level=level, exactness="exact" if details or not told else "derived", rows=rows,
        samples_used=bool(told), notes=_notes(result, details), by_arrival=False,
    )  # fmt: skip


def _ask(inquiry: Inquiry, statement: str, source: Source, elsewhere: str = "", **more: Any) -> list[dict[str, Any]]:
    spans = {"steps": "step_spans", "seconds": "second_spans", "samples": "sample_spans"}[source]
    fragments = {name: _SQL[name] for name in ("limits", "binding", "told", "bound")}
    fragments |= engine_steps.in_order(_FIRST, _LAST, "/*filter:samples*/")
    return inquiry.ask(
        statement, fragments | {"spans": _SQL[spans], "elsewhere": elsewhere}, kv_full=KV_FULL,
        budget_reached=_BUDGET_REACHED[source], longest=_LONGEST_SAMPLE, sequences_names=list(_SEQUENCES),
        tokens_names=list(_TOKENS), **more,
    )  # fmt: skip


def _spans(inquiry: Inquiry, grid: Grid, source: Source, known: Sequence[str] = ()) -> list[dict[str, Any]]:
    more: dict[str, Any] = {"step_ms": grid.step_ms}
    elsewhere = ""
    if known:
        among, more["known"] = one_of("instance", "known", known)
        elsewhere = f"AND NOT {among}"
    return _ask(inquiry, "shares", source, elsewhere, **more)


def _add(told: dict[str, tuple[Source, list[dict[str, Any]]]], source: Source, rows: Iterable[dict[str, Any]]) -> None:
    for row in rows:
        told.setdefault(str(row["instance"]), (source, []))[1].append(row)


def _shares(rows: Iterable[Mapping[str, Any]]) -> dict[str, float]:
    seconds: dict[str, float] = defaultdict(float)
    for row in rows:
        seconds[str(row["bound_by"])] += float(row["seconds"])
    whole = sum(seconds.values())
    return {name: seconds[name] / whole for name in BINDINGS} if whole else {}


def _lines(grid: Grid, rows: Iterable[Mapping[str, Any]]) -> list[Line]:
    held = {name: grid.zeros() for name in BINDINGS}
    whole, spans = grid.zeros(), dict.fromkeys(BINDINGS, 0)
    for row in rows:
        place, name, seconds = grid.at(row["slot"]), str(row["bound_by"]), float(row["seconds"])
        held[name][place] += seconds
        whole[place] += seconds
        spans[name] += int(row["spans"])
    return [
        Line(name, [ratio(part, of) for part, of in zip(held[name], whole, strict=True)], "ratio", "exact", spans[name])
        for name in BINDINGS
    ]


def _instance(
    grid: Grid, name: str, source: Source, rows: Sequence[Mapping[str, Any]], detail: Mapping[str, Any] | None
) -> BoundInstance:
    made = BoundInstance(name, source, _shares(rows), sum(float(row["seconds"]) for row in rows), _lines(grid, rows))
    if detail is None:
        return made
    return BoundInstance(
        made.instance, made.source, made.shares, made.told_seconds, made.lines,
        steps=int(detail["steps"]),
        step_p50_seconds=number(detail["times"][0]),
        step_p95_seconds=number(detail["times"][1]),
        step_max_seconds=number(detail["longest"]),
        tokens_per_step=number(detail["tokens_mean"]),
        preemptions=number(detail["preemptions"]),
        max_sequences=int(detail["sequences_limit"]) or None,
        max_tokens=int(detail["tokens_limit"]) or None,
    )  # fmt: skip


def _size(row: Mapping[str, Any]) -> StepSize:
    first = 1 << int(row["doubling"])
    median, high = (number(value) for value in row["times"])
    return StepSize(bool(row["reads_prompts"]), first, 2 * first, int(row["steps"]), median, high)


def _free(one: BoundInstance) -> tuple[float, float]:
    """By share of time that was bound, the greatest first."""
    free = one.shares.get("nothing", 0.0) + one.shares.get("idle", 0.0)
    return free, -one.told_seconds


def _notes(result: Steps, details: Mapping[str, Mapping[str, Any]]) -> list[str]:
    by_source: dict[str, list[str]] = defaultdict(list)
    for one in result.instances:
        by_source[one.source].append(one.instance)
    found = []
    if coarse := by_source["samples"]:
        found.append(
            f"No probe tells the steps of {', '.join(sorted(coarse))}: what is said of them comes from samples of the "
            f"metrics page, each standing for the time since the one before. Steps come with `{PROBE}` in the "
            "server's environment, or from an engine's forward-pass metrics."
        )
    if by_source["seconds"]:
        found.append(
            "Steps of this window are kept by second: a second counts by the most that waited and ran in it, and one "
            "without a step counts not at all."
        )
    untold = sorted(name for name, row in details.items() if not row["sequences_limit"] or not row["tokens_limit"])
    if untold:
        found.append(
            f"The configuration of {', '.join(untold)} tells not both limits of a step (max_num_seqs, "
            "max_num_batched_tokens): requests that wait for one of them count as waiting for something else. Of vLLM "
            f"the probe tells both: `{PROBE}`, the agent's own version."
        )
    if any(not row["all_told"] for row in details.values()):
        found.append(
            "Some steps do not tell what their batch was made of (vLLM 0.26 or newer with "
            "--enable-logging-iteration-details does): their tokens are those of requests that got one in it, and "
            "their token budget is not judged."
        )
    return found
