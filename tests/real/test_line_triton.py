"""The line end to end over a real tritonserver: counts, phases, the engine's own figures, a page and its end."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING

import pytest

from tests.kits.line import Client, Line, Pages, Triton, free_block, infer, start_line, total, wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [pytest.mark.triton, pytest.mark.timeout(480)]

SLOS = """
version: 1
slos:
  - name: vision-availability
    description: Images are answered.
    sli: availability
    target: 0.9
    period: 1h
    filter: {model: vision_classifier}
    windows: [{long: 20s, short: 5s, factor: 3}]
    severity: critical
    min_requests: 20
    keep_firing_for: 5s
rules:
  - name: engine-waiting
    description: The queue grows faster than it is served.
    when: {kind: signal, signal: waiting, above: 20}
    for: 2s
    keep_firing_for: 5s
    severity: critical
"""
PHASES = (
    "edge_seconds + transit_seconds + frontend_seconds + queue_seconds + prefill_seconds + decode_seconds"
    " + stall_seconds + compute_input_seconds + compute_infer_seconds + compute_output_seconds"
)


SIGNALS = {
    "requests_finished_total": ("nv_inference_request_summary_us_count", "nv_inference_request_success"),
    "requests_failed_total": ("nv_inference_request_failure",),
    "executions_total": ("nv_inference_exec_count",),
    "inferences_total": ("nv_inference_count",),
    "queue_seconds_total": ("nv_inference_queue_summary_us_sum", "nv_inference_queue_duration_us"),
    "waiting": ("nv_inference_pending_request_count",),
}
"""Families that a signal is read from, the first that the page has for the model.

