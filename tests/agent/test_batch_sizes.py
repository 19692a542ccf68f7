"""Triton's batch sizes, which are on no page: asked for beside it, and lines of it from there on."""

from __future__ import annotations

import asyncio
import gzip
import json
from collections import Counter
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

from agent.engine_table import find_table
from agent.pages import exposition
from agent.pages.page import PageReader, parse
from agent.pages.probe import probe
from agent.pages.samples import Sampler
from agent.recording.folder import Recording
from agent.recording.playback import Playback
from agent.recording.record import record
from agent.sources.metrics_page import MetricsPages
from agent.target import Target
from base.vocabulary import Distribution

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

FIXTURES = Path(__file__).parents[1] / "fixtures" / "triton"
PAGE = gzip.decompress((FIXTURES / "metrics_busy_01.txt.gz").read_bytes())
REPLY = (FIXTURES / "statistics_busy.json").read_bytes()
TABLE = find_table("triton")
SOON = 20.0


def told(**models: Mapping[int, int]) -> bytes:
    """A reply of models whose executions take 1 ms of input, 7 of inference and 2 of output."""
    return json.dumps({
        "model_stats": [
            {"name": name, "version": "1", "batch_stats": [
                {"batch_size": items, "compute_input": {"count": count, "ns": count * 1_000_000},
                 "compute_infer": {"count": count, "ns": count * 7_000_000},
                 "compute_output": {"count": count, "ns": count * 2_000_000}}
                for items, count in sizes.items()
            ]}
            for name, sizes in models.items()
        ]
    }).encode()  # fmt: skip


def page_of(reply: bytes | None) -> bytes:
    assert TABLE.statistics is not None
    return PAGE if reply is None else exposition.after(PAGE, TABLE.statistics.page(reply))


def increases(*replies: bytes | None) -> list[dict[tuple[str, str], tuple[dict[float, int], float]]]:
    """Of each page what each model gained by upper bound, and the sum."""
    reader, sampler, found = PageReader(), Sampler(TABLE), []
    for reply in replies:
        page = reader.read(page_of(reply))
        assert page.faults == ()
        found.append({
            (sample.key.model, str(one.distribution)): (
                {bound: count for bound, count in zip((*one.bounds, float("inf")), one.counts, strict=True) if count},
                one.total,
            )
            for sample in sampler.sample(page).samples
            for one in sample.histograms
        })  # fmt: skip
    return found


def test_the_lines_are_what_the_server_told():
    page = parse(page_of(REPLY))
    values = {(one.name, one.labels["model"], one.labels.get("le", "")): one.value for one in page.samples()
              if one.name.startswith("servescope_")}  # fmt: skip
    for model in json.loads(REPLY)["model_stats"]:
        sizes = {one["batch_size"]: one for one in model["batch_stats"]}
        for bound in (1, 8, 10, 16, 1024):
            below = sum(one["compute_infer"]["count"] for size, one in sizes.items() if size <= bound)
            assert values["servescope_batch_size_bucket", model["name"], str(bound)] == below
        assert values["servescope_batch_size_count", model["name"], ""] == model["execution_count"]
        assert values["servescope_batch_size_sum", model["name"], ""] == model["inference_count"]
        spent = sum(sum(one[part]["ns"] for part in one if part != "batch_size") for one in sizes.values())
        micros = values["servescope_batch_compute_microseconds_bucket", model["name"], "+Inf"]
        assert micros == pytest.approx(spent / 1000, abs=len(sizes))
    assert values["servescope_batch_size_count", "vision_classifier", ""] > 1


def test_what_was_counted_before_anybody_looked_is_no_increase():
    first, second, third = increases(None, told(a={4: 1000}), told(a={4: 1002, 16: 1}))
    assert first == second == {}
    assert third["a", Distribution.BATCH_SIZE] == ({4.0: 2, 16.0: 1}, 2 * 4 + 16)
    assert third["a", Distribution.BATCH_COMPUTE_MICROSECONDS][0] == {4.0: 20_000, 16.0: 10_000}


def test_a_model_that_is_loaded_later_counts_from_its_start():
    _, none, loaded, gone, again = increases(None, told(), told(a={1: 3}), told(), told(a={1: 2}))
    assert none == gone == {}
    assert loaded["a", Distribution.BATCH_SIZE] == ({1.0: 3}, 3)
    assert again["a", Distribution.BATCH_SIZE] == ({1.0: 2}, 2)


