"""The line end to end over a real vLLM: counts, phases, tokens, the engine's own page, a pager for a full cache."""

from __future__ import annotations

import asyncio
import itertools
import json
import statistics
import time
from collections import Counter
from functools import partial
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest

from tests.kits.line import Line, Pages, free_block, start_line, total, wait_for
from tests.real.vllm_kit import Clients, Vllm

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(900)]

# Without a "for": each time several answers end together the cache is half empty for a second.
RULES = """
version: 1
rules:
  - name: kv-cache-full
    description: Preemptions are next.
    when: {kind: signal, signal: kv_cache_usage_ratio, above: 0.9}
    keep_firing_for: 5s
    severity: critical
"""
ENGINE_PHASES = "queue_seconds + prefill_seconds + decode_seconds + stall_seconds"
PHASES = f"edge_seconds + transit_seconds + frontend_seconds + {ENGINE_PHASES}"
SIGNALS = {
    "running": "vllm:num_requests_running",
    "waiting": "vllm:num_requests_waiting",
    "kv_cache_usage_ratio": "vllm:kv_cache_usage_perc",
    "preemptions_total": "vllm:num_preemptions_total",
    "prompt_tokens_total": "vllm:prompt_tokens_total",
    "generation_tokens_total": "vllm:generation_tokens_total",
    "prefix_cache_queries_total": "vllm:prefix_cache_queries_total",
    "prefix_cache_hits_total": "vllm:prefix_cache_hits_total",
    "requests_finished_total": "vllm:request_success_total",
    "engine_steps_total": "vllm:iteration_tokens_total_count",
    "batch_tokens_total": "vllm:iteration_tokens_total_sum",
    "queue_seconds_total": "vllm:request_queue_time_seconds_sum",
}
HISTOGRAMS = {
    "ttft_seconds": "vllm:time_to_first_token_seconds",
    "itl_seconds": "vllm:inter_token_latency_seconds",
    "e2e_seconds": "vllm:e2e_request_latency_seconds",
    "queue_seconds": "vllm:request_queue_time_seconds",
    "completion_tokens": "vllm:request_generation_tokens",
}


@pytest.fixture(scope="module")
def shown() -> Iterator[Pages]:
    """The pages that the agent was shown."""
    base = free_block()
    with Pages(f"http://127.0.0.1:{base + 30}/metrics", base + 34) as pages:
        yield pages


@pytest.fixture(scope="module")
def vllm_line(tmp_path_factory: pytest.TempPathFactory, shown: Pages) -> Iterator[tuple[Line, Vllm]]:
    folder = tmp_path_factory.mktemp("line")
    base = shown.port - 34
    rules = folder / "rules.yaml"
    rules.write_text(RULES)
    vllm = Vllm(folder / "vllm", base + 30, f"http://127.0.0.1:{base + 2}", f"http://127.0.0.1:{base + 3}")
    vllm.launch("http/protobuf")  # as in life: the line is up before the server, and learns what it is later
    try:
        target = {"instance": "vllm-a", "url": vllm.url, "metrics_url": shown.url}
        settings = folder / "servescope.yaml"
        settings.write_text(json.dumps({"agent": {"targets": [target]}, "alerts": {"evaluate_every_seconds": 1}}))
        line = start_line(folder / "data", base, "", "--slos", str(rules), "--config", str(settings))
        try:
            assert line.facts["urls"]["agent_otlp"].endswith(f":{base + 2}")
            assert line.facts["urls"]["agent_otlp_grpc"].endswith(f":{base + 3}")
            vllm.wait_ready()
            wait_for(
                lambda: line.rows("SELECT count() AS n FROM engine_samples WHERE up = 1")[0]["n"] > 3, 120, "samples"
            )
            tap = line.data / "logs" / "tap-vllm-a.log"
            wait_for(lambda: "tap_engine_found" in tap.read_text(), 120, "the tap to know its engine")
            yield line, vllm
        finally:
            assert line.stop() == 0, line.log.read_text()[-3000:]
    finally:
        vllm.stop()


def _session() -> aiohttp.ClientSession:
    return aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=120), connector=aiohttp.TCPConnector(limit=0))


