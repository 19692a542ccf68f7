"""The tap as a process: killed, drained, short of descriptors, of a port, of a disk."""

from __future__ import annotations

import asyncio
import contextlib
import resource
import signal
import socket
from typing import TYPE_CHECKING

import aiohttp
import pytest

from base.vocabulary import Edge
from tests.kits.tap import (
    DONE,
    PATIENCE,
    STREAM_HEAD,
    Peer,
    attribute,
    chunked,
    connect,
    event,
    post,
    serve_both,
    spooled,
    talk,
    tap_command,
    tap_process,
    upstream,
)

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("body", [b'{"model":"tiny"}', b'{"model":"tiny","stream":true}'])
async def test_kill_right_after_the_whole_answer_loses_no_row(tmp_path: Path, body: bytes):
    arguments = ("--config", str(tmp_path / "c.yaml"))
    (tmp_path / "c.yaml").write_text("agent: {tap: {hold_seconds: 30}}")
    async with upstream(serve_both) as up:
        for round_ in range(3):
            async with tap_process(up.port, tmp_path, *arguments) as (process, port):
                end = b"data: [DONE]\n\n" if b"stream" in body else b'"tiny"}'
                async with connect(port) as client:
                    for n in range(4):
                        request_id = b"X-Request-Id: r%d-%d" % (round_, n)
                        await client.send(post(b"/v1/completions", body, request_id, close=False))
                        await asyncio.wait_for(client.reader.readuntil(end), PATIENCE)
                        if n < 3 and b"stream" in body:
                            await asyncio.wait_for(client.reader.readuntil(b"0\r\n\r\n"), PATIENCE)
                    process.send_signal(signal.SIGKILL)
                    await process.wait()
    found = {attribute(s, Edge.REQUEST_ID) for s in spooled(tmp_path / "spool")}
    assert found == {f"r{r}-{n}" for r in range(3) for n in range(4)}


async def test_process_serves_counts_drains_and_keeps_no_secret(tmp_path: Path):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        health = probe.getsockname()[1]
    async with upstream(serve_both) as up:  # noqa: SIM117
        async with tap_process(up.port, tmp_path, "--health-port", str(health)) as (process, port):
            headers = {"Authorization": "Bearer sk-very-secret"}
            async with aiohttp.ClientSession() as session:
                for n in range(20):
                    body = {"model": "tiny", "prompt": "my secret words", "stream": n % 2 == 0}
                    async with session.post(
                        f"http://127.0.0.1:{port}/v1/completions", json=body, headers=headers
                    ) as reply:
                        assert reply.status == 200
                        await reply.read()
                async with session.get(f"http://127.0.0.1:{health}/metrics") as reply:
                    page = await reply.text()
            process.send_signal(signal.SIGTERM)
            errors = (await asyncio.wait_for(process.stderr.read(), PATIENCE)).decode()
            assert await asyncio.wait_for(process.wait(), PATIENCE) == 0
    assert 'servescope_tap_requests_total{outcome="ok"} 20.0' in page
    spans = spooled(tmp_path / "spool")
    assert len(spans) == 20
    assert {attribute(s, Edge.TENANT)[:3] for s in spans} == {"v1:"}
    written = b"".join(p.read_bytes() for p in (tmp_path / "spool").glob("*/*/*"))
    for secret in ("sk-very-secret", "my secret words"):
        assert secret not in errors
        assert secret.encode() not in written


@pytest.mark.parametrize(("soft", "hard", "carried"), [(192, 192, 32), (64, 20_000, 90)])
async def test_more_streams_than_descriptors_lose_no_row_and_no_answer(
    tmp_path: Path, soft: int, hard: int, carried: int
):
    finish = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(STREAM_HEAD, chunked(event("a"), end=False))
        await asyncio.wait_for(finish.wait(), PATIENCE)
        await peer.send(chunked(DONE))

    def narrow() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))

    async with upstream(script) as up, tap_process(up.port, tmp_path, before=narrow) as (process, port):
        async with contextlib.AsyncExitStack() as stack:
            clients = [await stack.enter_async_context(connect(port)) for _ in range(90)]
            for client in clients:
                await client.send(post())
            heads = [await client.head() for client in clients]
            finish.set()
            ends = [await asyncio.wait_for(client.reader.read(), PATIENCE) for client in clients]
        process.send_signal(signal.SIGTERM)
        errors = (await asyncio.wait_for(process.stderr.read(), PATIENCE)).decode()
    assert sum(head.startswith(b"HTTP/1.1 200 ") for head in heads) == carried
    assert sum(head.startswith(b"HTTP/1.1 503 ") for head in heads) == 90 - carried
    assert all(end.endswith((b"0\r\n\r\n", b'"code": 503}}')) for end in ends)
    assert len(spooled(tmp_path / "spool")) == carried
    assert ("tap_places_taken" in errors) is (carried < 90)


async def test_port_in_use_is_one_clear_line(tmp_path: Path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        async with upstream(serve_both) as up:
            process = await asyncio.create_subprocess_exec(
                *tap_command(tmp_path, up.port), "--port", str(port), stderr=asyncio.subprocess.PIPE
            )
            _, errors = await asyncio.wait_for(process.communicate(), PATIENCE)
    assert process.returncode == 1
    assert errors.decode().strip().count("\n") == 0
    assert f"127.0.0.1:{port}" in errors.decode()


async def test_spool_that_can_not_be_written_serves_on(tmp_path: Path):
    (tmp_path / "spool").write_text("a file, not a folder")
    async with upstream(serve_both) as up, tap_process(up.port, tmp_path) as (process, port):
        for _ in range(3):
            assert (await talk(port, post())).startswith(b"HTTP/1.1 200 ")
        process.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(process.wait(), PATIENCE) == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
async def test_who_is_told_to_end_lets_a_stream_end(tmp_path: Path, number: signal.Signals):
    go = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(STREAM_HEAD, chunked(event("a"), end=False))
        await asyncio.wait_for(go.wait(), PATIENCE)
        await peer.send(chunked(event("b", "stop"), DONE))

    async with (
        upstream(script) as up,
        tap_process(up.port, tmp_path) as (process, port),
        connect(port) as client,
    ):
        await client.send(post(body=b'{"model":"tiny","stream":true}'))
        await asyncio.wait_for(client.reader.readuntil(b'"a"'), PATIENCE)
        process.send_signal(number)
        while b"tap_draining" not in await asyncio.wait_for(process.stderr.readline(), PATIENCE):
            pass
        go.set()
        assert DONE in await asyncio.wait_for(client.reader.read(), PATIENCE)
        assert await asyncio.wait_for(process.wait(), PATIENCE) == 0
    (span,) = spooled(tmp_path / "spool")
    assert attribute(span, Edge.OUTCOME) == "ok"
