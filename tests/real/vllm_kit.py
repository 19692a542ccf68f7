"""A real vLLM as a process, and clients whose own clocks and counts are the truth of a test."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
import urllib.request
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest

from demo.vllm_server import MODEL, VENV
from tests.kits.line import ROOT, outcome_of, wait_for
from tests.kits.needs import lack

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    import aiohttp

START_SECONDS = 300.0
WORDS = ("queue", "cache", "token", "batch", "request", "model", "server", "engine", "prefill", "decode", "latency")


def install_probe(folder: Path) -> None:
    """As its user does, beside vLLM's own environment."""
    command = [ROOT / ".venv" / "bin" / "uv", "pip", "install", "-q", "--no-deps", "--target", folder, ROOT / "probe"]
    subprocess.run([str(word) for word in command], check=True)


class Vllm:
    """``python -m demo.vllm_server`` on one port, with its spans sent to an agent.

    Args:
        folder: Model and log.
        port: Port of its API.
        agent_http: Base URL of the agent's OTLP/HTTP receiver.
        agent_grpc: Base URL of its OTLP/gRPC receiver.
        more: Further arguments of ``vllm serve``.
        environment: Variables over this process's own.
    """

    def __init__(
        self,
        folder: Path,
        port: int,
        agent_http: str,
        agent_grpc: str,
        more: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
    ) -> None:
        if not (VENV / ".installed").exists():
            lack("no vLLM: run make test-vllm")
        self.url = f"http://127.0.0.1:{port}"
        self.protocol = ""
        self._folder = folder
        self._port = port
        self._more = more
        self._environment = dict(os.environ) | dict(environment or {})
        self._receivers = {"http/protobuf": agent_http, "grpc": agent_grpc}
        self._log = folder / "vllm.log"
        self._process: subprocess.Popen[bytes] | None = None

    def launch(self, protocol: str) -> None:
        """Start it; ``wait_ready`` says when it serves."""
        self._folder.mkdir(parents=True, exist_ok=True)
        self.protocol = protocol
        command = [
            sys.executable, "-m", "demo.vllm_server", "--port", str(self._port), "--folder", str(self._folder),
            "--otlp", self._receivers[protocol], "--protocol", protocol, "--service", "vllm-a", "--", *self._more,
        ]  # fmt: skip
        with self._log.open("ab") as out:
            self._process = subprocess.Popen(command, cwd=ROOT, stdout=out, stderr=out, env=self._environment)

    def wait_ready(self) -> float:
        """Wait until it serves; returns how long that took."""

        def ready() -> bool:
            if self._process is None or self._process.poll() is not None:
                pytest.fail(f"vLLM ended:\n{self._log.read_text()[-3000:]}")
            with urllib.request.urlopen(f"{self.url}/health", timeout=5) as answer:
                return bool(answer.status == 200)

        return wait_for(ready, START_SECONDS, "vLLM to serve", every=1.0)

    def stop(self) -> int:
        """SIGTERM, which has it send its last spans."""
        if self._process is None:
            return 0
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
        return self._process.wait(60)

    def page(self, rank: str = "") -> dict[str, float]:
        """The engine's own page, read by no code of ours: sums over all labels, by name of series.

        Args:
            rank: Of this data-parallel rank alone.
        """
        with urllib.request.urlopen(f"{self.url}/metrics", timeout=30) as answer:
            lines = answer.read().decode().splitlines()
        shown: defaultdict[str, float] = defaultdict(float)
        for line in lines:
            if line.startswith("vllm:") and (not rank or f'engine="{rank}"' in line):
                shown[line.split("{")[0]] += float(line.rsplit(" ", 1)[1])
        return dict(shown)


@dataclass
class Seen:
    """One request as its client saw it. Times are seconds from before it was sent; 0 where there was none."""

    request_id: str
    tenant: str
    kind: str
    stream: bool
    max_tokens: int
    outcome: str = ""
    status: int = 0
    first_event: float = 0.0
    first_text: float = 0.0
    e2e: float = 0.0
    usage: dict[str, Any] = field(default_factory=dict)
    response_id: str = ""
    finish_reason: str = ""


@dataclass
class Clients:
    """Clients of an OpenAI-compatible server behind a tap.

    Args:
        tap: Base URL.
        seed: Of prompts.
        prefix: Of the ids of their requests.
    """

    tap: str
    seed: int = 1
    prefix: str = "line"
    seen: list[Seen] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._draw = random.Random(self.seed)
        self._number = 0

    def outcomes(self) -> Counter[tuple[str, str]]:
        """Requests by (tenant, outcome)."""
        return Counter((one.tenant, one.outcome) for one in self.seen)

    def prompt(self, words: int) -> str:
        """A prompt that shares no beginning with another one."""
        return " ".join([f"{self._draw.random():.12f}", *self._draw.choices(WORDS, k=words)])

    async def send(
        self,
        session: aiohttp.ClientSession,
        tenant: str,
        kind: str,
        *,
        stream: bool = False,
        usage: bool = True,
        words: int = 40,
        max_tokens: int = 32,
        leave_after: int = 0,
        **changes: Any,
    ) -> Seen:
        """One completion or chat; ``leave_after`` hangs up after so many events with text."""
        self._number += 1
        one = Seen(f"{self.prefix}-{self._number}", tenant, kind, stream, max_tokens)
        text = self.prompt(words)
        body = {"model": MODEL, "max_tokens": max_tokens, "ignore_eos": True, "stream": stream}
        body |= {"prompt": text} if kind == "completion" else {"messages": [{"role": "user", "content": text}]}
        body |= {"stream_options": {"include_usage": True}} if stream and usage else {}
        path = "/v1/completions" if kind == "completion" else "/v1/chat/completions"
        headers = {"X-Tenant-Id": tenant, "X-Request-Id": one.request_id}
        begun = time.perf_counter()
        async with session.post(f"{self.tap}{path}", json=body | changes, headers=headers) as response:
            one.status = response.status
            one.outcome = outcome_of(response.status)
            if stream and response.status == 200:
                await self._read_events(response, one, begun, leave_after)
            else:
                answer = await response.json()
                one.usage = answer.get("usage") or {}
                one.response_id = answer.get("id", "")
                one.finish_reason = (answer.get("choices") or [{}])[0].get("finish_reason", "")
        one.e2e = time.perf_counter() - begun
        self.seen.append(one)
        return one

    async def _read_events(self, response: aiohttp.ClientResponse, one: Seen, begun: float, leave_after: int) -> None:
        texts = 0
        async for line in response.content:
            if not line.startswith(b"data: ") or line.startswith(b"data: [DONE]"):
                continue
            event = json.loads(line[6:])
            now = time.perf_counter() - begun
            one.first_event = one.first_event or now
            one.response_id = event.get("id", "")
            one.usage = event.get("usage") or one.usage
            for choice in event["choices"]:
                one.finish_reason = choice.get("finish_reason") or one.finish_reason
                if choice.get("text") or choice.get("delta", {}).get("content"):
                    one.first_text = one.first_text or now
                    texts += 1
            if leave_after and texts >= leave_after:
                one.outcome = "client_abort"
                response.close()
                return
