"""Batch sizes of a real tritonserver with dynamic batching: what the agent tells is what the server counted."""

from __future__ import annotations

import asyncio
import json
import urllib.request
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

from agent.pages.probe import probe
from agent.sources.metrics_page import MetricsPages
from agent.target import Target
from tests.kits.line import Triton, free_block, infer

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = [pytest.mark.triton, pytest.mark.timeout(240)]
IMAGE = infer("vision_classifier", "image", [1, 3, 32, 32], [0.5] * 3072)


def counted(url: str) -> Counter[int]:
    """Executions by their items."""
    with urllib.request.urlopen(f"{url}/v2/models/vision_classifier/stats", timeout=10) as answer:
        (model,) = json.load(answer)["model_stats"]
    return Counter({one["batch_size"]: one["compute_infer"]["count"] for one in model["batch_stats"]})


def ask(url: str) -> None:
    path, body = IMAGE
    asked = urllib.request.Request(f"{url}{path}", body, {"Content-Type": "application/json"})
    urllib.request.urlopen(asked, timeout=60).close()


@pytest.fixture
def url(tmp_path: Path) -> Iterator[str]:
    with Triton(tmp_path / "triton", free_block(skip=1), "") as triton:
        yield triton.server.url


async def test_what_is_told_is_what_the_server_counted(url: str):
    told: Counter[str] = Counter()

    def keep(signal: str, body: bytes) -> None:
        for one in ExportMetricsServiceRequest.FromString(body).resource_metrics if signal == "metrics" else ():
            told["samples"] += 1
            for metric in one.scope_metrics[0].metrics:
                if metric.name == "batch_size":
                    (point,) = metric.histogram.data_points
                    told["executions"] += point.count
                    told["items"] += int(point.sum)
                    told["alone"] += point.bucket_counts[0]
                elif metric.name == "batch_compute_microseconds":
                    told["microseconds"] += metric.histogram.data_points[0].count

    await asyncio.to_thread(ask, url)
    await asyncio.to_thread(ask, url)
    before = await asyncio.to_thread(counted, url)
    source = MetricsPages([Target("t", "vision", None, url)], interval_seconds=0.2, beside_seconds=0.5)
    task = asyncio.create_task(source.run(keep))
    try:
        async with asyncio.timeout(30):
            while not source._watches["t"]._beside.lines:  # noqa: ASYNC110 - the source's own state
                await asyncio.sleep(0.05)
            shown = told["samples"]
            while told["samples"] < shown + 10:  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        assert told["executions"] == 0, "what was executed before"
        with ThreadPoolExecutor(16) as pool:
            await asyncio.gather(*(asyncio.get_running_loop().run_in_executor(pool, ask, url) for _ in range(200)))
        since = await asyncio.to_thread(counted, url) - before
        async with asyncio.timeout(30):
            while told["executions"] < since.total():  # noqa: ASYNC110 - the server's count
                await asyncio.sleep(0.1)
        found = await asyncio.to_thread(probe, url)
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    assert told["executions"] == since.total() < 200, "several requests shared an execution"
    assert told["items"] == 200
    assert told["alone"] == since[1]
    assert told["microseconds"] > 0
    sizes = found["batch_sizes"]["vision_classifier"]
    assert {one["from"]: one["executions"] for one in sizes} == before + since
    assert all(one["compute_seconds"] > 0 for one in sizes)