async def _drive(clients: Clients) -> None:
    """Finished, refused and broken-off requests of three tenants, four at a time."""
    tenants = itertools.cycle(("acme", "acme", "globex", "initech"))
    send = clients.send
    async with _session() as session:
        work = [
            *(partial(send, session, next(tenants), "completion") for _ in range(16)),
            *(partial(send, session, next(tenants), "completion", stream=True, max_tokens=96) for _ in range(16)),
            *(partial(send, session, next(tenants), "chat", max_tokens=48) for _ in range(12)),
            *(partial(send, session, next(tenants), "chat", stream=True, words=150) for _ in range(12)),
            *(partial(send, session, next(tenants), "chat", stream=True, usage=False) for _ in range(8)),
            *(partial(send, session, next(tenants), "completion", words=2000) for _ in range(5)),
            *(partial(send, session, next(tenants), "chat", temperature=-1) for _ in range(4)),
            *(partial(send, session, next(tenants), "chat", stream=True, max_tokens=-5) for _ in range(3)),
            *(partial(send, session, next(tenants), "completion", model="no-such-model") for _ in range(6)),
        ]
        gate = asyncio.Semaphore(4)

        async def one(job: Any) -> None:
            async with gate:
                await job()

        await asyncio.gather(*(one(job) for job in work))
        # One by one, and as long as the context lets them be: many at once keep the API server so busy that whole
        # answers come in one go, and nobody can leave before the end.
        for kind in ("completion", "chat") * 5:
            await send(session, next(tenants), kind, stream=True, words=10, max_tokens=900, leave_after=5)


def _rows(line: Line, clients: Clients, columns: str, where: str = "1") -> list[dict[str, Any]]:
    return line.rows(
        f"SELECT {columns} FROM requests WHERE startsWith(request_id, {{prefix:String}}) AND {where}",
        {"prefix": f"{clients.prefix}-"},
    )


def _wait_for_rows(line: Line, clients: Clients) -> None:
    sent, finished = len(clients.seen), sum(one.outcome == "ok" for one in clients.seen)
    wait_for(lambda: _rows(line, clients, "count() AS n", "has_edge = 1")[0]["n"] >= sent, 60, "all rows")
    wait_for(
        lambda: _rows(line, clients, "count() AS n", "has_edge = 1 AND has_engine = 1")[0]["n"] >= finished,
        90, "the engine's half of every finished request",
    )  # fmt: skip


def _newest(line: Line) -> dict[str, Any]:
    return line.rows(
        f"SELECT toUnixTimestamp64Milli(time) AS ms, {', '.join(SIGNALS)} FROM engine_samples"
        " WHERE instance = 'vllm-a' AND up = 1 ORDER BY time DESC LIMIT 1"
    )[0]


def _settled(line: Line, vllm: Vllm) -> tuple[int, dict[str, float]]:
    """Wait until the engine is quiet and the newest sample is its page; returns the sample's time and the page."""
    found: tuple[int, dict[str, float]] = (0, {})

    def same() -> bool:
        nonlocal found
        page, sample = vllm.page(), _newest(line)
        found = (int(sample["ms"]), page)
        quiet = page["vllm:num_requests_running"] == page["vllm:num_requests_waiting"] == 0
        return quiet and all(sample[name] == pytest.approx(page[series]) for name, series in SIGNALS.items())

    wait_for(same, 60, "the newest sample to be the engine's own page")
    return found


def test_every_request_has_its_row_and_the_engine_agrees(vllm_line: tuple[Line, Vllm]) -> None:
    line, vllm = vllm_line
    since, before = _settled(line, vllm)
    clients = Clients(line.tap)
    asyncio.run(_drive(clients))
    assert Counter(one.outcome for one in clients.seen) == {"ok": 64, "client_error": 18, "client_abort": 10}

    _wait_for_rows(line, clients)
    rows = {row["request_id"]: row for row in _rows(line, clients, "*")}
    assert len(rows) == len(clients.seen) == len(_rows(line, clients, "key"))
    assert Counter((row["tenant"], row["outcome"]) for row in rows.values()) == clients.outcomes()
    left_early = 0
    for one in clients.seen:
        row = rows[one.request_id]
        assert (row["outcome"], row["status"]) == (one.outcome, one.status), (one, row)
        assert row["stream"] == int(one.stream and one.status == 200), (one, row)
        assert (row["has_edge"], row["instance"], row["engine"]) == (1, "vllm-a", "vllm"), row
        if one.outcome == "client_error":
            assert (row["has_engine"], row["completion_tokens"]) == (0, 0), row
        if one.outcome == "ok":
            assert row["has_engine"] == 1, row
            assert row["version"].startswith("0."), row
            assert row["model"] == "tiny"
            assert row["response_id"] == one.response_id
            assert row["finish_reason"] == one.finish_reason == "length", row
            assert row["completion_tokens"] == one.max_tokens, row
            assert row["tokens_counted"] == 0, row
            assert row["prefill_seconds"] > 0, row
            assert row["decode_seconds"] > 0, row
            assert row["prompt_tokens"] > 0
            if one.usage:
                assert row["prompt_tokens"] == one.usage["prompt_tokens"], row
                assert row["completion_tokens"] == one.usage["completion_tokens"], row
        if one.outcome == "client_abort":
            # The engine may have been done while the client was still to hear of it.
            assert row["has_engine"] or 5 <= row["completion_tokens"] < 2 * one.max_tokens, row
            assert row["has_engine"] or row["tokens_counted"] == 1, row
            left_early += 1 - row["has_engine"]
    assert left_early == 10
    _times_are_the_clients(clients, rows)
    _phases_add_up(line, clients)
    _history_adds_up(line, since, before, *_settled(line, vllm))


