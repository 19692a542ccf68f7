"""What is done to servers: a kind is a server's make, a fault, and what it is rightly called."""

from __future__ import annotations

import asyncio
import signal
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from benchmarks.faults import asks, stage
from benchmarks.faults.asks import NOISY, Ask

if TYPE_CHECKING:
    import random
    from collections.abc import Awaitable, Callable

    from benchmarks.faults.clients import Clients

    Inject = Callable[["Scene"], Awaitable[None]]


@dataclass
class Scene:
    """What a fault has to work with.

    Attributes:
        server: The server, running.
        clients: Its clients, sending.
        draw: Of this run's seed.
        seconds: How long the fault is to last.
    """

    server: stage.Vllm | stage.Triton
    clients: Clients
    draw: random.Random
    seconds: float

    @property
    def triton(self) -> stage.Triton:
        """The server, which is known to be one."""
        assert isinstance(self.server, stage.Triton)  # noqa: S101 - by its make
        return self.server


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of fault.

    Attributes:
        name: What the run is called.
        cause: What it is rightly called; "" where nothing is wrong for anybody.
        make: Name of the server's make in `MAKES`.
        inject: Does it; returns when what was done has ended.
        tenant: Whose work did it, "" where nobody's.
        also: What the second of two faults at once is rightly called; "" where there is one.
    """

    name: str
    cause: str
    make: str
    inject: Inject
    tenant: str = ""
    also: str = ""


MOST_LOGPROBS: Final = 20
"""Of a token; more vLLM refuses."""
MAKES: Final[dict[str, tuple[str, ...]]] = {
    "vllm": ("--max-model-len", "2048", "--num-gpu-blocks-override", "400", "--max-num-seqs", "128"),
    "vllm-long-prefix": (
        "--max-model-len",
        "8192",
        "--hf-overrides",
        '{"max_position_embeddings": 8192}',
        "--num-gpu-blocks-override",
        "400",
        "--max-num-seqs",
        "128",
    ),
    "vllm-few-blocks": ("--max-model-len", "2048", "--num-gpu-blocks-override", "40", "--max-num-seqs", "32"),
    "vllm-few-seats": ("--max-model-len", "2048", "--num-gpu-blocks-override", "400", "--max-num-seqs", "8"),
    "triton": ("a",),
    "triton-three": ("a", "b", "c"),
}
"""Flags of vLLM; names of tritonservers."""
SYSTEM_WORDS: Final = {"vllm-long-prefix": 6000}
"""Words before each prompt of the first tenant, of makes where they are not `asks.SYSTEM_WORDS`: to compute five
hundred again costs a tiny model next to nothing."""


def _noisy(scene: Scene, prompt: tuple[int, int], output: tuple[int, int]) -> Callable[[], Ask]:
    def drawn() -> Ask:
        draw = scene.draw
        made = asks.completion(draw, draw.randint(*prompt), draw.randint(*output))
        return Ask(0.0, NOISY, *made, role=asks.FAULT)

    return drawn


async def _kv_full(scene: Scene) -> None:
    await scene.clients.flood(_noisy(scene, (450, 800), (100, 200)), scene.seconds, at_once=scene.draw.randint(32, 64))


async def _long_prompts(scene: Scene) -> None:
    await scene.clients.flood(_noisy(scene, (1500, 1900), (2, 4)), scene.seconds, at_once=scene.draw.randint(4, 8))


async def _batch(scene: Scene) -> None:
    await scene.clients.flood(_noisy(scene, (20, 60), (250, 400)), scene.seconds, at_once=scene.draw.randint(48, 72))


async def _seats(scene: Scene) -> None:
    await scene.clients.flood(_noisy(scene, (20, 60), (80, 160)), scene.seconds, at_once=scene.draw.randint(20, 40))


async def _frozen(scene: Scene) -> None:
    cores = scene.server.cores()
    end = time.monotonic() + scene.seconds
    try:
        while time.monotonic() < end:
            stage.told(cores, signal.SIGSTOP)
            await asyncio.sleep(scene.draw.uniform(3.0, 6.0))
            stage.told(cores, signal.SIGCONT)
            await asyncio.sleep(scene.draw.uniform(3.0, 5.0))
    finally:
        stage.told(cores, signal.SIGCONT)


async def _starved(scene: Scene) -> None:
    with stage.competitors(scene.draw.randint(4, 8)):
        await asyncio.sleep(scene.seconds)


async def _throttled(scene: Scene) -> None:
    with stage.Throttled(scene.draw.uniform(0.15, 0.25)) as group:
        group.take(scene.server.processes())
        await asyncio.sleep(scene.seconds)


async def _cache_lost(scene: Scene) -> None:
    def busted(ask: Ask) -> Ask:
        if ask.tenant != asks.TENANTS[0]:
            return ask
        return replace(ask, body=ask.body | {"prompt": f"{asks.words(scene.draw, 3)} {ask.body['prompt']}"})

    await _changed(scene, busted)


async def _slow_reader(scene: Scene) -> None:
    # pieces so large that an answer does not fit into the buffers on its way
    def slowed(ask: Ask) -> Ask:
        if ask.tenant != asks.TENANTS[2]:
            return ask
        return replace(ask, reads=0.08, body=ask.body | {"logprobs": MOST_LOGPROBS})

    await _changed(scene, slowed)


async def _changed(scene: Scene, change: Callable[[Ask], Ask]) -> None:
    scene.clients.change = change
    await asyncio.sleep(scene.seconds)
    scene.clients.change = lambda ask: ask


def _images(scene: Scene, images: int, *, fails: bool = False, retries: int = 0) -> Callable[[], Ask]:
    def drawn() -> Ask:
        made = asks.infer(scene.draw, images, fails=fails)
        return Ask(0.0, NOISY, *made, retries=retries, role=asks.FAULT)

    return drawn


async def _image_flood(scene: Scene) -> None:
    await scene.clients.flood(_images(scene, 4), scene.seconds, at_once=scene.draw.randint(16, 32))


async def _retries(scene: Scene) -> None:
    await scene.clients.flood(
        _images(scene, 4, fails=True, retries=5), scene.seconds, at_once=scene.draw.randint(16, 32)
    )


async def _slow_model(scene: Scene) -> None:
    scene.triton.slow(0, scene.draw.uniform(3.0, 5.0))
    await asyncio.sleep(scene.seconds)
    scene.triton.slow(0, None)


async def _slow_one(scene: Scene) -> None:
    await _slow_model(scene)


async def _all_to_one(scene: Scene) -> None:
    share = scene.draw.uniform(0.9, 1.0)
    await _changed(scene, lambda ask: replace(ask, where=0) if scene.draw.random() < share else ask)


async def _restarted(scene: Scene) -> None:
    await scene.triton.crash()
    await asyncio.sleep(5.0)


async def _nothing(scene: Scene) -> None:
    await asyncio.sleep(scene.seconds)


def _both(*injects: Inject) -> Inject:
    async def inject(scene: Scene) -> None:
        await asyncio.gather(*(one(scene) for one in injects))

    return inject


async def _second_slow(scene: Scene) -> None:
    scene.triton.slow(1, scene.draw.uniform(3.0, 5.0))
    await asyncio.sleep(scene.seconds)
    scene.triton.slow(1, None)


QUIET: Final = "quiet"
KINDS: Final = (
    Kind("kv_exhaustion", "kv_cache_full", "vllm-few-blocks", _kv_full, NOISY),
    Kind("long_prompts", "prefill_interference", "vllm", _long_prompts, NOISY),
    Kind("batch_interference", "batch_interference", "vllm", _batch, NOISY),
    Kind("too_many_sequences", "queue_saturated", "vllm-few-seats", _seats, NOISY),
    Kind("engine_frozen", "engine_frozen", "vllm", _frozen),
    Kind("cpu_starvation", "cpu_starved", "vllm", _starved),
    Kind("cpu_throttling", "cpu_starved", "vllm", _throttled),
    Kind("cache_busting", "cold_prefix_cache", "vllm-long-prefix", _cache_lost, asks.TENANTS[0]),
    Kind("slow_reader", "slow_client", "vllm", _slow_reader, asks.TENANTS[2]),
    Kind("image_flood", "queue_saturated", "triton", _image_flood, NOISY),
    Kind("retry_storm", "retry_storm", "triton", _retries, NOISY),
    Kind("model_slow", "model_slow", "triton", _slow_model),
    Kind("server_frozen", "engine_frozen", "triton", _frozen),
    Kind("server_restart", "restart", "triton", _restarted),
    Kind("slow_replica", "slow_instance", "triton-three", _slow_one),
    Kind("router_imbalance", "router_imbalance", "triton-three", _all_to_one),
    Kind("kv_full_and_frozen", "kv_cache_full", "vllm-few-blocks", _both(_kv_full, _frozen), NOISY, "engine_frozen"),
    Kind(
        "long_prompts_and_quota", "prefill_interference", "vllm", _both(_long_prompts, _throttled), NOISY, "cpu_starved"
    ),
    Kind(
        "retries_and_slow_replica", "retry_storm", "triton-three", _both(_retries, _second_slow), NOISY, "slow_instance"
    ),
    Kind(
        "flood_and_slow_replica",
        "queue_saturated",
        "triton-three",
        _both(_image_flood, _second_slow),
        NOISY,
        "slow_instance",
    ),
    *(Kind(f"{QUIET}_{make.replace('-', '_')}", "", make, _nothing) for make in MAKES),
)
