"""The pages' way to the questions: one store, one cache keyed by plain values."""

from __future__ import annotations

import importlib
import os
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import streamlit as st
from collector.store import Store, locate

from analytics.window import Answer, Filter, Window

if TYPE_CHECKING:
    from collections.abc import Callable

    from agent.errors import ServescopeError

_SECONDS_KEPT = 30


@st.cache_resource(show_spinner=False)
def store() -> Store:
    """The store of this dashboard, as a reader.

    Raises:
        ServescopeError: No store is running where it was said to be; names the place and the fix.
    """
    data = os.environ.get("SERVESCOPE_DATA")
    return Store(locate(Path(data) if data else None, os.environ.get("SERVESCOPE_CLICKHOUSE") or None, role="reader"))


def ask(question: str, window: Window | None = None, filter: Filter | None = None, **options: Any) -> Answer[Any]:  # noqa: A002 - the questions' own word
    """The answer to ``module.function`` of `analytics`, shared by all viewers who ask the same.

    Args:
        question: Such as ``latency.percentiles``.
        window: The window, where the question takes one.
        filter: The filter, where the question takes one.
        options: Keyword arguments; hashable values alone.

    Raises:
        ServescopeError: The store does not answer, or refuses.
    """
    span = (window.start.timestamp(), window.end.timestamp()) if window else None
    narrowed = tuple(asdict(filter).items()) if filter else None
    return _asked(question, span, narrowed, tuple(sorted(options.items())))


@st.cache_data(ttl=_SECONDS_KEPT, max_entries=400, show_spinner=False)
def _asked(
    question: str,
    span: tuple[float, float] | None,
    narrowed: tuple[tuple[str, Any], ...] | None,
    options: tuple[tuple[str, Any], ...],
) -> Answer[Any]:
    module, _, function = question.partition(".")
    asked = cast("Callable[..., Answer[Any]]", getattr(importlib.import_module(f"analytics.{module}"), function))
    positional: list[Any] = [store()]
    if span is not None:
        positional.append(Window(*(datetime.fromtimestamp(edge, UTC) for edge in span)))
    if narrowed is not None:
        positional.append(replace(Filter(), **dict(narrowed)))
    return asked(*positional, **dict(options))


def explain(error: ServescopeError) -> tuple[str, str]:
    """What is wrong and what mends it, for a box on the page."""
    return error.what, error.fix
