"""What sizes batches had and what each costs, where servers tell it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import streamlit as st

from dashboard import words
from dashboard.data import ask
from dashboard.figures import Share, Sized, by_size, shares
from dashboard.panel import panel

if TYPE_CHECKING:
    from analytics.questions.batching import Batching, BatchSize, ModelBatches
    from dashboard.page_context import PageContext

_MOST: Final = 6
"""Models of a chart, those with most executions first: of more, none can be told from another."""
_SEVERAL: Final = " The six models with most executions are shown."


def sizes(context: PageContext) -> None:
    """Executions by their items, and how long one takes."""
    told: Batching = ask("batching", context.selection).result
    models = told.batch_sizes
    if not models:
        return
    rest = _SEVERAL if len(models) > _MOST else ""
    with st.container(key="half-batch-sizes"):
        panel(
            "batch-sizes", "batching", context, lambda result: executions(result.batch_sizes, context), missing="",
            has_data=lambda result: bool(result.batch_sizes),
            about=f"Triton: share of a model's executions by the items in each, over the window.{rest}",
        )  # fmt: skip
    if any(size.compute_seconds is not None for one in models for size in one.sizes):
        with st.container(key="half-batch-compute"):
            panel(
                "batch-compute", "batching", context, lambda result: compute(result.batch_sizes, context), missing="",
                has_data=lambda result: bool(result.batch_sizes),
                about="Triton: mean time of an execution (input, inference and output) by the items in it. Where it "
                f"grows slower than they do, larger batches serve more of them.{rest}",
            )  # fmt: skip


def executions(models: list[ModelBatches], context: PageContext) -> object:
    """Share of executions by items."""
    palette = context.style.colours.series
    drawn = [
        Share(
            one.model,
            {label(size): size.executions / one.executions for size in one.sizes},
            [words.plural(size.executions, "execution") for size in one.sizes],
            palette[index % len(palette)],
        )
        for index, one in enumerate(models[:_MOST])
        if one.executions
    ]
    order = sorted({_place(size): label(size) for one in models[:_MOST] for size in one.sizes}.items())
    return shares(drawn, [named for _, named in order], context.style, title="Executions by items", what="items")


def compute(models: list[ModelBatches], context: PageContext) -> object:
    """Mean time of an execution by its items."""
    palette = context.style.colours.series
    drawn = []
    for index, one in enumerate(models[:_MOST]):
        known = [size for size in one.sizes if size.compute_seconds is not None]
        if known:
            bounds = [(size.items_from, (size.items_to or size.items_from) + 1) for size in known]
            seconds = [(size.compute_seconds or 0.0) / size.executions for size in known]
            counts = [size.executions for size in known]
            drawn.append(Sized(one.model, bounds, seconds, counts, palette[index % len(palette)]))
    return by_size(drawn, context.style, title="Compute of an execution by items", what="items", each="execution")


def label(size: BatchSize) -> str:
    """``8``, ``17 to 20``, ``1025 and more``."""
    if size.items_to is None:
        return f"{size.items_from} and more"
    return str(size.items_from) if size.items_from == size.items_to else f"{size.items_from} to {size.items_to}"


def _place(size: BatchSize) -> tuple[int, float]:
    return size.items_from, size.items_to if size.items_to is not None else float("inf")
