"""What becomes of KV cache blocks: how long they live, and those on their way to another engine or memory."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import pandas as pd
import streamlit as st

from dashboard import words
from dashboard.data import ask
from dashboard.drawings import one_each
from dashboard.figures import lines
from dashboard.panel import foot, panel
from dashboard.tables import milliseconds, table

if TYPE_CHECKING:
    from analytics.questions.kvblocks import KvBlocks
    from dashboard.page_context import PageContext

_TROUBLES: Final = {
    "leases expired": (
        "request whose KV cache nobody fetched in time",
        "requests whose KV cache nobody fetched in time",
    ),
    "notices too late": ("notice that came after that", "notices that came after that"),
    "stores refused": ("store refused for want of room", "stores refused for want of room"),
    "stores dropped": ("store that a slower tier could not take", "stores that a slower tier could not take"),
    "moves failed": ("move between tiers that failed", "moves between tiers that failed"),
}
"""One of them, and several."""


def charts(context: PageContext) -> None:
    """Charts of what is on its way, where servers tell it."""
    told: KvBlocks = ask("kvblocks", context.selection).result
    if told.underway:
        with st.container(key="half-underway"):
            panel(
                "underway", "kvblocks", context, lambda result: _underway(result, context), missing="",
                basis=_exact,
                about="Blocks whose store is not over, those that are held by what goes on, and moves between tiers.",
            )  # fmt: skip
    if told.pinned_ratio:
        with st.container(key="half-pinned"):
            panel(
                "pinned", "kvblocks", context, lambda result: _pinned(result, context), missing="",
                basis=_exact,
                about="Share of the host's space for KV cache that transfers hold, of the fullest engine. Near all of "
                f"it, stores are refused or dropped. At most {words.ratio(told.pinned_most)}.",
            )  # fmt: skip
    if told.fetches:
        with st.container(key="half-fetches"):
            panel(
                "fetches", "kvblocks", context, lambda result: _fetches(result, context), missing="",
                basis=_exact,
                about="Waiting requests by how far the KV cache is that they wait for, such as a prefill worker's.",
            )  # fmt: skip


def _exact(_result: KvBlocks) -> str:
    """Gauges, though what stands beside them in the same answer comes from histograms."""
    return "exact"


def moved(context: PageContext) -> None:
    """What became of KV cache that moved, in words: what is stuck or came to nothing must not hide in a help text."""
    told: KvBlocks = ask("kvblocks", context.selection).result
    found = [*_of_store(told), *_of_transfers(told)]
    if found:
        st.markdown("## KV cache that moved")
        st.markdown("\n".join(f"- {sentence}" for sentence in found))


def times(context: PageContext) -> None:
    """How long blocks live, and whether those that go would have been of use."""
    answer = ask("kvblocks", context.selection)
    told: KvBlocks = answer.result
    if not told.times:
        return
    st.markdown("## Times of KV cache blocks")
    if told.useful_thrown_out is not None:
        st.markdown(
            "**Blocks go that would have been used again**: they are evicted sooner than the usual gap between uses."
            if told.useful_thrown_out
            else "Blocks lie idle for longer than the usual gap between two uses before they are evicted: what goes is "
            "seldom missed."
        )
    frame = pd.DataFrame([
        {
            "Time": one.name,
            "Observations": one.observations,
            "Mean ms": milliseconds(one.mean),
            "p50 ms": milliseconds(one.p50),
            "p95 ms": milliseconds(one.p95),
            "p99 ms": milliseconds(one.p99),
        }
        for one in told.times
    ])  # fmt: skip
    table(frame, "kv-times")
    foot("kv-times", answer, "Blocks as the engine samples them (vLLM: `--kv-cache-metrics`).", rows=told.times)


def _of_store(told: KvBlocks) -> list[str]:
    """What became of what was to leave the GPU."""
    found = []
    if told.stuck:
        pending = words.plural(told.still_pending or 0, "block")
        found.append(f"**A store is stuck**: {pending} are on their way out, and their number only grew.")
    for name, size in told.mean_bytes.items():
        found.append(f"A {name} is of {words.scaled(size, 'B')}.")
    if loaded := told.counts.get("blocks loaded"):
        found.append(f"{words.plural(loaded, 'block')} came back, whose prefill was not done again.")
    if skipped := told.counts.get("stores skipped"):
        found.append(f"{words.plural(skipped, 'store')} skipped: not worth it, or there already.")
    return [*found, *_troubles(told, ("stores refused", "stores dropped", "moves failed"))]


def _of_transfers(told: KvBlocks) -> list[str]:
    """What transfers between engines were made of, and which came to nothing."""
    found = []
    if told.transfer_mean_bytes is not None:
        pieces = f", in {words.count(told.pieces_mean)} pieces" if told.pieces_mean is not None else ""
        found.append(f"A transfer of KV cache is of {words.scaled(told.transfer_mean_bytes, 'B')}{pieces}.")
    if told.post_mean_seconds is not None:
        found.append(f"It takes {words.seconds(told.post_mean_seconds)} to hand one to the network.")
    return [*found, *_troubles(told, ("leases expired", "notices too late"))]


def _troubles(told: KvBlocks, names: tuple[str, ...]) -> list[str]:
    known = {name: count for name in names if (count := told.counts.get(name))}
    return [f"**{count:,.0f}** {_TROUBLES[name][count != 1]}." for name, count in known.items()]


def _underway(result: KvBlocks, context: PageContext) -> object:
    return lines(result.steps, one_each(result.underway, context), context.style, title="KV cache on its way out",
                 unit="blocks")  # fmt: skip


def _pinned(result: KvBlocks, context: PageContext) -> object:
    return lines(result.steps, one_each(result.pinned_ratio, context), context.style, title="Host KV cache held",
                 unit="ratio", top=1.05)  # fmt: skip


def _fetches(result: KvBlocks, context: PageContext) -> object:
    return lines(result.steps, one_each(result.fetches, context), context.style, title="Waiting for KV cache",
                 unit="requests")  # fmt: skip
