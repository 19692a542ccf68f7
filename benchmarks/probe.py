"""What the probe costs a model server: a step of its stat logger, a request and a chunk of its middleware.

The step is one of 256 running requests, told as vLLM 0.32 tells it; a process of its own reads the socket, as an agent
does. Times are CPU seconds of the server's thread, system calls included. The reference of a step is a JSON line a step
to the same socket; of the middleware, the same application without it, whose time is taken off. Rounds are short and
take turns with their references; of each kind's the fastest tenth counts, since what is slower than that is the
machine's other guests' doing (``timeit`` says so of its minimum).

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
from typing import TYPE_CHECKING, Any, Final

from servescope_probe import Edge, wire
from servescope_probe.plugin import StepLogger
from servescope_probe.sender import Sender

from benchmarks.tap import figure

if TYPE_CHECKING:
    from collections.abc import Callable

RUNNING: Final = 256
STEP_GOAL: Final = 5e-6
REQUEST_GOAL: Final = 20e-6
CHUNK_GOAL: Final = 2e-6
PACE_SECONDS: Final = 0.025
"""Time from one step of 256 running requests to the next: longer than records are gathered for."""
STEPS: Final = 100
REQUESTS: Final = 60
"""Of a round."""
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


def as_json(scheduler: Any, iteration: Any) -> bytes:
    """A step as a JSON line."""
    told = vars(scheduler) | {"prefix_cache_stats": vars(scheduler.prefix_cache_stats)}
    told |= {"iteration_details": vars(scheduler.iteration_details)} | vars(iteration)
    told["prompt_token_stats"] = vars(iteration.prompt_token_stats)
    return json.dumps(told).encode()


def fastest(rounds: list[float]) -> float:
    """Seconds that nine of ten rounds took longer than."""
    return sorted(rounds)[len(rounds) // 10]


def step_seconds(path: str, rounds: int) -> tuple[float, float, int]:
    """Seconds a step of the logger and of the JSON line, and records that were dropped."""
    sender = Sender(path, "vllm-a")
    logger = StepLogger(None, 0)
    logger.tell(sender)
    line = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    line.connect(path)
    scheduler, iteration = a_step()
    ours, theirs = [], []
    for _ in range(rounds):
        begun = time.thread_time()
        for _ in range(STEPS):
            logger.record(scheduler, iteration, None, 0)
        ours.append((time.thread_time() - begun) / STEPS)
        begun = time.thread_time()
        for _ in range(STEPS // 20):
            line.send(as_json(scheduler, iteration))
        theirs.append((time.thread_time() - begun) / (STEPS // 20))
    sender.close()
    line.close()
    return fastest(ours), fastest(theirs), sender.dropped


def paced_seconds(path: str, steps: int) -> tuple[float, float]:
    """Seconds of a step, and of the JSON line, whose datagram is sent at once since the last one is long ago: medians.

    The server's thread is at work between them, as it is with 256 streams to write, so that little of the code is in
    the CPU's caches.
    """
    sender = Sender(path, "vllm-a")
    logger = StepLogger(None, 0)
    logger.tell(sender)
    line = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    line.connect(path)
    scheduler, iteration = a_step()
    ours, theirs = [], []

    def spent(tell: Callable[[], Any]) -> float:
        due = time.perf_counter() + PACE_SECONDS
        while time.perf_counter() < due:
            json.dumps(_BODY)
        begun = time.thread_time()
        tell()
        return time.thread_time() - begun

    for _ in range(steps):
        ours.append(spent(lambda: logger.record(scheduler, iteration, None, 0)))
        theirs.append(spent(lambda: line.send(as_json(scheduler, iteration))))
    sender.close()
    line.close()
    return median(ours), median(theirs)


async def application(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """Answers with as many chunks as the scope's state says."""
    await receive()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/event-stream")]})
    for _ in range(scope["state"]):
        await send({"type": "http.response.body", "body": _CHUNK, "more_body": True})
    await send({"type": "http.response.body", "body": b"data: [DONE]\n\n"})


async def request_seconds(app: Any, chunks: int, requests: int) -> float:
    """Seconds of a request, of so many."""

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": _BODY.encode()}

    async def send(_message: Any) -> None:
        return

    names = ("host", "user-agent", "accept", "accept-encoding", "connection", "x-request-id", "x-tenant-id")
    headers = [(name.encode(), b"some-value-of-a-header") for name in names]
    headers += [(b"content-type", b"application/json"), (b"authorization", b"Bearer some-key")]
    scope = {
        "type": "http", "method": "POST", "path": "/v1/chat/completions", "query_string": b"", "headers": headers,
        "state": chunks,
    }  # fmt: skip
    begun = time.thread_time()
    for _ in range(requests):
        await app(scope, receive, send)
    return (time.thread_time() - begun) / requests


async def middleware_seconds(path: str, rounds: int) -> tuple[float, float]:
    """Seconds that the middleware adds to a request, and to each further chunk of it."""
    sender = Sender(path, "vllm-a")
    edge = Edge(application, sender)
    spent: dict[tuple[Any, int], list[float]] = {}
    for _ in range(rounds):
        for chunks, requests in ((1, REQUESTS), (_CHUNKS + 1, REQUESTS // 20)):
            for app in (edge, application):
                spent.setdefault((app, chunks), []).append(await request_seconds(app, chunks, requests))
    request, whole = (fastest(spent[edge, chunks]) - fastest(spent[application, chunks]) for chunks in (1, _CHUNKS + 1))
    sender.close()
    return request, (whole - request) / _CHUNKS


def run(*, quick: bool) -> list[dict[str, Any]]:
    """The figures."""
    rounds = 100 if quick else 1_000
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "probe.sock")
        ready = multiprocessing.Event()
        reader = multiprocessing.Process(target=read_all, args=(path, ready), daemon=True)
        reader.start()
        ready.wait(30)
        step, line, dropped = step_seconds(path, rounds)
        paced, paced_line = paced_seconds(path, 50 if quick else 200)
        request, chunk = asyncio.run(middleware_seconds(path, rounds))
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as last:
            last.connect(path)
            last.send(b"end")
        reader.join(10)
    json_line = f"a JSON line a step ({wire.STEP_BODY.size} bytes against its text)"
    return [
        figure("probe_step", step, "s", json_line, line, STEP_GOAL),
        figure("probe_step_paced", paced, "s", f"that line, each {PACE_SECONDS * 1e3:g} ms as well", paced_line, None),
        figure("probe_dropped_share", dropped / (rounds * STEPS), "", "nothing lost", 0.0, 0.0),
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
