"""KV cache and batching: how full, what it costs, what it saves, and how much work shares a step."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import pandas as pd
import streamlit as st

from dashboard import batches, binding, escape, kv_blocks, words
from dashboard.data import ask
from dashboard.drawings import one_each, with_values
from dashboard.figures import Trace, lines, stack
from dashboard.panel import foot, guarded, panel, tiles
from dashboard.shell import page
from dashboard.tables import percent, table
from dashboard.theme import colour_of
from dashboard.tiles import Tile, compared

if TYPE_CHECKING:
    from analytics.questions.batching import Batching
    from analytics.questions.features import EngineFeatures, Features
    from analytics.questions.kvcache import Occupancy
    from analytics.selection import Selection
    from analytics.series import Line
    from dashboard.data import Question
    from dashboard.page_context import PageContext

MISSING: Final = "KV cache figures come from vLLM's metrics page: `servescope up --target http://host:8000`"
MISSING_BATCHES: Final = (
    "Batches come from the metrics page of vLLM or Triton: `servescope up --target http://host:port`"
)

_CHARTS: Final[list[Question]] = [("kvcache", {}), ("batching", {}), ("steps", {}), ("features", {}), ("kvblocks", {})]

TITLE: Final = "KV cache & batching"
"""In the navigation."""
PLACE: Final = 30
"""Order in the navigation, the front page first."""
QUESTION: Final = "Is the KV cache the limit?"
"""Over the page."""
COMPARE: Final = True
"""Whether the page compares with an earlier period or another version."""


def draw() -> None:
    """The KV cache and batching page."""
    page(_body, arriving=True, needs=lambda: _CHARTS, compared=lambda: _CHARTS)


def _body(context: PageContext) -> None:
    guarded(context, "lead", lambda: binding.lead(context))
    tiles(context, "tiles", lambda: _tiles(context))
    binding.share(context)
    guarded(context, "sizes", lambda: binding.sizes(context))
    with st.container(horizontal=True, gap="small"):
        with st.container(key="half-usage"):
            panel(
                "usage", "kvcache", context, lambda result: _usage(result, context),
                missing=MISSING, title="KV cache in use",
                has_data=lambda result: any(v is not None for v in result.usage_max.values),
                about="Share of KV cache blocks in use, as each engine shows it; the fullest rank counts.",
            )  # fmt: skip
        with st.container(key="half-preemptions"):
            panel(
                "preemptions", "kvcache", context, lambda result: _preempted(result, context),
                missing=MISSING, title="Preemptions", has_data=lambda result: bool(result.instances),
                about="Running requests thrown out of the cache to make room; their work is done again.",
            )  # fmt: skip
        with st.container(key="half-hits"):
            panel(
                "hits", "kvcache", context, lambda result: _hits(result, context),
                missing=MISSING, title="Prefix cache hits",
                has_data=lambda result: any(v is not None for v in result.hit_share.values),
                about="Prompt tokens found in the prefix cache over those looked up.",
            )  # fmt: skip
        with st.container(key="half-tokens"):
            panel(
                "tokens", "kvcache", context, lambda result: _tokens(result, context),
                missing="Needs request rows with token counts: send clients through the tap.", title="Prompt tokens",
                has_data=lambda result: any(v is not None for v in result.computed_tokens.values),
                about="Prompt tokens computed and prompt tokens taken from a cache.",
            )  # fmt: skip
        with st.container(key="half-batch"):
            panel(
                "batch", "batching", context, lambda result: _batch(result, context),
                missing=MISSING_BATCHES, title="Tokens per engine step",
                has_data=lambda result: bool(with_values(result.tokens_per_step)),
                about="Tokens of an average engine step: the size of the batch that shares it.",
            )  # fmt: skip
        with st.container(key="half-executions"):
            panel(
                "executions", "batching", context, lambda result: _items(result, context),
                missing=MISSING_BATCHES, title="Items per execution",
                has_data=lambda result: bool(with_values(result.inferences_per_execution)),
                about="Triton: items over executions, the mean batch size that dynamic batching reached.",
            )  # fmt: skip
        guarded(context, "batch-sizes", lambda: batches.sizes(context))
        guarded(context, "features", lambda: _features(context))
        guarded(context, "kv-blocks", lambda: kv_blocks.charts(context))
    guarded(context, "kv-moved", lambda: kv_blocks.moved(context))
    guarded(context, "kv-times", lambda: kv_blocks.times(context))
    guarded(context, "bound", lambda: binding.instances(context))
    guarded(context, "caches", lambda: _table(context))


def _features(context: PageContext) -> None:
    """Panels of features that servers of the window have switched on."""
    told: Features = ask("features", context.selection).result
    if told.tiers:
        with st.container(key="half-tiers"):
            panel(
                "tiers", "features", context, lambda result: _of_features(result.tiers, result, context, "Prefix hits",
                "tokens_per_second"), missing="",
                about="Prompt tokens found per second, by where. What came through a connector may be told under "
                "external and under its tier.",
            )  # fmt: skip
    if told.hit_shares:
        with st.container(key="half-hit-shares"):
            panel(
                "hit-shares", "features", context, lambda result: _of_features(result.hit_shares, result, context,
                "Hits of other caches", "ratio"), missing="",
                about="Hits over look-ups: prompt tokens in a cache outside of the engine (external), images and the "
                f"like that were made ready before (multimodal).{_by_engine(told)}",
            )  # fmt: skip
    if told.blocks:
        lost = f" Missed batches of events: {words.count(told.blocks_lost)}." if told.blocks_lost else ""
        with st.container(key="half-blocks"):
            panel(
                "blocks", "features", context, lambda result: _of_features(result.blocks, result, context,
                "KV cache blocks", "per_second"), missing="",
                about="Blocks that entered the prefix cache and that were evicted, by where they lie, as KV events "
                f"tell it. Cleared as a whole: {words.count(told.cache_clears)}.{lost}",
            )  # fmt: skip
    if told.moved:
        with st.container(key="half-moved"):
            panel(
                "moved", "features", context, lambda result: _of_features(result.moved, result, context,
                "KV cache moved", "bytes_per_second"), missing="", about=moved_in_words(told),
            )  # fmt: skip
    elif told.transfers or told.transfer_failures:
        st.markdown(f":gray[{moved_in_words(told)}]")
    if told.acceptance:
        with st.container(key="half-acceptance"):
            panel(
                "acceptance", "features", context, lambda result: _of_features(result.acceptance, result, context,
                "Accepted draft tokens", "ratio"), missing="",
                about="Speculative decoding: accepted over drafted tokens; of each position accepted over drafts. "
                f"Over the window {words.ratio(told.acceptance_share)}, and "
                f"{words.count(told.tokens_per_verification)} tokens a step and sequence; "
                f"{words.ratio(told.draft_share)} of all tokens came from drafts.",
            )  # fmt: skip
    if told.adapters:
        with st.container(key="half-adapters"):
            panel(
                "adapters", "features", context, lambda result: _adapters(result, context), missing="",
                about="LoRA adapters whose requests run or wait, against how many fit at one time.",
            )  # fmt: skip
    _estimates(context, told)


def _by_engine(told: Features) -> str:
    """The engines whose shares differ most, where there are several."""
    named = []
    for cache in ("external", "multimodal"):
        shares = sorted((one.hit_shares[cache], _engine(one)) for one in told.engines if cache in one.hit_shares)
        if len(shares) > 1:
            (low, worst), (high, best) = shares[0], shares[-1]
            least, most = (
                f"{words.ratio(share)} on {escape.markdown(who)}" for share, who in ((low, worst), (high, best))
            )
            named.append(f" {cache.capitalize()}: from {least} to {most}.")
    return "".join(named)


def _engine(one: EngineFeatures) -> str:
    return f"{one.instance}, rank {one.dp_rank}" if one.dp_rank else one.instance


def _estimates(context: PageContext, told: Features) -> None:
    """What engines reckon that they ask of a GPU, over what its vendor says that it can do."""
    if told.work:
        with st.container(key="half-work"):
            panel(
                "work", "features", context, lambda result: _of_features(result.work, result, context,
                "Estimated work of a GPU", "flop_per_second"), missing="",
                about=f"By the engines' own reckoning of their model, mean over engines. {_of_peak(told, 'flop')}",
            )  # fmt: skip
    if told.memory_traffic:
        with st.container(key="half-traffic"):
            panel(
                "traffic", "features", context, lambda result: _of_features(result.memory_traffic, result, context,
                "Estimated memory traffic of a GPU", "bytes_per_second"), missing="",
                about="Bytes of weights, activations and KV cache, by the engines' own reckoning, mean over engines. "
                f"{_of_peak(told, 'bytes')}",
            )  # fmt: skip


def _of_peak(told: Features, what: str) -> str:
    """The share of a GPU's peak, or why there is none."""
    if told.peak is None:
        seen = f"of {escape.markdown(told.gpu)} " if told.gpu else ""
        return f"What a GPU {seen}can do at most is not known here, so no share of it is told."
    drawn, unit, most, model = (
        (told.work, "flop_per_second", told.peak.flop_per_second, " in dense BF16 (model FLOPs utilisation)")
        if what == "flop"
        else (told.memory_traffic, "bytes_per_second", told.peak.bytes_per_second, "")
    )
    means = [
        sum(known) / len(known) for one in drawn if (known := [value for value in one.values if value is not None])
    ]
    share = words.ratio(sum(means) / most) if means else words.NOTHING
    limit = f"the {words.figure(most, unit)} that a {escape.markdown(told.gpu or '')} can do{model}"
    return f"Over the window {share} of {limit}."


