"""Data to Plotly figures; pure, and the only place that draws.

Every figure: title and unit in one quiet line top left, horizontal grid only, gaps drawn as gaps, lines named at
their ends, incidents as bands and deploys as thin lines behind the data, the same x range in all charts of a page.
"""

from dashboard.figures.base import CONFIG, HEIGHT, Style, Trace
from dashboard.figures.behind import behind, beneath, has_lines
from dashboard.figures.by_size import Share, Sized, by_size, shares
from dashboard.figures.distribution import heatmap, histogram
from dashboard.figures.one_request import Interval, Lane, story
from dashboard.figures.over_time import lines, percentiles, stack

__all__ = [
    "CONFIG",
    "HEIGHT",
    "Interval",
    "Lane",
    "Share",
    "Sized",
    "Style",
    "Trace",
    "behind",
    "beneath",
    "by_size",
    "has_lines",
    "heatmap",
    "histogram",
    "lines",
    "percentiles",
    "shares",
    "stack",
    "story",
]
