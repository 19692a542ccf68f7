"""Real client traffic of several tenants through the taps, with a small trouble now and then.

Run as ``python -m demo.traffic --vision http://127.0.0.1:9080 --chat http://127.0.0.1:9081``. Arrivals are an open loop
(Poisson), as users are; the trouble is a closed loop, as a batch job without a limit is.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import signal
import time
from collections import Counter
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import TYPE_CHECKING

import aiohttp
import click
import structlog

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

log = structlog.get_logger()

TENANTS = ("acme", "globex", "initech", "umbrella")
NOISY_TENANT = "hooli"
CYCLE_SECONDS = 180.0
_WORDS = [
    "queue",
    "cache",
    "token",
    "batch",
    "request",
    "model",
    "server",
    "engine",
    "prefill",
    "decode",
    "latency",
    "memory",
    "block",
    "fast",
    "slow",
]
_SYSTEM_PROMPT = " ".join(_WORDS * 20)
"""The first tenant's, before each of its prompts: long enough for blocks of the prefix cache."""
_TIMEOUT = aiohttp.ClientTimeout(total=30)


@dataclass
class Traffic:
    """Clients of a Triton and a llama.cpp server.

    Args:
        vision: Base URL of the Triton server or its tap; "" leaves it out.
        chat: Base URL of the llama.cpp server or its tap; "" leaves it out.
        completions: Base URL of the vLLM server or its tap; "" leaves it out.
        seed: Seed of arrivals and inputs.
        sent: Requests by (model, status or error), filled as they end.
    """

    vision: str
    chat: str
    completions: str = ""
    seed: int = 1
    sent: Counter[tuple[str, str]] = field(default_factory=Counter)
    _tasks: set[asyncio.Future[None]] = field(default_factory=set, repr=False)

    async def run(self) -> None:
        """Send until cancelled."""
        draw = random.Random(self.seed)  # noqa: S311 - arrivals, not secrets
        connector = aiohttp.TCPConnector(limit=256)
        async with (
            aiohttp.ClientSession(connector=connector, timeout=_TIMEOUT) as session,
            asyncio.TaskGroup() as group,
        ):
            if self.vision:
                group.create_task(self._send_vision(session, draw))
            if self.chat:
                group.create_task(self._send_chats(session, draw))
            if self.completions:
                group.create_task(self._send_completions(session, draw))
            group.create_task(self._trouble(session, draw))

    async def classify(self, session: aiohttp.ClientSession, draw: random.Random, tenant: str, images: int = 1) -> None:
        """One image classification of ``images`` images."""
        image = [round(draw.random(), 2)] * 3072
        await self._infer(session, "vision_classifier", "image", [images, 3, 32, 32], image * images, tenant)

    async def rank(self, session: aiohttp.ClientSession, draw: random.Random, tenant: str) -> None:
        """One ranking; forty different inputs, so that the response cache has work."""
        features = [draw.randrange(40) / 40] * 64
        await self._infer(session, "ranker", "features", [1, 64], features, tenant)

    async def flaky(self, session: aiohttp.ClientSession, draw: random.Random, tenant: str) -> None:
        """One call of the model that sometimes fails."""
        await self._infer(session, "flaky", "x", [1, 16], [round(draw.random(), 2) for _ in range(16)], tenant)

    async def wrong_shape(self, session: aiohttp.ClientSession, tenant: str) -> None:
        """One request that the server refuses with 400."""
        await self._infer(session, "ranker", "features", [1, 63], [0.5] * 63, tenant)

    async def chat_once(
        self, session: aiohttp.ClientSession, draw: random.Random, tenant: str, leave_after: int = 0
    ) -> None:
        """One streamed chat; with ``leave_after`` the client hangs up after so many chunks."""
        body = {
            "model": "tiny-llama",
            "messages": [{"role": "user", "content": " ".join(draw.choices(_WORDS, k=draw.randint(5, 120)))}],
            "max_tokens": draw.randint(20, 160),
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        with self._counted("tiny-llama") as count:
            async with session.post(
                f"{self.chat}/v1/chat/completions", json=body, headers={"X-Tenant-Id": tenant}
            ) as response:
                chunks = 0
                async for _ in response.content.iter_any():
                    chunks += 1
                    if leave_after and chunks >= leave_after:
                        response.close()
                        count("aborted")
                        return
                count(str(response.status))

    async def complete(
        self,
        session: aiohttp.ClientSession,
        draw: random.Random,
        tenant: str,
        words: tuple[int, int] = (20, 120),
        tokens: tuple[int, int] = (16, 64),
    ) -> None:
        """One streamed completion at the vLLM server, of so many words in and tokens out."""
        prompt = " ".join(draw.choices(_WORDS, k=draw.randint(*words)))
        body = {
            "model": "tiny", "prompt": f"{_SYSTEM_PROMPT} {prompt}" if tenant == TENANTS[0] else prompt,
            "max_tokens": draw.randint(*tokens), "ignore_eos": True, "stream": True,
            "stream_options": {"include_usage": True},
        }  # fmt: skip
        with self._counted("tiny") as count:
            async with session.post(
                f"{self.completions}/v1/completions", json=body, headers={"X-Tenant-Id": tenant}
            ) as response:
                async for _ in response.content.iter_any():
                    pass
                count(str(response.status))

    async def _send_vision(self, session: aiohttp.ClientSession, draw: random.Random) -> None:
        await _until_up(session, f"{self.vision}/v2/health/ready")
        await asyncio.gather(
            self._open_loop(6.0, draw, lambda: self.classify(session, draw, _tenant(draw))),
            self._open_loop(8.0, draw, lambda: self.rank(session, draw, _tenant(draw))),
            self._open_loop(1.5, draw, lambda: self.flaky(session, draw, _tenant(draw))),
            self._open_loop(0.1, draw, lambda: self.wrong_shape(session, _tenant(draw))),
        )

    async def _send_chats(self, session: aiohttp.ClientSession, draw: random.Random) -> None:
        await _until_up(session, f"{self.chat}/health")
        await self._open_loop(1.5, draw, lambda: self.chat_once(session, draw, _tenant(draw)))

    async def _send_completions(self, session: aiohttp.ClientSession, draw: random.Random) -> None:
        await _until_up(session, f"{self.completions}/health")
        await asyncio.gather(
            self._open_loop(3.0, draw, lambda: self.complete(session, draw, _tenant(draw))),
            self._flood_prompts(session, draw),
        )

    async def _flood_prompts(self, session: aiohttp.ClientSession, draw: random.Random) -> None:
        await asyncio.sleep(CYCLE_SECONDS / 6)
        while True:
            log.info("trouble", what="flood of long prompts", tenant=NOISY_TENANT, requests=96)
            flood = (self.complete(session, draw, NOISY_TENANT, (400, 600), (150, 300)) for _ in range(96))
            await asyncio.gather(*flood)
            await asyncio.sleep(CYCLE_SECONDS)

    async def _infer(
        self, session: aiohttp.ClientSession, model: str, name: str, shape: list[int], data: list[float], tenant: str
    ) -> None:
        body = {"inputs": [{"name": name, "shape": shape, "datatype": "FP32", "data": data}]}
        with self._counted(model) as count:
            async with session.post(
                f"{self.vision}/v2/models/{model}/infer", json=body, headers={"X-Tenant-Id": tenant}
            ) as response:
                await response.read()
                count(str(response.status))

    @contextlib.contextmanager
    def _counted(self, model: str) -> Iterator[Callable[[str], None]]:
        try:
            yield lambda status: self.sent.update([(model, status)])
        except (aiohttp.ClientError, TimeoutError, ConnectionError) as error:
            self.sent.update([(model, type(error).__name__)])

    async def _open_loop(self, rate: float, draw: random.Random, send: Callable[[], Awaitable[None]]) -> None:
        while True:
            await asyncio.sleep(draw.expovariate(rate))
            task = asyncio.ensure_future(send())
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _trouble(self, session: aiohttp.ClientSession, draw: random.Random) -> None:
        while True:
            await asyncio.sleep(CYCLE_SECONDS / 3)
            if self.vision:
                log.info("trouble", what="flood of images", tenant=NOISY_TENANT, seconds=20)
                await self.flood(session, draw, seconds=20.0, clients=90)
            await asyncio.sleep(CYCLE_SECONDS / 3)
            if self.chat:
                log.info("trouble", what="chats broken off", tenant=NOISY_TENANT, seconds=10)
                await self._abort_storm(session, draw, seconds=10.0)

    async def flood(
        self, session: aiohttp.ClientSession, draw: random.Random, *, seconds: float, clients: int, images: int = 8
    ) -> None:
        """One tenant sends images from many clients at once, each as fast as it is answered."""
        end = time.monotonic() + seconds
        payload_image = [round(draw.random(), 2)] * 3072 * images

        async def client() -> None:
            while time.monotonic() < end:
                await self._infer(
                    session, "vision_classifier", "image", [images, 3, 32, 32], payload_image, NOISY_TENANT
                )
                await asyncio.sleep(0.05)

        await asyncio.gather(*(client() for _ in range(clients)))

    async def _abort_storm(self, session: aiohttp.ClientSession, draw: random.Random, *, seconds: float) -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            await self.chat_once(session, draw, NOISY_TENANT, leave_after=draw.randint(2, 12))
            await asyncio.sleep(0.2)


def _tenant(draw: random.Random) -> str:
    return draw.choices(TENANTS, weights=(5, 3, 2, 1))[0]


async def _until_up(session: aiohttp.ClientSession, url: str) -> None:
    """Wait for a server: nobody sends to one that has never been up, and its start is no outage to page for."""
    while True:
        with contextlib.suppress(aiohttp.ClientError, TimeoutError):
            async with session.get(url) as response:
                if response.status == HTTPStatus.OK:
                    log.info("server_up", url=url)
                    return
        await asyncio.sleep(0.5)


@click.command()
@click.option("--vision", default="", help="Base URL of Triton or its tap.")
@click.option("--chat", default="", help="Base URL of the OpenAI-compatible server or its tap.")
@click.option("--completions", default="", help="Base URL of vLLM or its tap.")
@click.option("--seed", default=1, show_default=True)
def main(vision: str, chat: str, completions: str, seed: int) -> None:
    """Send traffic until SIGTERM or SIGINT."""

    async def run() -> None:
        task = asyncio.ensure_future(Traffic(vision, chat, completions, seed).run())
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, task.cancel)
        with contextlib.suppress(asyncio.CancelledError):
            await task

    asyncio.run(run())


if __name__ == "__main__":
    main()