def _times_are_the_clients(clients: Clients, rows: dict[str, dict[str, Any]]) -> None:
    waits: list[float] = []
    gaps: list[float] = []
    for one in (one for one in clients.seen if one.outcome == "ok"):
        row = rows[one.request_id]
        assert 0 < row["ttft_seconds"] <= row["e2e_seconds"] + 1e-6, row
        assert row["e2e_seconds"] <= one.e2e + 0.002, (one, row)  # the client began earlier and was done later
        if one.stream:
            waits.append(one.first_text - row["ttft_seconds"])
            gaps.append(row["itl_mean_seconds"])
            assert row["itl_gaps"] > 0
            assert 0 <= row["itl_mean_seconds"] <= row["itl_max_seconds"] <= row["e2e_seconds"], row
    # A tap that is preempted between sending and looking at its clock is late itself: most, not all.
    assert sum(wait > -0.005 for wait in waits) >= 0.8 * len(waits), waits
    assert abs(statistics.median(waits)) < 0.05, waits
    assert max(gaps) > 0, gaps  # a starved machine hands many whole answers over in one go


def _phases_add_up(line: Line, clients: Clients) -> None:
    """To the time at the edge, and – with nothing left over – to the time that the engine says itself."""
    near = "countIf(abs({whole} - ({parts})) <= greatest(0.005, 0.05 * {whole}))"
    gap = "quantile(0.5)(abs({whole} - ({parts})))"
    edge, engine = {"whole": "e2e_seconds", "parts": PHASES}, {"whole": "engine_e2e_seconds", "parts": ENGINE_PHASES}
    own = {"whole": "engine_e2e_seconds", "parts": "queue_seconds + stall_seconds + prefill_seconds + decode_seconds"}
    off = _rows(
        line, clients,
        f"count() AS n, {near.format(**edge)} AS edge_near, {gap.format(**edge)} AS edge_gap,"
        f" {near.format(**engine)} AS engine_near, {gap.format(**engine)} AS engine_gap,"
        f" {near.format(**own)} AS own_near,"
        " countIf(edge_seconds + engine_e2e_seconds <= e2e_seconds + 0.005) AS inside,"
        " quantile(0.5)(transit_seconds) AS transit", "outcome = 'ok'",
    )[0]  # fmt: skip
    assert off["n"] == sum(one.outcome == "ok" for one in clients.seen)
    assert off["edge_near"] == off["n"], off
    assert off["edge_gap"] <= 0.005, off
    assert off["engine_near"] >= 0.7 * off["n"], off  # a starved API server is late in reading and in ending
    assert off["engine_gap"] <= 0.005, off
    assert off["own_near"] >= 0.9 * off["n"], off  # its own phases and its own whole, no remainder among them
    assert off["inside"] >= 0.9 * off["n"], off


def _history_adds_up(line: Line, since: int, before: dict[str, float], until: int, after: dict[str, float]) -> None:
    """What lies in the store between two quiet moments is what the page grew by."""
    span: dict[str, object] = {"since": since, "until": until}
    between = (
        "instance = 'vllm-a' AND toUnixTimestamp64Milli(time) > {since:Int64}"
        " AND toUnixTimestamp64Milli(time) <= {until:Int64}"
    )
    counters = {name: series for name, series in SIGNALS.items() if name.endswith("_total")}
    sums = ", ".join(f"sum({name.removesuffix('_total')}_delta) AS {name}" for name in counters)
    grown = line.rows(f"SELECT {sums} FROM engine_samples WHERE {between}", span)[0]
    assert grown == pytest.approx({name: after[series] - before[series] for name, series in counters.items()})
    stored = {
        row["signal"]: row
        for row in line.rows(
            "SELECT signal, sum(count) AS n, sum(sum) AS total, sumForEach(counts) AS counts FROM engine_histograms"
            f" WHERE {between} GROUP BY signal", span,
        )
    }  # fmt: skip
    for signal, family in HISTOGRAMS.items():
        assert (
            stored[signal]["n"] == sum(stored[signal]["counts"]) == after[f"{family}_count"] - before[f"{family}_count"]
        )
        assert stored[signal]["total"] == pytest.approx(after[f"{family}_sum"] - before[f"{family}_sum"])


