from __future__ import annotations

import json
import math

from hypothesis import given
from hypothesis import strategies as st

from alerts.state import AlertState, Observation, Phase, Timing, step

timings = st.builds(
    Timing,
    for_seconds=st.sampled_from([0.0, 1.0, 3.0, 10.0]),
    keep_firing_seconds=st.sampled_from([0.0, 2.0, 15.0]),
    no_data=st.sampled_from(["ok", "keep", "alert"]),
    stale_after_seconds=st.sampled_from([5.0, 300.0]),
)
# (seconds since the last round, what it saw)
rounds = st.lists(st.tuples(st.floats(0.5, 20), st.sampled_from([True, False, None])), max_size=40)


def play(timing: Timing, course: list[tuple[float, bool | None]]) -> list[tuple[float, Phase, AlertState, bool | None]]:
    """Every round as (time, phase entered or None, state after it, what was seen)."""
    state, now, told = AlertState(), 1000.0, []
    for pause, breached in course:
        now += pause
        done = step(state, Observation(breached, now, 1.0), now, timing)
        state = done.state
        told.append((now, done.entered, state, breached))
    return told


@given(timings, rounds)
def test_transitions_follow_the_only_order_there_is(timing: Timing, course: list[tuple[float, bool | None]]):
    phase = Phase.INACTIVE
    for _, entered, state, _ in play(timing, course):
        if entered is Phase.PENDING:
            assert phase is Phase.INACTIVE
        elif entered is Phase.FIRING:
            assert phase in {Phase.INACTIVE, Phase.PENDING}
        elif entered is Phase.RESOLVED:
            assert phase in {Phase.PENDING, Phase.FIRING}
        phase = Phase.INACTIVE if entered is Phase.RESOLVED else entered or phase
        assert state.phase is phase


@given(timings, rounds)
def test_fires_only_after_the_condition_held_long_enough(timing: Timing, course: list[tuple[float, bool | None]]):
    held_since = None
    for now, entered, _, breached in play(timing, course):
        holds = breached is True or (breached is None and timing.no_data == "alert")
        clear = breached is False or (breached is None and timing.no_data == "ok")
        held_since = None if clear else (held_since or now) if holds else held_since
        if entered is Phase.FIRING and timing.no_data != "alert":
            assert held_since is not None
            assert now - held_since >= timing.for_seconds


@given(timings, rounds)
def test_resolves_only_after_a_quiet_keep_firing_for(timing: Timing, course: list[tuple[float, bool | None]]):
    last_breach, firing = -math.inf, False
    for now, entered, _, breached in play(timing, course):
        if breached or (breached is None and timing.no_data == "alert"):
            last_breach = now
        if entered is Phase.RESOLVED and firing and breached is not None:
            assert now - last_breach >= timing.keep_firing_seconds
        firing = entered is Phase.FIRING or (firing and entered is not Phase.RESOLVED)


@given(timings, rounds, st.integers(0, 39))
def test_a_restart_at_any_point_changes_nothing(timing: Timing, course: list[tuple[float, bool | None]], cut: int):
    whole = play(timing, course)
    state, now, told = AlertState(), 1000.0, []
    for index, (pause, breached) in enumerate(course):
        if index == cut:
            state = AlertState.from_dict(json.loads(json.dumps(state.as_dict())))
        now += pause
        done = step(state, Observation(breached, now, 1.0), now, timing)
        state = done.state
        told.append(done.entered)
    assert told == [entered for _, entered, _, _ in whole]


def test_for_is_measured_by_the_data_not_by_the_evaluator():
    # three seconds of samples, seen at once by a round that comes every minute
    done = step(AlertState(), Observation(True, 103.0, 57, since=100.0), 160.0, Timing(3.0))
    assert done.entered is Phase.FIRING
    # a late view of a single sample proves nothing yet
    done = step(AlertState(), Observation(True, 103.0, 57, since=103.0), 160.0, Timing(3.0))
    assert done.entered is Phase.PENDING


def test_a_gap_between_rounds_starts_the_wait_anew():
    pending = step(AlertState(), Observation(True, 100.0, 1), 100.0, Timing(10.0)).state
    broken = step(pending, Observation(True, 111.0, 1, since=109.0, unbroken=False), 111.0, Timing(10.0))
    assert broken.entered is None
    assert broken.state.breach_since == 109.0
    whole = step(pending, Observation(True, 111.0, 1, since=109.0, unbroken=True), 111.0, Timing(10.0))
    assert whole.entered is Phase.FIRING


def test_silence_keeps_a_firing_alert_until_its_subject_is_gone():
    firing = step(AlertState(), Observation(True, 100.0, 1), 100.0, Timing()).state
    timing = Timing(0, 0, "keep", 300)
    assert step(firing, Observation(None, 200.0), 200.0, timing).entered is None
    over = step(firing, Observation(None, 401.0), 401.0, timing)
    assert over.entered is Phase.RESOLVED
    assert "no data" in over.reason
