"""What binds engine time, in a line, over time, by size of the step and per instance."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import pandas as pd
import streamlit as st

from analytics.questions.steps import BINDINGS, PROBE
from dashboard import escape, words
from dashboard.data import ask
from dashboard.figures import Sized, Trace, by_size, stack
from dashboard.panel import foot, panel
from dashboard.tables import milliseconds, percent, table
from dashboard.theme import colour_of, tints

if TYPE_CHECKING:
    from analytics.questions.steps import BoundInstance, Steps
    from dashboard.page_context import PageContext
    from dashboard.theme import Palette

NAMED: Final = {
    "kv_blocks": "KV blocks",
    "sequences": "sequences",
    "token_budget": "token budget",
    "other": "something else",
    "nothing": "nothing",
    "idle": "idle",
}
"""Bindings in words."""
_LEAD: Final = {
    "kv_blocks": "**Yes: KV blocks bind** {share} of engine time",
    "sequences": "**No: the number of sequences binds** {share} of engine time",
    "token_budget": "**No: the token budget of a step binds** {share} of engine time",
    "other": "**No: requests wait for something else** in {share} of engine time",
}
NOTABLE: Final = 0.01
"""Share of engine time under which a binding is not worth a word."""
MISSING: Final = (
    "What binds a step comes from the KV cache figures of a server's metrics page, and step by step from a probe: "
    f"`{PROBE}` in the model server's environment."
)
_RESTS: Final = {
    "steps": "each step, as a probe told it",
    "seconds": "steps by second",
    "samples": "worked out from samples, once a second: no probe",
}
_ABOUT: Final = (
    "Engine time by what kept more work out of its steps. KV blocks: a request was preempted, or some wait while the "
    "cache is at least 90 % full. Sequences and token budget: the step was at the limit that its server's "
    "configuration tells. Something else: requests wait and no known limit is reached. Of servers without a probe the "
    "same is judged from one sample a second."
)


def lead(context: PageContext) -> None:
    """The page's title answered in a line."""
    told: Steps = ask("steps", context.selection).result
    if told.shares:
        st.markdown(in_words(told))


def in_words(told: Steps) -> str:
    """What binds most, or that nothing does; shares are of the engine time of which that is known."""
    bound = {name: told.shares[name] for name in _LEAD}
    most = max(bound, key=lambda name: bound[name])
    if bound[most] < NOTABLE:
        idle = told.shares["idle"]
        free = (
            "**No: nothing binds.** Engines were idle all the time." if idle > 1 - NOTABLE else "**No: nothing binds.**"
        )
        return f"{free}{_grounds(told)}"
    worst = max(told.instances, key=lambda one: one.shares[most])
    share_there = words.ratio(worst.shares[most])
    where = f", most on {escape.markdown(worst.instance)} ({share_there})" if told.instances[1:] else ""
    others = [
        f"{NAMED[name]} {words.ratio(share)}" for name, share in bound.items() if name != most and share >= NOTABLE
    ]
    beside = f" Besides: {', '.join(others)}." if others else ""
    return f"{_LEAD[most].format(share=words.ratio(bound[most]))}{where}.{beside}{_grounds(told)}"


def _grounds(told: Steps) -> str:
    coarse = [one for one in told.instances if one.source == "samples"]
    if not coarse:
        return ""
    whose = "" if len(coarse) == len(told.instances) else f" for {words.plural(len(coarse), 'server')}"
    return f" :gray[From one sample a second{whose}: no probe tells the steps] (`{PROBE}` in the server's environment)."


def share(context: PageContext) -> None:
    """Share of engine time by binding over time."""
    panel(
        "binding", "steps", context, lambda result: _stacked(result, context), missing=MISSING,
        title="What binds each step, by engine time",
        has_data=lambda result: bool(result.shares), about=_ABOUT, basis=rests_on,
    )  # fmt: skip


def rests_on(told: Steps) -> str:
    """What an answer rests on, in words."""
    sources = {one.source for one in told.instances}
    return " and ".join(text for source, text in _RESTS.items() if source in sources)


def sizes(context: PageContext) -> None:
    """Step time by tokens in the step, where a probe told of steps one by one: over an hour at most."""
    told: Steps = ask("steps", context.selection).result
    if not told.sizes:
        return
    panel(
        "sizes", "steps", context, lambda result: _by_size(result, context), missing="",
        basis=lambda _: _RESTS["steps"],
        about="Median and p95 of step time by the tokens in the step; of steps that only decode that is about the "
        "sequences that share it.",
    )  # fmt: skip


def instances(context: PageContext) -> None:
    """A row an instance."""
    answer = ask("steps", context.selection)
    told: Steps = answer.result
    if not told.instances:
        return
    st.markdown("## What binds each engine")
    rows = [_row(one) for one in told.instances]
    table(pd.DataFrame(rows), "bound")
    foot("bound", answer, _ABOUT, rests_on(told), rows=rows)


def _row(one: BoundInstance) -> dict[str, object]:
    return {
        "Instance": one.instance,
        "From": one.source,
        **{f"{NAMED[name].capitalize() if name != 'kv_blocks' else 'KV blocks'} %": percent(one.shares[name])
           for name in BINDINGS},
        "Steps": one.steps,
        "Step p50 ms": milliseconds(one.step_p50_seconds),
        "Step p95 ms": milliseconds(one.step_p95_seconds),
        "Max sequences": one.max_sequences,
        "Max tokens": one.max_tokens,
    }  # fmt: skip


def colours_of(colours: Palette) -> dict[str, str]:
    """Each binding's colour: that of the signal whose limit it is."""
    return {
        "kv_blocks": colour_of("kv", colours),
        "sequences": colour_of("running", colours),
        "token_budget": colour_of("prefill", colours),
        "other": colour_of("waiting", colours),
        "nothing": colours.nobody,
        "idle": colours.grid,
    }


def _stacked(result: Steps, context: PageContext) -> object:
    chosen = colours_of(context.style.colours)
    traces = [
        Trace(NAMED[line.name], line.values, chosen[line.name], compared="hover")  # their sum is always all of it
        for line in result.bindings
        if any(line.values)
    ]
    return stack(
        result.times,
        traces,
        context.style,
        title="What binds each step, by engine time",
        unit="ratio",
        wide=True,
    )


def _by_size(result: Steps, context: PageContext) -> object:
    colours = context.style.colours
    drawn = []
    for reads, name, signal in ((False, "decode only", "decode"), (True, "with prefill", "prefill")):
        held = [one for one in result.sizes if one.reads_prompts == reads]
        light, strong = tints(colours, colour_of(signal, colours), 2)
        for label, values, shade, dash in (
            ("p50", [one.p50_seconds for one in held], light, ""),
            ("p95", [one.p95_seconds for one in held], strong, "dot"),
        ):
            bounds = [(one.tokens_from, one.tokens_to) for one in held]
            if held:
                drawn.append(Sized(f"{name}, {label}", bounds, values, [one.steps for one in held], shade, dash))
    return by_size(drawn, context.style, title="Step time by tokens in the step", what="tokens")