A summary and its counter grow one after the other: a page written under load may stand between the two.
"""
MODELS = ("vision_classifier", "ranker", "flaky")


@pytest.fixture(scope="module")
def shown() -> Iterator[Pages]:
    """The pages that the agent was shown."""
    base = free_block()
    with Pages(f"http://127.0.0.1:{base + 32}/metrics", base + 34) as pages:
        yield pages


@pytest.fixture(scope="module")
def triton_line(tmp_path_factory: pytest.TempPathFactory, shown: Pages) -> Iterator[tuple[Line, Triton]]:
    folder = tmp_path_factory.mktemp("line")
    base = shown.port - 34
    slos, settings = folder / "slos.yaml", folder / "servescope.yaml"
    slos.write_text(SLOS)
    with Triton(folder / "triton", base + 30, f"127.0.0.1:{base + 2}") as triton:
        assert triton.server.metrics_url == f"http://127.0.0.1:{base + 32}/metrics"
        target = {"instance": "triton", "url": f"http://127.0.0.1:{base + 30}", "metrics_url": shown.url}
        settings.write_text(json.dumps({"agent": {"targets": [target]}}))
        line = start_line(folder / "data", base, "", "--slos", str(slos), "--config", str(settings))
        try:
            wait_for(
                lambda: line.rows("SELECT count() AS n FROM engine_samples WHERE up = 1")[0]["n"] > 3, 90, "samples"
            )
            yield line, triton
        finally:
            assert line.stop() == 0, line.log.read_text()[-3000:]


def _drive(client: Client) -> None:
    firsts = (-1.0, -2.0, -3.0)  # an error response, an exception, an answer
    work = [
        *(("vision_classifier", "image", [1, 3, 32, 32], [number / 60] * 3072) for number in range(60)),
        *(("ranker", "features", [1, 64], [number % 20 / 20] * 64) for number in range(50)),
        *(("flaky", "x", [1, 16], [firsts[number % 3]] + [0.5] * 15) for number in range(30)),
        *(("ranker", "features", [1, 63], [0.5] * 63) for _ in range(12)),
        *(("no_such_model", "x", [1, 16], [0.5] * 16) for _ in range(8)),
    ]
    with ThreadPoolExecutor(4) as pool:
        for number, (model, name, shape, values) in enumerate(work):
            pool.submit(client.send, model, *infer(model, name, shape, values), f"line-{number}")
    path, body = infer("vision_classifier", "image", [16, 3, 32, 32], [0.5] * 3072 * 16)
    for number in range(6):
        client.abort("vision_classifier", path, body, f"line-abort-{number}")


def test_every_request_has_its_row_and_its_outcome(triton_line: tuple[Line, Triton]) -> None:
    line, triton = triton_line
    client = Client(line.tap)
    _drive(client)
    sent = sum(client.seen.values())
    assert sent == 166

    mine = "has_edge = 1 AND tenant = 'acme'"

    def counted() -> int:
        return int(line.rows(f"SELECT count() AS n FROM requests WHERE {mine}")[0]["n"])

    wait_for(lambda: counted() >= sent, 60, "all rows")
    rows = line.rows(f"SELECT model, outcome, count() AS n FROM requests WHERE {mine} GROUP BY model, outcome")
    assert Counter({(row["model"], row["outcome"]): row["n"] for row in rows}) == client.seen

    served = f"{mine} AND model IN ('vision_classifier', 'ranker', 'flaky') AND outcome = 'ok'"
    wait_for(
        lambda: not line.rows(f"SELECT count() AS n FROM requests WHERE {served} AND has_engine = 0")[0]["n"],
        60, "the engine's half of every answered request",
    )  # fmt: skip
    off = line.rows(
        f"SELECT count() AS n, countIf(abs(e2e_seconds - ({PHASES})) <= greatest(0.005, 0.05 * e2e_seconds)) AS within,"
        f" quantile(0.5)(transit_seconds + frontend_seconds) AS between, min(queue_seconds) AS queue"
        f" FROM requests WHERE {served}"
    )[0]
    assert off["n"] == sum(number for (_, outcome), number in client.seen.items() if outcome == "ok")
    assert off["within"] == off["n"], off
    assert off["queue"] >= 0
    computed = line.rows(
        f"SELECT count() AS n, countIf(compute_infer_seconds > 0) AS inferred FROM requests WHERE {served}"
        " AND model != 'ranker'"  # whose answers may come from the response cache
    )[0]
    assert computed["inferred"] == computed["n"] > 0, "each phase is the engine's own, none a remainder"
    assert off["between"] <= 0.1, off  # at the median: a starved machine makes some wait between edge and server

    _engine_agrees(line, triton)


def _on_page(page: str, model: str) -> dict[str, float]:
    of_model = f'model="{model}"'
    found = {
        name: next((total(page, one, of_model) for one in families if total(page, one, of_model)), 0.0)
        for name, families in SIGNALS.items()
    }
    return found | {"queue_seconds_total": found["queue_seconds_total"] / 1e6}


def _engine_agrees(line: Line, triton: Triton) -> None:
    for model in MODELS:
        shown = _on_page(triton.page(), model)
        wait_for(partial(_newest_is, line, model, shown), 60, f"{model}'s newest sample to be {shown}")
        queued = shown["queue_seconds_total"]
        if model != "flaky":  # of its failures the page counts some, and does not say which
            wait_for(partial(_queued, line, model, queued), 60, f"{model}'s rows to have queued for {queued} s")


def _queued(line: Line, model: str, shown: float) -> bool:
    summed = line.rows(
        "SELECT sum(queue_seconds) AS queued FROM requests WHERE model = {model:String} AND has_engine = 1",
        {"model": model},
    )[0]
    # The page and the spans read the clock each on its own.
    return bool(summed["queued"] == pytest.approx(shown, rel=0.05, abs=0.005))


def _newest_is(line: Line, model: str, shown: dict[str, float]) -> bool:
    newest = line.rows(
        f"SELECT {', '.join(shown)} FROM engine_samples WHERE model = {{model:String}} AND up = 1"
        " ORDER BY time DESC LIMIT 1", {"model": model},
    )  # fmt: skip
    return bool(newest[0] == pytest.approx(shown))


def test_an_overload_pages_and_its_end_resolves(triton_line: tuple[Line, Triton], shown: Pages) -> None:
    line, _ = triton_line
    client = Client(line.tap, tenant="hooli")
    path, body = infer("vision_classifier", "image", [8, 3, 32, 32], [0.5] * 3072 * 8)
    stop = threading.Event()
    known = len(line.pages())

    def flood(worker: int) -> None:
        number = 0
        while not stop.is_set():
            client.send("vision_classifier", path, body, f"flood-{worker}-{number}")
            number += 1

    with ThreadPoolExecutor(80) as pool:
        begun = time.time()
        for worker in range(80):
            pool.submit(flood, worker)
        try:
            wait_for(lambda: len(line.pages()) > known, 60, "a page")
            paged = time.time()
        finally:
            stop.set()
    ended = time.time()
    page = line.pages()[known]
    assert page["action"] == "trigger"
    assert paged - begun < 20, f"paged after {paged - begun:.1f} s"
    details = page["event"]["payload"]["custom_details"]
    assert "vision" in str(details) or "triton" in str(details)

    def resolved() -> bool:
        return any(one["action"] == "resolve" and one["dedup_key"] == page["dedup_key"] for one in line.pages())

    wait_for(resolved, 90, "the page's resolve")
    assert time.time() - ended < 60, f"resolved {time.time() - ended:.1f} s after the end"
    triggers = [one for one in line.pages() if one["action"] == "trigger" and one["dedup_key"] == page["dedup_key"]]
    assert len(triggers) == 1
    newest = "SELECT state FROM incidents FINAL ORDER BY opened_at DESC LIMIT 1"
    wait_for(lambda: line.rows(newest)[0]["state"] == "resolved", 30, "the incident's history in the store")
    _samples_were_the_pages(line, shown, begun, ended)


def _samples_were_the_pages(line: Line, shown: Pages, begun: float, ended: float) -> None:
    """Each second's sample, while the server is flooded, is the page that it showed in that second."""
    span: dict[str, object] = {"begun": begun + 1, "ended": ended - 1}
    samples = line.rows(
        f"SELECT toUnixTimestamp64Milli(time) / 1000 AS at, model, {', '.join(SIGNALS)} FROM engine_samples"
        f" WHERE model IN ({', '.join(map(repr, MODELS))}) AND time > toDateTime64({{begun:Float64}}, 3)"
        " AND time < toDateTime64({ended:Float64}, 3)", span,
    )  # fmt: skip
    assert max(sample["waiting"] for sample in samples) > 20
    assert len({sample["at"] for sample in samples}) > 0.8 * (ended - begun - 3)
    for sample in samples:
        assert {name: sample[name] for name in SIGNALS} == pytest.approx(
            _on_page(shown.at(sample["at"]), sample["model"])
        ), sample


@pytest.mark.heavy
def test_a_second_start_finds_the_data_again(triton_line: tuple[Line, Triton]) -> None:
    line, _ = triton_line
    client = Client(line.tap, tenant="second-start")
    for number in range(5):
        client.send("ranker", *infer("ranker", "features", [1, 64], [number / 5] * 64), f"second-start-{number}")
    count = "SELECT count() AS n FROM requests WHERE tenant = 'second-start'"
    wait_for(lambda: line.rows(count)[0]["n"] == 5, 60, "the rows before the stop")
    assert line.stop() == 0
    folder = line.data.parent
    again = start_line(
        line.data, line.base, "", "--slos", str(folder / "slos.yaml"), "--config", str(folder / "servescope.yaml")
    )
    line.process, line.facts = again.process, again.facts
    assert line.rows(count)[0]["n"] == 5
