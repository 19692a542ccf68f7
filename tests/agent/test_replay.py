from __future__ import annotations

import asyncio
import gzip
import json
import shutil
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from agent.recording.folder import RecordingError
from agent.recording.playback import Item, _outcome
from agent.recording.replay import replay, slices
from base.vocabulary import SCOPE_EDGE, Outcome
from tests.kits.agent_fakes import FakeCollector

if TYPE_CHECKING:
    from opentelemetry.proto.trace.v1.trace_pb2 import Span

SMALL = Path(__file__).parent.parent / "fixtures" / "recording_small"


class Played:
    """What a replay sent, by kind."""

    def __init__(self, sent: list[tuple[str, bytes, str]], report: dict[str, object]) -> None:
        self.sent = sent
        self.report = report
        self.edge: list[Span] = []
        self.engine: list[Span] = []
        self.resources: list[dict[str, str]] = []
        for signal, body, _ in sent:
            if signal != "traces":
                continue
            for group in ExportTraceServiceRequest.FromString(body).resource_spans:
                self.resources.append({pair.key: pair.value.string_value for pair in group.resource.attributes})
                for scope in group.scope_spans:
                    (self.edge if scope.scope.name == SCOPE_EDGE else self.engine).extend(scope.spans)

    def metrics(self, scope: str) -> list[dict[str, float]]:
        rows = []
        for signal, body, _ in self.sent:
            for group in ExportMetricsServiceRequest.FromString(body).resource_metrics if signal == "metrics" else ():
                for one in group.scope_metrics:
                    if one.scope.name == scope:
                        gauges = [metric for metric in one.metrics if metric.HasField("gauge")]
                        rows.append({metric.name: metric.gauge.data_points[0].as_double for metric in gauges})
        return rows

    def events(self) -> list[str]:
        bodies = [body for signal, body, _ in self.sent if signal == "logs"]
        return [
            record.event_name
            for body in bodies
            for group in ExportLogsServiceRequest.FromString(body).resource_logs
            for scope in group.scope_logs
            for record in scope.log_records
        ]


async def play(folder: Path, **options: Any) -> Played:
    sent: list[tuple[str, bytes, str]] = []

    async def send(signal: str, body: bytes, batch: str) -> bool:
        sent.append((signal, body, batch))
        return True

    report = await replay(folder, send, **options)
    return Played(sent, report)


def attributes(span: Span) -> dict[str, Any]:
    return {pair.key: getattr(pair.value, pair.value.WhichOneof("value") or "string_value") for pair in span.attributes}


def rows() -> list[dict[str, Any]]:
    with gzip.open(SMALL / "client.jsonl.gz", "rt") as file:
        return [json.loads(line) for line in file]


async def test_each_request_of_the_client_becomes_one_edge_span():
    played = await play(SMALL)
    assert len(played.edge) == len(rows()) == played.report["requests"]
    outcomes = Counter(attributes(span)["servescope.outcome"] for span in played.edge)
    assert outcomes == Counter(row["outcome"] for row in rows())
    by_id = {attributes(span).get("gen_ai.response.id"): span for span in played.edge}
    for row in rows():
        span = by_id[row["response_id"]]
        found = attributes(span)
        assert span.start_time_unix_nano == round(row["t"] * 1e6) * 1000
        assert found["servescope.ttft_seconds" if row["stream"] else "servescope.e2e_seconds"] == (
            row["ttft"] if row["stream"] else row["e2e"]
        )
        assert found["gen_ai.request.model"] == "tiny", "read off the page"
        assert found["servescope.tenant"] == row["tenant"]
        assert found["gen_ai.usage.output_tokens"] == row.get("completion_tokens", row.get("chunks"))


async def test_the_answer_is_never_an_input(tmp_path: Path):
    folder = tmp_path / "recording_small"
    shutil.copytree(SMALL, folder)
    (folder / "truth.json").write_text("not even JSON")
    with gzip.open(folder / "client.jsonl.gz", "wt") as file:
        file.writelines(json.dumps(row | {"role": "other"}) + "\n" for row in rows())
    assert (await play(folder)).sent == (await play(SMALL)).sent


async def test_engine_spans_hang_below_their_request_however_it_is_found():
    played = await play(SMALL)
    edge = {span.span_id: span for span in played.edge}
    assert len(edge) == len(played.edge)
    for span in played.engine:
        parent = edge[span.parent_span_id]
        assert attributes(parent)["servescope.outcome"] == "ok"
        assert parent.trace_id == span.trace_id
        assert attributes(span)["gen_ai.request.id"].startswith(attributes(parent)["gen_ai.response.id"])
    finished = [row for row in rows() if row["outcome"] == "ok"]
    assert len(played.engine) == len(finished)
    assert any(not row["traceparent"] for row in finished), "the fixture holds requests found by their ids alone"
    assert any(not row["request_id"] for row in finished)


