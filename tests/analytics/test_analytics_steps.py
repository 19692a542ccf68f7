"""What bound each step, worked out again from steps that are written here."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from analytics.questions import features, steps, story
from analytics.selection import Filter, Selection
from analytics.window import EVER, Window
from tests.kits.schema_tools import fresh_store
from tests.kits.two_servers import by_two

if TYPE_CHECKING:
    from collections.abc import Iterator

    from collector.store.client import Store
    from tests.conftest import StoreServer

NOW = datetime.now(UTC).replace(microsecond=0) - timedelta(minutes=10)
TABLES = ("engine_steps", "engine_steps_1s", "engine_samples", "instance_config", "requests_t")
LIMITS = {"max_num_seqs": "8", "max_num_batched_tokens": "256"}


@pytest.fixture(scope="module")
def migrated(store_server: StoreServer) -> Iterator[Store]:
    with fresh_store(store_server) as made:
        yield made


@pytest.fixture
def store(migrated: Store) -> Store:
    """With nothing in it."""
    for table in TABLES:
        migrated.command(f"TRUNCATE TABLE {table}")
    return migrated


def at(seconds: float) -> datetime:
    return NOW + timedelta(microseconds=round(seconds * 1_000_000))


def looked(seconds: float = 10.0, **narrowed: Any) -> Selection:
    return Selection(Window(NOW, at(seconds)), Filter(**narrowed))


def step(counter: int, seconds: float, **told: Any) -> dict[str, Any]:
    """A step that decodes for three, in which nobody waits."""
    plain = {
        "time": at(seconds), "instance": "one", "model": "m", "dp_rank": "0", "pid": 7, "counter": counter,
        "running": 3, "waiting": 0, "kv_cache_usage_ratio": 0.2, "finished": 0, "preemptions": 0,
        "prefill_tokens": 0, "decode_tokens": 3, "prompt_tokens": None, "generation_tokens": None,
        "elapsed_seconds": None,
    }  # fmt: skip
    return plain | told


def configured(store: Store, instance: str = "one", **config: str) -> None:
    row = {"time": at(-60), "instance": instance, "engine": "vllm", "config": config or LIMITS}
    store.insert("instance_config", [row])


@pytest.mark.parametrize(
    ("told", "bound"),
    [
        ({}, "nothing"),
        ({"running": 8}, "nothing"),
        ({"running": 8, "waiting": 2}, "sequences"),
        ({"running": 6, "finished": 2, "waiting": 1}, "sequences"),
        ({"running": 7, "waiting": 1}, "other"),
        ({"waiting": 1, "kv_cache_usage_ratio": 0.97}, "kv_blocks"),
        ({"kv_cache_usage_ratio": 0.97}, "nothing"),
        ({"preemptions": 1}, "kv_blocks"),
        ({"running": 8, "waiting": 1, "preemptions": 1}, "kv_blocks"),
        ({"prefill_tokens": 253, "waiting": 1}, "token_budget"),
        ({"prefill_tokens": 253}, "token_budget"),
        ({"prefill_tokens": 252, "waiting": 1}, "other"),
        ({"prefill_tokens": 253, "waiting": 1, "kv_cache_usage_ratio": 0.97}, "token_budget"),
        ({"prefill_tokens": None, "decode_tokens": None, "prompt_tokens": 900, "generation_tokens": 3}, "nothing"),
    ],
)
def test_what_binds_a_step(store: Store, told: dict[str, Any], bound: str):
    configured(store)
    store.insert("engine_steps", [step(1, 1.0), step(2, 1.5, **told)])
    answer = steps.ask(store, looked())
    assert answer.level == "steps"
    (one,) = answer.result.instances
    shares = {name for name, share in one.shares.items() if share}
    assert shares == {bound}, "the first step began nobody knows when"
    assert (one.steps, one.max_sequences, one.max_tokens) == (2, 8, 256)
    assert one.told_seconds == pytest.approx(0.5)


def test_without_limits_what_waits_for_one_waits_for_something_else(store: Store):
    store.insert("engine_steps", [step(1, 1.0), step(2, 1.5, running=8, waiting=3, prefill_tokens=253)])
    answer = steps.ask(store, looked())
    (one,) = answer.result.instances
    assert one.shares["other"] == 1.0
    assert (one.max_sequences, one.max_tokens) == (None, None)
    assert any("max_num_seqs" in note for note in answer.notes)


@pytest.mark.parametrize(("running", "said"), [(0, False), (1, True)])
def test_a_step_in_which_nothing_ran_has_no_batch_to_tell_of(store: Store, running: int, said: bool):
    configured(store)
    empty = step(2, 1.5, running=running, finished=None, prefill_tokens=None, decode_tokens=None)
    store.insert("engine_steps", [step(1, 1.0), empty])
    answer = steps.ask(store, looked())
    assert any("do not tell what their batch was made of" in note for note in answer.notes) == said


def test_time_is_that_between_steps_and_idle_where_nothing_was_open(store: Store):
    configured(store)
    told = [
        step(1, 0.5),
        step(2, 1.25, running=0),
        step(3, 3.75, elapsed_seconds=0.25, waiting=2, running=8),
        step(4, 5.75, waiting=2, running=8),
        step(9, 9.0, waiting=2, running=8),
        step(10, 9.5, preemptions=1),
    ]
    store.insert("engine_steps", told)
    result = steps.ask(store, looked(), points=10).result
    (one,) = result.instances
    # 0.75 s of nothing, 2.25 s idle, 0.25 + 2 s of sequences; before the ninth others went untold; 0.5 s of blocks.
    assert one.told_seconds == pytest.approx(5.75)
    expected = {"nothing": 0.75, "idle": 2.25, "sequences": 2.25, "kv_blocks": 0.5}
    assert one.shares == pytest.approx({name: expected.get(name, 0.0) / 5.75 for name in steps.BINDINGS})
    lines = {line.name: line.values for line in result.bindings}
    assert result.step == 1
    assert lines["nothing"][:2] == pytest.approx([1.0, 0.25 / 1.0])
    assert lines["idle"][1:4] == pytest.approx([0.75, 1.0, 0.5])
    assert lines["sequences"][3:6] == pytest.approx([0.5, 1.0, 1.0])
    assert lines["kv_blocks"][9] == pytest.approx(1.0)
    assert lines["nothing"][7] is None, "nothing was told of that second"
    assert one.step_max_seconds == pytest.approx(2.0)


def test_steps_that_two_api_servers_told_are_those_that_one_would_have_told(store: Store):
    """None is lost, whoever has the scheduler's half; what the other one tells of it counts to it."""
    told = [
        step(
            1 + n, 0.5 + 1.5 * n, waiting=n % 3, running=8 if n % 4 else 6, finished=2, preemptions=int(n == 3),
            prefill_tokens=None, decode_tokens=None, prompt_tokens=40, generation_tokens=9,
        )
        for n in range(12)
    ]  # fmt: skip
    configured(store, "one")
    configured(store, "two")
    store.insert("engine_steps", told)
    store.insert("engine_steps", by_two([one | {"instance": "two"} for one in told]))
    one, two = sorted(steps.ask(store, looked(20)).result.instances, key=lambda each: each.instance)
    assert (one.instance, two.instance) == ("one", "two")
    assert two == replace(one, instance="two")
    assert one.told_seconds == pytest.approx(11 * 1.5)
    assert (one.shares["kv_blocks"], one.shares["sequences"]) == pytest.approx((1 / 11, 8 / 11))
    rows = [
        {
            "time": at(1.0), "key": (int(at(1.0).timestamp() * 1000) << 22) + number, "instance": name,
            "engine_instance": name, "model": "m", "outcome": "ok", "has_edge": 1, "has_engine": 1, "e2e_seconds": 9.0,
            "engine_e2e_seconds": 9.0,
        }
        for number, name in enumerate(("one", "two"))
    ]  # fmt: skip
    store.insert("requests_t", rows)
    alone, both = (story.ask(store, Selection.one(window=EVER, key=str(row["key"]))).result for row in rows)
    assert len(alone.steps) > 4
    assert both.steps == alone.steps


