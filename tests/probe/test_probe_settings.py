"""What an engine is configured with arrives as it is, told to whoever comes; what else stands there stays there."""

from __future__ import annotations

import asyncio
import logging
import sys
import time
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from servescope_probe import plugin, settings, wire
from servescope_probe.plugin import StepLogger
from servescope_probe.sender import Sender

from agent.config import AgentConfig
from agent.pages.follow import Follower
from agent.probe import datagram
from agent.probe.datagram import Config, Process
from agent.probe.settings import Settings
from agent.sidecar import Sidecar
from agent.target import Target
from analytics.questions import steps
from analytics.selection import Selection
from analytics.window import Window
from collector import framing
from collector.auth import NOBODY
from tests.kits.agent_fakes import FakeCollector, until
from tests.kits.schema_tools import fresh_store, token
from tests.probe.probe_kit import VLLM, Listener, Mailbox
from tests.probe.vllm_shapes import config_of_0_9, config_of_0_32, of_0_32

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.conftest import StoreServer

NUMBERS = st.integers(min_value=-1, max_value=2**31 - 1)
WORDS = st.text(max_size=60)
PLAIN = {
    "max_num_seqs": "256", "max_num_batched_tokens": "2048", "max_model_len": "4096", "block_size": "16",
    "enable_chunked_prefill": "False", "tensor_parallel_size": "2", "pipeline_parallel_size": "1",
    "data_parallel_size": "1", "num_speculative_tokens": "0", "max_loras": "0", "cache_dtype": "auto",
}  # fmt: skip
FULL = PLAIN | {
    "max_num_seqs": "8", "max_num_batched_tokens": "512", "max_num_scheduled_tokens": "488", "block_size": "32",
    "num_gpu_blocks": "1234", "enable_prefix_caching": "True", "enable_chunked_prefill": "True",
    "num_speculative_tokens": "3", "max_loras": "4", "cache_dtype": "fp8_e4m3", "speculative_method": "eagle3",
}  # fmt: skip


@pytest.fixture
def mailbox(tmp_path: Path) -> Iterator[Mailbox]:
    box = Mailbox(tmp_path / "mailbox.sock")
    yield box
    box.close()