def test_spans_come_over_http_and_over_grpc(vllm_line: tuple[Line, Vllm]) -> None:
    line, vllm = vllm_line

    def check(prefix: str) -> None:
        clients = Clients(line.tap, prefix=prefix)

        async def some() -> None:
            async with _session() as session:
                for _ in range(4):
                    await clients.send(session, "acme", "chat", stream=True)
                    await clients.send(session, "globex", "completion")

        asyncio.run(some())
        assert clients.outcomes() == {("acme", "ok"): 4, ("globex", "ok"): 4}
        _wait_for_rows(line, clients)
        for row in _rows(line, clients, "*"):
            assert row["prefill_seconds"] > 0, row
            assert row["decode_seconds"] > 0, row
            assert row["prompt_tokens"] > 0, row

    check(f"first-{vllm.protocol}")
    begun = time.time()
    assert vllm.stop() == 0
    vllm.launch("grpc" if vllm.protocol == "http/protobuf" else "http/protobuf")
    wait_for(lambda: "instance_down" in _events(line, begun), 60, "the stop to be noticed")
    vllm.wait_ready()
    wait_for(lambda: "instance_up" in _events(line, begun), 60, "the new server to be noticed")
    check(f"second-{vllm.protocol}")


def _events(line: Line, since: float) -> set[str]:
    rows = line.rows(
        "SELECT DISTINCT event FROM events WHERE instance = 'vllm-a' AND time >= toDateTime64({since:Float64}, 3)",
        {"since": since},
    )
    return {str(row["event"]) for row in rows}


def _samples_were_the_pages(line: Line, shown: Pages, begun: float, ended: float) -> None:
    """Each second's sample, while the server is flooded, is the page that it showed in that second."""
    samples = line.rows(
        f"SELECT toUnixTimestamp64Milli(time) / 1000 AS at, {', '.join(SIGNALS)} FROM engine_samples"
        " WHERE instance = 'vllm-a' AND up = 1 AND time > toDateTime64({begun:Float64}, 3)"
        " AND time < toDateTime64({ended:Float64}, 3)", {"begun": begun + 1, "ended": ended - 1},
    )  # fmt: skip
    assert len(samples) > 5
    for sample in samples:
        page = shown.at(sample["at"])
        assert {name: sample[name] for name in SIGNALS} == pytest.approx(
            {name: total(page, family) for name, family in SIGNALS.items()}
        ), sample


def test_a_full_cache_shows_pages_and_resolves(vllm_line: tuple[Line, Vllm], shown: Pages) -> None:
    line, vllm = vllm_line
    since, before = _settled(line, vllm)
    known = len(line.pages())
    clients = Clients(line.tap, prefix="flood")
    begun = time.time()

    async def flood() -> float:
        paged = 0.0
        async with _session() as session:

            async def client() -> None:
                while not paged:
                    await clients.send(session, "hooli", "completion", stream=True, words=500, max_tokens=250)

            running = [asyncio.create_task(client()) for _ in range(64)]
            while not paged and time.time() < begun + 60:
                await asyncio.sleep(0.25)
                if len(line.pages()) > known:
                    paged = time.time()
            paged = paged or time.time()
            await asyncio.gather(*running)
        return paged

    paged = asyncio.run(flood())
    ended = time.time()
    assert len(line.pages()) > known, "no page"
    page = line.pages()[known]
    assert page["action"] == "trigger"
    assert paged - begun < 20, f"paged after {paged - begun:.1f} s"
    assert "vllm-a" in str(page["event"]["payload"]), page

    def resolved() -> bool:
        return any(one["action"] == "resolve" and one["dedup_key"] == page["dedup_key"] for one in line.pages())

    wait_for(resolved, 90, "the page's resolve")
    assert time.time() - ended < 60, f"resolved {time.time() - ended:.1f} s after the end"
    assert sum(one["action"] == "trigger" and one["dedup_key"] == page["dedup_key"] for one in line.pages()) == 1

    until, after = _settled(line, vllm)
    most = line.rows(
        "SELECT max(kv_cache_usage_ratio) AS kv, max(waiting) AS waiting, max(running) AS running FROM engine_samples"
        " WHERE instance = 'vllm-a' AND toUnixTimestamp64Milli(time) BETWEEN {since:Int64} AND {until:Int64}",
        {"since": since, "until": until},
    )[0]
    assert most["kv"] >= 0.9, most
    assert most["waiting"] > 10, most
    assert after["vllm:num_preemptions_total"] > before["vllm:num_preemptions_total"]
    _samples_were_the_pages(line, shown, begun, ended)
    _wait_for_rows(line, clients)
    rows = _rows(
        line, clients, "tenant, outcome, count() AS n, max(queue_seconds) AS queue", "1 GROUP BY tenant, outcome"
    )
    assert {(row["tenant"], row["outcome"]): row["n"] for row in rows} == clients.outcomes()
    assert clients.outcomes().keys() == {("hooli", "ok")}
    assert rows[0]["queue"] > 0.5, rows  # the engine says itself that they queued
    _history_adds_up(line, since, before, until, after)
