"""KV cache events of a real vLLM: what is counted as stored and evicted is what its requests filled the cache with."""

from __future__ import annotations

import asyncio
import json
import urllib.request
from collections import Counter
from typing import TYPE_CHECKING

import aiohttp
import pytest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

from agent.source import Overheard
from agent.sources.kv_events import KvCacheEvents
from agent.sources.metrics_page import MetricsPages
from agent.target import KvEvents, Target
from demo.vllm_server import BLOCKS
from tests.kits.line import free_block
from tests.real.vllm_kit import Clients, Vllm

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(900)]
BLOCK_TOKENS = 128


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[Vllm, KvEvents]]:
    base = free_block()
    events = {
        "enable_kv_cache_events": True, "publisher": "zmq", "endpoint": f"tcp://*:{base + 1}",
        "replay_endpoint": f"tcp://*:{base + 2}", "topic": "kv-events",
    }  # fmt: skip
    vllm = Vllm(
        tmp_path / "vllm", base, "", "",
        ["--enable-prefix-caching", "--block-size", str(BLOCK_TOKENS), "--kv-events-config", json.dumps(events)],
        {"VLLM_SERVER_DEV_MODE": "1"},
    )  # fmt: skip
    vllm.launch("http/protobuf")
    try:
        vllm.wait_ready()
        yield vllm, KvEvents(f"tcp://127.0.0.1:{base + 1}", f"tcp://127.0.0.1:{base + 2}", "kv-events")
    finally:
        vllm.stop()


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(60):
        while not condition():  # noqa: ASYNC110 - the state is of several tasks
            await asyncio.sleep(0.05)


async def test_blocks_stored_and_evicted_are_those_of_the_requests(served: tuple[Vllm, KvEvents]):
    vllm, events = served
    told: Counter[str] = Counter()

    def keep(signal: str, body: bytes) -> None:
        for one in ExportMetricsServiceRequest.FromString(body).resource_metrics if signal == "metrics" else ():
            for metric in one.scope_metrics[0].metrics:
                if metric.name.startswith("kv_") and metric.name.endswith("_delta"):
                    told[metric.name] += int(metric.sum.data_points[0].as_double)

    target, overheard = Target("v", "chat", "vllm", vllm.url, kv_events=events), Overheard()
    listener = KvCacheEvents([target], overheard)
    pages = MetricsPages([target], interval_seconds=0.25, overheard=overheard)
    tasks = [asyncio.create_task(one.run(keep)) for one in (listener, pages)]
    (publisher,) = listener._publishers["v"]
    clients = Clients(vllm.url)
    try:
        await until(lambda: publisher.known and pages.known("v"))
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=300)) as session:
            for _ in range(40):
                await clients.send(session, "acme", "completion", words=450, max_tokens=8)
        # The last token of an answer is never computed upon, so it fills no block.
        filled = sum((one.usage["total_tokens"] - 1) // BLOCK_TOKENS for one in clients.seen)
        assert filled > BLOCKS, "more than the cache holds"
        await until(lambda: told["kv_blocks_stored_device_delta"] >= filled)
        asked = urllib.request.Request(f"{vllm.url}/reset_prefix_cache", method="POST")
        await asyncio.to_thread(urllib.request.urlopen, asked, timeout=30)
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=300)) as session:
            await clients.send(session, "acme", "completion", words=450, max_tokens=8)
        await until(lambda: told["kv_cache_clears_delta"])
        counts, all_sent = publisher.counts, list(clients.seen)
        stored, removed = counts.stored["device"], counts.removed["device"]
        assert publisher._next is not None
        publisher._next -= 2  # as though the last two had been missed
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=300)) as session:
            await clients.send(session, "acme", "completion", words=450, max_tokens=8)
        await until(lambda: counts.replayed)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    assert (counts.replayed, counts.lost, counts.unread, counts.rank) == (2, 0, 0, "0")
    assert stored == sum((one.usage["total_tokens"] - 1) // BLOCK_TOKENS for one in all_sent)
    assert filled - BLOCKS <= removed < filled, "what no longer fitted was evicted"
    assert told["kv_event_batches_lost_delta"] == 0