def moved_in_words(told: Features) -> str:
    """What the chart of moved KV cache shows, and how fast and how often it went over the window."""
    found = [
        "KV cache that went between engines or to a store (transferred), and out of the GPU and back (stored, loaded)."
    ]
    if told.transfers:
        each = f", {words.seconds(told.transfer_mean_seconds)} each" if told.transfer_mean_seconds is not None else ""
        found.append(f"{words.plural(told.transfers, 'transfer')}{each}.")
    if told.transfer_failures:
        found.append(f"Failed: {words.count(told.transfer_failures)}.")
    found += [
        f"{name.capitalize()} at {words.figure(speed, 'bytes_per_second')} while it went on."
        for name, speed in told.moved_while.items()
    ]
    return " ".join(found)


def _of_features(shown: list[Line], result: Features, context: PageContext, title: str, unit: str) -> object:
    top = 1.05 if unit == "ratio" else None
    return lines(result.times, one_each(shown, context), context.style, title=title, unit=unit, top=top)


def _adapters(result: Features, context: PageContext) -> object:
    colours = context.style.colours
    traces = [
        Trace(line.name, line.values, colour_of(line.name, colours)) for line in result.adapters if line.name != "slots"
    ]
    slots = result.adapter_slots
    limit = (slots, f"{slots:g} slots") if slots is not None else None
    return lines(result.times, traces, context.style, title="LoRA adapters", unit="adapters", limit=limit)


