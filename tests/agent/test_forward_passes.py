"""Forward-pass metrics: a recording of Dynamo's scheduler in a real vLLM, and messages made up by that layout.

SGLang's and vLLM's own were not to be had on a CPU: what is said of them is by their sources.
"""

from __future__ import annotations

import asyncio
import gzip
from contextlib import asynccontextmanager, suppress
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest

from agent import forward_pass_wire
from agent.config import AgentConfig
from agent.forward_pass_wire import UnreadableError
from agent.forward_passes import Pass, Passes
from agent.source import Scene
from agent.sources import forward_passes
from agent.sources.forward_passes import ForwardPassMetrics
from agent.target import ForwardPasses, Known, Place, Target
from tests.kits.zmq_publisher import Publisher, context, needs_libraries, refused, running, until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from agent.probe.datagram import Step

RECORDING = Path(__file__).parents[1] / "fixtures/forward_passes/dynamo_in_vllm.msgpack.gz"
SECOND = 1_000_000_000


def told(number: int = 0, seconds: float = 0.01, **scheduled: int) -> dict[str, Any]:
    """A message as all its fields are laid out."""
    prompts = {"num_prefill_requests": 2, "sum_prefill_tokens": 700, "var_prefill_length": 1.5}
    return {
        "version": 1, "worker_id": "694d9a", "dp_rank": 0, "counter_id": number, "wall_time": seconds,
        "scheduled_requests": {
            **prompts, "sum_prefill_kv_tokens": 64, "num_decode_requests": 30, "sum_decode_kv_tokens": 9_000,
            "var_decode_kv_tokens": 2.25, **scheduled,
        },
        "queued_requests": {
            **prompts, "num_prefill_requests": 3, "num_decode_requests": 1, "sum_decode_kv_tokens": 500,
            "var_decode_kv_tokens": 0.0,
        },
    }  # fmt: skip


HEARTBEAT = Pass(0, 0.0, 0, 0, 0, 0)
READ = Pass(0, 0.01, 2, 700, 30, 4)


def test_a_forward_pass_is_read_by_the_names_of_its_fields():
    read = forward_pass_wire.read(msgspec.msgpack.encode(told()))
    assert read == READ
    assert not read.is_heartbeat
    backwards = dict(reversed(list(told(dp_rank=0).items()))) | {"dp_rank": 3, "timing_scope": "execute_model_cuda"}
    assert forward_pass_wire.read(msgspec.msgpack.encode(backwards)) == READ._replace(rank=3)


def test_a_recording_has_the_steps_that_the_probe_told_beside_it():
    """ai-dynamo 1.6.1 in vLLM 0.32 on a CPU: 786 messages of 781 steps, and what a probe told of each."""
    kept = msgspec.msgpack.decode(gzip.decompress(RECORDING.read_bytes()))
    line = Passes()
    steps = [
        step
        for at, number, body in kept["messages"]
        for step in line.add(number, forward_pass_wire.read(body), int(at * SECOND))
    ]
    batches = [[one.prefill_requests, one.prefill_tokens, one.decode_requests, one.waiting] for one in steps]
    assert [one for one in batches if any(one[:3])] == kept["probe"]
    assert len(kept["probe"]) == 781
    assert line.lost == 0
    assert sum(one[1] for one in kept["probe"]) > 10_000, "prompts were read"
    assert max(one[3] for one in kept["probe"]) > 0, "some waited"


def test_what_a_message_lacks_is_0_as_its_makers_have_it():
    assert forward_pass_wire.read(msgspec.msgpack.encode({})) == HEARTBEAT
    assert HEARTBEAT.is_heartbeat
    first = {"worker_id": "w", "dp_rank": 1, "wall_time": 1, "scheduled_requests": {"num_decode_requests": 5}}
    assert forward_pass_wire.read(msgspec.msgpack.encode(first)) == Pass(1, 1.0, 0, 0, 5, 0)


@pytest.mark.parametrize(
    "body",
    [
        msgspec.msgpack.encode(told() | {"version": 2}),
        msgspec.msgpack.encode(told() | {"wall_time": float("nan")}),
        msgspec.msgpack.encode(told() | {"wall_time": -1.0}),
        msgspec.msgpack.encode(told() | {"dp_rank": -1}),
        msgspec.msgpack.encode(told(num_decode_requests=-1)),
        msgspec.msgpack.encode(told(sum_prefill_tokens=1 << 40)),
        msgspec.msgpack.encode(list(told().values())),
        msgspec.msgpack.encode(told())[:-1],
        b"\x91" * 100_000,
        b"",
    ],
)
def test_what_is_no_forward_pass_of_version_1_is_unreadable(body: bytes):
    with pytest.raises(UnreadableError):
        forward_pass_wire.read(body)


@given(st.binary())
def test_whatever_comes_is_read_or_unreadable(body: bytes):
    with suppress(UnreadableError):
        forward_pass_wire.read(body)


