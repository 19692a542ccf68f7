"""What clients ask, drawn from a seed: the same seed asks the same at the same moments, with a fault or without."""

from __future__ import annotations

import random
from dataclasses import dataclass, field, replace
from typing import Any, Final

BASELINE: Final = "baseline"
FAULT: Final = "fault"
NOISY: Final = "hooli"
TENANTS: Final = ("acme", "globex", "initech", "umbrella")
WORDS: Final = (
    "queue", "cache", "token", "batch", "request", "model", "server", "engine", "prefill", "decode", "latency",
    "memory", "block", "fast", "slow",
)  # fmt: skip
SYSTEM_WORDS: Final = 500
"""Words before each prompt of the first tenant: what its prefix cache is good for."""


@dataclass(frozen=True, slots=True)
class Ask:
    """One request as it is to be sent.

    Attributes:
        at: Seconds from the beginning of the timeline.
        tenant: Who asks.
        path: Path of the URL.
        body: JSON body.
        stream: Whether the answer is read piece by piece.
        reads: Seconds that the client waits before it reads the next piece.
        where: Which of several servers it goes to.
        retries: How often it is sent again at once where it fails.
        role: ``baseline`` or ``fault``.
    """

    at: float
    tenant: str
    path: str
    body: dict[str, Any] = field(repr=False)
    stream: bool = False
    reads: float = 0.0
    where: int = 0
    retries: int = 0
    role: str = BASELINE


def words(draw: random.Random, count: int) -> str:
    """So many words, about a token each."""
    return " ".join(draw.choices(WORDS, k=count))


def completion(
    draw: random.Random, prompt: int, output: int, *, before: str = "", stream: bool = True
) -> tuple[str, dict[str, Any], bool]:
    """Path, body and whether it is streamed, of a completion of so many tokens."""
    body: dict[str, Any] = {
        "model": "tiny", "prompt": f"{before} {words(draw, prompt)}".strip(), "max_tokens": output, "ignore_eos": True,
        "stream": stream,
    }  # fmt: skip
    if stream:
        body["stream_options"] = {"include_usage": True}
    return "/v1/completions", body, stream


def infer(draw: random.Random, images: int = 1, *, fails: bool = False) -> tuple[str, dict[str, Any], bool]:
    """Path, body and whether it is streamed, of an inference of so many images."""
    data = [-1.0 if fails else round(draw.random(), 3) for _ in range(16 * images)]
    body = {"inputs": [{"name": "image", "shape": [images, 16], "datatype": "FP32", "data": data}]}
    return "/v2/models/vision/infer", body, False


def moments(draw: random.Random, rate: float, seconds: float) -> list[float]:
    """Poisson arrivals."""
    found, at = [], 0.0
    while (at := at + draw.expovariate(rate)) < seconds:
        found.append(at)
    return found


def llm(seed: int, seconds: float, system_words: int = SYSTEM_WORDS) -> list[Ask]:
    """Steady traffic of four tenants at an LLM server, about four requests a second."""
    draw = random.Random(seed)  # noqa: S311 - arrivals, not secrets
    system = words(random.Random(1), system_words)  # noqa: S311
    asks = []
    shapes = (
        (TENANTS[0], 1.5, (40, 120), (16, 48), system, True),
        (TENANTS[1], 1.2, (60, 300), (16, 48), "", True),
        (TENANTS[2], 0.4, (40, 160), (80, 120), "", True),
        (TENANTS[3], 0.9, (60, 300), (16, 32), "", False),
    )
    for tenant, rate, prompt, output, before, stream in shapes:
        for at in moments(draw, rate, seconds):
            made = completion(draw, draw.randint(*prompt), draw.randint(*output), before=before, stream=stream)
            asks.append(Ask(at, tenant, *made))
    return sorted(asks, key=lambda ask: ask.at)


def vision(seed: int, seconds: float, servers: int = 1) -> list[Ask]:
    """Steady traffic of four tenants at servers of one model, eight requests a second; twenty for each of several."""
    draw = random.Random(seed)  # noqa: S311 - arrivals, not secrets
    asks = []
    for tenant, share in zip(TENANTS, (0.4, 0.3, 0.2, 0.1), strict=True):
        asks += [
            Ask(at, tenant, *infer(draw, draw.choice((1, 1, 1, 2))))
            for at in moments(draw, (8.0 if servers == 1 else 20.0 * servers) * share, seconds)
        ]
    asks.sort(key=lambda ask: ask.at)
    return [replace(ask, where=number % servers) for number, ask in enumerate(asks)]
