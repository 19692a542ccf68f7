"""The black box: the last minutes on disk, kept as a recording that replays."""

from __future__ import annotations

import asyncio
import gzip
import json
import os
import shutil
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from agent.config import AgentConfig
from agent.otlp.columns import encode_columns
from agent.otlp.encode import encode_event, encode_gauges, resource
from agent.otlp.request_wire import to_otlp
from agent.recording.folder import Recording
from agent.recording.keep import KEPT, MOST_KEPT, keep, keep_unnamed
from agent.recording.playback import Playback
from agent.recording.replay import replay
from agent.recording.ring import PAGES, RING, Ring, pages_in, segments_in
from agent.source import Overheard, PageTold, Scene
from agent.sources import black_box
from agent.sources.metrics_page import MetricsPages
from agent.spool.writer import SpoolWriter
from agent.tap import report
from agent.target import Place, Target
from base.vocabulary import EVENT_STEPS, SCOPE_GPU, SCOPE_HOST, SCOPE_STEP, SERVICE_TAP, Resource
from tests.agent.test_recording import WHOSE, engine_span, request
from tests.kits.agent_fakes import until

if TYPE_CHECKING:
    import pytest

PAGE = Path(__file__).parent.parent / "fixtures" / "vllm" / "metrics_busy_02.txt.gz"
NOW = 1_795_557_400.0
NS = 1_000_000_000


def a_ring(tmp_path: Path, seconds: float = 300.0, max_bytes: int = 100_000_000) -> Ring:
    (tmp_path / "spool").mkdir(exist_ok=True)
    return Ring(tmp_path / RING, tmp_path / "spool", seconds, max_bytes)


def host(second: int, instance: str = "vllm-a") -> bytes:
    whose = WHOSE | {Resource.INSTANCE: instance, Resource.VERSION: "0.32"}
    rows: list[tuple[bytes, dict[str, float]]] = [
        (resource(whose | {"process.name": "host"}), {"load1": 2.0, "cpu_usage_ratio": 0.5}),
        (resource(whose | {"process.name": "VLLM::EngineCore", "process.pid": "71"}), {"stopped": 0.0}),
    ]
    return encode_gauges(rows, SCOPE_HOST, int(NOW + second) * NS)


def steps(second: int, instance: str = "vllm-a") -> bytes:
    at = int(NOW + second) * NS
    columns: dict[str, Any] = {
        "step": [1, 2], "scheduled_ns": [at - 2_000_000, None], "completed_ns": [at - 1_000_000, at], "running": [3, 4],
    }  # fmt: skip
    whose = WHOSE | {Resource.INSTANCE: instance}
    return encode_columns(whose, SCOPE_STEP, EVENT_STEPS, at, columns)


def filled(tmp_path: Path) -> Ring:
    """A ring of twenty seconds of a server, its spool gone since."""
    ring = a_ring(tmp_path)
    page = gzip.decompress(PAGE.read_bytes())
    writer = SpoolWriter(tmp_path / "spool" / "agent")
    tap = SpoolWriter(tmp_path / "spool" / "tap-vllm-a")
    for second in range(20):
        at = NOW + second
        ring.page("vllm-a", at, 0.007, page if second != 7 else None, "" if second != 7 else "it did not answer")
        assert writer.append("metrics", host(second))
        assert writer.append("logs", steps(second))
        ring.turn(at)
    gpu = WHOSE | {"hw.type": "gpu", "hw.id": "GPU-1"}
    assert writer.append("metrics", encode_gauges([(resource(gpu), {"hw.power": 90.0})], SCOPE_GPU, int(NOW) * NS))
    assert writer.append("logs", encode_event(WHOSE, "instance_up", "vllm-a answers", int(NOW) * NS))
    assert tap.append("traces", to_otlp(request(4), WHOSE))
    assert writer.append("traces", engine_span(4))
    ring.turn(NOW + 20)
    writer.close()
    tap.close()
    shutil.rmtree(tmp_path / "spool")
    return ring


