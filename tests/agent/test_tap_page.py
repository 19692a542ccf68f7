"""What taps count stands on their agent's page: nobody else could ask them, and a killed one says nothing any more."""

from __future__ import annotations

import asyncio
import signal
from typing import TYPE_CHECKING, Any

import aiohttp
from prometheus_client.parser import text_string_to_metric_families

from agent.config import AgentConfig
from agent.sidecar import Sidecar
from agent.spool.writer import producer_folder
from agent.tap import page
from agent.tap.counters import Counters
from agent.tap.open_requests import OpenRequests
from agent.tap.page import Page, families
from tests.kits.agent_fakes import FakeCollector, until
from tests.kits.tap import PATIENCE, answer, replying, tap_process, upstream

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

QUIET = {"health_port": 0, "otlp_http_port": None, "otlp_grpc_port": None, "host": False, "gpu": False, "probe": False}


class Tap:
    """What a tap has of itself: a folder of its own and counters."""

    def __init__(self, spool: Path, instance: str) -> None:
        self.opened = OpenRequests(producer_folder(spool, f"tap-{instance}"), 4)
        self.counters = Counters()
        self.page = Page(self.opened.folder, self.counters.registry, instance)


def values(found: list[Any], name: str) -> dict[tuple[str, ...], float]:
    """Values of a sample's name by all of its labels but the process."""
    return {
        tuple(value for label, value in sorted(sample.labels.items()) if label != "pid"): sample.value
        for family in found
        for sample in family.samples
        if sample.name == name
    }


def test_taps_over_one_spool_are_told_apart_and_who_is_gone_is_not_told(tmp_path: Path):
    one, two = Tap(tmp_path, "vllm-a:8000"), Tap(tmp_path, 'odd "name"\\\n')
    one.counters.request_ended("ok", 0.002)
    one.counters.request_ended("ok", 0.002)
    two.counters.request_ended("client_abort", 0.002)
    two.counters.refused.labels("connections").inc()
    assert families(tmp_path) == []
    one.page.write()
    two.page.write()
    found = families(tmp_path)
    assert len({family.name for family in found}) == len(found)
    assert values(found, "servescope_tap_requests_total") == {
        ("vllm-a:8000", "ok"): 2,
        ('odd "name"\\\n', "client_abort"): 1,
    }
    assert values(found, "servescope_tap_connections_refused_total")[('odd "name"\\\n', "connections")] == 1
    assert values(found, "servescope_tap_edge_seconds_count") == {("vllm-a:8000",): 2, ('odd "name"\\\n',): 1}
    assert not any(sample.name.endswith("_created") for family in found for sample in family.samples)
    one.opened.close()
    assert set(values(families(tmp_path), "servescope_tap_requests_total")) == {('odd "name"\\\n', "client_abort")}
    two.opened.close()


def test_a_page_that_cannot_be_written_or_read_costs_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    one, two = Tap(tmp_path, "a"), Tap(tmp_path, "b")
    one.page.write()
    two.page.write()
    assert one.opened.folder is not None
    (one.opened.folder / page.PAGE).write_bytes(b"# TYPE\n\xff{\n")
    assert set(values(families(tmp_path), "servescope_tap_records_written_total")) == {("b",)}
    Page(None, one.counters.registry, "a").write()
    monkeypatch.setattr(page, "generate_latest", lambda _metrics: (_ for _ in ()).throw(OSError(28, "full")))
    one.page.write()
    one.opened.close()
    two.opened.close()


async def test_an_agents_page_has_what_its_taps_count(tmp_path: Path):
    async with upstream(replying(answer(b"{}"))) as up, FakeCollector() as collector:
        agent = Sidecar(AgentConfig.model_validate(QUIET | {"collector": collector.url}), tmp_path, [])
        stop = asyncio.Event()
        life = asyncio.create_task(agent.run(stop))

        async def shown() -> str:
            url = f"http://127.0.0.1:{agent.health.port}/metrics"
            async with aiohttp.ClientSession() as session, session.get(url) as response:
                assert response.status == 200
                return await response.text()

        await until(lambda: agent.health.port != 0)
        async with tap_process(up.port, tmp_path) as (process, _):
            async with asyncio.timeout(PATIENCE):
                while "servescope_tap_" not in (text := await shown()):  # noqa: ASYNC110 - another process writes it
                    await asyncio.sleep(0.05)
            told = [line for line in text.splitlines() if line.startswith("# TYPE")]
            assert len(told) == len(set(told)), "each family is described once, or parsers refuse the page"
            found = list(text_string_to_metric_families(text))
            assert values(found, "servescope_tap_records_written_total") == {("one",): 0}
            process.send_signal(signal.SIGKILL)
            await process.wait()
            assert "servescope_tap_" not in await shown()
        stop.set()
        await life