def follow(*passes: tuple[float, Pass], numbers: Sequence[int] = ()) -> list[Step]:
    """Steps of passes that came at these seconds."""
    line = Passes()
    at = numbers or range(len(passes))
    return [
        step
        for number, (seconds, one) in zip(at, passes, strict=True)
        for step in line.add(number, one, int((1_795_000_000 + seconds) * SECOND))
    ]


def followed(steps: Sequence[Step]) -> list[bool]:
    """Of each step but the first, whether it follows the one before, as readers of the table judge it."""
    return [later.counter == one.counter + 1 for one, later in pairwise(steps)]


def test_a_step_has_what_was_told_and_nothing_else():
    (step,) = follow((0.0, READ))
    assert step.completed_ns == 1_795_000_000 * SECOND
    assert step.scheduled_ns == step.completed_ns - SECOND // 100
    assert (step.running, step.waiting, step.elapsed_seconds) == (32, 4, 0.01)
    assert (step.prefill_requests, step.prefill_tokens, step.decode_requests) == (2, 700, 30)
    unknown = {name for name, value in step._asdict().items() if value == -1 or value != value}  # noqa: PLR0124 - NaN
    assert unknown == set(step._fields) - {
        "counter", "scheduled_ns", "completed_ns", "running", "waiting", "elapsed_seconds", "prefill_requests",
        "prefill_tokens", "decode_requests",
    }  # fmt: skip


def test_a_pass_that_took_all_the_time_since_the_last_one_follows_it():
    steady = follow((0.0, READ), (0.010, READ), (0.0215, READ), (5.0, READ._replace(seconds=4.98)))
    assert followed(steady) == [True, True, True], "the last one is a stand-still, of which it tells itself"


def test_between_passes_that_leave_time_over_nobody_knows_what_was():
    assert followed(follow((0.0, READ), (0.5, READ))) == [False]


def test_a_heartbeat_tells_that_nothing_was_left_to_do():
    steps = follow((0.0, READ), (1.0, HEARTBEAT), (2.0, HEARTBEAT), (2.5, READ))
    assert followed(steps) == [True, True]
    rest = steps[1]
    assert (rest.running, rest.waiting, rest.prefill_tokens, rest.decode_requests) == (0, 0, 0, 0)
    assert rest.completed_ns == steps[0].completed_ns + 1_000, "it began when the last one ended"
    assert follow((0.0, HEARTBEAT), (1.0, HEARTBEAT)) == []


def test_an_engine_that_stands_still_beats_and_does_not_rest():
    """A publisher's thread knows of no step for a second, and not why."""
    steps = follow((0.0, READ), (1.0, HEARTBEAT), (2.0, HEARTBEAT), (3.0, READ._replace(seconds=3.0)))
    assert [one.running for one in steps] == [32, 32]
    assert followed(steps) == [True]


def test_what_was_missed_is_counted_and_breaks_the_line():
    line = Passes()
    steps = [step for number in (0, 1, 4, 5) for step in line.add(number, READ, (1_000 + 10 * number) * 1_000_000)]
    assert line.lost == 2
    assert followed(steps) == [True, False, True]
    again = [step for number in (0, 1) for step in line.add(number, READ, (1_060 + 10 * number) * 1_000_000)]
    assert line.lost == 2, "a publisher that was started again"
    assert followed([steps[-1], *again]) == [False, True]


def test_a_message_that_cannot_be_read_breaks_the_line_and_is_not_lost():
    line = Passes()
    first = line.add(0, READ, SECOND)
    line.pass_over(1)
    assert followed([*first, *line.add(2, READ, SECOND + 10_000_000)]) == [False]
    assert line.lost == 0


def test_a_clock_that_was_set_back_turns_no_step_around():
    steps = follow((1.0, READ), (0.5, READ), (0.51, READ))
    assert [one.completed_ns for one in steps] == sorted(one.completed_ns for one in steps)


class Publishing(Publisher):
    """What publishes a rank's."""

    async def publish(self, **more: Any) -> None:
        await self.send(msgspec.msgpack.encode(told(self.number) | more))


@asynccontextmanager
async def publishing(*endpoints: str) -> AsyncIterator[list[Publishing]]:
    async with context() as sockets:
        yield [Publishing(sockets, endpoint) for endpoint in endpoints or ("tcp://127.0.0.1:*",)]


class Listening:
    """The source while it runs, and what it emitted."""

    def __init__(self, settings: ForwardPasses, folder: Path) -> None:
        self.target = Target("v", "chat", "sglang", forward_pass_metrics=settings)
        known = Known("sglang", "0.6.1", "tiny")
        self.scene = Scene(AgentConfig(), Place(node="here"), [self.target], lambda _instance: known, folder)
        self.source = ForwardPassMetrics(self.scene)
        self.bodies: list[bytes] = []

    def emit(self, signal: str, body: bytes) -> None:
        assert signal == "logs"
        self.bodies.append(body)

    def rows(self) -> list[tuple[dict[str, str], dict[str, list[Any]]]]:
        """Resource and columns of each record."""
        found = []
        for body in self.bodies:
            for group in ExportLogsServiceRequest.FromString(body).resource_logs:
                (scope,) = group.scope_logs
                assert scope.scope.name == "servescope.step"
                (record,) = scope.log_records
                assert record.event_name == "engine_steps"
                whose = {pair.key: pair.value.string_value for pair in group.resource.attributes}
                columns = {
                    pair.key: [_value(one) for one in pair.value.array_value.values] for pair in record.attributes
                }
                found.append((whose, columns))
        return found

    def counted(self) -> dict[str, float]:
        return {one.labels["result"]: one.value for one in next(iter(self.source.metrics())).samples}