def test_what_was_sent_and_is_gone_is_kept_whole_and_replays(tmp_path: Path):
    filled(tmp_path).close()
    (made,) = keep(tmp_path, tmp_path / "out")
    assert made.folder == tmp_path / "out" / "vllm-a"
    assert made.counts == {
        "pages": 19, "pages that did not come": 1, "span exports": 1, "step batches": 20, "requests": 1,
    }  # fmt: skip
    recording = Recording(made.folder)
    about = recording.about
    assert (about["engine"], about["engine_version"], about["deployment"]) == ("vllm", "0.32", "chat")
    assert recording.span_seconds()[1] == NOW + 19
    assert [row["text"] for row in recording.rows("pages.jsonl.gz") if "text" in row] == [
        gzip.decompress(PAGE.read_bytes()).decode()
    ] * 19
    assert list(recording.rows("host.jsonl.gz"))[3] == {
        "t": NOW + 3, "machine": {"load1": 2.0, "cpu_usage_ratio": 0.5},
        "procs": [{"pid": 71, "name": "VLLM::EngineCore", "values": {"stopped": 0.0}}],
    }  # fmt: skip
    assert list(recording.rows("gpu.jsonl.gz")) == [
        {"t": NOW, "gpus": [{"identity": {"hw.type": "gpu", "hw.id": "GPU-1"}, "values": {"hw.power": 90.0}}]}
    ]
    sent: dict[str, list[bytes]] = {"traces": [], "metrics": [], "logs": []}

    async def send(signal: str, body: bytes, _batch: str) -> bool:
        sent[signal].append(body)
        return True

    report = asyncio.run(replay(tmp_path / "out", send, shift_to_now=True, now=NOW + 1000))
    assert (report["requests"], report["spans"], report["samples"]) == (1, 1, 20)
    shift = round((NOW + 1000 - recording.span_seconds()[1]) * 1000) * 1_000_000
    records = [
        (group, record)
        for group in ExportLogsServiceRequest.FromString(b"".join(sent["logs"])).resource_logs
        for scope in group.scope_logs
        if scope.scope.name == SCOPE_STEP
        for record in scope.log_records
    ]
    assert len(records) == 20
    group, first = records[0]
    columns = {pair.key: pair.value.array_value.values for pair in first.attributes}
    at = int(NOW) * NS + shift
    assert first.time_unix_nano == at
    assert [value.int_value for value in columns["completed_ns"]] == [at - 1_000_000, at]
    assert columns["scheduled_ns"][0].int_value == at - 2_000_000
    assert not columns["scheduled_ns"][1].HasField("int_value")
    assert [value.int_value for value in columns["running"]] == [3, 4]
    whose = {pair.key: pair.value.string_value for pair in group.resource.attributes}
    assert whose[Resource.RECORDING] == "vllm-a"
    traces = ExportTraceServiceRequest.FromString(b"".join(sent["traces"]))
    assert len({span.trace_id for g in traces.resource_spans for s in g.scope_spans for span in s.spans}) == 1
    assert ExportMetricsServiceRequest.FromString(b"".join(sent["metrics"])).resource_metrics


def test_without_a_shift_steps_come_as_they_were(tmp_path: Path):
    filled(tmp_path).close()
    (made,) = keep(tmp_path, tmp_path / "out")
    bodies = [item.body for item in Playback(Recording(made.folder)).items() if item.signal == "logs"]
    told = ExportLogsServiceRequest.FromString(b"".join(bodies))
    found = [r for g in told.resource_logs for s in g.scope_logs if s.scope.name == SCOPE_STEP for r in s.log_records]
    was = ExportLogsServiceRequest.FromString(steps(0)).resource_logs[0].scope_logs[0].log_records[0]
    assert found[0] == was


def test_the_ring_forgets_what_is_old_and_takes_no_more_than_it_may(tmp_path: Path):
    ring = a_ring(tmp_path, seconds=60.0, max_bytes=3_000_000)
    body = os.urandom(50_000)  # does not compress
    for second in range(600):
        ring.page("a", NOW + second, 0.01, body)
        for path in (tmp_path / RING).glob("*/*"):
            at = int(path.name.partition(".")[0]) / 1000 + 30
            os.utime(path, (min(at, NOW + second),) * 2)
        ring.turn(NOW + second)
        assert ring.bytes < 5_000_000
    ring.close()
    kept = [row["t"] for _, row in pages_in(tmp_path / RING)]
    assert kept[-1] == NOW + 599
    assert kept[0] >= NOW + 510
    assert (ring.since, ring.lost) == (kept[0], {})


def test_a_segment_that_was_sent_stays_and_one_that_grows_is_followed(tmp_path: Path):
    ring = a_ring(tmp_path)
    writer = SpoolWriter(tmp_path / "spool" / "agent")
    writer.append("metrics", host(0))
    ring.turn(NOW)
    writer.append("metrics", host(1))
    writer.close()
    shutil.rmtree(tmp_path / "spool")
    (tmp_path / "spool").mkdir()
    ring.turn(NOW)
    assert len(segments_in(tmp_path / RING, "metrics")) == 1
    (made,) = keep(tmp_path, tmp_path / "out")
    assert [row["t"] for row in Recording(made.folder).rows("host.jsonl.gz")] == [NOW, NOW + 1]