def _tiles(context: PageContext) -> list[Tile]:
    cache: Occupancy = ask("kvcache", context.selection).result
    batches: Batching = ask("batching", context.selection).result
    steps, items = batches.tokens_per_step, batches.inferences_per_execution
    lines = {
        "Fullest KV cache": cache.usage_max.values,
        "Preemptions": cache.preemptions.values,
        "Tokens per step": steps[0].values if len(steps) == 1 else (),
        "Items per execution": items[0].values if len(items) == 1 else (),
    }
    now, before = _figures(context.selection), _figures(context.reference) if context.reference else {}
    return [
        compared(
            Tile(name, words.figure(value, unit), note, lines.get(name, ())),
            value, before.get(name, (None,))[0], unit, context.against,
        )
        for name, (value, unit, note) in now.items()
    ]  # fmt: skip


def _figures(selection: Selection) -> dict[str, tuple[float | None, str, str]]:
    """What the tiles say: value, unit and note."""
    cache: Occupancy = ask("kvcache", selection).result
    batches: Batching = ask("batching", selection).result
    above = max((item.seconds_above_90 for item in cache.instances), default=None)
    fullest = max((item.peak for item in cache.instances if item.peak is not None), default=None)
    preempted = [item.preempted for item in cache.instances if item.preempted is not None]
    return {
        "Fullest KV cache": (fullest, "ratio", "over the window"),
        "Above 90 % full": (above, "seconds", "the worst instance"),
        "Preemptions": (sum(preempted) if preempted else None, "count", "over the window"),
        "Prompt from cache": (cache.cached_share, "ratio", "of prompt tokens"),
        "Tokens per step": (batches.mean_tokens_per_step, "count", "mean of the window"),
        "Items per execution": (batches.mean_batch_size, "count", "mean of the window"),
    }


