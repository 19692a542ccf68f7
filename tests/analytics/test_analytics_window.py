from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from analytics.answer import Answer, Coverage
from analytics.conditions import one_of
from analytics.selection import Filter, Selection
from analytics.window import STEPS, Window, WindowError

moments = st.integers(978_307_200_000_000, 3_786_912_000_000_000).map(
    lambda us: datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=us)
)
lengths = st.floats(0.001, 90 * 86400.0)


def window_of(start: datetime, seconds: float) -> Window:
    return Window(start, start + timedelta(seconds=seconds) + timedelta(milliseconds=1))


@given(moments, lengths, st.integers(1, 500))
def test_steps_cover_the_window_without_gap_or_overlap(start: datetime, seconds: float, points: int):
    window = window_of(start, seconds)
    step = window.step(points)
    times = window.times(step)
    assert step in STEPS or step % 86400 == 0
    assert all(int(t.timestamp()) % step == 0 and t.microsecond == 0 for t in times)
    assert all((b - a).total_seconds() == step for a, b in pairwise(times))
    assert times[0] <= window.start < times[0] + timedelta(seconds=step)
    assert times[-1] < window.end <= times[-1] + timedelta(seconds=step)
    assert len(times) <= points + 2
    assert sum(window.covered(step)) == pytest.approx((window.to_ms - window.from_ms) / 1000)
    assert all(0 < part <= step for part in window.covered(step))


@given(moments, lengths)
def test_no_instant_of_the_window_falls_outside_its_milliseconds(start: datetime, seconds: float):
    window = window_of(start, seconds)
    epoch = datetime(1970, 1, 1, tzinfo=UTC)
    assert timedelta(milliseconds=window.from_ms) <= window.start - epoch
    assert timedelta(milliseconds=window.to_ms) >= window.end - epoch
    assert (window.end - epoch) - timedelta(milliseconds=window.to_ms) > -timedelta(milliseconds=1)


@given(moments, st.integers(1, 86400), st.sampled_from([1, 5, 10, 60]))
def test_last_ends_on_a_multiple_and_is_shared_by_those_who_look_at_nearly_the_same_time(
    now: datetime, seconds: int, round_to: int
):
    window = Window.last(seconds, now, round_to)
    assert window.end.timestamp() % round_to == 0
    assert 0 <= (now - window.end).total_seconds() < round_to
    assert window.seconds == seconds
    same = window.end + timedelta(seconds=round_to * 0.999)
    assert Window.last(seconds, same, round_to) == window


@given(moments, lengths)
def test_the_previous_window_has_the_same_length_and_touches(start: datetime, seconds: float):
    window = window_of(start, seconds)
    assert window.previous().end == window.start
    assert window.previous().end - window.previous().start == window.end - window.start


def test_times_are_kept_in_utc_and_naive_or_reversed_ones_are_refused():
    berlin = timezone(timedelta(hours=2))
    window = Window(datetime(2026, 5, 1, 12, tzinfo=berlin), datetime(2026, 5, 1, 13, tzinfo=berlin))
    assert window.start == datetime(2026, 5, 1, 10, tzinfo=UTC)
    assert window.start.tzinfo is UTC
    with pytest.raises(WindowError, match="no time zone"):
        Window(datetime.fromisoformat("2026-05-01"), datetime(2026, 5, 2, tzinfo=UTC))
    with pytest.raises(WindowError, match="not after its start"):
        Window(window.end, window.start)
    with pytest.raises(WindowError, match="not after its start"):
        Window(window.start, window.start)


def test_a_filter_takes_lists_and_refuses_a_bare_text_and_an_unknown_word():
    assert Filter(model=["a", "b"]).model == ("a", "b")  # type: ignore[arg-type]
    with pytest.raises(WindowError, match="model"):
        Filter(model="llama")  # type: ignore[arg-type]
    with pytest.raises(WindowError, match="recording"):
        Filter(recording="never")  # type: ignore[arg-type]


@dataclass(frozen=True)
class Thing:
    at: datetime
    values: list[float | None]


def test_the_envelope_is_json_with_the_documented_keys():
    window = Window(datetime(2026, 5, 1, tzinfo=UTC), datetime(2026, 5, 1, 0, 10, tzinfo=UTC))
    cover = Coverage(samples=3, instances_up=("vllm-0",))
    result = Thing(datetime(2026, 5, 1, 0, 1, 2, 345678, tzinfo=UTC), [1.0, None, float("inf"), float("nan")])
    answer = Answer(result, "metrics", "derived", 0, window.start, (), ("rec",), cover, ("A note.",), "no_traffic")
    told = json.loads(json.dumps(answer.envelope(Selection(window, Filter(model=("m",)))), allow_nan=False))
    assert set(told) == {"window", "filters", "level", "rows", "result"}
    assert told["window"] == {"start": "2026-05-01T00:00:00.000Z", "end": "2026-05-01T00:10:00.000Z", "seconds": 600.0}
    assert told["filters"]["model"] == ["m"]
    assert told["filters"]["recording"] == "include"
    assert told["result"]["at"] == "2026-05-01T00:01:02.345Z"
    assert told["result"]["values"] == [1.0, None, None, None]
    assert told["result"]["about"] == {
        "state": "no_traffic",
        "exactness": "derived",
        "freshness": "2026-05-01T00:00:00.000Z",
        "recordings": ["rec"],
        "notes": ["A note."],
        "instances_up": ["vllm-0"],
        "instances_down": [],
        "instances_left": [],
    }


@pytest.mark.parametrize(
    ("cover", "state"),
    [
        (Coverage(), "no_data"),
        (Coverage(samples=3, instances_up=("a",)), "no_traffic"),
        (Coverage(samples=3, instances_up=("a",), instances_down=("b",)), "no_traffic"),
        (Coverage(samples=3, instances_down=("b",)), "no_data"),
        (Coverage(rows=1, samples=3, instances_down=("b",)), "value"),
        (Coverage(samples=3, last_row=datetime(2026, 5, 1, tzinfo=UTC), instances_up=("a",)), "no_data"),
    ],
)
def test_what_was_asked_of_servers_that_are_all_down_is_not_known(cover: Coverage, state: str) -> None:
    assert cover.state == state


def test_long_names_are_compared_by_their_sums() -> None:
    short, held = one_of("model", "m", ("llama", "qwen"))
    assert (short, held) == ("model IN {m:Array(String)}", ["llama", "qwen"])
    long, sums = one_of("model", "m", ("x" * 5000, "=\n\u202e"))
    assert long == "lower(hex(MD5(model))) IN {m:Array(String)}"
    assert [len(item) for item in sums] == [32, 32]
