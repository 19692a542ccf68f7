"""A kind of discovery is one file: put beside the others it can be configured, and what it names is watched."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from agent import discovery
from agent.config import AgentConfig, load
from agent.sidecar import Sidecar
from agent.telemetry import describe
from base.errors import ConfigError
from base.found import NotFoundError
from tests.kits.agent_fakes import FakeCollector, until

if TYPE_CHECKING:
    from pathlib import Path

KIND = '''
"""Servers of a harbour."""

import asyncio
from typing import Literal

from agent.finder import Entry, Finder
from agent.target import Target


class Settings(Entry):
    kind: Literal["harbour"]
    ships: int

    def finder(self, around):
        return Harbour(self.ships)


class Harbour(Finder):
    def __init__(self, ships):
        super().__init__("harbour")
        self.ships = ships

    async def run(self, tell):
        tell([Target(f"ship-{n}", "fleet", url=f"http://127.0.0.1:{n + 1}") for n in range(self.ships)])
        self.failed("fog")
        await asyncio.Event().wait()
'''
BARE = {"health_port": 0, "otlp_http_port": None, "otlp_grpc_port": None, "host": False, "gpu": False, "probe": False}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    found = tmp_path / "kinds"
    found.mkdir()
    monkeypatch.setattr(discovery, "__path__", [*discovery.__path__, str(found)])
    return found


async def test_a_kind_is_one_file(folder: Path, tmp_path: Path):
    (folder / "harbour.py").write_text(KIND)
    (folder / "_shared.py").write_text("raise RuntimeError('nobody imports it')\n")
    async with FakeCollector() as collector:
        entries = [{"kind": "harbour", "ships": 2}, {"kind": "harbour", "ships": 1}]
        settings = AgentConfig.model_validate(BARE | {"collector": collector.url, "discovery": entries})
        agent = Sidecar(settings, tmp_path)
        stop = asyncio.Event()
        task = asyncio.create_task(agent.run(stop))
        await until(lambda: task.done() or len(agent.targets) == 2)
        health = describe(agent)
        stop.set()
        await task
    assert set(health["targets"]) == {"ship-0", "ship-1"}
    assert [finder.name for finder in agent.finders] == ["harbour", "harbour-2"]
    assert health["sources"]["harbour"]["running"]
    assert "harbour can't be asked for its servers, those that were known stay: fog" in health["problems"]


def test_a_file_that_is_no_kind_is_named(folder: Path, tmp_path: Path):
    (folder / "empty_kind.py").write_text("")
    file = tmp_path / "servescope.yaml"
    file.write_text("agent:\n  discovery: [{kind: local}]\n")
    with pytest.raises((NotFoundError, ConfigError), match=r"empty_kind\.py has no Settings"):
        load(file, {})
