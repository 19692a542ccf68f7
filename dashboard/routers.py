"""Routers and gateways in front of the servers, where the page of one is read."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd
import streamlit as st

from dashboard import words
from dashboard.data import ask
from dashboard.panel import foot
from dashboard.tables import milliseconds, percent, table

if TYPE_CHECKING:
    from analytics.answer import Answer
    from analytics.questions.routers import RouterRow, Routers
    from dashboard.page_context import PageContext


def routers(context: PageContext) -> None:
    """A row a router; nothing where none is seen."""
    answer: Answer[Routers] = ask("routers", context.selection)
    rows = answer.result.routers
    if not rows:
        return
    st.markdown("## Routers, busiest first")
    table(pd.DataFrame([_row(row) for row in rows]), "routers", helps={
        "Received, /s": "Requests that came, whatever became of them",
        "Ended, /s": "Requests that ended, well or not",
        "Failed %": "Of the requests that ended",
        "Running": "Requests that it waits for, mean",
        "Waiting": "Requests that it holds back, mean",
        "Waiting, most": "At one time",
        "In prefill": "Of the running ones: before their first token, mean",
        "In decode": "Of the running ones: after their first token, mean",
        "Held back, mean ms": "Queueing delay: until it handed a request on, refused it or gave it up",
        "E2E mean ms": "Of the requests that ended, as it saw them",
        "Fit servers": "Servers that it deems fit, as told last",
    })  # fmt: skip
    foot("routers", answer, "What routers tell of themselves. Their requests are their servers' too.", rows=rows)


def _row(row: RouterRow) -> dict[str, object]:
    return {
        "Router": row.instance,
        "Program": row.engine,
        "Deployment": row.deployment,
        "Received, /s": row.received_per_second,
        "Ended, /s": row.ended_per_second,
        "Failed %": percent(row.failed_ratio),
        "Running": row.running,
        "Waiting": row.waiting,
        "Waiting, most": row.waiting_peak,
        "In prefill": row.in_prefill,
        "In decode": row.in_decode,
        "Held back, mean ms": milliseconds(row.queue_mean_seconds),
        "E2E mean ms": milliseconds(row.e2e_mean_seconds),
        "Fit servers": row.endpoints_healthy,
        "Last sample": words.ago(row.last_sample),
        "Source": f"recording {row.recording}" if row.recording else "live",
    }
