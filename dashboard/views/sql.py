"""SQL: ad hoc questions, read only, with the schema beside the editor."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

import pandas as pd
import streamlit as st

from base.errors import ServescopeError
from collector.store.client import StoreError
from dashboard import escape, words
from dashboard.data import asker, store
from dashboard.panel import problem
from dashboard.reading import ROWS, read
from dashboard.viewer import zone

if TYPE_CHECKING:
    from collector.store.asker import Asker

_ROWS: Final = 5000
EXAMPLES: Final = {
    "Slowest requests of the last hour": (
        "SELECT time, tenant, model, outcome, e2e_seconds, ttft_seconds, queue_seconds, recording\n"
        "FROM requests\nWHERE time > now() - INTERVAL 1 HOUR\nORDER BY e2e_seconds DESC\nLIMIT 50"
    ),
    "Requests and failures by tenant": (
        "SELECT tenant, count() AS requests, quantile(0.99)(e2e_seconds) AS p99,\n"
        "  countIf(outcome NOT IN ('ok', 'client_abort', 'client_error')) AS failed\n"
        "FROM requests\nWHERE time > now() - INTERVAL 1 HOUR AND recording = ''\n"
        "GROUP BY tenant\nORDER BY requests DESC"
    ),
    "KV cache against waiting, per second": (
        "SELECT toStartOfSecond(time) AS second, instance, recording, max(kv_cache_usage_ratio) AS kv,\n"
        "  max(waiting) AS waiting, sum(preemptions_delta) AS preemptions\n"
        "FROM engine_samples\nWHERE time > now() - INTERVAL 10 MINUTE\n"
        "GROUP BY second, instance, recording\nORDER BY second DESC\nLIMIT 600"
    ),
    "What happened": "SELECT time, event, instance, message, recording\nFROM events\nORDER BY time DESC\nLIMIT 100",
}
TITLE: Final = "SQL"
"""In the navigation."""
PLACE: Final = 70
"""Order in the navigation, the front page first."""


def draw() -> None:
    """The SQL page."""
    st.markdown("# What else do you want to know?")
    editor, schema = st.columns([3, 1], gap="medium")
    with schema:
        _schema()
    with editor:
        _editor()


def _editor() -> None:
    example = st.selectbox(
        "Start from", list(EXAMPLES), index=None, placeholder="Start from an example", key="example",
        label_visibility="collapsed",
    )  # fmt: skip
    if example and st.session_state.get("taken") != example:
        st.session_state["taken"] = example
        st.session_state["sql"] = EXAMPLES[example]
    st.session_state.setdefault("sql", st.query_params.get("sql") or EXAMPLES["Slowest requests of the last hour"])
    sql = st.text_area("SQL", key="sql", height=190, label_visibility="collapsed")
    with st.container(horizontal=True, vertical_alignment="center"):
        run = st.button("Run", type="primary", key="run", shortcut="Ctrl+Enter")
        st.caption(
            f"Read only and within limits, ClickHouse's own SQL, at most {_ROWS:,} rows are shown, times in "
            f"{zone().key}. Elsewhere: `servescope sql`, curl."
        )
    if run:
        st.session_state["asked"] = sql
        st.query_params["sql"] = sql
    if asked := st.session_state.get("asked"):
        _answer(asked)
    elif "sql" in st.query_params:
        st.caption("This statement came with a link. Read it, then press Run.")


def _answer(sql: str) -> None:
    try:
        frame = _frame(asker(), sql)
    except StoreError as error:
        refused(error)
        return
    except ServescopeError as error:
        problem(error)
        return
    if frame.empty:
        st.markdown("**No rows.** :gray[The query ran and found nothing.]")
        return
    shown = escape.frame(local_times(frame.head(_ROWS)))
    height = min(36 * (len(shown) + 1) + 4, 560)
    st.dataframe(shown, hide_index=True, placeholder=words.NOTHING, key="answer", height=height, alt="Rows found")
    with st.container(horizontal=True, vertical_alignment="center"):
        st.caption(told(len(frame)))
        st.download_button("CSV", lambda: escape.frame(frame).to_csv(index=False), "servescope.csv", "text/csv",
                           type="tertiary", on_click="ignore")  # fmt: skip


def told(rows: int) -> str:
    """How many rows were found, and what of them is shown."""
    found = f"The first {rows:,} rows" if rows >= ROWS else words.plural(rows, "row")
    return found + (f", the first {_ROWS:,} shown" if rows > _ROWS else "")


def refused(error: StoreError) -> None:
    """ClickHouse's own words, and what helps for the refusals that people meet."""
    why = {
        "READONLY": "This page reads only, whoever the store's URL names. Write with any ClickHouse client.",
        "ACCESS_DENIED": "A reader may not do that: it reads, within limits, and sees no files or addresses.",
        "UNKNOWN_IDENTIFIER": "The columns of each table stand on the right.",
        "UNKNOWN_TABLE": "The tables stand on the right.",
        "TIMEOUT_EXCEEDED": "Ask for less time: narrow the WHERE on `time`, by which the tables are sorted.",
        "MEMORY_LIMIT_EXCEEDED": "Ask for less: narrow the WHERE on `time`, or group by fewer values.",
        "SYNTAX_ERROR": "The statement could not be read; ClickHouse names the place.",
    }.get(error.name, "")
    problem(ServescopeError(f"ClickHouse refused it ({error.name or error.code})", why))
    st.code(error.message, language=None, wrap_lines=True)


@st.cache_data(ttl=5, max_entries=20, show_spinner="Asking ClickHouse")
def _frame(who: Asker, sql: str) -> pd.DataFrame:
    return read(store(who), sql)


def local_times(frame: pd.DataFrame) -> pd.DataFrame:
    """Times in the viewer's zone; the CSV keeps UTC."""
    shown = frame.copy()
    for name in shown.columns:
        if isinstance(shown[name].dtype, pd.DatetimeTZDtype):
            shown[name] = shown[name].dt.tz_convert(zone())
    return shown


def _schema() -> None:
    try:
        columns = _columns(asker())
    except ServescopeError as error:
        problem(error)
        return
    tables = sorted(columns["table"].unique())
    start = tables.index("requests") if "requests" in tables else 0
    table = st.selectbox("Table", tables, index=start, key="table", label_visibility="collapsed")
    frame = columns[columns["table"] == table][["name", "type"]].rename(columns={"name": "Column", "type": "Type"})
    frame["Type"] = frame["Type"].map(plain_type)
    st.dataframe(frame, hide_index=True, key="schema", height=520, row_height=28, alt=f"Columns of {table}")


def plain_type(text: str) -> str:
    """A column's type without the wrappers that say only how it is merged or packed."""
    found = re.sub(r"^SimpleAggregateFunction\(\w+, (.*)\)$", r"\1", text)
    return re.sub(r"LowCardinality\((\w+)\)", r"\1", found)


@st.cache_data(ttl=300, max_entries=2, show_spinner=False)
def _columns(who: Asker) -> pd.DataFrame:
    return store(who).frame(
        "SELECT table, name, type FROM system.columns WHERE database = currentDatabase() "
        "AND table NOT LIKE 'land%' AND table NOT LIKE '.inner%' AND table NOT LIKE '%\\_mv' ORDER BY table, position"
    )
