"""In whatever order pages come, their samples are those of pages that came one after the other."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Final

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from collector.scraped.cadence import Cadence
from collector.scraped.order import HOLD_SECONDS
from collector.scraped.pages import PATIENCE_SECONDS
from collector.scraped.series import Point
from tests.kits.scraped import SECOND, START, told
from tests.kits.scraped_target import Target

if TYPE_CHECKING:
    from collections.abc import Sequence

MODEL: Final = {"model_name": "m"}
DELTA: Final = "prompt_tokens_delta"
PAGES: Final = 14
KNOWN: Final = 4
"""Pages that come one after the other before the others come as they like: so their interval is known."""


def values(at: int) -> list[Point]:
    """What a scrape of a server is, that was started anew before page 9 and could not be reached at page 6."""
    time_ns = START + at * SECOND
    down = at == 6
    scraper = {"up": 0.0 if down else 1.0, "scrape_duration_seconds": 0.01 * (at + 1)}
    total = float(at * at + 10 if at < 9 else at)
    shown = {} if down else {
        "vllm:num_requests_running": float(at), "vllm:prompt_tokens_total": total,
        "vllm:e2e_request_latency_seconds_sum": total // 2 / 4, "vllm:e2e_request_latency_seconds_count": total // 2,
    }  # fmt: skip
    counted = {"scrape_samples_post_metric_relabeling": 0.0 if down else 6.0}
    buckets = [] if down else [("0.3", total // 3), ("+Inf", total // 2)]
    return [
        *(Point(time_ns, name, {}, value) for name, value in (scraper | counted).items()),
        *(Point(time_ns, name, MODEL, value) for name, value in shown.items()),
        *(Point(time_ns, "vllm:e2e_request_latency_seconds_bucket", MODEL | {"le": le}, n) for le, n in buckets),
    ]


def regular(*pages: int) -> Target:
    """A target whose pages came as they were scraped."""
    target = Target()
    for number, at in enumerate(pages):
        target.come(values(at), after=1.0)
        if not number:
            target.come([], after=PATIENCE_SECONDS)
    return target


def shards(draw: random.Random, pages: Sequence[int], count: int, *, by_series: bool) -> list[list[list[Point]]]:
    """The requests of each shard, in its own order."""
    found: list[list[list[Point]]] = [[] for _ in range(count)]
    for at in pages:
        if not by_series:
            found[draw.randrange(count)].append(values(at))
            continue
        for shard in range(count):
            mine = [point for point in values(at) if hash((point.name, point.labels.get("le"))) % count == shard]
            if mine:
                found[shard].append(mine)
    return found


@given(seed=st.integers(0, 1 << 32), count=st.integers(1, 4), by_series=st.booleans())
@settings(max_examples=60, deadline=None)
def test_any_interleaving_of_shards_makes_the_samples_of_pages_in_order(seed: int, count: int, by_series: bool) -> None:
    draw = random.Random(seed)
    straight = regular(*range(PAGES))
    straight.wait()
    target = regular(*range(KNOWN))
    queues = [one for one in shards(draw, range(KNOWN, PAGES), count, by_series=by_series) if one]
    target.now += 3600
    while queues:
        queue = draw.choice(queues)
        target.come(queue.pop(0), after=draw.choice([0.0, 0.01, 1.0]))
        queues = [one for one in queues if one]
    target.wait()
    assert target.rows() == straight.rows()
    assert len(told(target.bodies)) == PAGES  # none was told twice
    assert sorted(target.events) == sorted(straight.events)
    assert target.assembly.late == 0


@given(seed=st.integers(0, 1 << 32), count=st.integers(1, 4))
@example(seed=590, count=4)  # a page by which the interval is known, so that pages around it meet
@settings(max_examples=40, deadline=None)
def test_whatever_comes_first_nothing_that_was_gained_is_missing_or_twice(seed: int, count: int) -> None:
    """As after a start of the collector in the middle of it, when nobody knows the interval yet."""
    draw = random.Random(seed)
    target, pages = Target(), range(10, 24)
    queues = [one for one in shards(draw, pages, count, by_series=False) if one]
    while queues:
        queue = draw.choice(queues)
        target.come(queue.pop(0), after=draw.choice([0.0, 0.3]))
        queues = [one for one in queues if one]
    target.wait()
    rows = target.rows()
    assert [time_ns for time_ns, _ in rows] == [START + at * SECOND for at in pages]
    assert sum(shown.get(DELTA, 0.0) for _, (_, shown) in rows) == pages[-1] - pages[0]


def test_live_pages_are_told_at_once_while_older_ones_are_on_their_way() -> None:
    target = regular(0, 1, 2)
    target.now += 3
    for at in (10, 11, 12):
        target.come(values(at), after=1.0)
    assert [time_ns for time_ns, _ in target.rows()] == [START + at * SECOND for at in (0, 1, 2, 11, 12)]
    for at in (9, 8, 7, 5, 4, 3):
        target.come(values(at))
    assert len(target.rows()) == 11  # 7 alone waits for 6
    target.come(values(6))
    target.come([], after=PATIENCE_SECONDS)
    assert target.rows() == regular(*range(13)).rows()


def test_what_never_comes_is_not_waited_for_for_ever() -> None:
    target = regular(0, 1, 2)
    target.come(values(5), after=3.0)
    assert len(target.rows()) == 3
    target.come([], after=HOLD_SECONDS)
    (*_, (_, (_, shown))) = target.rows()
    assert (shown["interval_seconds"], shown[DELTA]) == (3.0, 25.0 - 4.0)
    # what comes all the same is told, and gained nothing that was not counted
    target.come(values(4))
    rows = target.rows()
    assert len(rows) == 5
    assert rows[3][1][1]["prompt_tokens_total"] == 26.0
    assert DELTA not in rows[3][1][1]


def test_at_the_end_all_that_waits_is_told_in_order() -> None:
    target = regular(0, 1, 2)
    target.come(values(5), after=3.0)
    target.come(values(8)[:4])
    target.hand_on(last=True)
    rows = target.rows()
    assert [time_ns for time_ns, _ in rows] == [START + at * SECOND for at in (0, 1, 2, 5, 8)]
    assert rows[3][1][1][DELTA] == 21.0


def test_many_gaps_are_bounded() -> None:
    target = regular(0, 1, 2)
    for at in range(20, 400, 10):
        target.come([point._replace(time_ns=START + at * SECOND) for point in values(5)])
    assert target.order is not None
    assert len(target.order._runs) <= 16


@pytest.mark.parametrize(
    ("spacings", "interval"),
    [
        ([(5, 5.0)], 5),
        ([(5, 0.0)], 0),  # they came together: there may be others between them
        ([(5, 0.0), (5, 0.0)], 5),
        ([(1, 1.0), (15, 15.0), (15, 15.0)], 1),
        ([(1, 1.0), (15, 15.0), (15, 15.0), (15, 15.0)], 15),
        ([(15, 15.0), (3600, 3600.0), (15, 15.0)], 15),
        ([(2, 2.0), (1, 0.0), (1, 0.0)], 1),
        ([(2, 2.0), (1, 0.0), (2, 0.0)], 2),
    ],
)
def test_the_interval_is_learned(spacings: list[tuple[int, float]], interval: int) -> None:
    cadence = Cadence()
    for seconds, came in spacings:
        cadence.learn(seconds * SECOND, came)
    assert cadence.interval_ns == interval * SECOND