def _value(value: Any) -> Any:
    kind = value.WhichOneof("value")
    return getattr(value, kind) if kind else None


@asynccontextmanager
async def listening(settings: ForwardPasses, folder: Path) -> AsyncIterator[Listening]:
    made = Listening(settings, folder)
    async with running(made.source, made.emit):
        yield made


async def heard(made: Listening, *publishers: Publishing) -> None:
    """Until the subscriptions have arrived: of what is published before, nobody hears."""
    for publisher, one in zip(made.source._publishers["v"], publishers, strict=True):
        while not publisher.counted["read"]:
            await one.publish(wall_time=0.0, scheduled_requests={}, queued_requests={})
            await asyncio.sleep(0.02)


async def test_steps_of_each_rank_come_as_rows(tmp_path: Path):
    base = f"ipc://{tmp_path}/fpm"
    async with (
        publishing(f"{base}.0", f"{base}.1") as (first, second),
        listening(ForwardPasses(base, 2), tmp_path) as made,
    ):
        await heard(made, first, second)
        for _ in range(3):
            await first.publish()
            await second.publish(dp_rank=1)
        await until(lambda: sum(len(columns["counter"]) for _, columns in made.rows()) == 6)
        assert list(made.source.problems(100.0, 0.0)) == []
        assert made.source.seen()["forward_pass_metrics"]["v"] > 0
    assert {whose["servescope.dp_rank"] for whose, _ in made.rows()} == {"0", "1"}
    for whose, columns in made.rows():
        assert (whose["servescope.engine"], whose["servescope.model"]) == ("sglang", "tiny")
        assert (whose["service.version"], whose["host.name"]) == ("0.6.1", "here")
        assert set(columns["decode_requests"]) == {30}
        assert "decode_tokens" not in columns, "it is not said"
        assert "kv_cache_usage_ratio" not in columns


async def test_what_cannot_be_read_is_counted_and_the_next_one_taken(tmp_path: Path):
    async with publishing() as (publisher,), listening(ForwardPasses(publisher.endpoint), tmp_path) as made:
        await heard(made, publisher)
        await publisher.publish(version=9)
        for frames in ([b"", b"short", b""], [b""], [b"", publisher.number.to_bytes(8, "big"), b"\xc1"]):
            await publisher.pub.send_multipart(frames)
        publisher.number += 1
        await publisher.publish()
        await until(made.rows)
        assert made.counted()["unread"] == 4
        assert made.counted()["lost"] == 0, "the one of another version came"


async def test_what_a_probe_tells_is_not_taken_twice(tmp_path: Path):
    async with publishing() as (publisher,), listening(ForwardPasses(publisher.endpoint), tmp_path) as made:
        made.scene.overheard.inside["v"] = {"max_num_seqs": "8"}
        await heard(made, publisher)
        await publisher.publish()
        await until(lambda: made.counted()["told_by_probe"] > 0)
        made.source.flush(made.emit)
        (problem,) = made.source.problems(100.0, 0.0)
        assert "told by its probe" in problem
    assert made.rows() == []


async def test_a_publisher_that_is_not_there_is_a_problem_and_one_that_left_is_let_go(tmp_path: Path):
    made = Listening(ForwardPasses("tcp://127.0.0.1:9"), tmp_path)
    assert list(made.source.problems(100.0, 0.0)) == [
        "nobody publishes forward-pass metrics of v at tcp://127.0.0.1:9"
    ]  # fmt: skip
    assert list(made.source.problems(100.0, 99.0)) == [], "it may be starting"
    made.source._tell("v", made.source._publishers["v"][0], 0, READ)
    made.source.forget([made.target])
    made.source.flush(made.emit)
    assert made.bodies == []
    assert list(made.source.problems(100.0, 0.0)) == []


def test_ranks_publish_on_ports_of_their_own():
    settings = ForwardPasses("tcp://127.0.0.1:20380", 3)
    made = [forward_passes.Publisher(settings, rank, lambda *_: None) for rank in range(3)]
    assert [one.endpoint for one in made] == [f"tcp://127.0.0.1:{port}" for port in (20380, 20381, 20382)]


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"endpoint": "tcp://*:20380"}, "endpoint: must be tcp://host:port"),
        ({"endpoint": "tcp://h:65535", "data_parallel_size": 2}, "endpoint: has no port"),
        ({}, "endpoint"),
    ],
)
def test_an_address_that_is_none_is_named(given: dict[str, object], told: str, tmp_path: Path):
    refused("forward_pass_metrics", given, told, tmp_path)


def test_without_the_libraries_the_fix_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    needs_libraries(forward_passes, "forward_pass_metrics", monkeypatch, tmp_path)