def test_counters_that_fell_began_at_0():
    *_, fell = increases(None, told(a={8: 50}), told(a={8: 5}))
    assert fell["a", Distribution.BATCH_SIZE] == ({8.0: 5}, 40)


def test_sizes_between_bounds_and_above_all_lie_under_the_next():
    *_, gained = increases(None, told(a={}), told(a={17: 1, 20: 1, 5000: 2}))
    assert gained["a", Distribution.BATCH_SIZE] == ({20.0: 2, float("inf"): 2}, 37 + 10_000)


def test_a_server_of_very_many_models_costs_a_bounded_page():
    reply = told(**{f"m{number}": {1: 1} for number in range(5_000)})
    names = {one.labels["model"] for one in parse(page_of(reply)).samples() if one.name.startswith("servescope_")}
    assert len(names) == 128


NAMES = st.text(max_size=20)
NUMBERS = st.one_of(st.integers(), st.floats(), st.none(), st.text(max_size=3))
SPENT = st.fixed_dictionaries({"count": NUMBERS, "ns": NUMBERS})
BATCH = st.fixed_dictionaries({
    "batch_size": NUMBERS, "compute_input": SPENT, "compute_infer": SPENT, "compute_output": SPENT
})  # fmt: skip
MODEL = st.fixed_dictionaries({"name": NAMES, "version": NAMES, "batch_stats": st.lists(BATCH, max_size=3)})


@given(st.one_of(
    st.binary(max_size=50),
    st.fixed_dictionaries({"model_stats": st.lists(MODEL, max_size=3)}).map(lambda one: json.dumps(one).encode()),
))  # fmt: skip
def test_whatever_comes_is_refused_or_read_as_lines(body: bytes):
    try:
        page = parse(page_of(body))
    except ValueError:
        return
    assert page.faults_total == page.repeated, "two models of one name are one"


class Server:
    """A Triton whose statistics a test sets; its page is two ports above."""

    def __init__(self) -> None:
        self.reply: bytes | int = told(a={4: 10})
        self.hang = asyncio.Event()
        self.hang.set()
        self.asked: Counter[str] = Counter()
        self.url = ""

    async def metrics(self, _request: web.Request) -> web.Response:
        self.asked["page"] += 1
        return web.Response(body=PAGE)

    async def statistics(self, _request: web.Request) -> web.Response:
        self.asked["statistics"] += 1
        await self.hang.wait()
        return web.Response(status=self.reply) if isinstance(self.reply, int) else web.Response(body=self.reply)

    async def about(self, _request: web.Request) -> web.Response:
        return web.json_response({"name": "triton", "version": "2.51.0"})


@asynccontextmanager
async def serving() -> AsyncIterator[Server]:
    server, app, pages = Server(), web.Application(), web.Application()
    pages.router.add_get("/metrics", server.metrics)
    app.router.add_get("/v2/models/stats", server.statistics)
    app.router.add_get("/v2", server.about)
    runners = [web.AppRunner(one, shutdown_timeout=0.1) for one in (app, pages)]
    for runner in runners:
        await runner.setup()
    for port in range(28_000, 29_000, 4):
        try:
            await web.TCPSite(runners[0], "127.0.0.1", port).start()
            await web.TCPSite(runners[1], "127.0.0.1", port + 2).start()
        except OSError:
            continue
        server.url = f"http://127.0.0.1:{port}"
        break
    try:
        yield server
    finally:
        server.hang.set()
        for runner in runners:
            await runner.cleanup()


class Seen:
    def __init__(self) -> None:
        self.sizes: Counter[str] = Counter()
        self.events: list[str] = []
        self.samples = 0

    def emit(self, signal: str, body: bytes) -> None:
        if signal == "logs":
            self.events += [word for word in ("statistics_absent", "statistics_back") if word.encode() in body]
            return
        self.samples += 1
        for one in ExportMetricsServiceRequest.FromString(body).resource_metrics:
            for metric in one.scope_metrics[0].metrics:
                if metric.name == "batch_size":
                    self.sizes["executions"] += metric.histogram.data_points[0].count
                    self.sizes["items"] += int(metric.histogram.data_points[0].sum)

    async def until(self, condition: Any) -> None:
        async with asyncio.timeout(SOON):
            while not condition():  # noqa: ASYNC110 - the state is of several tasks
                await asyncio.sleep(0.01)