def test_a_step_of_which_the_batch_is_told_and_not_its_tokens_has_one_for_each_that_decodes(store: Store):
    """As forward-pass metrics tell it: a step's own time, requests and prompt tokens."""
    configured(store)
    untold: dict[str, Any] = dict.fromkeys(("decode_tokens", "kv_cache_usage_ratio", "finished", "preemptions"))
    told = {"decode_requests": 3, "elapsed_seconds": 0.25} | untold
    store.insert(
        "engine_steps",
        [step(2, 1.0, **told), step(3, 1.25, **told), step(5, 1.75, **told | {"prefill_tokens": 253, "waiting": 1})],
    )
    answer = steps.ask(store, looked())
    (one,) = answer.result.instances
    # The last does not follow the one before: what was in between is not told, though it is less than a second.
    assert one.told_seconds == pytest.approx(0.75)
    assert one.shares["token_budget"] == pytest.approx(1 / 3), "prompts and a token each are the 256"
    assert one.shares["nothing"] == pytest.approx(2 / 3)
    assert not any("made of" in note for note in answer.notes)
    (line,) = [line for line in answer.result.bindings if line.name == "idle"]
    assert not any(line.values), "nobody said so"


def test_step_time_by_size_apart_for_prompts_and_decoding(store: Store):
    told = [step(1, 0.1)]
    told += [step(2 + n, 0.2 + 0.1 * n, decode_tokens=5, elapsed_seconds=0.02 * (n + 1)) for n in range(3)]
    told += [step(5 + n, 1 + 0.1 * n, prefill_tokens=120, decode_tokens=5, elapsed_seconds=0.08) for n in range(2)]
    store.insert("engine_steps", told)
    sizes = steps.ask(store, looked()).result.sizes
    found = {(one.reads_prompts, one.tokens_from, one.tokens_to): one for one in sizes}
    assert set(found) == {(False, 4, 8), (True, 64, 128)}
    assert (found[False, 4, 8].steps, found[True, 64, 128].steps) == (3, 2)
    assert found[False, 4, 8].p50_seconds == pytest.approx(0.04)
    assert found[True, 64, 128].p95_seconds == pytest.approx(0.08)


