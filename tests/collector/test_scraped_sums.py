"""What counts by interval has the increases that it counted, however it comes."""

from __future__ import annotations

import random
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from collector.auth import NOBODY
from collector.ledger import Ledger
from collector.scraped import sums
from collector.scraped.derive import Deriver
from collector.scraped.pages import PATIENCE_SECONDS
from collector.scraped.series import Point
from tests.kits.otlp_pages import scraped
from tests.kits.scraped import SECOND, START, Taker, clock, page, settled, told, waited
from tests.kits.scraped_target import Target

if TYPE_CHECKING:
    from agent.pages.page import Page

__all__ = ["clock"]
MODEL: Final = {"model_name": "m"}
COUNTER: Final = "vllm:prompt_tokens_total"


def interval(since: int, until: int, value: float, process: int = 0, name: str = COUNTER, **labels: str) -> list[Point]:
    """A page of one gauge and one counter that tells what it gained, times in seconds."""
    at = START + until * SECOND
    since_ns = START + since * SECOND if since >= 0 else 0
    return [
        Point(at, "up", {}, 1.0),
        Point(at, "process_start_time_seconds", {}, float(process)),
        Point(at, "vllm:num_requests_running", MODEL, 1.0),
        Point(at, name, {**MODEL, **labels}, value, since_ns),
    ]


def gains(target: Target) -> list[float | None]:
    return [shown.get("prompt_tokens_delta") for _, (_, shown) in target.rows()]


def come(*pages: list[Point]) -> Target:
    target = Target()
    for one in pages:
        target.come(one, after=1.0)
        target.come([], after=PATIENCE_SECONDS)
    target.wait()
    return target


def repeated(target: Target) -> int:
    return int(target.ledger.derive_repeated._value.get() + target.assembly.repeated)  # type: ignore[attr-defined]


@st.composite
def histories(draw: st.DrawFn) -> tuple[list[int], list[int], int, list[tuple[int, int]]]:
    """What each second counted, where it is cut, when the process is started anew, and what comes again and when."""
    counted = draw(st.lists(st.integers(0, 30), min_size=4, max_size=24))
    inner = draw(st.sets(st.integers(1, len(counted) - 1)))
    cuts = [0, *sorted(inner), len(counted)]
    again = draw(st.lists(st.tuples(st.integers(0, len(cuts) - 2), st.integers(0, len(cuts) - 2)), max_size=6))
    return counted, cuts, draw(st.sampled_from(cuts)), [(max(pair), min(pair)) for pair in again]


@settings(max_examples=150, deadline=None)
@given(histories())
def test_increases_are_those_of_the_truth_however_it_is_cut(
    history: tuple[list[int], list[int], int, list[tuple[int, int]]],
) -> None:
    counted, cuts, restart, again = history
    pages = [
        interval(since, until, sum(counted[since:until]), process=int(since >= restart))
        for since, until in pairwise(cuts)
    ]
    target = Target()
    for number, one in enumerate(pages):
        target.come(one, after=float(cuts[number + 1] - cuts[number]))
        target.come([], after=PATIENCE_SECONDS)
        for earlier in [earlier for after, earlier in again if after == number]:
            target.come(pages[earlier])
    target.wait()
    # what was counted before the first page was seen is nobody's increase
    assert sum(gain or 0.0 for gain in gains(target)) == sum(counted[cuts[1] :])
    assert repeated(target) == len(again)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 1 << 32), st.integers(1, 4))
def test_nothing_is_missing_or_twice_in_whatever_order_it_comes(seed: int, count: int) -> None:
    draw = random.Random(seed)
    target = Target()
    counted = [draw.randrange(30) for _ in range(16)]
    pages = [interval(at - 1, at, value) for at, value in enumerate(counted)]
    for one in pages[:4]:
        target.come(one, after=1.0)
        target.come([], after=PATIENCE_SECONDS)
    queues: list[list[list[Point]]] = [[] for _ in range(count)]
    for one in pages[4:]:
        draw.choice(queues).append(one)
    while queues := [one for one in queues if one]:
        target.come(draw.choice(queues).pop(0), after=draw.choice([0.0, 0.01, 1.0]))
    target.wait()
    assert len(gains(target)) == len(pages)
    assert sum(gain or 0.0 for gain in gains(target)) == sum(counted[1:])
    assert repeated(target) == 0


