"""KV cache events are read from whatever comes, and stand on the page of their engine."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent import kv_wire
from agent.engine_table import find_table
from agent.kv_events import Counts, page_lines, tier_of
from agent.pages import exposition
from agent.pages.page import PageReader
from agent.pages.samples import Sampler
from base.vocabulary import Signal
from tests.kits.kv_events import CLEARED, PAGE, as_array, batch, removed, stored


def counted(payload: bytes) -> Counts:
    counts = Counts("0")
    kv_wire.add(payload, counts)
    return counts


EVENTS = (stored(3), removed(2), stored(5, "CPU"), removed(1, "CPU"), stored(1, "disk"), CLEARED)


@pytest.mark.parametrize(
    "payload",
    [
        batch(*EVENTS, rank=3),
        batch(*map(as_array, EVENTS), rank=3),
        msgspec.msgpack.encode({"ts": 1.5, "events": list(EVENTS), "data_parallel_rank": 3}),
    ],
    ids=["maps", "arrays", "all maps"],
)
def test_blocks_are_counted_by_where_they_lie(payload: bytes):
    counts = counted(payload)
    assert counts.stored == {"device": 3, "host": 5, "other": 1}
    assert counts.removed == {"device": 2, "host": 1}
    assert (counts.clears, counts.batches, counts.unread, counts.rank) == (1, 1, 0, "3")


def test_publishers_of_one_medium_named_none():
    assert counted(batch(["BlockStored", [1, 2], None, [3], 16, None], ["BlockRemoved", [1]])).stored == {"device": 2}
    assert counted(batch({"type": "BlockRemoved", "block_hashes": [1]}, rank=None)).removed == {"device": 1}
    assert counted(msgspec.msgpack.encode([1.0, [as_array(CLEARED)]])).clears == 1
    assert [tier_of(one) for one in (None, "gpu", "CPU_PINNED", "EXTERNAL")] == ["device", "device", "host", "other"]


def test_an_event_that_cannot_be_read_spoils_no_other():
    counts = counted(batch(stored(1), {"type": "BlockMoved"}, 5, ["BlockStored"], {"no": "type"}, [], removed(4)))
    assert (counts.stored["device"], counts.removed["device"], counts.unread) == (1, 4, 5)


ANY = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.text() | st.binary(),
    lambda inner: (
        st.lists(inner) | st.dictionaries(st.text() | st.sampled_from(["type", "block_hashes", "medium"]), inner)
    ),
    max_leaves=8,
)


@given(st.binary() | ANY.map(msgspec.msgpack.encode))
def test_whatever_comes_is_counted_or_unread(payload: bytes):
    counts = counted(payload)
    assert counts.batches + counts.unread >= 1


@given(st.lists(ANY))
def test_whatever_events_a_batch_has_it_is_a_batch(events: list[Any]):
    counts = counted(batch(*events))
    assert counts.batches == 1
    assert counts.unread <= len(events)


def test_a_deep_message_is_unread():
    assert counted(b"\x91" * 100_000).unread == 1
    assert counted(b"\x93\x00" + b"\x91" * 100_000).unread == 1


def samples_of(*told: list[Counts]) -> list[dict[str, dict[Signal, float]]]:
    """Of each page, increases by rank; of a page without ranks under ""."""
    reader, sampler = PageReader(), Sampler(find_table("vllm"))
    pages = [reader.read(exposition.after(PAGE, page_lines(counts, "engine"))) for counts in told]
    return [{one.key.dp_rank: dict(one.deltas) for one in sampler.sample(page).samples} for page in pages]


def test_counts_are_part_of_the_engines_own_sample():
    one, more = Counts("0"), Counts("0")
    one.stored["device"] = 4
    more.stored["device"], more.removed["device"], more.clears = 9, 2, 1
    before, first, second = samples_of([], [one], [more])
    assert list(before) == list(first) == list(second) == ["0"], "no sample of their own"
    assert first["0"][Signal.KV_BLOCKS_STORED_DEVICE_TOTAL] == 4
    assert second["0"][Signal.KV_BLOCKS_STORED_DEVICE_TOTAL] == 5
    assert second["0"][Signal.KV_BLOCKS_REMOVED_DEVICE_TOTAL] == 2
    assert second["0"][Signal.KV_CACHE_CLEARS_TOTAL] == 1


def test_a_rank_that_no_page_knows_makes_no_sample_either():
    one = Counts("7")
    one.stored["device"] = 4
    before, after = samples_of([], [one])
    assert list(before) == list(after) == ["0"]
    assert after["0"][Signal.KV_BLOCKS_STORED_DEVICE_TOTAL] == 4