async def test_span_ids_carry_the_arrival():
    for span in (await play(SMALL)).edge:
        milliseconds = int.from_bytes(span.span_id, "big") >> 22
        assert milliseconds == span.start_time_unix_nano // 1_000_000


async def test_without_its_servers_name_every_record_is_named_after_the_folder():
    played = await play(SMALL)
    for whose in played.resources:
        assert whose["servescope.recording"] == whose["service.instance.id"] == "recording_small"
        assert whose["servescope.engine"] == "vllm"
    models = {whose.get("servescope.model") for whose in played.resources}
    assert models == {None, "tiny"}, "the engine's spans, which name no model, carry the one of its pages"


async def test_a_server_is_called_what_it_was_called_and_the_recording_what_its_folder_is(tmp_path: Path):
    folder = tmp_path / "a_1"
    shutil.copytree(SMALL, folder)
    (folder / "recording.json").write_text(json.dumps({"instance": "a:1"}))
    played = await play(folder)
    for whose in played.resources:
        assert (whose["service.instance.id"], whose["servescope.recording"]) == ("a:1", "a_1")
        assert whose["service.name"] == "a:1"
    ours = b"".join(body for signal, body, _ in played.sent if signal != "traces")
    assert b"a:1" in ours
    assert ours.count(b"a_1") == ours.count(b"servescope.recording")
    assert played.report["recordings"] == ["a_1"]


async def test_pages_become_samples_and_events():
    played = await play(SMALL)
    samples = played.metrics("servescope.sample")
    assert len(samples) == played.report["samples"] == 7
    assert all(sample["up"] == 1 for sample in samples)
    assert any(sample["running"] > 0 for sample in samples)
    assert played.events() == ["instance_up", "instance_config"]


async def test_host_lines_become_host_rows():
    host = (await play(SMALL)).metrics("servescope.host")
    assert any("cpu_usage_ratio" in row for row in host)
    assert any(row.get("stopped") == 0 and row.get("rss_bytes", 0) > 1e8 for row in host)
    assert all(0 <= row.get("cpu_pressure_some_ratio", 0) <= 1 for row in host)


async def test_a_repeat_is_the_same_batches():
    first, second = await play(SMALL), await play(SMALL)
    assert first.sent == second.sent
    assert len({batch for *_, batch in first.sent}) == len(first.sent)


async def test_a_shift_moves_all_times_and_draws_new_ids():
    there, here = await play(SMALL), await play(SMALL, shift_to_now=True, now=1.9e9)
    begin, end = there.report["start"], there.report["end"]
    assert here.report["end"] == pytest.approx(1.9e9, abs=0.001)
    moved = round((1.9e9 - end) * 1000) * 1_000_000  # type: ignore[operator]
    old, new = (sorted(one.edge, key=lambda span: span.start_time_unix_nano) for one in (there, here))
    assert [span.start_time_unix_nano + moved for span in old] == [span.start_time_unix_nano for span in new]
    for field in ("trace_id", "span_id"):
        for kind in ("edge", "engine"):
            before, after = ({getattr(span, field) for span in getattr(one, kind)} for one in (there, here))
            assert not before & after
            assert len(before) == len(after)
    edge = {span.span_id: span for span in here.edge}
    assert all(edge[span.parent_span_id].trace_id == span.trace_id for span in here.engine)
    assert here.sent == (await play(SMALL, shift_to_now=True, now=1.9e9)).sent
    assert begin < end  # type: ignore[operator]


async def test_a_part_that_is_missing_is_left_out(tmp_path: Path):
    for part in ("pages.jsonl.gz", "client.jsonl.gz", "host.jsonl.gz", "otlp"):
        folder = tmp_path / f"without_{part}"
        shutil.copytree(SMALL, folder, ignore=lambda _folder, names, part=part: [part] if part in names else [])
        assert (await play(folder)).sent
    only_spans = tmp_path / "only_spans"
    shutil.copytree(SMALL / "otlp", only_spans / "otlp")
    played = await play(only_spans)
    assert played.edge == []
    assert len(played.engine) == 52
    assert played.resources[0]["servescope.engine"] == "vllm", "told by the scope where there is no page"


async def test_a_page_that_did_not_come_is_down(tmp_path: Path):
    folder = tmp_path / "gap"
    shutil.copytree(SMALL, folder)
    with gzip.open(folder / "pages.jsonl.gz", "rt") as file:
        lines = [json.loads(line) for line in file]
    lines[3] = {"t": lines[3]["t"], "status": 0, "error": "timeout"}
    with gzip.open(folder / "pages.jsonl.gz", "wt") as file:
        file.writelines(json.dumps(line) + "\n" for line in lines)
    played = await play(folder)
    assert [sample["up"] for sample in played.metrics("servescope.sample")] == [1, 1, 1, 0, 1, 1, 1]
    assert played.events() == ["instance_up", "instance_config", "instance_down", "instance_up"]


