"""What the probe costs a model server: a step of its stat logger, a request and a chunk of its middleware.

The step is one of 256 running requests, told as vLLM 0.32 tells it; a process of its own reads the socket, as an agent
does. Times are CPU seconds of the server's thread, system calls included. The reference of a step is a JSON line a step
to the same socket; of the middleware, the same application without it, whose time is taken off.

    python -m benchmarks.probe [--quick] [--json]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import socket
import tempfile
import time
from pathlib import Path
from statistics import median
from types import SimpleNamespace
from typing import Any, Final

from servescope_probe import Edge, wire
from servescope_probe.plugin import StepLogger
from servescope_probe.sender import Sender

from benchmarks.tap import figure

RUNNING: Final = 256
STEP_GOAL: Final = 5e-6
REQUEST_GOAL: Final = 20e-6
CHUNK_GOAL: Final = 2e-6
_CHUNKS: Final = 200
_CHUNK: Final = (
    b'data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":1795487340,"model":"tiny","choices":[{"inde'
    b'x":0,"delta":{"content":" token"},"logprobs":null,"finish_reason":null}]}\n\n'
)
_BODY: Final = json.dumps({"model": "tiny", "stream": True, "messages": [{"role": "user", "content": "x" * 2_000}]})


def read_all(path: str, ready: Any) -> None:
    """Take datagrams until one says that it is the last (a process of its own)."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as box:
        box.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8 << 20)
        box.bind(path)
        ready.set()
        while box.recv(65_536) != b"end":
            pass


def a_step() -> tuple[Any, Any]:
    """What vLLM tells of a step of 256 running requests, of which none finishes."""
    scheduler = SimpleNamespace(
        num_running_reqs=RUNNING, num_waiting_reqs=12, num_skipped_waiting_reqs=0, step_counter=0, current_wave=0,
        kv_cache_usage=0.83, prefix_cache_stats=SimpleNamespace(queries=0, hits=0, requests=0),
        connector_prefix_cache_stats=None, kv_cache_eviction_events=[], spec_decoding_stats=None,
        running_lora_adapters={}, waiting_lora_adapters={},
        iteration_details=SimpleNamespace(
            num_ctx_requests=1, num_ctx_tokens=512, num_generation_requests=255, num_generation_tokens=255,
            elapsed_ms=21.5,
        ),
    )  # fmt: skip
    iteration = SimpleNamespace(
        iteration_timestamp=time.time(), num_generation_tokens=RUNNING, num_prompt_tokens=0,
        prompt_token_stats=SimpleNamespace(cached_tokens=0, total=0), num_preempted_reqs=0, finished_requests=[],
        time_to_first_tokens_iter=[0.1], inter_token_latencies_iter=[0.02] * (RUNNING - 1),
    )  # fmt: skip
    return scheduler, iteration


def step_seconds(path: str, rounds: int, steps: int) -> tuple[float, float, int]:
    """Seconds a step of the logger and of the JSON line, medians of rounds in turns; records that were dropped."""
    sender = Sender(path, "vllm-a")
    logger = StepLogger(None, 0)
    logger.tell(sender)
    line = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    line.connect(path)
    scheduler, iteration = a_step()
    ours, theirs = [], []
    for _ in range(rounds):
        begun = time.thread_time()
        for _ in range(steps):
            logger.record(scheduler, iteration, None, 0)
        ours.append((time.thread_time() - begun) / steps)
        begun = time.thread_time()
        for _ in range(steps // 10):
            told = vars(scheduler) | {"prefix_cache_stats": vars(scheduler.prefix_cache_stats)}
            told |= {"iteration_details": vars(scheduler.iteration_details)} | vars(iteration)
            told["prompt_token_stats"] = vars(iteration.prompt_token_stats)
            line.send(json.dumps(told).encode())
        theirs.append((time.thread_time() - begun) / (steps // 10))
    sender.close()
    line.close()
    return median(ours), median(theirs), sender.dropped


def middleware_seconds(path: str, rounds: int, requests: int) -> tuple[float, float]:
    """Seconds that the middleware adds to a request, and to each further chunk of it."""

    async def application(scope: dict[str, Any], receive: Any, send: Any) -> None:
        await receive()
        head = [(b"content-type", b"text/event-stream")]
        await send({"type": "http.response.start", "status": 200, "headers": head})
        for _ in range(scope["state"]):
            await send({"type": "http.response.body", "body": _CHUNK, "more_body": True})
        await send({"type": "http.response.body", "body": b"data: [DONE]\n\n"})

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": _BODY.encode()}

    async def send(_message: Any) -> None:
        return

    names = ("host", "user-agent", "accept", "accept-encoding", "connection", "x-request-id", "x-tenant-id")
    headers = [(name.encode(), b"some-value-of-a-header") for name in names]
    headers += [(b"content-type", b"application/json"), (b"authorization", b"Bearer some-key")]
    sender = Sender(path, "vllm-a")
    edge = Edge(application, sender)

    async def once(app: Any, chunks: int, count: int) -> float:
        scope = {
            "type": "http", "method": "POST", "path": "/v1/chat/completions", "query_string": b"",
            "headers": headers, "state": chunks,
        }  # fmt: skip
        begun = time.thread_time()
        for _ in range(count):
            await app(scope, receive, send)
        return (time.thread_time() - begun) / count

    async def measure() -> tuple[float, float]:
        short, long = [], []
        for _ in range(rounds):
            short.append(await once(edge, 1, requests) - await once(application, 1, requests))
            few = max(1, requests // 50)
            long.append(await once(edge, _CHUNKS + 1, few) - await once(application, _CHUNKS + 1, few))
        return median(short), (median(long) - median(short)) / _CHUNKS

    found = asyncio.run(measure())
    sender.close()
    return found


def run(*, quick: bool) -> list[dict[str, Any]]:
    """The figures."""
    rounds, steps, requests = (3, 2_000, 500) if quick else (9, 20_000, 3_000)
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "probe.sock")
        ready = multiprocessing.Event()
        reader = multiprocessing.Process(target=read_all, args=(path, ready), daemon=True)
        reader.start()
        ready.wait(30)
        step, line, dropped = step_seconds(path, rounds, steps)
        request, chunk = middleware_seconds(path, rounds, requests)
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as last:
            last.connect(path)
            last.send(b"end")
        reader.join(10)
    json_line = f"a JSON line a step ({wire.STEP_BODY.size} bytes against its text)"
    return [
        figure("probe_step", step, "s", json_line, line, STEP_GOAL),
        figure("probe_dropped_share", dropped / (rounds * steps), "", "nothing lost", 0.0, 0.0),
        figure("probe_request", request, "s", "the application alone", 0.0, REQUEST_GOAL),
        figure("probe_chunk", chunk, "s", "the application alone", 0.0, CHUNK_GOAL),
    ]


def main() -> None:
    """Print one JSON object a figure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer rounds")
    parser.add_argument("--json", action="store_true", help="the only form there is")
    for one in run(quick=parser.parse_args().quick):
        print(json.dumps(one))


if __name__ == "__main__":
    main()
