"""The engine steps that one request sat in: how many, how long, and what the slowest carried."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import pandas as pd
import streamlit as st

from analytics.questions.steps import PROBE
from dashboard import words
from dashboard.figures import Lane, Style, Trace
from dashboard.tables import milliseconds, percent, table
from dashboard.theme import colour_of
from dashboard.viewer import clock

if TYPE_CHECKING:
    from analytics.questions.story import Story

_SHOWN: Final = 8
_NO_PROBE: Final = (
    "**No steps are known of that time.** :gray[They come from a probe, "
    f"`{PROBE}` in the model server's environment, and are kept one by one for a day.]"
)


def lane(told: Story, style: Style) -> list[Lane]:
    """Step time over the request's axis; none where no steps are known."""
    steps = sorted((step for step in told.steps if step.seconds is not None), key=lambda step: step.time)
    if not steps or told.start is None:
        return []
    notes = [
        f"KV {words.ratio(step.kv_cache_usage_ratio)}"
        + (f", {words.plural(step.preemptions, 'preemption')}" if step.preemptions else "")
        for step in steps
    ]
    trace = Trace("", [step.seconds for step in steps], colour_of("decode", style.colours), text=notes)
    return [Lane("Step time", "s", [trace], offsets=[(step.time - told.start).total_seconds() for step in steps])]


def section(told: Story) -> None:
    """In a line and a table of the slowest."""
    st.markdown("## The steps it sat in")
    if not told.steps:
        st.markdown(_NO_PROBE)
        return
    slowest = told.steps[0]
    median = told.step_median_seconds
    cores = len({step.core for step in told.steps})
    of_cores = f" of {words.plural(cores, 'engine core')}" if cores > 1 else ""
    preempted = sum(step.preemptions or 0 for step in told.steps)
    thrown = f" with {words.plural(preempted, 'preemption')}" if preempted else ""
    drawn = f" The {len(told.steps):,} slowest are drawn above." if told.steps_total > len(told.steps) else ""
    st.markdown(
        f"{words.plural(told.steps_total, 'step')}{of_cores}{thrown}: median **{words.seconds(median)}**, the slowest "
        f"**{words.seconds(slowest.seconds)}**.{drawn}"
    )
    table(
        pd.DataFrame([
            {
                "Ended": clock(step.time, milliseconds=True),
                "Took ms": milliseconds(step.seconds),
                "Prefill tokens": step.prefill_tokens,
                "Decode tokens": step.decode_tokens,
                "Running": step.running,
                "Waiting": step.waiting,
                "KV %": percent(step.kv_cache_usage_ratio),
                "Preemptions": step.preemptions,
            }
            for step in told.steps[:_SHOWN]
        ]),
        "steps",
    )  # fmt: skip