async def test_what_happens_on_the_way_is_told_as_a_live_server_tells_it(tmp_path: Path):
    folder = tmp_path / "changed"
    shutil.copytree(SMALL, folder)
    with gzip.open(folder / "pages.jsonl.gz", "rt") as file:
        lines = [json.loads(line) for line in file]
    for line in lines[3:]:
        assert 'block_size="' in line["text"]
        line["text"] = line["text"].replace('block_size="', 'block_size="1') + "no page has this\n"
    with gzip.open(folder / "pages.jsonl.gz", "wt") as file:
        file.writelines(json.dumps(line) + "\n" for line in lines)
    told = (await play(folder)).events()
    assert told == ["instance_up", "instance_config", "config_changed", "instance_config", "page_malformed"]


async def test_a_file_that_was_cut_off_plays_to_its_last_whole_line(tmp_path: Path):
    folder = tmp_path / "cut"
    shutil.copytree(SMALL, folder)
    whole = (folder / "client.jsonl.gz").read_bytes()
    (folder / "client.jsonl.gz").write_bytes(whole[: len(whole) // 2])
    assert 0 < len((await play(folder)).edge) < len(rows())


async def test_several_recordings_play_together(tmp_path: Path):
    for name in ("a", "b"):
        shutil.copytree(SMALL, tmp_path / name)
    played = await play(tmp_path)
    assert played.report["recordings"] == ["a", "b"]
    assert len({span.span_id for span in played.edge}) == 2 * len(rows())


async def test_a_loop_plays_in_real_time_with_fresh_ids(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("agent.recording.replay._PAUSE_SECONDS", 0.0)
    folder = tmp_path / "short"
    folder.mkdir()
    row = {"path": "/v1/completions", "outcome": "ok", "status": 200}
    with gzip.open(folder / "client.jsonl.gz", "wt") as file:
        file.writelines(json.dumps(row | {"t": 1e9 + at, "e2e": 0.1}) + "\n" for at in (0.0, 0.05))
    sent: list[bytes] = []
    twice = asyncio.Event()

    async def send(_signal: str, body: bytes, _batch: str) -> bool:
        sent.append(body)
        if len(sent) >= 2:
            twice.set()
        return True

    started = time.time()
    task = asyncio.create_task(replay(folder, send, loop=True))
    async with asyncio.timeout(30):
        await twice.wait()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    spans = [Played([("traces", body, "")], {}).edge for body in sent[:2]]
    assert [len(one) for one in spans] == [2, 2]
    assert not {span.span_id for span in spans[0]} & {span.span_id for span in spans[1]}
    assert all(span.start_time_unix_nano / 1e9 >= started - 0.01 for one in spans for span in one)


async def test_what_is_no_recording_is_named(tmp_path: Path):
    with pytest.raises(RecordingError, match="no recording"):
        await play(tmp_path)
    folder = tmp_path / "broken"
    folder.mkdir()
    with gzip.open(folder / "client.jsonl.gz", "wt") as file:
        file.write('{"t": 1}\nnot JSON\n{"t": 2}\n')
    with pytest.raises(RecordingError, match="line 2"):
        await play(folder)


async def test_it_goes_over_the_wire():
    async with FakeCollector(fail_share=0.3) as collector:
        report = await replay(SMALL, collector.url)
    assert report["batches"] == len(collector.bodies)
    assert all(len(bodies) == 1 for bodies in collector.bodies.values())


@pytest.mark.parametrize(
    ("word", "status", "outcome"),
    [
        ("ok", 200, Outcome.OK),
        ("client_abort", 200, Outcome.CLIENT_ABORT),
        ("disconnected", 200, Outcome.UPSTREAM_RESET),
        ("truncated", 200, Outcome.UPSTREAM_RESET),
        ("connect_error", None, Outcome.UNREACHABLE),
        ("client_timeout", None, Outcome.TIMEOUT),
        ("http_error", 404, Outcome.CLIENT_ERROR),
        ("http_error", 429, Outcome.REJECTED),
        ("http_error", 500, Outcome.SERVER_ERROR),
        ("rejected", 503, Outcome.REJECTED),
    ],
)
def test_outcomes(word: str, status: int | None, outcome: Outcome):
    assert _outcome({"outcome": word, "status": status}) is outcome


def test_an_unknown_outcome_is_named():
    with pytest.raises(RecordingError, match="vanished"):
        _outcome({"outcome": "vanished"})


def test_slices_end_by_time_and_size():
    items = [Item(at, "metrics", b"x") for at in (0.0, 1.0, 9.9, 10.0, 31.0)]
    assert [(one.at, one.body) for one in slices(items, 10)] == [(9.9, b"xxx"), (10.0, b"x"), (31.0, b"x")]
    large = [Item(float(at), "metrics", b"x" * 600_000) for at in range(4)]
    assert [len(one.body) for one in slices(large, 10)] == [1_200_000, 1_200_000]