async def samples_of(clock: list[float], pages: list[tuple[int, Page]], *, delta: bool) -> list[Any]:
    taker, ledger = Taker(), Ledger()
    deriver = Deriver(taker, ledger)  # type: ignore[arg-type]
    before: tuple[int, Page] | None = None
    for time_ns, one in pages:
        deriver.look(scraped(time_ns, one, before, delta=delta), NOBODY)
        await waited(deriver, clock)
        before = time_ns, one
    await settled(deriver, clock)
    assert ledger.derive_errors._value.get() == 0  # type: ignore[attr-defined]
    return told(body for signal, body, _ in taker.taken if signal == "metrics")


async def test_a_page_by_intervals_becomes_the_samples_of_the_page(clock: list[float]) -> None:
    pages = [(START + at * SECOND, page(name)) for at, name in enumerate(("idle", "busy_02", "busy_04", "after"))]
    wanted, found = [await samples_of(clock, pages, delta=delta) for delta in (False, True)]
    assert len(wanted) == len(found) == 4
    for (at, whose, values), (at_too, whose_too, values_too) in zip(wanted[1:], found[1:], strict=True):
        assert (at, whose) == (at_too, whose_too)
        # since when the server counts, nobody tells any more
        names = {name for name in values if not name.endswith("_total")}
        assert names == {name for name in values_too if not name.endswith("_total")}
        assert any(name.endswith("_delta") for name in names)
        for name in names:
            one = values[name]
            wanted_one = (pytest.approx(one[0]), one[1]) if isinstance(one, tuple) else pytest.approx(one)
            assert values_too[name] == wanted_one


def test_the_first_interval_is_no_increase_and_a_sum_goes_on() -> None:
    target = come(interval(0, 5, 7.0), interval(5, 6, 3.0), interval(6, 7, 0.0), interval(7, 8, 4.0))
    assert gains(target) == [None, 3.0, 0.0, 4.0]
    assert [shown["prompt_tokens_total"] for _, (_, shown) in target.rows()] == [7.0, 10.0, 10.0, 14.0]


def test_after_a_gap_only_what_was_told_is_an_increase() -> None:
    target = come(interval(0, 1, 7.0), interval(1, 2, 3.0), interval(9, 10, 5.0), interval(10, 11, 1.0))
    assert gains(target) == [None, 3.0, 5.0, 1.0]


def test_where_no_start_is_told_each_point_is_new() -> None:
    assert gains(come(interval(-1, 1, 7.0), interval(-1, 2, 3.0), interval(-1, 3, 5.0))) == [None, 3.0, 5.0]


def test_a_point_without_a_duration_has_a_value_of_unknown_age() -> None:
    """As the first one of a Collector that was started again and sends it (``initial_value: keep``)."""
    pages = [interval(0, 1, 7.0), interval(2, 2, 1e6), interval(2, 3, 5.0)]
    new = interval(4, 4, 9e5, source="video")[-1], interval(4, 5, 2.0, source="video")[-1]
    pages += [[*interval(3, 4, 1.0), new[0]], [*interval(4, 5, 1.0), new[1]]]
    assert gains(come(*pages)) == [None, 0.0, 5.0, 1.0, 3.0]


def test_of_two_who_tell_of_the_same_time_one_is_heard() -> None:
    target = come(
        interval(0, 10, 7.0), interval(1, 11, 7.0), interval(10, 20, 5.0), interval(11, 21, 6.0), interval(20, 30, 1.0)
    )
    assert sum(gain or 0.0 for gain in gains(target)) == 6.0
    assert repeated(target) == 2


def test_what_comes_after_its_page_is_in_the_next_increase() -> None:
    target = Target()
    for at in range(1, 4):
        target.come(interval(at - 1, at, 1.0), after=1.0)
        target.come([], after=PATIENCE_SECONDS)
    late = interval(2, 3, 40.0, source="video")[-1]
    target.come([late])
    target.come([late])
    target.come([*interval(3, 4, 2.0), interval(3, 4, 5.0, source="video")[-1]], after=1.0)
    target.wait()
    assert gains(target) == [None, 1.0, 1.0, 47.0]
    assert repeated(target) == 1
    assert target.assembly.late == 0