def test_engine_cores_and_instances_are_apart_and_add_up(store: Store):
    for rank in ("0", "1"):
        store.insert("engine_steps", [step(n, n / 10, dp_rank=rank, waiting=int(rank)) for n in range(1, 12)])
    store.insert("engine_steps", [step(n, n / 10, instance="two", preemptions=1) for n in range(1, 6)])
    result = steps.ask(store, looked()).result
    assert [one.instance for one in result.instances] == ["two", "one"]
    one = result.instances[1]
    assert one.shares["other"] == pytest.approx(0.5)
    assert one.told_seconds == pytest.approx(2.0)
    assert result.shares["kv_blocks"] == pytest.approx(0.4 / 2.4)
    assert [i.instance for i in steps.ask(store, looked(instance=("one",))).result.instances] == ["one"]


def test_a_longer_window_goes_by_seconds(store: Store):
    configured(store)
    told = [step(n, n / 10, running=8, waiting=int(n > 20)) for n in range(1, 40)]
    store.insert("engine_steps", told)
    answer = steps.ask(store, Selection(Window(at(-7200), at(60))))
    (one,) = answer.result.instances
    assert (one.source, answer.level, answer.exactness) == ("seconds", "steps", "derived")
    assert one.steps is None
    assert one.told_seconds == pytest.approx(4.0)
    assert one.shares["sequences"] == pytest.approx(0.5)
    assert answer.result.sizes == []


