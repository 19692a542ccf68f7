"""Values that occur in a window, for the filters."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from analytics.answer import Answer, Coverage
from analytics.inquiry import Inquiry
from analytics.selection import Filter, Selection
from analytics.values import moment, names
from base.named_sql import beside

if TYPE_CHECKING:
    from datetime import datetime

    from analytics.inquiry import Reader


_SQL: Final = beside(__file__)
_ROWS_MS: Final = 3_600_000
"""Choices read every row of the newest so many milliseconds; before that the rollup by minute, a thousandth of it."""
_SHOWN: Final = {"include": "1", "exclude": "recording = ''", "only": "recording != ''"}
"""Condition on a row whose values are offered."""


@dataclass(frozen=True, slots=True)
class Choices:
    """Values that occur in a window, for the filters; each list sorted, empty values left out.

    Attributes:
        models, tenants, instances, deployments, engines, regions, versions: Distinct values of rows and samples.
            Tenants and outcomes are those of rows; at most 500 each.
        recordings: Names of all recordings that there are, also where the filter leaves them out.
        outcomes: Distinct outcomes.
    """

    models: list[str]
    tenants: list[str]
    instances: list[str]
    deployments: list[str]
    engines: list[str]
    regions: list[str]
    versions: list[str]
    recordings: list[str]
    outcomes: list[str]


def ask(store: Reader, selection: Selection) -> Answer[Choices]:
    """Values for the filters. The filter narrows nothing but ``recording`` and ``tenant``: one can always widen again.

    A tenant filter is kept, so that somebody who may see one tenant is offered no other. Of a window over an hour,
    what engines told of requests that nothing stood in front of counts for the last hour alone.
    """
    inquiry = Inquiry(store, selection, sql=_SQL)
    window, recording = selection.window, selection.filter.recording
    widened = Inquiry(store, Selection(window, Filter(tenant=selection.filter.tenant)), _SQL, inquiry.asked)
    rows_from_ms = max(window.from_ms, window.to_ms - _ROWS_MS)
    parts = widened.ask("choices", {"shown": _SHOWN[recording]}, rows_from_ms=rows_from_ms)

    def values(column: str) -> list[str]:
        return list(names([value for part in parts for value in part[column]]))

    def told(kind: str) -> tuple[int, datetime | None]:
        held = [(int(part["n"]), int(part["newest"])) for part in parts if part["part"] == kind and part["n"]]
        return sum(n for n, _ in held), moment(max(newest for _, newest in held)) if held else None

    columns = (
        "models",
        "tenants",
        "instances",
        "deployments",
        "engines",
        "regions",
        "versions",
        "recordings",
        "outcomes",
    )
    result = Choices(*(values(column) for column in columns))
    (rows, last_row), (samples, last_sample) = told("rows"), told("samples")
    among = () if recording == "exclude" else tuple(result.recordings)
    cover = Coverage(rows, samples, last_row, last_sample, recordings=among)
    return inquiry.answer(
        result,
        cover,
        level="rows" if rows else "metrics",
        exactness="exact",
        rows=rows + samples,
        samples_used=True,
        goes_by=("tenant",),
    )