@pytest.mark.parametrize("by_interval", [True, False])
def test_a_newest_page_that_comes_again_holds_up_none_after_it(*, by_interval: bool) -> None:
    def at_second(at: int) -> list[Point]:
        found = interval(at - 1, at, 1.0)
        return found if by_interval else [one._replace(since_ns=None) for one in found]

    target = Target()
    for at in range(1, 4):
        target.come(at_second(at), after=1.0)
    target.come([], after=PATIENCE_SECONDS)
    for _ in range(3):
        target.come(at_second(3))
    target.come(at_second(4), after=1.0)
    assert len(target.rows()) == 4

    for _ in range(2):  # what it had not is no repeat: the next page is waited for until it has as much
        target.come([Point(START + 4 * SECOND, "vllm:num_requests_waiting", MODEL, 2.0)])
    target.come(at_second(5), after=1.0)
    assert len(target.rows()) == 4
    target.come([Point(START + 5 * SECOND, "vllm:num_requests_waiting", MODEL, 2.0)])
    assert len(target.rows()) == 5
    assert repeated(target) == 3 * by_interval


def test_a_process_that_is_started_again_has_not_gained_all_it_ever_did() -> None:
    target = come(interval(0, 1, 7.0), interval(1, 2, 3.0), interval(3, 4, 5.0, process=3), interval(4, 5, 1.0, 3))
    assert gains(target) == [None, 3.0, 5.0, 1.0]
    assert "instance_restarted" in [event for _, event in target.events]


def test_after_a_start_of_the_collector_the_sum_begins_again_and_nothing_is_gained_by_it() -> None:
    pages = [interval(at, at + 1, 10.0) for at in range(6)]
    before, after = come(*pages[:3]), come(*pages[3:])
    assert (gains(before), gains(after)) == ([None, 10.0, 10.0], [None, 10.0, 10.0])


def test_a_sender_that_changes_its_temporality_makes_no_jump() -> None:
    total = [Point(START + 3 * SECOND, COUNTER, MODEL, 1e6), Point(START + 4 * SECOND, COUNTER, MODEL, 1e6 + 2)]
    pages = [interval(0, 1, 7.0), interval(1, 2, 3.0), *([*interval(0, 3, 0.0)[:3], one] for one in total[:1])]
    pages += [[*interval(0, 4, 0.0)[:3], total[1]], interval(4, 5, 6.0), interval(5, 6, 8.0)]
    assert gains(come(*pages)) == [None, 3.0, None, 2.0, 6.0, 8.0]


def test_a_series_that_did_not_change_may_be_left_out() -> None:
    """As SDKs do; of Triton what is not on its page is over."""
    name = "nv_inference_count"
    pages = [interval(at, at + 1, 4.0, name=name, model="a", version="1") for at in range(400)]
    for one in pages:
        one[2] = one[2]._replace(name="nv_inference_pending_request_count", labels={"model": "a", "version": "1"})
    for one in [*pages[2:5], *pages[6:399]]:
        del one[3]
    shown = [values for _, (_, values) in come(*pages).rows()]
    assert [one.get("inferences_delta") for one in shown[:7]] == [None, 4.0, 0.0, 0.0, 0.0, 4.0, 0.0]
    # five minutes later it is gone
    assert "inferences_delta" not in shown[390]
    assert shown[399]["inferences_delta"] == 4.0


def test_sums_are_bounded_and_the_oldest_are_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sums, "MOST_SERIES", 3)
    pages = [interval(at, at + 1, 2.0, source=str(at)) for at in range(8)]
    target = come(*pages, interval(8, 9, 5.0, source="0"))
    assert target.ledger.derive_forgotten._value.get() == 6  # type: ignore[attr-defined]
    assert sum(gain or 0.0 for gain in gains(target)) == 7 * 2.0 + 5.0
    assert target.order is not None
    (run,) = target.order._runs
    assert len(run.reader.sums._kept) == 3
