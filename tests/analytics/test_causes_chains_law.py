"""What holds of chains whatever was charged when: no circle, in order of time, no second twice, in whatever order."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from analytics.causes.advice import BEGAN, DRIVER, NAMES, ONSETS
from analytics.causes.chains import Beginning, Chain, Episode, Step, chained, in_words, links, way_of
from analytics.causes.mechanisms import BEGINNINGS, CROWDS, LEADS, WORK, depths
from analytics.causes.onset import Onset
from analytics.causes.place import AFTER_SECONDS, SLACK_SECONDS

if TYPE_CHECKING:
    import random

CAUSES = sorted({*LEADS, *(led for each in LEADS.values() for led in each)})


def episode(
    cause: str, since: float, seconds: list[float], instance: str = "a", asked: float = 1.0, deployment: str = "d"
) -> Episode:
    whole = np.array(seconds)
    return Episode(cause, instance, deployment, since + np.arange(float(len(seconds))), whole, whole * asked)


def beginning(event: str, at: float, *instances: str, until: float | None = None) -> Beginning:
    return Beginning(Onset(event, f"{event} at {at}", "", at), at if until is None else until, frozenset(instances))


def told(episodes: list[Episode], events: list[Beginning], excess: float = 100.0) -> list[Chain]:
    return chained(links(episodes, events, lambda *_: True), 0.0, excess)


EPISODES = st.lists(
    st.builds(
        episode,
        st.sampled_from(CAUSES),
        st.integers(0, 200).map(float),
        st.lists(st.floats(0.01, 50), min_size=1, max_size=120),
        st.sampled_from(["a", "b"]),
        st.floats(0.01, 1),
    ),
    max_size=14,
)
EVENTS = st.lists(
    st.builds(beginning, st.sampled_from(sorted(BEGINNINGS)), st.floats(0, 200), st.sampled_from(["a", "b"])),
    max_size=4,
)


@given(EPISODES, EVENTS, st.randoms(use_true_random=False))
def test_chains_have_no_circle_no_second_twice_and_go_forward_in_time(
    episodes: list[Episode], events: list[Beginning], chance: random.Random
) -> None:
    found = links(episodes, events, lambda *_: True)
    assert len(found) == len(episodes)
    by_episode = {id(link.episode): link for link in found}
    for link in found:
        seen = {id(link.episode)}
        while link.cause is not None:
            assert link.cause.since <= link.episode.since <= link.cause.until + SLACK_SECONDS
            assert link.cause.instance == link.episode.instance
            assert link.event is None
            link = by_episode[id(link.cause)]  # noqa: PLW2901 - up the chain
            assert id(link.episode) not in seen
            seen.add(id(link.episode))
    chains = chained(found, 0.0, 100.0)
    stood: dict[str, float] = {}
    for chain in chains:
        causes = [step.cause for step in chain.steps]
        assert len(set(causes)) == len(causes)
        for place, step in enumerate(chain.steps):
            assert step.after is None or step.after in causes[:place]
            assert step.seconds > 0
            stood[step.cause] = stood.get(step.cause, 0.0) + step.seconds
        assert chain.seconds == pytest.approx(sum(step.seconds for step in chain.steps))
        way, besides = way_of(chain.steps)
        assert sorted([*way, *besides]) == sorted(causes)
        assert in_words(chain, "06:54")
    for cause, seconds in stood.items():
        assert seconds <= sum(one.seconds() for one in episodes if one.cause == cause) * (1 + 1e-9)
    turned = list(episodes), list(events)
    for each in turned:
        chance.shuffle(each)  # type: ignore[arg-type]
    again = told(*turned)
    assert again == chains


def test_the_mechanisms_are_causes_without_a_circle_each_with_a_reason() -> None:
    order = depths()
    assert set(order) == set(DRIVER) == set(NAMES)
    for cause, led in LEADS.items():
        assert led
        for other, why in led.items():
            assert order[cause] < order[other]
            assert why
            assert not why.endswith(".")
    assert set(BEGINNINGS) <= set(ONSETS)
    assert all(set(led) <= set(DRIVER) for led in BEGINNINGS.values())
    assert {*WORK, *CROWDS} <= set(LEADS)
    assert set(BEGAN) == set(BEGINNINGS)


def test_what_most_of_the_seconds_of_lie_behind_it_counts_up_to_a_minute_after() -> None:
    slow = episode("slow_instance", 10, [1.0] * 30)
    queue = episode("queue_saturated", 20, [2.0] * 120)
    (chain,) = told([slow, queue], [])
    assert [step.cause for step in chain.steps] == ["slow_instance", "queue_saturated"]
    assert chain.steps[1].seconds == pytest.approx(2.0 * (slow.until + AFTER_SECONDS - 20 + 1))
    assert chain.steps[1].seconds < queue.seconds()
    assert told([slow, episode("queue_saturated", 20, [2.0] * 300)], []) == []


@pytest.mark.parametrize(
    ("since", "instance", "claimed"),
    [(20.0, "a", True), (9.0, "a", False), (47.0, "a", False), (20.0, "b", False)],
)
def test_no_link_backwards_elsewhere_or_long_after(since: float, instance: str, claimed: bool) -> None:
    found = told(
        [episode("slow_instance", 10, [1.0] * 30), episode("queue_saturated", since, [2.0] * 20, instance)], []
    )
    assert bool(found) is claimed


def test_what_lasts_brings_about_only_what_begins_within_a_minute() -> None:
    slow = episode("slow_instance", 0, [1.0] * 400)
    assert told([slow, episode("queue_saturated", 50, [2.0] * 20)], [])
    assert told([slow, episode("queue_saturated", 120, [2.0] * 20)], []) == []


def test_of_several_the_nearest_is_taken_and_a_fleet_is_one_chain() -> None:
    fleet = [
        one
        for name in ("a", "b", "c", "d")
        for one in (
            episode("cold_prefix_cache", 10, [1.0] * 30, name),
            episode("kv_cache_full", 15, [3.0] * 30, name),
            episode("preemption", 15, [1.0] * 30, name),
        )
    ]
    (chain,) = told(fleet, [beginning("deploy", 8.0, "a", "b", "c", "d")], 600.0)
    assert chain.instances == ["a", "b", "c", "d"]
    assert [(step.cause, step.after, step.seconds) for step in chain.steps] == [
        ("cold_prefix_cache", None, pytest.approx(120)),
        ("kv_cache_full", "cold_prefix_cache", pytest.approx(360)),
        ("preemption", "kv_cache_full", pytest.approx(120)),
    ]
    assert chain.share == pytest.approx(1.0)
    assert in_words(chain, "06:54") == (
        "began with a deploy at 06:54 (deploy at 8.0): cold prefix cache → KV cache full → preemptions "
        "on a, b, c and 1 more (100 % of the excess)"
    )
    apart = [episode("kv_cache_full", at, [3.0] * 30, name) for name, at in (("a", 10.0), ("b", 200.0))]
    apart += [episode("preemption", at + 1, [1.0] * 30, name) for name, at in (("a", 10.0), ("b", 200.0))]
    assert [one.instances for one in told(apart, [])] == [["a"], ["b"]]


def test_an_event_after_what_might_have_done_it_is_nearer_and_a_deploy_comes_before_its_restart() -> None:
    queue = episode("queue_saturated", 30, [9.0] * 10)
    slow = episode("slow_instance", 5, [1.0] * 60)
    (chain,) = told([slow, queue], [beginning("config_changed", 29.0, "a")])
    assert chain.began
    assert [step.cause for step in chain.steps] == ["queue_saturated"]
    # what comes into trouble that is no smaller began nothing
    (chain,) = told([slow, episode("queue_saturated", 30, [1.0] * 10)], [beginning("config_changed", 29.0, "a")])
    assert chain.began is None
    (chain,) = told([slow, queue], [beginning("config_changed", 2.0, "a")])
    assert chain.began is None
    cold = episode("cold_prefix_cache", 30, [1.0] * 10)
    (chain,) = told([cold], [beginning("restart", 25.0, "a", until=28.0), beginning("deploy", 20.0, "a")])
    assert chain.began
    assert chain.began.event == "deploy"
    assert told([cold], [beginning("deploy", 31.5, "a"), beginning("deploy", 20.0, "b")]) == []


def test_branches_are_told_after_the_way_of_most_seconds() -> None:
    steps = [
        Step("engine_frozen", None, "", 0.0, 5.0),
        Step("batch_interference", "engine_frozen", "x", 1.0, 2.0),
        Step("kv_cache_full", "engine_frozen", "x", 1.0, 3.0),
        Step("preemption", "kv_cache_full", "x", 1.0, 1.0),
    ]
    assert way_of(steps) == (["engine_frozen", "kv_cache_full", "preemption"], ["batch_interference"])
    told_ = in_words(Chain(None, ["a"], "d", 0.0, 11.0, 0.0, steps), "06:54")
    assert told_ == "began at 06:54: engine stood still → KV cache full → preemptions, and larger batches on a"


def test_work_begins_where_it_bends_and_not_with_what_is_usual() -> None:
    assert episode("longer_prompts", 0, [0.2] * 30 + [5.0] * 20).since == pytest.approx(30, abs=1)
    assert episode("longer_prompts", 0, [1.0] * 50).since <= 1
    assert episode("queue_saturated", 0, [0.2] * 30 + [5.0] * 20).since < 20