def sample(second: int, instance: str, **told: Any) -> dict[str, Any]:
    plain = {
        "time": at(second), "instance": instance, "model": "m", "engine": "vllm", "up": 1, "interval_seconds": 1.0,
        "running": 2.0, "waiting": 0.0, "kv_cache_usage_ratio": 0.3, "preemptions_delta": 0.0,
        "engine_steps_delta": 10.0, "batch_tokens_delta": 20.0, "prompt_tokens_delta": 0.0,
    }  # fmt: skip
    return plain | told


def test_servers_without_a_probe_are_told_from_samples_and_it_is_said(store: Store):
    configured(store, "plain", max_num_seqs="2")
    coarse = [
        sample(1, "plain"),
        sample(2, "plain", waiting=3.0),
        sample(3, "plain", waiting=3.0, running=1.0, kv_cache_usage_ratio=0.95),
        sample(4, "plain", running=0.0),
        sample(5, "plain", up=0, running=None),
        sample(6, "triton", kv_cache_usage_ratio=None, waiting=9.0),
        sample(7, "probed", waiting=9.0),
    ]
    store.insert("engine_samples", coarse)
    alone = steps.ask(store, looked(instance=("plain",)))
    assert (alone.level, alone.exactness) == ("metrics", "derived")
    store.insert("engine_steps", [step(n, n / 10, instance="probed") for n in range(1, 11)])
    answer = steps.ask(store, looked())
    assert answer.level == "steps"
    found = {one.instance: one for one in answer.result.instances}
    assert {name: one.source for name, one in found.items()} == {"plain": "samples", "probed": "steps"}
    shares = {name: share for name, share in found["plain"].shares.items() if share}
    assert shares == pytest.approx({"nothing": 0.25, "sequences": 0.25, "kv_blocks": 0.25, "idle": 0.25})
    assert any("No probe tells the steps of plain" in note and steps.PROBE in note for note in answer.notes)


def test_nothing_told_is_no_data(store: Store):
    answer = steps.ask(store, looked())
    assert (answer.state, answer.result.shares, answer.result.instances) == ("no_data", {}, [])
    assert all(set(line.values) == {None} for line in answer.result.bindings)


def test_features_are_told_where_a_server_has_them(store: Store):
    def told(second: int, **signals: float) -> dict[str, Any]:
        return sample(second, "plain") | {"prefix_cache_hits_delta": 30.0, "other_signals": signals}

    drafts = {"spec_decode_drafts_delta": 10.0, "spec_decode_draft_tokens_delta": 30.0}
    accepted = {"spec_decode_accepted_tokens_delta": 12.0, "spec_decode_accepted_at_0_delta": 8.0}
    store.insert("engine_samples", [
        told(1, **drafts, **accepted, spec_decode_accepted_at_1_delta=4.0),
        told(2, **drafts, **accepted, prefix_cache_hits_host_delta=5.0),
        told(3, lora_adapters_running=2.0, lora_adapters_waiting=1.0, lora_slots=4.0),
        told(4, prefix_cache_hits_external_delta=0.0, kv_transfer_failures_delta=2.0),
        told(5, kv_blocks_stored_device_delta=40.0, kv_blocks_removed_device_delta=6.0, kv_blocks_stored_host_delta=0.0,
             kv_cache_clears_delta=1.0, kv_event_batches_lost_delta=0.0),
    ])  # fmt: skip
    result = features.ask(store, looked(), points=10).result
    assert (result.acceptance_share, result.tokens_per_verification) == pytest.approx((0.4, 2.2))
    lines = {line.name: line.values for line in result.acceptance}
    assert set(lines) == {"all", "position 1", "position 2"}
    assert lines["position 1"][1:4] == [pytest.approx(0.8), pytest.approx(0.8), None]
    assert lines["position 2"][1:3] == [pytest.approx(0.4), None]
    assert {line.name: line.values[2] for line in result.tiers} == {"engine": 30.0, "host": 5.0}
    assert {line.name: line.values[3] for line in result.adapters} == {"running": 2.0, "waiting": 1.0, "slots": 4.0}
    assert (result.adapter_slots, result.transfer_failures, result.moved) == (4.0, 2.0, [])
    assert {line.name: line.values[5] for line in result.blocks} == {"stored, GPU": 40.0, "removed, GPU": 6.0}
    assert (result.cache_clears, result.blocks_lost) == (1.0, 0.0)


