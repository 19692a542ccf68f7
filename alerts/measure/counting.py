"""SQL columns that count valid and bad requests, for each way in which a server can be known. Pure text.

Outcomes and seconds travel as parameters; what is pasted are this product's own words.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from alerts.measure.measured import Counted
from alerts.measure.signals import METRIC_SIGNALS
from analytics.counters import FAILED, JUDGED
from analytics.slo import judged

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from alerts.measure.needs import Measure


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
    parameters: dict[str, Any] = {f"w{index}": int((end - window) * 1000) for index, window in enumerate(windows)}
    for number, measure in enumerate(measures):
        source = source_of(measure)
        for index in range(len(windows)):
            start = f"fromUnixTimestamp64Milli({{w{index}:Int64}})"
            valid, bad = _SOURCES[source](measure, number, start, parameters)
            made += [f"{valid} AS valid_{number}_{index}", f"{bad} AS bad_{number}_{index}"]
    return made, parameters


def counts(measures: Sequence[Measure], index: int, row: Mapping[str, Any]) -> dict[Measure, Counted]:
    """The counts of a row for the window with this index."""
    return {
        measure: Counted(float(row[f"valid_{number}_{index}"] or 0), float(row[f"bad_{number}_{index}"] or 0))
        for number, measure in enumerate(measures)
    }


def _rows(measure: Measure, number: int, start: str, parameters: dict[str, Any]) -> tuple[str, str]:
    made = judged(str(number), bad=measure.bad, limits=measure.limits, measured_only=measure.latency_only)
    parameters |= made.parameters
    inside = f"finished >= {start} AND ({made.valid})"
    return f"sumIf(weight, {inside})", f"sumIf(weight, {inside} AND ({made.bad}))"


def _histograms(measure: Measure, number: int, start: str, parameters: dict[str, Any]) -> tuple[str, str]:
    ((signal, seconds),) = measure.limits
    parameters[f"limit{number}"], parameters[f"signal{number}"] = seconds, METRIC_SIGNALS[signal]
    parameters.setdefault("signals", [])
    if METRIC_SIGNALS[signal] not in parameters["signals"]:
        parameters["signals"].append(METRIC_SIGNALS[signal])
    inside = f"time >= {start} AND signal = {{signal{number}:String}}"
    kept = f"bound <= {{limit{number}:Float64}}"
    good = f"arraySum((held, bound) -> if({kept}, held, 0), arrayPopBack(counts), bounds)"
    return f"sumIf(count, {inside})", f"sumIf(count - {good}, {inside})"


def _counters(_measure: Measure, _number: int, start: str, _parameters: dict[str, Any]) -> tuple[str, str]:
    inside = f"time >= {start}"
    return f"sumIf({JUDGED}, {inside})", f"sumIf({FAILED}, {inside})"


_SOURCES = {"request_counts": _rows, "histogram_counts": _histograms, "counter_counts": _counters}
