"""The probe in a real vLLM, without a tap and without spans: steps are the engine's own counters, rows the clients'."""

from __future__ import annotations

import asyncio
import itertools
import json
import urllib.request
from collections import Counter
from functools import partial
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest

from tests.kits.line import Line, free_block, start_line, wait_for
from tests.real.vllm_kit import Clients, Vllm, install_probe

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(900)]

COUNTERS = {
    "generation_tokens": "vllm:generation_tokens_total",
    "prompt_tokens": "vllm:prompt_tokens_total",
    "cached_tokens": "vllm:prompt_tokens_cached_total",
    "preemptions": "vllm:num_preemptions_total",
    "finished": "vllm:request_success_total",
    "prefix_queries": "vllm:prefix_cache_queries_total",
    "prefix_hits": "vllm:prefix_cache_hits_total",
}


@pytest.fixture(scope="module")
def line(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Line, Vllm]]:
    folder = tmp_path_factory.mktemp("probe")
    installed, socket = folder / "site", folder / "probe.sock"
    install_probe(installed)
    base = free_block()
    vllm = Vllm(
        folder / "vllm", base + 30, "", "",
        ["--middleware", "servescope_probe.Edge", "--enable-logging-iteration-details", "--kv-cache-metrics"],
        {"PYTHONPATH": str(installed), "SERVESCOPE_PROBE_SOCKET": str(socket)},
    )  # fmt: skip
    target = {"instance": "vllm-a", "url": vllm.url, "tap": False}
    settings = folder / "servescope.yaml"
    settings.write_text(json.dumps({"agent": {"targets": [target], "probe_socket": str(socket)}}))
    running = start_line(folder / "data", base, "", "--config", str(settings))
    try:
        vllm.launch("http/protobuf")
        try:
            vllm.wait_ready()
            yield running, vllm
        finally:
            vllm.stop()
    finally:
        assert running.stop() == 0, running.log.read_text()[-3000:]


async def _drive(clients: Clients) -> None:
    """Some hundred requests that finish, are refused, and are left; more at once than the cache holds."""
    tenants = itertools.cycle(("acme", "globex", "initech"))
    send = clients.send
    timeout, connector = aiohttp.ClientTimeout(total=300), aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(timeout=timeout, connector=connector) as session:
        work = [
            *(partial(send, session, next(tenants), "completion", max_tokens=500) for _ in range(60)),
            *(partial(send, session, next(tenants), "completion", stream=True) for _ in range(90)),
            *(partial(send, session, next(tenants), "chat", stream=True, words=150) for _ in range(90)),
            *(partial(send, session, next(tenants), "chat", stream=True, usage=False) for _ in range(20)),
            *(partial(send, session, next(tenants), "completion", words=2000) for _ in range(12)),
            *(partial(send, session, next(tenants), "completion", model="no-such-model") for _ in range(10)),
        ]
        gate = asyncio.Semaphore(40)

        async def one(job: Any) -> None:
            async with gate:
                await job()

        await asyncio.gather(*(one(job) for job in work))
        for kind in ("completion", "chat") * 5:
            await send(session, next(tenants), kind, stream=True, words=10, max_tokens=900, leave_after=5)


def test_steps_are_the_engines_counters_and_rows_the_clients(line: tuple[Line, Vllm]) -> None:
    running, vllm = line
    clients = Clients(vllm.url, prefix="inside")
    asyncio.run(_drive(clients))
    outcomes = Counter(one.outcome for one in clients.seen)
    assert outcomes == {"ok": 260, "client_error": 22, "client_abort": 10}
    page: dict[str, float] = {}

    def quiet() -> bool:
        page.clear()
        page.update(vllm.page())
        return page["vllm:num_requests_running"] == page["vllm:num_requests_waiting"] == 0

    wait_for(quiet, 120, "the engine to be quiet")
    wait_for(lambda: _sums(running)["iterations"] == page["vllm:iteration_tokens_total_count"], 60, "the last step")
    sums = _sums(running)
    assert {name: sums[name] for name in COUNTERS} == {name: page[series] for name, series in COUNTERS.items()}
    assert sums["prompt_tokens"] + sums["generation_tokens"] >= page["vllm:iteration_tokens_total_sum"]
    assert sums["preemptions"] > 0, "the cache was full"
    assert sums["decode_known"] > 0, "the batch's parts were told"
    assert sums["fullest"] > 0.9
    assert running.rows("SELECT sum(generation_tokens) AS n FROM engine_steps_1s")[0]["n"] == sums["generation_tokens"]
    assert running.rows("SELECT count() AS n FROM finished_requests")[0]["n"] == sums["finished"]
    assert running.rows("SELECT count() AS n FROM otel_logs WHERE ScopeName = 'servescope.step'")[0]["n"] == 0

    wait_for(lambda: len(_rows(running, "has_edge = 1")) == len(clients.seen), 60, "a row for each request")
    wait_for(lambda: len(_rows(running, "has_engine = 1")) == 260, 120, "the engine's half of each that finished")
    rows = {row["request_id"]: row for row in _rows(running, "1")}
    assert len(rows) == len(_rows(running, "1")) == len(clients.seen), "none is doubled"
    assert Counter((row["tenant"], row["outcome"]) for row in rows.values()) == clients.outcomes()
    late: list[float] = []
    for one in clients.seen:
        row = rows[one.request_id]
        assert (row["outcome"], row["status"], row["instance"]) == (one.outcome, one.status, "vllm-a"), (one, row)
        late.append(row["e2e_seconds"] - one.e2e)
        if one.outcome == "ok":
            assert (row["response_id"], row["finish_reason"]) == (one.response_id, one.finish_reason), row
            assert row["completion_tokens"] == one.max_tokens, row
            assert row["prefill_seconds"] > 0, row
            if one.usage:
                assert row["prompt_tokens"] == one.usage["prompt_tokens"], row
        else:
            assert row["has_engine"] == 0, row
    # Its client began earlier and was done later; a server that is preempted looks at its clock late, and hears of a
    # client that has left when it comes to it.
    assert sum(seconds < 0.005 for seconds in late) >= 0.8 * len(late), sorted(late)[-20:]
    assert sum(row["preemptions"] for row in rows.values()) == sum(
        row["n"] for row in running.rows("SELECT sum(preemptions) AS n FROM finished_requests")
    )
    lost = [text for text in _agent(running).splitlines() if text.startswith("servescope_agent_probe_lost_total")]
    assert [float(text.split()[-1]) for text in lost] == [0, 0, 0], lost


def _sums(line: Line) -> dict[str, float]:
    sums = ", ".join(f"sum(ifNull(s.{name}, 0)) AS {name}" for name in COUNTERS)
    more = "count(s.generation_tokens) AS iterations, count(s.decode_requests) AS decode_known"
    (row,) = line.rows(f"SELECT {sums}, {more}, max(kv_cache_usage_ratio) AS fullest FROM engine_steps AS s FINAL")
    return row


def _rows(line: Line, where: str) -> list[dict[str, Any]]:
    return line.rows(f"SELECT * FROM requests WHERE operation != '' AND {where}")


def _agent(line: Line) -> str:
    with urllib.request.urlopen(f"{line.facts['urls']['agent_health']}/metrics", timeout=30) as answer:
        return str(answer.read().decode())
