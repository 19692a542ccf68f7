"""Lines of samples that come more seldom than a chart's steps."""

from __future__ import annotations

import pytest

from analytics.samples import held

N = None


@pytest.mark.parametrize(
    ("line", "step", "wanted"),
    [
        ([1.0, N, N, 2.0, N, N, 3.0, N, N, N], 5, [1, 1, 1, 2, 2, 2, 3, 3, 3, N]),
        ([1.0, 2.0, N, 3.0, 4.0], 5, [1, 2, N, 3, 4]),
        ([1.0, N, 2.0, N, N, N, N, 3.0, N, 4.0], 5, [1, 1, 2, 2, N, N, N, 3, 3, 4]),
        ([1.0, N, N, 2.0], 5, [1, N, N, 2]),
        ([N, 1.0, N, N, N, 2.0, N, N, N, 3.0], 60, [N, 1, 1, N, N, 2, 2, N, N, 3]),
        ([N, N], 1, [N, N]),
    ],
    ids=["every third step", "every step", "a gap", "two are no rule", "two minutes at most", "nothing"],
)
def test_a_value_holds_until_the_next_may_be_expected(
    line: list[float | None], step: float, wanted: list[float | None]
):
    assert held(line, step) == wanted
