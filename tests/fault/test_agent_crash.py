"""The agent is killed, its collector fails and vanishes, its disk is full: no record in the spool is lost."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
import sys
from collections import Counter
from typing import TYPE_CHECKING

import pytest

from agent.spool.writer import SpoolWriter
from tests.kits.agent_fakes import FakeCollector, until
from tests.kits.needs import lack

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


OUTAGE_SECONDS = float(os.environ.get("SERVESCOPE_OUTAGE_SECONDS", "10"))


class Agent:
    """``python -m agent`` that ships a data folder and watches nothing."""

    def __init__(self, data: Path, collector: str) -> None:
        settings = {
            "SERVESCOPE_AGENT_HEALTH_PORT": "0",
            "SERVESCOPE_AGENT_OTLP_HTTP_PORT": "null",
            "SERVESCOPE_AGENT_OTLP_GRPC_PORT": "null",
            "SERVESCOPE_AGENT_HOST": "false",
            "SERVESCOPE_AGENT_GPU": "false",
            "SERVESCOPE_AGENT_FLUSH_SECONDS": "0.05",
        }
        self.process = subprocess.Popen(
            [sys.executable, "-m", "agent", "--data", str(data), "--collector", collector],
            env=os.environ | settings,
            stderr=subprocess.DEVNULL,
        )

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout=60)


def record(number: int) -> bytes:
    return b"%08d;" % number


def numbers(merged: bytes) -> Counter[int]:
    return Counter(int(text) for text in merged.split(b";")[:-1])


async def produce(writer: SpoolWriter, count: int, seconds: float) -> None:
    """Appends all through the test, as a tap does that knows nothing of the agent's troubles."""
    for number in range(count):
        assert writer.append("traces", record(number))
        await asyncio.sleep(seconds / count)


async def test_killed_again_and_again_while_shipping(tmp_path: Path):
    """Each record arrives; with repeats of a batch id dropped, as a collector does, each arrives exactly once."""
    choose = random.Random(11)
    writer = SpoolWriter(tmp_path / "spool" / "tap-a", segment_bytes=2_000)
    async with FakeCollector(fail_share=0.3) as collector:
        producing = asyncio.create_task(produce(writer, 3000, 3.0))
        kills = 0
        while not producing.done() or kills < 4:
            agent = Agent(tmp_path, collector.url)
            seen = collector.requests
            await until(lambda seen=seen: collector.requests > seen + choose.randrange(8) or producing.done(), 60)
            await asyncio.sleep(choose.random() * 0.1)
            agent.kill()
            kills += 1
        await producing
        agent = Agent(tmp_path, collector.url)
        await until(lambda: len(numbers(collector.merged("traces"))) >= 3000, 90)
        assert agent.stop() == 0
    assert numbers(collector.merged("traces")) == Counter(range(3000))
    assert all(len(bodies) == 1 for bodies in collector.bodies.values()), "a retry carries the same bytes"
    assert kills >= 4


SHIP_ONLY = """
import asyncio, sys
from pathlib import Path
from agent.ship import Shipper
from agent.spool.reader import SpoolReader
asyncio.run(Shipper(SpoolReader(Path(sys.argv[1])), sys.argv[2], key=None, flush_seconds=0.01).run())
"""


