"""An engine that publishes its passes is frozen while one who asked since the last waits; no idle or slow one is."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest

from agent.config import AgentConfig
from agent.forward_passes import Pass
from agent.source import PageTold, Scene
from agent.sources import forward_passes
from agent.sources.forward_passes import ForwardPassMetrics
from agent.spool.writer import producer_folder
from agent.tap.open_requests import OpenRequest, OpenRequests
from agent.target import ForwardPasses, Known, Place, Target

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

READ = Pass(0, 0.01, 2, 700, 30, 4)
BEAT = Pass(0, 0.0, 0, 0, 0, 0)


class Engine:
    """An engine whose passes are told, the tap in front of it, and what is told of it."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch, engine: str = "vllm") -> None:
        self.now = 100.0
        monkeypatch.setattr(forward_passes.time, "monotonic", lambda: self.now)
        self.target = Target("v", "chat", engine, forward_pass_metrics=ForwardPasses("tcp://127.0.0.1:9"))
        self.scene = Scene(
            AgentConfig(), Place(node="here"), [self.target], lambda _instance: Known(engine, "1.0", "tiny"), folder
        )
        self.source = ForwardPassMetrics(self.scene)
        (self.publisher,) = self.source._publishers["v"]
        self.publisher.is_there(connected=True)
        self.tap = OpenRequests(producer_folder(folder / "spool", "tap-v"), 4)
        self.numbers = 0
        self.bodies: list[bytes] = []

    def tell(self, one: Pass, at: float) -> None:
        self.now = at
        self.source._tell("v", self.publisher, self.numbers, one)
        self.numbers += 1

    def asked(self, seconds_ago: float) -> None:
        arrived = time.time_ns() - int(seconds_ago * 1e9)
        self.tap.begin(
            OpenRequest(b"\x01" * 8, b"\x01" * 16, b"", 1, arrived, "POST", "/v1/chat", "chat", "", "", "r", "tiny")
        )

    def page(self, tokens: int, at: float) -> None:
        self.now = at
        body = f'vllm:num_requests_running 1\nvllm:generation_tokens_total{{model_name="m"}} {tokens}\n'
        self.scene.overheard.page(PageTold("v", at, 0.01, body.encode()))

    def look(self, at: float) -> list[str]:
        """The events so far."""
        self.now = at
        self.source.look(at, lambda _signal, body: self.bodies.append(body))
        return [
            record.event_name
            for body in self.bodies
            for group in ExportLogsServiceRequest.FromString(body).resource_logs
            for record in group.scope_logs[0].log_records
        ]


@pytest.fixture
def engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Engine]:
    made = Engine(tmp_path, monkeypatch)
    yield made
    made.tap.close()


def test_one_that_beats_and_takes_nobody_up_is_frozen_until_a_pass_comes(engine: Engine):
    engine.tell(READ, 100.0)
    engine.asked(20.0)
    for second in range(101, 130):
        engine.tell(BEAT, float(second))
    assert engine.look(130.0) == ["engine_frozen"]
    assert len([one for one in engine.source.problems(130.0, 130.0) if "told of no step" in one]) == 1
    engine.tell(BEAT, 135.0)
    assert engine.look(136.0) == ["engine_frozen"], "it is told once"
    engine.tell(READ, 140.0)
    assert engine.look(140.5) == ["engine_frozen", "engine_moves"]


def test_an_idle_engine_is_not_frozen(engine: Engine):
    engine.tell(READ, 100.0)
    engine.tell(BEAT, 899.0)
    assert engine.look(900.0) == []


def test_a_long_prompt_that_is_computed_in_parts_is_not_frozen(engine: Engine):
    engine.asked(100.0)
    for second in range(100, 200, 12):
        engine.tell(READ._replace(seconds=12.0), float(second))
        assert engine.look(second + 11.0) == []


def test_who_reads_slowly_waits_for_no_engine(engine: Engine):
    engine.asked(60.0)
    engine.tell(READ, 100.0)
    engine.tell(BEAT, 139.0)
    assert engine.look(140.0) == [], "it was asked before the pass that may have been its last"


def test_one_whose_publisher_is_gone_is_not_judged(engine: Engine):
    engine.tell(READ, 100.0)
    engine.asked(20.0)
    engine.publisher.is_there(connected=False)
    assert engine.look(130.0) == []


def test_silence_is_a_freeze_only_while_tokens_stand_still(engine: Engine):
    engine.tell(READ, 100.0)
    engine.asked(20.0)
    assert engine.look(130.0) == [], "it does not beat, and nobody knows of its tokens"
    engine.page(500, 131.0)
    engine.page(540, 132.0)
    assert engine.look(136.0) == [], "its publisher fell silent"
    engine.tell(READ, 137.0)
    for second in range(138, 170):
        engine.page(900, float(second))
    assert engine.look(170.0) == ["engine_frozen"]


def test_tokens_that_are_counted_when_requests_end_are_no_witness(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    engine = Engine(tmp_path, monkeypatch, "tgi")
    engine.tell(READ, 100.0)
    engine.asked(20.0)
    for second in (129.0, 130.0):
        engine.now = second
        engine.scene.overheard.page(PageTold("v", second, 0.01, b"tgi_request_generated_tokens_sum 5\n"))
    assert engine.look(131.0) == []
    engine.tap.close()


def test_one_that_never_told_of_a_pass_or_whose_probe_does_is_not_judged(engine: Engine):
    engine.asked(20.0)
    engine.tell(BEAT, 119.0)
    assert engine.look(120.0) == []
    engine.tell(READ, 121.0)
    engine.scene.overheard.inside["v"] = {"max_num_seqs": "8"}
    engine.tell(BEAT, 149.0)
    assert engine.look(150.0) == []


def test_one_that_left_is_forgotten(engine: Engine):
    engine.tell(READ, 100.0)
    engine.page(1, 110.0)
    engine.source.forget([engine.target])
    engine.page(2, 111.0)
    assert [engine.source._heard, engine.source._passed, engine.source._tokens] == [{}, {}, {}]
