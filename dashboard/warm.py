"""Does before the first viewer comes what the first page would otherwise do while he waits: loading, and building."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pandas as pd
from streamlit.dataframe_util import convert_pandas_df_to_arrow_bytes

from dashboard.figures import Style, Trace, lines, stack
from dashboard.navigation import found_views
from dashboard.theme import LIGHT


def up() -> None:
    """Import every page with all that it asks and draws by, and make a picture and a table that nobody sees.

    The drawing library makes its classes when they are first used.
    """
    found_views()
    end = datetime.now(UTC)
    times = [end - timedelta(seconds=second) for second in (2, 1, 0)]
    style = Style(LIGHT, UTC, (times[0], end), [(times[1], "")], [(times[1], end, "")])
    traces = [Trace("one", (1.0, None, 2.0), LIGHT.series[0])]
    for draw in (lines, stack):
        draw(times, traces, style, title="", unit="seconds").to_json()
    convert_pandas_df_to_arrow_bytes(pd.DataFrame({"a": [1.0], "b": ["x"]}))
