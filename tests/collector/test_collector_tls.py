"""TLS at the collector: who trusts it, whom it trusts, and that both can change while it runs."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest

from agent.config import AgentConfig
from agent.outlet import Outlet
from agent.self_spans import start_self_spans
from agent.ship import open_session, post
from base.errors import ConfigError
from collector.config import CollectorConfig, load
from collector.server import Collector
from tests.kits.authority import Authority
from tests.kits.collector_process import free_port, spans

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncIterator
    from pathlib import Path


@asynccontextmanager
async def listening(folder: Path, **files: Path) -> AsyncIterator[Collector]:
    stop = asyncio.Event()
    config = CollectorConfig(port=0, clickhouse=f"http://127.0.0.1:{free_port()}", **files)  # type: ignore[arg-type]
    collector = Collector(config, folder / "data")
    running = asyncio.create_task(collector.run(stop))
    async with asyncio.timeout(60):
        while not collector.port:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    yield collector
    stop.set()
    await running


async def told(collector: Collector, context: ssl.SSLContext | None, host: str = "127.0.0.1") -> str:
    async with open_session(context) as session:
        reply = await post(session, f"https://{host}:{collector.port}", None, "traces", spans(1, 1), "batch")
    return "taken" if reply.acknowledged else reply.reason


async def test_a_certificate_is_trusted_by_its_authority_and_for_its_name_alone(tmp_path: Path):
    ours, other = Authority(tmp_path, "ours"), Authority(tmp_path, "other")
    leaf = ours.issue("127.0.0.1", file="collector")
    async with listening(tmp_path, certificate_file=leaf.certificate, certificate_key_file=leaf.key) as collector:
        assert await told(collector, ours.client()) == "taken"
        for wrong in (other.client(), None):
            reason = await told(collector, wrong)
            assert reason.startswith("tls: the collector's certificate is not trusted: unable to get local issuer")
            assert "agent.collector_ca_file" in reason
        assert "not valid for 'localhost'" in await told(collector, ours.client(), "localhost")


async def test_clients_show_a_certificate_of_an_authority_that_the_collector_trusts(tmp_path: Path):
    ours, clients, other = (Authority(tmp_path, name) for name in ("ours", "clients", "other"))
    leaf = ours.issue("127.0.0.1", file="collector")
    files = {"certificate_file": leaf.certificate, "certificate_key_file": leaf.key, "client_ca_file": clients.file}
    async with listening(tmp_path, **files) as collector:
        assert await told(collector, ours.client(clients.issue("a@agents.example", file="agent"))) == "taken"
        for stranger in (None, other.issue("a@agents.example", file="stranger")):
            assert "agent.client_certificate_file" in await told(collector, ours.client(stranger))
        assert collector.ledger.reasons().get("traces", {}) == {}  # nothing of theirs was read


async def test_a_reload_changes_whom_it_trusts_and_what_it_shows(tmp_path: Path):
    ours, next_ones, clients = (Authority(tmp_path, name) for name in ("ours", "next", "clients"))
    leaf, agent = ours.issue("127.0.0.1", file="collector"), clients.issue("a@agents.example", file="agent")
    files = {"certificate_file": leaf.certificate, "certificate_key_file": leaf.key, "client_ca_file": clients.file}
    async with listening(tmp_path, **files) as collector:
        assert await told(collector, ours.client(agent)) == "taken"
        next_ones.issue("127.0.0.1", file="collector")
        clients.file.write_bytes(next_ones.file.read_bytes())
        assert await told(collector, ours.client(agent)) == "taken"  # nobody said that the files changed
        collector.reload()
        assert (await told(collector, ours.client(agent))).startswith("tls: the collector's certificate")
        assert "agent.client_certificate_file" in await told(collector, next_ones.client(agent))
        renewed = next_ones.issue("a@agents.example", file="agent")
        assert await told(collector, next_ones.client(renewed)) == "taken"

        leaf.key.write_text("no key")
        with pytest.raises(ConfigError, match=r"collector\.certificate_file .*collector\.key"):
            collector.reload()
        assert await told(collector, next_ones.client(renewed)) == "taken"


async def test_an_agent_that_reads_its_certificates_again_shows_and_trusts_the_new_ones(tmp_path: Path):
    ours, next_ones = Authority(tmp_path, "ours"), Authority(tmp_path, "next")
    leaf, agent = ours.issue("127.0.0.1", file="collector"), ours.issue("a@agents.example", file="agent")
    trusted = tmp_path / "trusted.pem"
    trusted.write_bytes(ours.file.read_bytes())
    outlet = Outlet(
        AgentConfig(
            collector="https://collector.example",
            collector_ca_file=trusted,
            client_certificate_file=agent.certificate,
            client_key_file=agent.key,
        ),
        tmp_path / "agent",
    )
    files = {"certificate_file": leaf.certificate, "certificate_key_file": leaf.key, "client_ca_file": ours.file}
    async with listening(tmp_path, **files) as collector:
        context = outlet.shipper._tls
        assert await told(collector, context) == "taken"
        for folder_file in (ours.file, trusted):
            folder_file.write_bytes(next_ones.file.read_bytes())
        next_ones.issue("127.0.0.1", file="collector")
        collector.reload()
        assert (await told(collector, context)).startswith("tls: ")
        next_ones.issue("a@agents.example", file="agent")
        outlet.renew()
        assert await told(collector, context) == "taken"

        agent.key.write_text("no key")
        with pytest.raises(ConfigError, match=r"agent\.key"):
            outlet.renew()
        assert await told(collector, context) == "taken"
    await outlet.close()


async def test_spans_of_the_agents_own_work_go_by_its_certificates_too(tmp_path: Path):
    ours, clients = Authority(tmp_path, "ours"), Authority(tmp_path, "clients")
    leaf, agent = ours.issue("127.0.0.1", file="collector"), clients.issue("a@agents.example", file="agent")
    files = {"certificate_file": leaf.certificate, "certificate_key_file": leaf.key, "client_ca_file": clients.file}
    async with listening(tmp_path, **files) as collector:
        config = AgentConfig(
            collector=f"https://127.0.0.1:{collector.port}",
            collector_ca_file=ours.file,
            client_certificate_file=agent.certificate,
            client_key_file=agent.key,
        )
        span, end = start_self_spans(config)
        with span("ship", {}):
            pass
        await asyncio.to_thread(end)
        assert b'received_records_total{signal="traces"} 1.0\n' in collector.ledger.page()


@pytest.mark.parametrize(
    ("given", "fault"),
    [
        (("certificate_file",), "certificate_key_file go together"),
        (("certificate_key_file",), "certificate_key_file go together"),
        (("client_ca_file",), "needs certificate_file"),
    ],
)
def test_settings_of_tls_that_lack_others_are_refused_by_name(tmp_path: Path, given: tuple[str, ...], fault: str):
    file = tmp_path / "some.pem"
    file.write_text("any")
    config = tmp_path / "servescope.yaml"
    config.write_text("collector:\n" + "".join(f"  {name}: {file}\n" for name in given))
    with pytest.raises(ConfigError, match=rf"collector\.{given[0]}.*{fault}"):
        load(config)


def test_files_that_are_no_certificates_are_named_at_the_start(tmp_path: Path):
    file = tmp_path / "some.pem"
    file.write_text("any")
    config = CollectorConfig(port=0, certificate_file=file, certificate_key_file=file)
    with pytest.raises(ConfigError, match=r"collector\.certificate_file .*some\.pem.* can't be used"):
        Collector(config, tmp_path)
