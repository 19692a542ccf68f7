"""Tables: numbers right-aligned with one unit a column, three or four significant digits."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pandas as pd
import streamlit as st

from dashboard import escape, words

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping


def milliseconds(seconds: float | None) -> float | None:
    """Seconds as milliseconds, None kept."""
    return None if seconds is None else seconds * 1000


def percent(ratio: float | None) -> float | None:
    """A share as per cent, None kept."""
    return None if ratio is None else ratio * 100


def numbers(
    frame: pd.DataFrame, helps: Mapping[str, str] | None = None, whole: Collection[str] = (), **more: Any
) -> Mapping[str, Any]:
    """Column settings for every numeric column of a frame, and ``more`` for others.

    Args:
        frame: The table.
        helps: Column → what it means, shown when the pointer rests on its head.
        whole: Columns of counts that must add up: every digit is shown.
        more: Settings of other columns.
    """
    settings: dict[str, Any] = {
        str(name): st.column_config.NumberColumn(
            format="%d" if name in whole else "%.4g", help=(helps or {}).get(str(name))
        )
        for name in frame.columns
        if pd.api.types.is_numeric_dtype(frame[name]) or frame[name].isna().all()
    }
    return {**settings, **more}


def table(
    frame: pd.DataFrame,
    key: str,
    *,
    height: Any = "content",
    helps: Mapping[str, str] | None = None,
    whole: Collection[str] = (),
    wide: Collection[str] = (),
) -> None:
    """A table of figures; what is not there is a dash, never *None*; columns that are ``wide`` hold sentences."""
    sentences = {name: st.column_config.TextColumn(width="large", help=(helps or {}).get(name)) for name in wide}
    st.dataframe(
        escape.frame(frame), hide_index=True, placeholder=words.NOTHING, key=key,
        column_config=numbers(frame, helps, whole, **sentences), height=height,
    )  # fmt: skip