def _usage(result: Occupancy, context: PageContext) -> object:
    colours = context.style.colours
    shown = [item for item in result.instances if any(value is not None for value in item.usage_max)]
    if len(shown) == 1:
        item = shown[0]
        traces = [Trace(item.instance, item.usage_max, colour_of("kv", colours), width=2.0)]
    else:
        traces = [
            Trace(item.instance, item.usage_max, colours.series[index % len(colours.series)])
            for index, item in enumerate(shown)
        ]
    return lines(result.times, traces, context.style, title="KV cache in use", unit="ratio", top=1.05)


def _preempted(result: Occupancy, context: PageContext) -> object:
    trace = Trace("", result.preemptions.values, colour_of("preemptions", context.style.colours))
    return lines(result.times, [trace], context.style, title="Preemptions", unit="per_second")


def _hits(result: Occupancy, context: PageContext) -> object:
    trace = Trace("", result.hit_share.values, colour_of("kv", context.style.colours))
    return lines(result.times, [trace], context.style, title="Prefix cache hits", unit="ratio", top=1.05)


def _tokens(result: Occupancy, context: PageContext) -> object:
    colours = context.style.colours
    traces = [
        Trace("computed", result.computed_tokens.values, colour_of("prefill", colours)),
        Trace("from cache", result.cached_tokens.values, colour_of("kv", colours)),
    ]
    return stack(result.times, traces, context.arrivals, title="Prompt tokens", unit="tokens_per_second")


def _batch(result: Batching, context: PageContext) -> object:
    shown = one_each(with_values(result.tokens_per_step), context)
    return lines(result.times, shown, context.style, title="Tokens per engine step",
                 unit="tokens")  # fmt: skip


def _items(result: Batching, context: PageContext) -> object:
    shown = one_each(with_values(result.inferences_per_execution), context)
    return lines(result.times, shown, context.style, title="Items per execution", unit="items")


def _table(context: PageContext) -> None:
    answer = ask("kvcache", context.selection)
    if not answer.result.instances:
        return
    st.markdown("## KV caches")
    frame = pd.DataFrame([
        {
            "Instance": item.instance,
            "Peak %": percent(item.peak),
            "Mean %": percent(item.mean),
            "Above 90 %, s": item.seconds_above_90,
            "Preemptions": item.preempted,
            "Prefix hits %": percent(item.hit_share_window),
        }
        for item in answer.result.instances
    ])  # fmt: skip
    table(frame, "caches")
    foot("caches", answer, rows=answer.result.instances)