def ship_only(spool: Path, collector: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", SHIP_ONLY, str(spool), collector])


@pytest.mark.heavy
@pytest.mark.timeout(1500)
async def test_killed_at_200_random_points(tmp_path: Path):
    choose = random.Random(23)
    kills = 200
    writer = SpoolWriter(tmp_path / "tap-a", segment_bytes=1_500)
    sent = 0
    async with FakeCollector(fail_share=0.3) as collector:
        for _ in range(kills):
            process = ship_only(tmp_path, collector.url)
            seen = collector.requests
            while collector.requests <= seen + choose.randrange(4):
                assert writer.append("traces", record(sent))
                sent += 1
                await asyncio.sleep(0.01)
            await asyncio.sleep(choose.random() * 0.03)
            process.kill()
            process.wait()
        process = ship_only(tmp_path, collector.url)
        await until(lambda: len(numbers(collector.merged("traces"))) >= sent, 120)
        process.kill()
        process.wait()
    assert numbers(collector.merged("traces")) == Counter(range(sent))
    assert all(len(bodies) == 1 for bodies in collector.bodies.values())


@pytest.mark.heavy
@pytest.mark.timeout(300 + 2 * OUTAGE_SECONDS)
async def test_a_collector_that_is_gone_for_long_costs_nothing(tmp_path: Path):
    writer = SpoolWriter(tmp_path / "spool" / "tap-a", segment_bytes=2_000)
    collector = FakeCollector()
    await collector.__aenter__()
    agent = Agent(tmp_path, collector.url)
    try:
        count = int(85 * (OUTAGE_SECONDS + 4))
        producing = asyncio.create_task(produce(writer, count, OUTAGE_SECONDS + 4))
        await until(lambda: bool(collector.accepted["traces"]), 60)
        await collector.stop()
        await asyncio.sleep(OUTAGE_SECONDS)
        await collector.start_again()
        await producing
        await until(lambda: len(numbers(collector.merged("traces"))) >= count, 90 + OUTAGE_SECONDS)
        assert numbers(collector.merged("traces")) == Counter(range(count))
    finally:
        assert agent.stop() == 0
        await collector.stop()


async def test_a_stop_drains_what_is_there(tmp_path: Path):
    async with FakeCollector() as collector:
        agent = Agent(tmp_path, collector.url)
        await until(lambda: bool(collector.accepted["logs"]), 60)  # agent_started: it ships
        writer = SpoolWriter(tmp_path / "spool" / "tap-a")
        for number in range(500):
            writer.append("traces", record(number))
        writer.close()
        code = await asyncio.to_thread(agent.stop)
    assert code == 0
    assert numbers(collector.merged("traces")) == Counter(range(500))


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(disk)]
    if subprocess.run(mount, check=False, capture_output=True).returncode:
        lack("needs the right to mount a tmpfs")
    yield disk
    subprocess.run(["umount", "-l", str(disk)], check=True)


async def test_a_full_disk_refuses_counts_and_heals(small_disk: Path):
    """What fits is delivered by an agent that starts on the full disk; the rest is counted; space is used again."""
    async with FakeCollector() as collector:
        agent = Agent(small_disk, collector.url)  # made its keys while there was space
        await until(lambda: bool(collector.accepted["logs"]), 60)
        agent.kill()
        writer = SpoolWriter(small_disk / "spool" / "tap-a", segment_bytes=100_000)
        body = record(0) * 500
        taken = sum(writer.append("traces", body) for _ in range(400))
        assert 0 < taken < 400
        assert writer.dropped == {"disk": 400 - taken}
        agent = Agent(small_disk, collector.url)
        try:
            await until(lambda: len(collector.merged("traces")) >= taken * len(body), 90)
            assert len(collector.merged("traces")) == taken * len(body)
            await until(lambda: writer.append("traces", record(1)), 60)
            await until(lambda: numbers(collector.merged("traces"))[1] > 0, 60)
        finally:
            assert agent.stop() == 0


async def test_a_second_agent_over_one_data_folder_is_refused(tmp_path: Path):
    async with FakeCollector() as collector:
        agent = Agent(tmp_path, collector.url)
        try:
            await until(lambda: bool(collector.accepted["logs"]), 60)
            second = await asyncio.to_thread(
                subprocess.run,
                [sys.executable, "-m", "agent", "--data", str(tmp_path), "--collector", collector.url],
                check=False,
                capture_output=True,
                text=True,
                timeout=60,
            )
        finally:
            agent.stop()
    assert second.returncode == 1
    assert len(second.stderr.strip().splitlines()) == 1
    assert "another agent ships from" in second.stderr
