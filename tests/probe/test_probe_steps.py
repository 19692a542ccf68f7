"""What each version of vLLM tells of a step arrives as it was; what it does not tell is unknown, never 0."""

from __future__ import annotations

import ast
import logging
import math
import struct
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from servescope_probe import plugin, wire
from servescope_probe.plugin import StepLogger

from agent.probe import datagram
from tests.probe.probe_kit import Listener, Mailbox
from tests.probe.vllm_shapes import SHAPES, PlainReason, finished, of_0_32

if TYPE_CHECKING:
    from collections.abc import Iterator

PROBE = Path(plugin.__file__).parent
ALWAYS = {
    "counter": 1, "completed_ns": 1_764_000_000_500_000_000, "running": 3, "waiting": 2, "kv_cache_usage_ratio": 0.5,
    "prompt_tokens": 64, "generation_tokens": 7, "first_tokens": 1, "finished": 1, "preemptions": 1,
    "prefix_queries": 64, "prefix_hits": 16,
}  # fmt: skip
SPECULATION = {"drafts": 4, "draft_tokens": 12, "accepted_tokens": 9, "loras_running": 1, "loras_waiting": 0}
TOLD: dict[str, dict[str, Any]] = {
    "0.8": ALWAYS,
    "0.12": ALWAYS | SPECULATION | {"evictions": 0},
    "0.16": ALWAYS | SPECULATION | {"cached_tokens": 16, "evictions": 0},
    "0.20": ALWAYS | SPECULATION | {"cached_tokens": 16, "evictions": 0, "deferred": 1},
    "0.32": ALWAYS
    | SPECULATION
    | {
        "cached_tokens": 16, "evictions": 2, "deferred": 1, "external_queries": 32, "external_hits": 8,
        "prefill_requests": 1, "prefill_tokens": 48, "decode_requests": 2, "decode_tokens": 2,
        "elapsed_seconds": 0.0125, "scheduled_ns": 1_764_000_000_487_500_000,
    },
}  # fmt: skip


@pytest.fixture
def mailbox(tmp_path: Path) -> Iterator[Mailbox]:
    box = Mailbox(tmp_path / "probe.sock")
    yield box
    box.close()


def logger(mailbox: Mailbox, instance: str = "vllm-a", **arguments: Any) -> StepLogger:
    made = StepLogger(**arguments)
    made._sender = mailbox.sender(instance)
    return made


def told(tmp_path: Path, mailbox: Mailbox) -> list[tuple[dict[str, str], str, dict[str, list[Any]]]]:
    listener = Listener(tmp_path)
    for data in mailbox.raw():
        listener.source.take(data, 0.0)
    listener.source.flush()
    assert not listener.source.malformed
    return listener.tables()


@pytest.mark.parametrize("version", SHAPES)
def test_each_version_tells_what_it_has(tmp_path: Path, mailbox: Mailbox, version: str):
    scheduler, iteration = SHAPES[version]()
    steps = logger(mailbox)
    steps.record(scheduler, iteration)
    steps.log()
    (_, _, _), (whose, event, columns) = sorted(told(tmp_path, mailbox), key=lambda one: one[1], reverse=True)
    assert event == "engine_steps"
    assert columns == {name: [value] for name, value in TOLD[version].items()}
    assert whose["service.instance.id"] == "vllm-a"
    assert whose["servescope.dp_rank"] == "0"
    assert whose["servescope.model"] == "tiny"


def test_a_finished_request_has_its_id_and_its_phases(tmp_path: Path, mailbox: Mailbox):
    steps = logger(mailbox)
    steps.record(*of_0_32())
    steps.log()
    (columns,) = [columns for _, event, columns in told(tmp_path, mailbox) if event == "finished_requests"]
    assert columns == {
        "finished_ns": [1_764_000_000_500_000_000], "e2e_seconds": [2.5], "queued_seconds": [0.25],
        "prefill_seconds": [0.5], "inference_seconds": [2.0], "decode_seconds": [1.5], "preemptions": [1],
        "prompt_tokens": [40], "generation_tokens": [32], "cached_tokens": [16], "reason": ["length"],
        "request_id": ["cmpl-line-7-0"],
    }  # fmt: skip


