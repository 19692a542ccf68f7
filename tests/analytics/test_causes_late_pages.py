"""A page that comes late: its server stood still where nobody was served meanwhile, and nowhere else."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from analytics.causes.place import places_of
from analytics.causes.table import Event, Evidence, Host, requests_of, samples_of
from tests.analytics.test_causes_taps_alone import whole
from tests.kits.causes_sim import ORIGIN_MS

ASKED, TOOK = 12.5, 2.6
"""Seconds since the origin, and for which the page was waited."""
SERVED = [(1.0 * at, 0.1) for at in range(12)]
"""Requests before: when each came, and what it took."""
CAUGHT = [(12.05, 3.1), (12.8, 2.4), (14.0, 1.3)]
"""Those that were inside, or came, while nothing moved."""
LATER = [(15.2 + at, 0.1) for at in range(5)]


def frozen(
    requests: list[tuple[float, float]],
    took: float = TOOK,
    delay: float = 0.0,
    events: tuple[Event, ...] = (),
    back: float = 15.5,
    *,
    up: bool = True,
) -> list[tuple[float, float]]:
    """Spans in which the server stood still, its pages read each second but for one that took longer or never came."""
    names = [name for name in whole() if name not in {"key", "at_ms", "e2e_s"}]
    columns: dict[str, Any] = {name: [whole()[name]] * len(requests) for name in names}
    columns |= {"at_ms": [ORIGIN_MS + 1000 * start for start, _ in requests], "key": list(range(len(requests)))}
    columns |= {"e2e_s": [e2e for _, e2e in requests], "ttft_s": [0.0] * len(requests)}
    time = np.array([*np.arange(0.5, 13.0), *np.arange(back, 24.0)])
    late = time == ASKED
    row: dict[str, Any] = {"name": ["a"] * len(time), "at_ms": ORIGIN_MS + 1000 * time, "up": (time != ASKED) | up}
    row |= {"interval": np.diff(time, prepend=-0.5), "progress": np.ones(len(time))}
    row |= {"took": np.where(late, took, 0.01), "asked_ms": row["at_ms"]}
    row |= dict.fromkeys(("running", "waiting", "kv", "preemptions"), np.zeros(len(time)))
    host = Host(delay_time=np.arange(20.0), delay=np.full(20, delay))
    found = Evidence(requests_of(columns, ORIGIN_MS, ORIGIN_MS), samples_of(row, ORIGIN_MS), {"a": host}, list(events))
    (place,) = places_of(found, np.zeros(len(requests)))
    return place.frozen


def test_nobody_was_served_until_the_page_came():
    assert frozen([*SERVED, *CAUGHT, *LATER]) == [pytest.approx((12.05, ASKED + TOOK))]


@pytest.mark.parametrize(("back", "expected"), [(15.5, True), (17.5, True), (23.5, False)])
def test_a_page_that_never_came_is_asked_for_again_when_others_are_served_already(back: float, expected: bool):
    """Unless it is away for long while others are served: then it is the page that does not answer."""
    found = frozen([*SERVED, *CAUGHT, *LATER], back=back, up=False, took=0.0)
    assert found == ([pytest.approx((12.05, 15.15))] if expected else [])


def test_the_last_that_was_served_says_when_it_began():
    assert frozen([*SERVED, (11.9, 0.35), *CAUGHT, *LATER]) == [pytest.approx((12.25, ASKED + TOOK))]


@pytest.mark.parametrize(
    "what",
    [
        pytest.param({"requests": [*SERVED, *CAUGHT, (13.5, 0.2), *LATER]}, id="others were served meanwhile"),
        pytest.param({"requests": [*SERVED, *LATER]}, id="nobody was inside"),
        pytest.param({"requests": [*SERVED, *CAUGHT, *LATER], "took": 1.2}, id="not so late"),
        pytest.param({"requests": [*SERVED, *CAUGHT, *LATER], "delay": 0.6}, id="it had no CPU"),
        pytest.param(
            {"requests": [*SERVED, *CAUGHT, *LATER], "events": (Event(15.0, "instance_restarted", "a", "", ""),)},
            id="it began anew",
        ),
    ],
)
def test_a_late_page_alone_is_no_stand_still(what: dict[str, Any]):
    assert frozen(**what) == []