def test_a_file_of_pages_that_was_cut_off_gives_what_is_whole(tmp_path: Path):
    ring = a_ring(tmp_path)
    page = b"x 1\n" * 20_000
    for second in range(12):
        ring.page("a", NOW + second, 0.01, page)
    (path,) = (tmp_path / RING / PAGES).iterdir()
    left = path.read_bytes()  # as after a kill: what was flushed
    assert 0 < len(list(pages_in(tmp_path / RING))) <= 12
    path.write_bytes(left[: len(left) - 3])
    rows = list(pages_in(tmp_path / RING))
    assert rows
    assert all(len(row["text"]) == len(page) for _, row in rows)


def test_a_disk_that_is_full_costs_the_ring_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    ring = a_ring(tmp_path)

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(gzip, "open", full)
    ring.page("a", NOW, 0.01, b"x 1\n")
    monkeypatch.undo()
    monkeypatch.setattr(os, "link", full)
    SpoolWriter(tmp_path / "spool" / "agent").append("metrics", host(0))
    ring.turn(NOW)
    assert ring.lost == {"disk": 2}
    monkeypatch.undo()
    ring.page("a", NOW + 1, 0.01, b"x 1\n")
    ring.turn(NOW + 1)
    ring.close()
    assert [row["t"] for _, row in pages_in(tmp_path / RING)] == [NOW + 1]


def test_when_room_gets_scarce_the_ring_gives_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    ring = a_ring(tmp_path)
    ring.page("a", NOW, 0.01, b"x 1\n")
    ring.close()
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: shutil._ntuple_diskusage(1000, 999, 1))  # type: ignore[attr-defined]
    ring.turn(NOW)
    assert not list(pages_in(tmp_path / RING))
    assert (ring.since, ring.lost) == (None, {"scarce": 1})


def test_recordings_that_nobody_named_are_few(tmp_path: Path):
    filled(tmp_path).close()
    for number in range(MOST_KEPT + 2):
        made = keep_unnamed(tmp_path, f"incident/{number}")
        assert made is not None
        assert made.name.endswith(f"-incident_{number}")
    kept = {int(path.name.rpartition("_")[2]) for path in (tmp_path / KEPT).iterdir()}
    assert kept == set(range(2, MOST_KEPT + 2))
    (tmp_path / KEPT / "mine").mkdir()
    keep_unnamed(tmp_path, "another")
    assert (tmp_path / KEPT / "mine").exists()
    assert keep_unnamed(tmp_path / "nowhere", "x") is None