@pytest.mark.parametrize(("reason", "word"), [(PlainReason.STOP, "stop"), ("Stop", "stop"), (None, None)])
def test_reasons_are_words(tmp_path: Path, mailbox: Mailbox, reason: Any, word: str | None):
    _, iteration = of_0_32()
    iteration.finished_requests = [finished(finish_reason=reason, request_id="a")]
    steps = logger(mailbox)
    steps.record(None, iteration)
    steps.log()
    (columns,) = [columns for _, event, columns in told(tmp_path, mailbox) if event == "finished_requests"]
    assert columns.get("reason", [None]) == [word]


def test_what_only_one_api_server_saw_is_no_row_of_zeros(tmp_path: Path, mailbox: Mailbox):
    """With several API servers one has the scheduler's figures, each its own requests'."""
    scheduler, iteration = of_0_32()
    steps = logger(mailbox)
    steps.record(scheduler, None)
    steps.record(None, iteration)
    steps.log()
    (columns,) = [columns for _, event, columns in told(tmp_path, mailbox) if event == "engine_steps"]
    assert columns["running"] == [3, None]
    assert columns["generation_tokens"] == [None, 7]
    assert columns["counter"] == [1, 2]


def test_ranks_are_apart_whether_named_at_the_call_or_before(mailbox: Mailbox):
    scheduler, iteration = of_0_32()
    iteration.finished_requests = []
    steps = logger(mailbox, vllm_config=None, engine_index=3)
    steps.record(scheduler, iteration)
    steps.record(scheduler, iteration, None, 1)
    steps.record(scheduler, iteration, 2)  # before 0.11 the third was the rank
    steps.record(scheduler, iteration, engine_idx=1)
    steps.log()
    found = [(record.rank, datagram.read_step(record.body).counter) for record in mailbox.records()]
    assert found == [(3, 1), (1, 1), (2, 1), (1, 2)]


def test_both_sides_read_the_same_layout():
    assert datagram.Step._fields == tuple(name for name, _ in wire.STEP_FIELDS)
    assert datagram._STEP.format == wire.STEP_BODY.format
    assert datagram.Finished._fields[:-2] == tuple(name for name, _ in wire.FINISHED_FIELDS)
    for ours, theirs in (
        (datagram._HEAD, wire.HEAD), (datagram._RECORD, wire.RECORD), (datagram._FINISHED, wire.FINISHED_BODY),
        (datagram._BEGIN, wire.BEGIN_BODY), (datagram._BODY, wire.BODY_BODY), (datagram._ANSWER, wire.ANSWER_BODY),
        (datagram._PIECES, wire.PIECES_BODY), (datagram._PIECE, wire.PIECE), (datagram._END, wire.END_BODY),
    ):  # fmt: skip
        assert ours.format == theirs.format