def test_features_tell_moved_cache_reasons_to_wait_and_estimates(store: Store):
    def told(second: int, instance: str, **signals: float) -> dict[str, Any]:
        return sample(second, instance) | {"other_signals": signals}

    moved = {"kv_transfer_bytes_delta": 6e6, "kv_transfer_seconds_delta": 0.5, "kv_transfers_delta": 4.0}
    store.insert("engine_samples", [
        told(1, "one", **moved, waiting_capacity=3.0, estimated_flops_delta=2e12, estimated_read_bytes_delta=4e9),
        told(1, "two", waiting_capacity=1.0, waiting_deferred=2.0, estimated_flops_delta=4e12,
             kv_offload_bytes_delta=1e6),
    ])  # fmt: skip
    result = features.ask(store, looked(), points=10).result
    assert {line.name: (line.unit, line.values[1]) for line in result.moved} == {
        "transferred": ("bytes_per_second", 6e6), "offloaded": ("bytes_per_second", 1e6),
    }  # fmt: skip
    assert (result.moved_while, result.transfers, result.transfer_mean_seconds) == ({"transferred": 12e6}, 4.0, 0.125)
    assert {line.name: line.values[1] for line in result.waiting} == {"capacity": 4.0, "deferred": 2.0}
    assert [(line.unit, line.values[1]) for line in result.work] == [("flop_per_second", 3e12)], "of a GPU, not of all"
    assert {line.name: line.values[1] for line in result.memory_traffic} == {"read": 4e9}


def test_features_that_are_off_have_no_line(store: Store):
    store.insert("engine_samples", [sample(1, "plain") | {"other_signals": {"lora_slots": 0.0, "asleep": 1.0}}])
    result = features.ask(store, looked()).result
    assert (result.tiers, result.acceptance, result.adapters, result.moved) == ([], [], [], [])
    assert (result.acceptance_share, result.transfer_failures) == (None, None)
    assert (result.blocks, result.cache_clears, result.blocks_lost) == ([], None, None)
    assert (result.waiting, result.work, result.memory_traffic, result.moved_while) == ([], [], [], {})


def test_a_request_tells_the_steps_it_sat_in(store: Store):
    row = {
        "time": at(1.0), "key": int(at(1.0).timestamp() * 1000) << 22, "instance": "one", "engine_instance": "one",
        "model": "m", "outcome": "ok", "has_edge": 1, "has_engine": 1, "e2e_seconds": 2.0, "queue_seconds": 0.5,
        "prefill_seconds": 0.5, "decode_seconds": 1.0, "engine_e2e_seconds": 2.0,
    }  # fmt: skip
    store.insert("requests_t", [row])
    told = [step(1 + n, 1.3 + 0.3 * n, elapsed_seconds=None, preemptions=int(n == 3)) for n in range(8)]
    told[4]["elapsed_seconds"] = 0.5
    store.insert("engine_steps", told)
    store.insert("engine_steps", [step(1, 2.0, instance="two")])
    result = story.ask(store, Selection.one(window=EVER, key=str(row["key"]))).result
    # Scheduled at 1.5 s, over at 3 s: those that ended at 1.6, 1.9, … 2.8 s.
    assert result.steps_total == 5
    assert [one.time for one in result.steps[:1]] == [at(2.5)]
    assert [one.seconds for one in result.steps] == pytest.approx([0.5, 0.3, 0.3, 0.3, 0.3])
    assert result.step_median_seconds == pytest.approx(0.3)
    assert sum(one.preemptions or 0 for one in result.steps) == 1
    (later,) = [one for one in result.steps if one.time == at(1.6)]
    assert later.decode_tokens == 3