def test_all_pages_are_overheard_as_they_came_and_that_they_did_not(tmp_path: Path):
    told: list[PageTold] = []
    happened: list[tuple[str, str]] = []
    overheard = Overheard([told.append], [lambda event, instance: happened.append((event, instance))])

    async def main() -> None:
        page = gzip.decompress(PAGE.read_bytes())
        answers = [page, None]

        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            if answers[0] is None:
                writer.close()
                return
            writer.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % len(page) + page)
            await writer.drain()
            writer.close()

        server = await asyncio.start_server(answer, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        target = Target(
            "vllm-a", "chat", url=f"http://127.0.0.1:{port}", metrics_url=f"http://127.0.0.1:{port}/metrics"
        )
        source = MetricsPages([target], Place(), interval_seconds=0.05, overheard=overheard)
        task = asyncio.create_task(source.run(lambda _signal, _body: True))
        await until(lambda: len(told) > 2)
        answers.reverse()
        await until(lambda: ("instance_down", "vllm-a") in happened)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        server.close()
        assert told[0].body == page
        assert told[-1].body is None
        assert told[-1].error

    asyncio.run(main())


def test_a_server_that_goes_silent_has_its_last_minutes_kept_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(black_box, "LOOK_SECONDS", 0.02)
    scene = Scene(AgentConfig(), Place(), (), lambda _instance: None, tmp_path)
    (tmp_path / "spool").mkdir()
    box = black_box.source(scene)
    assert box is not None
    clock = [NOW]
    box._clock = lambda: clock[0]

    async def main() -> None:
        scene.overheard.event("instance_down", "never-there")
        scene.overheard.page(PageTold("vllm-a", NOW, 0.01, gzip.decompress(PAGE.read_bytes())))
        scene.overheard.event("version_changed", "vllm-a")
        scene.overheard.event("instance_down", "vllm-a")
        task = asyncio.create_task(box.run(lambda _signal, _body: True))
        await asyncio.sleep(0.1)
        assert not (tmp_path / KEPT).exists()  # what comes after it belongs to it
        clock[0] += black_box.AFTER_SECONDS
        await until(lambda: bool(box.kept))
        scene.overheard.event("engine_frozen", "vllm-a")
        clock[0] += black_box.AFTER_SECONDS
        await asyncio.sleep(0.1)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await box.close()

    asyncio.run(main())
    (made,) = (tmp_path / KEPT).iterdir()
    assert made.name.endswith("-instance_down-vllm-a")
    assert Recording(made / "vllm-a").about["engine"] == "vllm"
    figures = {sample.name: sample.value for family in box.metrics() for sample in family.samples if family.samples}
    assert figures["servescope_agent_black_box_bytes"] >= 0
    assert figures["servescope_agent_black_box_reach_seconds"] == 2 * black_box.AFTER_SECONDS
    assert box.failed == 0


def test_without_time_there_is_no_black_box(tmp_path: Path):
    config = AgentConfig(black_box_seconds=0)
    assert black_box.source(Scene(config, Place(), (), lambda _instance: None, tmp_path)) is None


def test_what_a_kill_leaves_in_the_middle_of_a_line_is_passed_over(tmp_path: Path):
    folder = tmp_path / RING / PAGES
    folder.mkdir(parents=True)
    whole = json.dumps({"t": NOW, "instance": "a", "took_s": 0.1, "status": 0, "error": "away"}).encode() + b"\n"
    (folder / "00000000000001.pages.gz").write_bytes(gzip.compress(whole + b'{"t": 1'))
    (folder / "00000000000002.pages.gz").write_bytes(b"")
    (folder / "00000000000003.pages.gz").write_bytes(b"not gzip")
    (folder / "00000000000004.pages.gz").write_bytes(gzip.compress(whole)[:-9] + zlib.compress(b"x"))
    found = list(pages_in(tmp_path / RING))
    assert found[0] == ("a", {"t": NOW, "took_s": 0.1, "status": 0, "error": "away"})
    assert len(found) <= 2


def test_each_servers_death_is_kept_also_one_that_nobody_saw_and_the_next_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(black_box, "LOOK_SECONDS", 0.005)
    (tmp_path / "spool").mkdir()
    scene = Scene(AgentConfig(), Place(), (), lambda _instance: None, tmp_path)
    box = black_box.source(scene)
    assert box is not None
    clock, made = [NOW], list[str]()
    box._clock = lambda: clock[0]

    async def keep(why: str) -> None:
        made.append(f"{why} {clock[0] - NOW:.0f}")

    monkeypatch.setattr(box, "_keep", keep)
    tell = scene.overheard.event
    after, again = black_box.AFTER_SECONDS, black_box.AGAIN_SECONDS

    async def main() -> None:
        for name in ("a", "b"):
            scene.overheard.page(PageTold(name, NOW, 0.01, b""))
        task = asyncio.create_task(box.run(lambda _signal, _body: True))
        tell("instance_restarted", "a")  # down and up again between two pages
        clock[0] = NOW + after
        await until(lambda: len(made) == 1)
        tell("engine_frozen", "a")
        clock[0] = NOW + 60
        tell("instance_down", "b")
        clock[0] = NOW + 60 + after
        await asyncio.sleep(0.05)  # a recording so soon would be a fault
        clock[0] = NOW + after + again
        await until(lambda: len(made) == 2)
        clock[0] = NOW + 500
        tell("instance_up", "b")
        tell("instance_restarted", "b")  # it had been down, for which there is one
        clock[0] = NOW + 600
        await asyncio.sleep(0.05)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await box.close()

    asyncio.run(main())
    assert made == [f"instance_restarted-a {after:.0f}", f"instance_down-b {after + again:.0f}"]


def test_servers_whose_names_are_one_as_folders_have_each_their_own_and_a_taps_figures_name_none(tmp_path: Path):
    ring = a_ring(tmp_path)
    whose = WHOSE | {Resource.INSTANCE: "a:1", Resource.DEPLOYMENT: SERVICE_TAP}
    tap, writer = (SpoolWriter(tmp_path / "spool" / name) for name in ("tap-a_1", "agent"))
    assert tap.append("metrics", report.encode([("servescope.tap.places", 1.0, {}, False)], whose, NS, 0))
    for name in ("a:1", "a_1", "a/1"):
        ring.page(name, NOW, 0.01, None, "away")
        assert writer.append("metrics", host(1, name))
    tap.close()
    writer.close()
    ring.turn(NOW)
    ring.close()
    made = keep(tmp_path, tmp_path / "out")
    assert sorted((one.folder.name, one.instance) for one in made) == [
        ("a_1", "a:1"),
        ("a_1-2", "a_1"),
        ("a_1-3", "a/1"),
    ]
    assert {Recording(one.folder).about["deployment"] for one in made} == {WHOSE[Resource.DEPLOYMENT]}