class _Hostile:
    """Whatever is asked of it fails."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        raise RuntimeError(f"no {name} here")


@pytest.mark.parametrize(
    ("scheduler", "iteration"),
    [
        (_Hostile(), None),
        (None, _Hostile()),
        (SimpleNamespace(), SimpleNamespace()),
        (SimpleNamespace(num_running_reqs=1, kv_cache_usage="full"), SimpleNamespace(finished_requests=7)),
        ("a text", 5),
    ],
)
def test_an_unknown_interface_is_said_once_and_never_felt(
    mailbox: Mailbox, caplog: pytest.LogCaptureFixture, scheduler: Any, iteration: Any
):
    steps = logger(mailbox)
    with caplog.at_level(logging.WARNING, logger="servescope_probe"):
        for _ in range(3):
            steps.record(scheduler, iteration)
        steps.record(*of_0_32())
        steps.log()
        steps.record_sleep_state(1, 2)
        steps.log_engine_initialized()
    assert len(caplog.records) == 1
    assert "is off" in caplog.text
    assert mailbox.records() == []


def test_kv_use_that_is_not_told_is_unknown(tmp_path: Path, mailbox: Mailbox):
    made = logger(mailbox)
    made.record(SimpleNamespace(num_running_reqs=1, num_waiting_reqs=0), None)
    data = mailbox.raw()
    (record,) = datagram.read(data[0]).records
    assert math.isnan(datagram.read_step(record.body).kv_cache_usage_ratio)
    negative = record.body.replace(struct.pack("<d", math.nan), struct.pack("<d", -1.0), 1)
    head = wire.HEAD.pack(wire.MAGIC, wire.VERSION, 0, 1, 9, 0, 0) + wire.RECORD.pack(len(negative), wire.STEP, 0)
    listener = Listener(tmp_path)
    for one in (*data, head + negative):
        listener.source.take(one, 0.0)
    listener.source.flush()
    assert datagram.read_step(negative).kv_cache_usage_ratio == -1.0
    for _, _, columns in listener.tables():
        assert columns["running"] == [1]
        assert "kv_cache_usage_ratio" not in columns


def test_odd_numbers_are_unknown(mailbox: Mailbox):
    scheduler, iteration = of_0_32()
    scheduler.num_waiting_reqs = None
    scheduler.num_skipped_waiting_reqs = -4
    scheduler.kv_cache_usage = "0.5"
    iteration.num_generation_tokens = 1 << 40
    iteration.iteration_timestamp = "soon"
    iteration.finished_requests = []
    steps = logger(mailbox)
    steps.record(scheduler, iteration)
    steps.log()
    (record,) = mailbox.records()
    step = datagram.read_step(record.body)
    assert (step.waiting, step.deferred, step.generation_tokens) == (-1, -1, -1)
    assert step.kv_cache_usage_ratio != step.kv_cache_usage_ratio
    assert step.completed_ns > 1_764_000_000_000_000_000


def test_the_probe_runs_on_old_interpreters_and_needs_nothing():
    allowed = {"servescope_probe", "vllm"}
    used = set()
    for path in PROBE.glob("*.py"):
        tree = ast.parse(path.read_text(), feature_version=(3, 9))
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                used |= {name.name.partition(".")[0] for name in node.names}
            elif isinstance(node, ast.ImportFrom):
                used.add(str(node.module).partition(".")[0])
    assert used - sys.stdlib_module_names == allowed


LATER_VLLM = """
from abc import ABC, abstractmethod

class StatLoggerBase(ABC):
    @abstractmethod
    def __init__(self, vllm_config, engine_index=0): ...
    @abstractmethod
    def record(self, scheduler_stats, iteration_stats, mm_cache_stats=None, engine_idx=0): ...
    @abstractmethod
    def log_engine_initialized(self): ...
    @abstractmethod
    def what_a_later_version_asks_for(self): ...
"""


def test_it_is_what_vllm_wants_and_starts_with_a_later_version_too(tmp_path: Path):
    """vLLM refuses to start with a plugin that is no subclass, or that can't be made."""
    folder = tmp_path / "vllm" / "v1" / "metrics"
    folder.mkdir(parents=True)
    (folder / "loggers.py").write_text(LATER_VLLM)
    script = (
        "from servescope_probe.plugin import StepLogger\n"
        "from vllm.v1.metrics.loggers import StatLoggerBase\n"
        "assert issubclass(StepLogger, StatLoggerBase)\n"
        "StepLogger(object(), 0).record(None, None)\n"
    )
    environment = {"PYTHONPATH": f"{PROBE.parent}:{tmp_path}"}
    subprocess.run([sys.executable, "-c", script], env=environment, check=True)


def test_without_vllm_it_is_a_class_all_the_same():
    assert StepLogger.__bases__ == (object,)


def test_a_vllm_whose_loggers_are_elsewhere_starts_without_it(tmp_path: Path):
    """vLLM passes over a plugin that can't be loaded, and does not start with one that is no subclass."""
    folder = tmp_path / "vllm" / "v1" / "metrics"
    folder.mkdir(parents=True)
    (folder / "loggers.py").write_text("class StatLogger: ...\n")
    script = "import vllm\ntry:\n    import servescope_probe.plugin\nexcept ImportError as error:\n    print(error)\n"
    environment = {"PYTHONPATH": f"{PROBE.parent}:{tmp_path}"}
    done = subprocess.run([sys.executable, "-c", script], env=environment, check=True, capture_output=True, text=True)
    assert "does not know this version of vLLM" in done.stdout


def test_several_cores_of_an_unknown_interface_say_it_once(mailbox: Mailbox, caplog: pytest.LogCaptureFixture):
    with caplog.at_level(logging.WARNING, logger="servescope_probe"):
        for rank in range(4):
            logger(mailbox, vllm_config=None, engine_index=rank).record(SimpleNamespace(), SimpleNamespace())
    assert len(caplog.records) == 1