@asynccontextmanager
async def watching(server: Server, beside_seconds: float = 0.2) -> AsyncIterator[Seen]:
    seen = Seen()
    source = MetricsPages([Target("t", "vision", "triton", server.url)], interval_seconds=0.05, timeout_seconds=SOON,
                          beside_seconds=beside_seconds)  # fmt: skip
    task = asyncio.create_task(source.run(seen.emit))
    try:
        yield seen
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_samples_carry_what_was_executed_while_somebody_looked():
    async with serving() as server, watching(server) as seen:
        await seen.until(lambda: server.asked["statistics"] >= 2)
        server.reply = told(a={4: 12, 16: 1})
        await seen.until(lambda: seen.sizes["executions"] >= 3)
        server.reply = told(a={4: 12, 16: 2})
        await seen.until(lambda: seen.sizes["executions"] >= 4)
    assert seen.sizes == {"executions": 4, "items": 2 * 4 + 2 * 16}
    assert seen.events == []
    assert server.asked["page"] > server.asked["statistics"], "seldomer than the page"


async def test_statistics_that_hang_hold_up_no_page():
    async with serving() as server, watching(server, 0.01) as seen:
        server.hang.clear()
        await seen.until(lambda: server.asked["statistics"] == 1)
        before = seen.samples
        await seen.until(lambda: seen.samples >= before + 10)
        assert server.asked["statistics"] == 1, "and are not asked for twice at once"


@pytest.mark.parametrize("bad", [404, b"<html>", b"{}", b'{"model_stats": [{"name": 5}]}'])
async def test_statistics_that_do_not_come_are_told_once_and_that_they_came_again(bad: bytes | int):
    async with serving() as server, watching(server, 0.02) as seen:
        await seen.until(lambda: server.asked["statistics"] >= 2)
        server.reply = bad
        await seen.until(lambda: seen.events)
        asked = server.asked["statistics"]
        await seen.until(lambda: server.asked["statistics"] > asked + 3)
        server.reply = told(a={4: 11})
        await seen.until(lambda: seen.sizes["executions"])
        await seen.until(lambda: len(seen.events) > 1)
    assert seen.events == ["statistics_absent", "statistics_back"]
    assert seen.sizes == {"executions": 1, "items": 4}, "what was counted meanwhile, and nothing again"


async def test_a_probe_tells_sizes_since_the_servers_start():
    async with serving() as server:
        server.reply = told(a={4: 10, 17: 1, 2000: 1}, b={})
        found = await asyncio.to_thread(probe, server.url)
        server.reply = 404
        without = await asyncio.to_thread(probe, server.url)
    assert found["batch_sizes"] == {
        "a": [
            {"from": 4, "to": 4, "executions": 10, "compute_seconds": pytest.approx(0.1)},
            {"from": 17, "to": 20, "executions": 1, "compute_seconds": pytest.approx(0.01)},
            {"from": 1025, "to": None, "executions": 1, "compute_seconds": pytest.approx(0.01)},
        ]
    }
    assert found["unmapped"] == []
    assert without["batch_sizes"] == {}
    assert any("404" in note for note in without["notes"])


async def test_a_recording_has_them_and_plays_them_again(tmp_path: Path):
    async with serving() as server:
        ended = asyncio.Event()

        async def use() -> None:
            while server.asked["statistics"] < 1:  # noqa: ASYNC110 - the server's count
                await asyncio.sleep(0.01)
            page = server.asked["page"]
            while server.asked["page"] < page + 3:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
            ended.set()

        using = asyncio.create_task(use())
        target = Target("t", "vision", "triton", server.url)
        await record(tmp_path / "out", [target], seconds=SOON, otlp_http_port=None, interval_seconds=0.05, until=ended)
        await using
    recording = Recording(tmp_path / "out")
    texts = [str(row["text"]) for row in recording.rows("pages.jsonl.gz")]
    assert 'servescope_batch_size_bucket{model="a",version="1",le="4"} 10' in texts[-1]
    assert "servescope_" not in texts[0]
    played = Playback(recording)
    assert sum(b"batch_size" in item.body for item in played.items()) == 0, "nothing was executed meanwhile"
    assert played.counts["samples"] == len(texts)
