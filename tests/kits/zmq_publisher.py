"""A publisher over ZeroMQ of what an engine tells, and a source that listens to it."""

from __future__ import annotations

import asyncio
import json
import re
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
import zmq
import zmq.asyncio

from agent.config import AgentConfig, load
from agent.source import Scene
from agent.target import Place
from base.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from agent.otlp.emit import Emit
    from agent.source import Source

SOON = 20.0
"""Seconds in which whatever is waited for has come, on however busy a machine."""


class Publisher:
    """Publishes numbered messages, as engines do.

    Args:
        context: Of the sockets.
        endpoint: Where; of a port ``*`` a free one is taken.
        topic: The first frame of each message.
    """

    def __init__(self, context: zmq.asyncio.Context, endpoint: str = "tcp://127.0.0.1:*", topic: bytes = b"") -> None:
        self.pub = context.socket(zmq.PUB)
        self.pub.setsockopt(zmq.LINGER, 0)
        self.pub.bind(endpoint)
        self.endpoint = self.pub.getsockopt_string(zmq.LAST_ENDPOINT)
        self.topic = topic
        self.number = 0

    async def send(self, payload: bytes, *, heard: bool = True) -> None:
        """The next message; one that is not ``heard`` takes its number alone."""
        if heard:
            await self.pub.send_multipart([self.topic, self.number.to_bytes(8, "big"), payload])
        self.number += 1


@asynccontextmanager
async def context() -> AsyncIterator[zmq.asyncio.Context]:
    """Whose sockets are closed in the end."""
    made = zmq.asyncio.Context()
    try:
        yield made
    finally:
        made.destroy(0)


@asynccontextmanager
async def running(source: Source, emit: Emit = lambda _signal, _body: None) -> AsyncIterator[None]:
    """A source while it listens."""
    task = asyncio.create_task(source.run(emit))
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def until(condition: Callable[[], object]) -> None:
    """Wait until it holds, ``SOON`` at most."""
    async with asyncio.timeout(SOON):
        while not condition():  # noqa: ASYNC110 - the state is of several tasks
            await asyncio.sleep(0.01)


def refused(setting: str, given: dict[str, object], told: str, folder: Path) -> None:
    """A target with this setting is refused in these words."""
    target = {"instance": "v", "url": "http://h:1", setting: given}
    (folder / "c.yaml").write_text(json.dumps({"agent": {"targets": [target]}}))
    with pytest.raises(ConfigError, match=re.escape(told)):
        load(folder / "c.yaml", {})


def needs_libraries(module: Any, setting: str, monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """The source of a module is there with its libraries, and names the fix without them."""
    target = {"instance": "v", "url": "http://h:1", setting: {"endpoint": "tcp://h:1"}}
    config = AgentConfig.model_validate({"targets": [target]})
    targets = [one.target() for one in config.targets]
    scene = Scene(config, Place(), targets, lambda _instance: None, folder)
    assert module.source(scene) is not None
    monkeypatch.setattr(module, "available", lambda: False)
    with pytest.raises(ConfigError, match=r"servescope\[kv-events\]"):
        module.source(scene)
