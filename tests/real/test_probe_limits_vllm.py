"""A vLLM that is short of sequences, then of tokens in a step: its configuration arrives, and what binds is named."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import aiohttp
import pytest

from analytics.questions import steps
from analytics.selection import Selection
from analytics.window import Window
from tests.kits.line import Line, free_block, start_line, wait_for
from tests.real.vllm_kit import Clients, Vllm, install_probe

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(900)]

SEQUENCES, TOKENS, BLOCKS = 4, 160, 512


def test_what_binds_a_real_vllm_is_the_limit_it_was_given(tmp_path: Path) -> None:
    installed, socket, base = tmp_path / "site", tmp_path / "probe.sock", free_block()
    install_probe(installed)
    vllm = Vllm(
        tmp_path / "vllm", base + 30, "", "",
        [
            "--enable-logging-iteration-details", "--max-num-seqs", str(SEQUENCES), "--max-num-batched-tokens",
            str(TOKENS), "--num-gpu-blocks-override", str(BLOCKS),
        ],
        {"PYTHONPATH": str(installed), "SERVESCOPE_PROBE_SOCKET": str(socket)},
    )  # fmt: skip
    target = {"instance": "vllm-a", "url": vllm.url, "tap": False}
    settings = tmp_path / "servescope.yaml"
    settings.write_text(json.dumps({"agent": {"targets": [target], "probe_socket": str(socket)}}))
    running = start_line(tmp_path / "data", base, "", "--config", str(settings))
    try:
        vllm.launch("http/protobuf")
        try:
            vllm.wait_ready()
            _look(running, vllm)
        finally:
            vllm.stop()
    finally:
        assert running.stop() == 0, running.log.read_text()[-3000:]


def _look(running: Line, vllm: Vllm) -> None:
    newest = "SELECT config FROM instance_config WHERE mapContains(config, 'max_num_seqs') ORDER BY time DESC LIMIT 1"
    wait_for(lambda: running.rows(newest), 60, "the configuration")
    (row,) = running.rows(newest)
    told = row["config"]
    assert (told["max_num_seqs"], told["max_num_batched_tokens"]) == (str(SEQUENCES), str(TOKENS))
    assert (told["num_gpu_blocks"], told["max_loras"], told["tensor_parallel_size"]) == (str(BLOCKS), "0", "1")
    assert told["vllm_version"].startswith("0.")
    assert "gpu_memory_utilization" in told, "what the page shows is in the same row"
    assert not running.rows("SELECT 1 FROM events WHERE event = 'config_changed'")
    clients = Clients(vllm.url)
    assert _bound(running, clients, at_once=20, words=5, tokens=60)["sequences"] > 0.5
    assert _bound(running, clients, at_once=1, words=300, tokens=1)["token_budget"] > 0.2


def _bound(line: Line, clients: Clients, *, at_once: int, words: int, tokens: int) -> dict[str, float]:
    """Shares of the time in which so many clients sent, once the last of their steps is there."""
    begun = datetime.now(UTC)

    async def drive() -> None:
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=300)) as session:
            sends = (clients.send(session, "acme", "completion", words=words, max_tokens=tokens) for _ in range(20))
            gate = asyncio.Semaphore(at_once)

            async def one(send: object) -> None:
                async with gate:
                    await send  # type: ignore[misc]

            await asyncio.gather(*(one(send) for send in sends))

    asyncio.run(drive())
    ended = datetime.now(UTC)
    since = {"since": begun.timestamp()}
    sums = "SELECT sum(finished) AS n FROM engine_steps FINAL WHERE toFloat64(time) >= {since:Float64}"
    wait_for(lambda: line.rows(sums, since)[0]["n"] == 20, 60, "the last step")
    store = line.store()
    try:
        answer = steps.ask(store, Selection(Window(begun, ended)))
    finally:
        store.close()
    (one,) = answer.result.instances
    assert (one.source, one.max_sequences, one.max_tokens) == ("steps", SEQUENCES, TOKENS)
    assert not any("do not tell" in note for note in answer.notes), answer.notes
    return one.shares
