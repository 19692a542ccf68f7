"""What operators had servers do besides serving: sleep, wake up, take new weights."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd
import streamlit as st

from dashboard.data import ask
from dashboard.panel import foot
from dashboard.tables import table

if TYPE_CHECKING:
    from analytics.questions.features import Operation
    from dashboard.page_context import PageContext


def operations(context: PageContext) -> None:
    """A table of them; nothing where no server tells of any."""
    answer = ask("features", context.selection)
    told: list[Operation] = answer.result.operations
    if not told:
        return
    st.markdown("## Sleeps and weight updates")
    frame = pd.DataFrame([
        {"Operation": one.name.capitalize(), "Times": one.count, "Mean s": one.mean, "p99 s": one.p99} for one in told
    ])  # fmt: skip
    table(frame, "operations")
    foot("operations", answer, rows=told)