@pytest.fixture(autouse=True)
def _nobody_elses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is told when it is made goes to no agent that runs here."""
    monkeypatch.setattr(plugin, "shared", lambda: Sender(str(tmp_path / "nowhere.sock"), ""))


def configs(mailbox: Mailbox) -> list[tuple[int, Config]]:
    return [(one.rank, datagram.read_config(one.body)) for one in mailbox.records() if one.kind == datagram.CONFIG]


def told(body: bytes, kind: int = wire.CONFIG, version: int = wire.VERSION, pid: int = 7, rank: int = 0) -> bytes:
    head = wire.HEAD.pack(wire.MAGIC, version, 0, 1, pid, 0, 0)
    return head + wire.RECORD.pack(len(body), kind, rank) + body


@given(
    st.lists(NUMBERS, min_size=len(wire.CONFIG_FIELDS), max_size=len(wire.CONFIG_FIELDS)),
    st.lists(WORDS, min_size=len(wire.CONFIG_WORDS), max_size=len(wire.CONFIG_WORDS)),
    st.binary(max_size=40),
)
def test_a_record_is_read_as_it_was_written_whatever_a_later_version_adds(
    numbers: list[int], words: list[str], later: bytes
):
    body = wire.CONFIG_BODY.pack(*numbers) + b"".join(map(wire.text, words))
    read = datagram.read_config(body + later)
    assert dict(zip(wire.CONFIG_FIELDS, numbers, strict=True)).items() <= read._asdict().items()
    assert list(read[len(numbers) :]) == words
    for size in {0, 1, wire.CONFIG_BODY.size, len(body) - 1}:
        with pytest.raises(datagram.MalformedError):
            datagram.read_config(body[:size])


def test_both_sides_name_the_same_fields():
    assert Config._fields == (*wire.CONFIG_FIELDS, *wire.CONFIG_WORDS)
    assert datagram._CONFIG.format == wire.CONFIG_BODY.format


@pytest.mark.parametrize(("config", "expected"), [(config_of_0_9(), PLAIN), (config_of_0_32(), FULL)])
def test_each_version_tells_what_it_has(
    tmp_path: Path, mailbox: Mailbox, monkeypatch: pytest.MonkeyPatch, config: Any, expected: dict[str, str]
):
    monkeypatch.setitem(sys.modules, "vllm", SimpleNamespace(__version__="0.32.0+cpu"))
    made = StepLogger(config, 3)
    made.tell(mailbox.sender())
    made.log()
    listener = Listener(tmp_path)
    data = mailbox.raw()
    assert b"secret" not in b"".join(data)
    for one in data:
        listener.source.take(one, 0.0)
    listener.source.flush()
    assert listener.source._scene.overheard.inside == {"vllm-a": expected | {"vllm_version": "0.32.0+cpu"}}
    assert listener.source.counted["config"] == 1


def test_it_is_told_at_once_and_every_minute_and_to_each_agent_that_comes(
    mailbox: Mailbox, monkeypatch: pytest.MonkeyPatch
):
    clock = SimpleNamespace(now=1000.0)
    monkeypatch.setattr(plugin.time, "monotonic", lambda: clock.now)
    config = config_of_0_32(max_num_seqs=5)
    made = StepLogger(config, 3)
    made.tell(mailbox.sender())
    for _ in range(3):
        made.record(*of_0_32())
    assert [(rank, one.max_num_seqs) for rank, one in configs(mailbox)] == [(3, 5)]
    clock.now += 59.0
    made.record(*of_0_32())
    made.log()
    assert configs(mailbox) == []
    config.cache_config.num_gpu_blocks = 99
    made.log_engine_initialized()
    clock.now += 60.0
    made.log()
    assert [one.num_gpu_blocks for _, one in configs(mailbox)] == [99, 99]
    mailbox.socket.close()
    mailbox.path.unlink()
    later = Mailbox(mailbox.path)
    made.record(*of_0_32())
    clock.now += 2.0
    made.record(*of_0_32())
    made.record(*of_0_32())
    assert configs(later), "another agent knows nothing of it"
    later.close()


class _Hostile:
    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        raise RuntimeError(f"no {name} here")


@pytest.mark.parametrize("config", [object(), _Hostile(), SimpleNamespace(scheduler_config=7), "a text", 5])
def test_an_unknown_configuration_is_said_once_and_steps_are_told_all_the_same(
    mailbox: Mailbox, caplog: pytest.LogCaptureFixture, config: Any
):
    with caplog.at_level(logging.WARNING, logger="servescope_probe"):
        made = StepLogger(config, 0)
        made.tell(mailbox.sender())
        for _ in range(3):
            made.record(*of_0_32())
            made.log()
            made.log_engine_initialized()
    assert len(caplog.records) == 1
    assert "configuration" in caplog.text
    assert [one.kind for one in mailbox.records()].count(datagram.STEP) == 3


def test_what_is_no_number_and_no_word_is_unknown():
    config = config_of_0_32(max_num_seqs="8", max_num_batched_tokens=1 << 40, max_num_scheduled_tokens=-3)
    config.cache_config = _Hostile()
    config.speculative_config.method = "/models/draft of mine"
    config.lora_config.max_loras = 2.5
    read = datagram.read_config(settings.pack(config))
    assert (read.max_num_seqs, read.max_num_batched_tokens, read.max_num_scheduled_tokens) == (-1, -1, -1)
    assert (read.block_size, read.max_loras, read.speculative_method, read.cache_dtype) == (-1, -1, "", "")
    assert (read.max_model_len, read.num_speculative_tokens) == (4096, 3)


def test_versions_and_kinds_that_are_not_known_are_counted(tmp_path: Path):
    source = Listener(tmp_path).source
    body = settings.pack(config_of_0_32())
    for version in (0, 2, 255):
        source.take(told(body, version=version), 0.0)
    source.take(told(body, kind=99), 0.0)
    source.take(told(body[:20]), 0.0)
    source.flush()
    assert dict(source.malformed) == {"version": 3, "kind": 1, "cut": 1}
    assert source._scene.overheard.inside == {}


def config(**told: Any) -> Config:
    return Config(*[-1] * len(wire.CONFIG_FIELDS))._replace(**told)


def test_it_waits_until_it_is_known_whose_it_is_and_one_core_speaks_for_all():
    held, homes = Settings(), {}
    held.add(Process("", 7), 1, config(max_num_seqs=8, num_gpu_blocks=20))
    held.add(Process("", 7), 0, config(max_num_seqs=8, num_gpu_blocks=10, cache_dtype="/a/path of mine"))
    find = lambda process: homes.get(process.pid)  # noqa: E731
    assert held.take(find) == {}
    homes[7] = VLLM
    assert held.take(find) == {"vllm-a": {"max_num_seqs": "8", "num_gpu_blocks": "10"}}
    assert held.take(find) == {}
    for pid in range(10_000):
        held.add(Process("nobody", pid), 0, config(max_num_seqs=8))
    assert len(held._waiting) <= 512
    for rank in range(-1, 5_000):
        held.add(Process("", 7), rank, config(max_num_seqs=9))
        held.take(find)
    assert len(held._ranks["vllm-a"]) <= 512


def test_what_was_told_before_is_what_can_change(monkeypatch: pytest.MonkeyPatch):
    follower, seen = Follower("a", {}), []

    def told_of(name: str, _message: str, _at: int, _emit: Any, details: Any = None) -> None:
        seen.append((name, details))

    def emit(_signal: str, _body: bytes) -> None:
        pass

    monkeypatch.setattr(follower, "event", told_of)

    def turn(shown: dict[str, str] | None, inside: dict[str, str] | None) -> list[Any]:
        seen.clear()
        if shown is not None:
            follower._configure(shown, follower._inside, 1, emit)
        follower.learn(inside, 1, emit)
        return list(seen)

    page, inner = {"block_size": "16", "max_lora": "0"}, {"block_size": "16", "max_num_seqs": "8"}
    whole = page | inner
    assert turn(page, None) == [("instance_config", page)]
    assert turn(None, inner) == [("instance_config", whole)], "it was so before"
    assert turn(None, dict(inner)) == []
    changed = ("config_changed", {"max_num_seqs": "8 → 4"})
    assert turn(None, inner | {"max_num_seqs": "4"}) == [changed, ("instance_config", whole | {"max_num_seqs": "4"})]
    assert turn(page | {"max_lora": "1"}, None)[0] == ("config_changed", {"max_lora": "0 → 1"})
    other = Follower("a", {})
    monkeypatch.setattr(other, "event", told_of)
    seen.clear()
    other.learn(inner, 1, emit)
    other._configure(page, other._inside, 2, emit)
    assert [name for name, _ in seen] == ["instance_config", "instance_config"]


async def test_from_the_engine_to_what_binds_its_steps(tmp_path: Path, store_server: StoreServer):
    """Over a real socket, through an agent, into a store; the server has no page that could tell its limits."""
    now = time.time()
    async with FakeCollector() as collector:
        socket = tmp_path / "run" / "probe.sock"
        configured = AgentConfig.model_validate(
            {
                "collector": collector.url, "health_port": 0, "otlp_http_port": None, "otlp_grpc_port": None,
                "flush_seconds": 0.05, "interval_seconds": 0.1, "host": False, "gpu": False, "probe_socket": socket,
            }
        )  # fmt: skip
        server = Target("vllm-a", "chat", "vllm", "http://127.0.0.1:1")
        sidecar, stop = Sidecar(configured, tmp_path / "data", [server]), asyncio.Event()
        life = asyncio.create_task(sidecar.run(stop))
        await until(socket.exists)
        made = StepLogger(config_of_0_32(max_num_seqs=8, max_num_scheduled_tokens=None), 0)
        made.tell(Sender(str(socket), "vllm-a"))
        for number in range(1, 21):
            scheduler, iteration = of_0_32()
            scheduler.num_running_reqs, scheduler.num_waiting_reqs, scheduler.kv_cache_usage = 8, 3, 0.4
            iteration.iteration_timestamp, iteration.finished_requests, iteration.num_preempted_reqs = (
                now - 3 + number / 10, [], 0,
            )  # fmt: skip
            if number > 10:
                scheduler.num_running_reqs = 5
                scheduler.iteration_details.num_ctx_tokens = 510
            made.record(scheduler, iteration)
        made.log()
        await until(lambda: all(part in collector.merged("logs") for part in (b"engine_steps", b"instance_config")))
        stop.set()
        await life
        made._sender.close()
    frame = framing.encode(
        collector.merged("logs"), records=1, digest=bytes(16), received_ns=int(now * 1e9), batch="", sender=NOBODY
    )
    with fresh_store(store_server) as store:
        store.insert_segment("land_logs", frame, token())
        (row,) = store.rows("SELECT instance, config FROM instance_config")
        assert row["instance"] == "vllm-a"
        assert row["config"].items() >= {"max_num_seqs": "8", "max_num_batched_tokens": "512"}.items()
        answer = steps.ask(store, Selection(Window(*(datetime.fromtimestamp(now + far, UTC) for far in (-10, 10)))))
    (one,) = answer.result.instances
    assert (one.max_sequences, one.max_tokens) == (8, 512)
    assert {name: round(share, 3) for name, share in one.shares.items() if share} == {
        "sequences": pytest.approx(0.474, abs=0.01), "token_budget": pytest.approx(0.526, abs=0.01),
    }  # fmt: skip
