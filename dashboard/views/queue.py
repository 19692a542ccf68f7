"""Queue: does work pile up, where, and how long until it drains."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final

import pandas as pd
import streamlit as st

from dashboard import escape, words
from dashboard.data import ask
from dashboard.drawings import newest, one_each, settled, with_values
from dashboard.figures import Trace, lines
from dashboard.panel import foot, guarded, panel, tiles
from dashboard.shell import page
from dashboard.tables import table
from dashboard.theme import colour_of, tints
from dashboard.tiles import Tile, compared

if TYPE_CHECKING:
    from collections.abc import Callable

    from analytics.questions.features import EngineFeatures, Features
    from analytics.questions.queue import QueueDynamics
    from analytics.series import Line
    from dashboard.data import Question
    from dashboard.page_context import PageContext

MISSING: Final = (
    "Running and waiting come from the servers' metrics pages (Triton shows no running requests), flow and time in the "
    "queue from request rows and counters: `servescope up --target http://host:port`"
)

TITLE: Final = "Queue"
"""In the navigation."""
PLACE: Final = 20
"""Order in the navigation, the front page first."""
QUESTION: Final = "Does work pile up?"
"""Over the page."""
COMPARE: Final = True
"""Whether the page compares with an earlier period or another version."""
_NAMED: Final = 3
"""Replicas that are named."""


def draw() -> None:
    """The queue page."""
    page(_body, arriving=True, needs=_needs, compared=_needs)


def _needs() -> list[Question]:
    return [("queue", {}), ("features", {})]


def _body(context: PageContext) -> None:
    guarded(context, "uneven", lambda: _uneven(context))
    tiles(context, "tiles", lambda: _tiles(context))
    with st.container(horizontal=True, gap="small"):
        for key, (title, figure, needs, about) in _FIGURES.items():
            with st.container(key=f"half-{key}"):
                panel(
                    key, "queue", context, partial(figure, context=context), missing=MISSING, title=title,
                    about=about, has_data=partial(_any, needs),
                )  # fmt: skip
        guarded(context, "reasons", lambda: _reasons(context))
    guarded(context, "reasons-by-engine", lambda: _reasons_by_engine(context))


def _uneven(context: PageContext) -> None:
    """Who is loaded otherwise than the other replicas; nothing where the load is even."""
    uneven: dict[str, str] = ask("queue", context.selection).result.uneven
    told = [f"**{escape.markdown(name)}** has {escape.markdown(how)}" for name, how in list(uneven.items())[:_NAMED]]
    if told:
        more = f"; and {len(uneven) - _NAMED} more" if len(uneven) > _NAMED else ""
        st.markdown(f"**Replicas are not evenly loaded**: {'; '.join(told)}{more}.")


def _reasons(context: PageContext) -> None:
    """Why requests wait, where servers say it."""
    told: Features = ask("features", context.selection).result
    if told.waiting:
        with st.container(key="half-reasons"):
            panel(
                "reasons", "features", context, lambda result: _by_reason(result, context), missing="",
                about="Capacity: KV blocks, sequences or the token budget. Deferred: a LoRA adapter, a KV transfer or "
                "a grammar is not there yet.",
            )  # fmt: skip


def _reasons_by_engine(context: PageContext) -> None:
    """The same of each engine, where there are several."""
    answer = ask("features", context.selection)
    engines: list[EngineFeatures] = [one for one in answer.result.engines if one.waiting]
    if len(engines) < 2:  # noqa: PLR2004 - of one, the chart tells all
        return
    st.markdown("## Waiting by reason, by engine")
    frame = pd.DataFrame([
        {
            "Instance": one.instance,
            "Rank": one.dp_rank or words.NOTHING,
            **{
                f"{why.capitalize()}, {what}": one.waiting[why][place] if why in one.waiting else None
                for why in ("capacity", "deferred")
                for place, what in enumerate(("mean", "most"))
            },
        }
        for one in engines
    ])  # fmt: skip
    table(frame, "reasons-by-engine")
    foot("reasons-by-engine", answer, rows=engines)


def _by_reason(result: Features, context: PageContext) -> object:
    return lines(result.times, one_each(result.waiting, context), context.style, title="Waiting by reason",
                 unit="requests")  # fmt: skip


def _tiles(context: PageContext) -> list[Tile]:
    result: QueueDynamics = ask("queue", context.selection).result
    law = result.littles_law
    arrivals, queue_p99 = (
        settled(line, result.times, result.step, context) for line in (result.arrivals, result.queue_p99)
    )
    peak = f"at most {words.count(result.waiting_peak)} at once" if result.waiting_peak is not None else ""
    before = _before(context)

    def latest(name: str, line: Line, of: str, unit: str, note: str = "") -> Tile:
        tile = Tile(f"{name} {context.lately}", words.figure(newest(line), unit), note, line.values)
        return compared(tile, newest(line), newest(getattr(before, of)) if before else None, unit, context.against)

    drain = Tile(
        "Time to drain", words.seconds(result.drain_seconds), "if nobody else came", result.drain.values,
        "Waiting requests over the finish rate",
    )  # fmt: skip
    return [
        latest("Waiting", result.waiting, "waiting", "count", peak),
        latest("Running", result.running, "running", "count"),
        latest("Arrivals", arrivals, "arrivals", "per_second"),
        latest("Finishes", result.finished, "finished", "per_second"),
        latest("Queue p99", queue_p99, "queue_p99", "seconds"),
        compared(
            drain, result.drain_seconds, before.drain_seconds if before else None, "seconds", context.against
        ),
        Tile(
            "In flight, measured",
            words.count(law.get("measured")),
            f"Little's law: {words.count(law.get('expected'))}",
            help="Arrival rate × mean end-to-end time should equal the mean number in flight. Far apart means requests "
            "that one of the two views does not see",
        ),
    ]  # fmt: skip


def _before(context: PageContext) -> QueueDynamics | None:
    """What the page compares with."""
    if context.reference is None:
        return None
    found: QueueDynamics = ask("queue", context.reference).result
    return found


def _depth(result: QueueDynamics, context: PageContext) -> object:
    colours = context.style.colours
    traces = [
        Trace("running", result.running.values, colour_of("running", colours)),
        Trace("waiting", result.waiting.values, colour_of("waiting", colours)),
    ]
    return lines(result.times, traces, context.style, title="Running and waiting", unit="requests")


def _flow(result: QueueDynamics, context: PageContext) -> object:
    colours = context.style.colours
    traces = [
        Trace("arrivals", result.arrivals.values, colour_of("requests", colours)),
        Trace("finished", result.finished.values, colour_of("edge", colours)),
    ]
    return lines(result.times, traces, context.arrivals, title="Arrivals and finishes", unit="per_second")


def _time(result: QueueDynamics, context: PageContext) -> object:
    own = colour_of("queue", context.style.colours)
    if with_values([result.queue_p99]):
        light, strong = tints(context.style.colours, own, 2)
        traces = [Trace("p50", result.queue_p50.values, light), Trace("p99", result.queue_p99.values, strong)]
        return lines(result.times, traces, context.arrivals, title="Time in the queue", unit="seconds")
    return lines(
        result.times, [Trace("mean", result.queue_mean.values, own)], context.arrivals, title="Time in the queue, mean",
        unit="seconds",
    )  # fmt: skip


def _drain(result: QueueDynamics, context: PageContext) -> object:
    trace = Trace("", result.drain.values, colour_of("waiting", context.style.colours))
    return lines(result.times, [trace], context.style, title="Time to drain", unit="seconds")


def _by(result: QueueDynamics, context: PageContext) -> object:
    return lines(result.times, one_each(result.waiting_by_instance, context), context.style,
                 title="Waiting by instance", unit="requests")  # fmt: skip


def _running_by(result: QueueDynamics, context: PageContext) -> object:
    return lines(result.times, one_each(result.running_by_instance, context), context.style,
                 title="Running by instance", unit="requests")  # fmt: skip


def _any(needs: Callable[[QueueDynamics], list[Line]], result: QueueDynamics) -> bool:
    return bool(with_values(needs(result)))


_FIGURES: Final[dict[str, tuple[str, Callable[..., object], Callable[[QueueDynamics], list[Line]], str]]] = {
    "depth": (
        "Running and waiting",
        _depth,
        lambda result: [result.running, result.waiting],
        "Requests in the engine and before it, summed over instances.",
    ),
    "flow": (
        "Arrivals and finishes",
        _flow,
        lambda result: [result.arrivals, result.finished],
        "Arrivals above finishes make a queue grow; below, it drains.",
    ),
    "time": (
        "Time in the queue",
        _time,
        lambda result: [result.queue_p99, result.queue_mean],
        "Seconds in the engine's queue, of the requests that arrived in each step.",
    ),
    "drain": (
        "Time to drain",
        _drain,
        lambda result: [result.drain],
        "Waiting requests over the finish rate, if nobody else came.",
    ),
    "by": (
        "Waiting by instance",
        _by,
        lambda result: result.waiting_by_instance,
        "Which instance makes its clients wait.",
    ),
    "runningby": (
        "Running by instance",
        _running_by,
        lambda result: result.running_by_instance,
        "Are replicas evenly loaded?",
    ),
}
"""Key → its title, how it is drawn, the lines it needs, what it says."""
