"""The probe in a real vLLM of two API servers over two engine cores: each core's steps are that core's own counters."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
from collections import Counter
from functools import partial
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest

from tests.kits.line import Line, free_block, start_line, wait_for
from tests.real.vllm_kit import Clients, Vllm, install_probe

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(900)]

RANKS = ("0", "1")
COUNTERS = {
    "generation_tokens": "vllm:generation_tokens_total",
    "prompt_tokens": "vllm:prompt_tokens_total",
    "cached_tokens": "vllm:prompt_tokens_cached_total",
    "preemptions": "vllm:num_preemptions_total",
    "finished": "vllm:request_success_total",
    "prefix_queries": "vllm:prefix_cache_queries_total",
    "prefix_hits": "vllm:prefix_cache_hits_total",
    "told": "vllm:iteration_tokens_total_count",
}
FINISHED, REFUSED, LEFT = 150, 12, 8


def test_each_core_counts_for_itself_whoever_serves(tmp_path: Path) -> None:
    installed, socket, base = tmp_path / "site", tmp_path / "probe.sock", free_block()
    install_probe(installed)
    core = max(os.sched_getaffinity(0))
    vllm = Vllm(
        tmp_path / "vllm", base + 30, "", "",
        [
            "--api-server-count", "2", "--data-parallel-size", "2", "--middleware", "servescope_probe.Edge",
            "--enable-logging-iteration-details", "--num-gpu-blocks-override", "20",
        ],
        {
            "PYTHONPATH": str(installed), "SERVESCOPE_PROBE_SOCKET": str(socket),
            "VLLM_CPU_OMP_THREADS_BIND": f"{core}|{core}",
        },
    )  # fmt: skip
    target = {"instance": "vllm-a", "url": vllm.url, "tap": False}
    settings = tmp_path / "servescope.yaml"
    settings.write_text(json.dumps({"agent": {"targets": [target], "probe_socket": str(socket)}}))
    running = start_line(tmp_path / "data", base, "", "--config", str(settings))
    try:
        vllm.launch("http/protobuf")
        try:
            vllm.wait_ready()
            _compare(running, vllm)
        finally:
            vllm.stop()
    finally:
        assert running.stop() == 0, running.log.read_text()[-3000:]


async def _drive(clients: Clients) -> None:
    """Requests over connections of their own, so that both servers get some; more at once than the caches hold."""
    tenants = itertools.cycle(("acme", "globex", "initech"))
    send, timeout = clients.send, aiohttp.ClientTimeout(total=300)
    connector = aiohttp.TCPConnector(limit=0, force_close=True)
    async with aiohttp.ClientSession(timeout=timeout, connector=connector) as session:
        work = [
            *(partial(send, session, next(tenants), "completion", max_tokens=400) for _ in range(40)),
            *(partial(send, session, next(tenants), "completion", stream=True) for _ in range(60)),
            *(partial(send, session, next(tenants), "chat", stream=True, words=150) for _ in range(50)),
            *(partial(send, session, next(tenants), "completion", words=2000) for _ in range(REFUSED)),
        ]
        gate = asyncio.Semaphore(40)

        async def one(job: Any) -> None:
            async with gate:
                await job()

        await asyncio.gather(*(one(job) for job in work))
        for kind in ("completion", "chat") * (LEFT // 2):
            await send(session, next(tenants), kind, stream=True, words=10, max_tokens=900, leave_after=5)


def _compare(running: Line, vllm: Vllm) -> None:
    clients = Clients(vllm.url, prefix="several")
    asyncio.run(_drive(clients))
    assert clients.outcomes().total() == FINISHED + REFUSED + LEFT
    pages: dict[str, dict[str, float]] = {}

    def still() -> bool:
        """Whether nothing runs, and nothing was counted since the last look."""
        before = dict(pages)
        pages.update({rank: vllm.page(rank) for rank in RANKS})
        open_now = sum(page[f"vllm:num_requests_{what}"] for page in pages.values() for what in ("running", "waiting"))
        return open_now == 0 and before == pages

    wait_for(still, 120, "the engines to be quiet", every=1.0)
    counted = {rank: {name: page[series] for name, series in COUNTERS.items()} for rank, page in pages.items()}
    wait_for(lambda: _sums(running) == counted, 60, f"the steps of each core: {counted}, {_sums(running)}")
    assert all(one["finished"] > 0 for one in counted.values()), "both cores worked"
    assert sum(one["finished"] for one in counted.values()) == FINISHED
    assert sum(one["preemptions"] for one in counted.values()) > 0, "the caches were full"
    tellers = running.rows("SELECT uniqExact(pid) AS n, countIf(running IS NULL) AS partly FROM engine_steps FINAL")[0]
    assert tellers["n"] == 2, "both API servers told"
    assert tellers["partly"] > 0, "of one step both told"

    wait_for(lambda: len(_rows(running, "has_edge = 1")) == len(clients.seen), 60, "a row for each request")
    wait_for(lambda: len(_rows(running, "has_engine = 1")) == FINISHED, 120, "the engine's half of each that finished")
    rows = {row["request_id"]: row for row in _rows(running, "1")}
    assert len(rows) == len(_rows(running, "1")) == len(clients.seen), "none is doubled"
    assert Counter((row["tenant"], row["outcome"]) for row in rows.values()) == clients.outcomes()
    for one in clients.seen:
        row = rows[one.request_id]
        assert (row["outcome"], row["status"], row["instance"]) == (one.outcome, one.status, "vllm-a"), (one, row)
        if one.outcome == "ok":
            assert (row["response_id"], row["completion_tokens"]) == (one.response_id, one.max_tokens), row
    by_rank = running.rows("SELECT dp_rank, toFloat64(count()) AS n FROM finished_requests GROUP BY dp_rank")
    assert {row["dp_rank"]: row["n"] for row in by_rank} == {rank: one["finished"] for rank, one in counted.items()}

    configs = [row["config"] for row in running.rows("SELECT config FROM instance_config ORDER BY time")]
    assert len(configs) <= 2, "what the process tells, then the page with it: four tell the same"
    assert {one["data_parallel_size"] for one in configs} == {"2"}
    assert "gpu_memory_utilization" in configs[-1], "what the page shows is in the same row"
    events = "'config_changed', 'contract_broken', 'instance_restarted'"
    assert running.rows(f"SELECT event, message FROM events WHERE event IN ({events})") == []
    samples = running.rows("SELECT DISTINCT dp_rank FROM engine_samples WHERE up = 1 AND model != '' ORDER BY dp_rank")
    assert [row["dp_rank"] for row in samples] == list(RANKS)
    steps = running.rows("SELECT count(engine_steps_total) AS n FROM engine_samples WHERE up = 1")
    assert steps[0]["n"] == 0, "a page of several servers counts a step for each of them"


def _sums(line: Line) -> dict[str, dict[str, float]]:
    sums = ", ".join(f"toFloat64(sum(ifNull(s.{name}, 0))) AS {name}" for name in COUNTERS if name != "told")
    told = "toFloat64(count(s.generation_tokens)) AS told"
    rows = line.rows(f"SELECT dp_rank, {sums}, {told} FROM engine_steps AS s FINAL GROUP BY dp_rank")
    return {row.pop("dp_rank"): row for row in rows}


def _rows(line: Line, where: str) -> list[dict[str, Any]]:
    return line.rows(f"SELECT * FROM requests WHERE operation != '' AND {where}")
