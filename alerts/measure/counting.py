"""SQL columns that count valid and bad requests, for each way in which a server can be known. Pure text.

Outcomes and seconds travel as parameters; what is pasted are this product's own words.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from alerts.measure.measured import Counted
from analytics.slo import counting

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from analytics.slo import Measure


def source_of(measure: Measure) -> str:
    """The statement of ``store.sql`` that counts a measure."""
    if measure.source == "rows":
        return "request_counts"
    return "histogram_counts" if measure.limits else "counter_counts"


def columns(measures: Sequence[Measure], windows: Sequence[float], end: float) -> tuple[list[str], dict[str, Any]]:
    """Columns and their parameters for measures of one source.

    Args:
        measures: What to count.
        windows: Seconds.
        end: Unix seconds at which the windows end.

    Returns:
        ``valid_<measure>_<window>`` and ``bad_<measure>_<window>`` for every pair, and the parameters they need.
    """
    made: list[str] = []
    parameters = _starts(windows, end)
    for number, measure in enumerate(measures):
        how = counting(measure, str(number))
        parameters |= how.parameters
        if source_of(measure) == "histogram_counts":
            parameters["signals"] = sorted({*parameters.get("signals", ()), how.parameters[f"signal_{number}"]})
        at = "finished" if measure.source == "rows" else "time"
        for index in range(len(windows)):
            valid, bad = how.sums(f"{at} >= {_start(index)}")
            made += [f"{valid} AS valid_{number}_{index}", f"{bad} AS bad_{number}_{index}"]
    return made, parameters


def seen(windows: Sequence[float], end: float) -> tuple[list[str], dict[str, Any]]:
    """Columns ``seen_<window>``, whether there are samples in each window, and their parameters; as `columns`."""
    made = [f"countIf(time >= {_start(index)}) > 0 AS seen_{index}" for index in range(len(windows))]
    return made, _starts(windows, end)


def _starts(windows: Sequence[float], end: float) -> dict[str, Any]:
    return {f"w{index}": int((end - window) * 1000) for index, window in enumerate(windows)}


def _start(index: int) -> str:
    return f"fromUnixTimestamp64Milli({{w{index}:Int64}})"


def counts(measures: Sequence[Measure], index: int, row: Mapping[str, Any]) -> dict[Measure, Counted]:
    """The counts of a row for the window with this index."""
    return {
        measure: Counted(float(row[f"valid_{number}_{index}"] or 0), float(row[f"bad_{number}_{index}"] or 0))
        for number, measure in enumerate(measures)
    }
