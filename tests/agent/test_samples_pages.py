"""Pages that say less than others or elsewhere: summaries for counters, declarations alone, a router's models."""

from __future__ import annotations

import gzip
import re
from pathlib import Path

import pytest

from agent.engine_table import About, detect, find_table
from agent.pages.page import parse
from agent.pages.probe import describe
from agent.pages.samples import Sampler
from base.vocabulary import Signal
from tests.kits.scrapes import FINISHED, gained, scrapes

FIXTURES = Path(__file__).parent.parent / "fixtures"


SUMMARIES = """\
nv_inference_request_success{model="reader",version="1"} 0
nv_inference_request_failure{model="reader",version="1"} 0
nv_inference_count{model="reader",version="1"} 0
nv_inference_exec_count{model="reader",version="1"} 0
nv_inference_pending_request_count{model="reader",version="1"} 0
# TYPE nv_inference_request_summary_us summary
nv_inference_request_summary_us_count{model="reader",version="1"} COUNT
nv_inference_request_summary_us_sum{model="reader",version="1"} 412000
nv_inference_request_summary_us{model="reader",version="1",quantile="0.5"} 9000
nv_inference_queue_summary_us_count{model="reader",version="1"} COUNT
nv_inference_queue_summary_us_sum{model="reader",version="1"} 5200
nv_inference_queue_summary_us{model="reader",version="1",quantile="0.5"} Nan
"""


def test_triton_whose_counters_are_off_is_read_from_its_summaries():
    found = describe(parse(SUMMARIES.replace("COUNT", "37")), About())
    assert found["signals"] == {
        "waiting": 0,
        "requests_finished_total": 37,
        "request_seconds_total": pytest.approx(0.412),
        "queue_seconds_total": pytest.approx(0.0052),
    }
    assert {"requests_failed_total", "inferences_total", "executions_total"} <= set(found["missing"])
    assert any("requests_failed_total are absent" in note for note in found["notes"])
    assert found["unmapped"] == []
    _, second = scrapes(SUMMARIES.replace("COUNT", "37"), SUMMARIES.replace("COUNT", "40"))
    assert second.samples[0].deltas.keys() >= {FINISHED, Signal.REQUEST_SECONDS_TOTAL}
    assert second.samples[0].deltas.keys().isdisjoint({Signal.REQUESTS_FAILED_TOTAL, Signal.INFERENCES_TOTAL})
    assert gained(second) == 3


@pytest.mark.parametrize("page", ["metrics_idle", "metrics_busy_01", "metrics_after"])
def test_a_model_with_a_response_cache_has_no_summary_of_requests_and_is_counted_all_the_same(page: str):
    text = gzip.decompress((FIXTURES / "triton" / f"{page}.txt.gz").read_bytes()).decode()
    counted = dict(re.findall(r'(?m)^nv_inference_request_success\{model="(\w+)",version="1"\} (\d+)$', text))
    (scrape,) = scrapes(text)
    assert "ranker" in counted
    assert {one.key.model: one.totals[FINISHED] for one in scrape.samples} == {
        model: float(value) for model, value in counted.items()
    }
    assert all(Signal.REQUEST_SECONDS_TOTAL in one.totals for one in scrape.samples)


def test_triton_without_any_counter_is_read_from_its_summaries():
    lines = [line for line in SUMMARIES.splitlines() if "summary" in line or "pending" in line]
    found = describe(parse("\n".join(lines).replace("COUNT", "37")), About())
    assert found["signals"]["requests_finished_total"] == 37
    assert "requests_failed_total" not in found["signals"]


@pytest.mark.parametrize(
    ("lines", "there", "absent"),
    [
        (
            ["nv_inference_request_success{M} 9", "nv_inference_request_duration_us{M} 0"],
            {FINISHED},
            {Signal.REQUEST_SECONDS_TOTAL},
        ),
        (
            ["nv_inference_request_success{M} 0", "nv_inference_request_failure{M} 0",
             "nv_inference_first_response_histogram_ms_count{M} 4"],
            set(),
            {FINISHED, Signal.REQUESTS_FAILED_TOTAL},
        ),
        (
            ["nv_inference_request_success{M} 0", "nv_inference_request_failure{M} 0"],
            {FINISHED, Signal.REQUESTS_FAILED_TOTAL},
            set(),
        ),
        (
            ["nv_inference_request_success{M} 0", "nv_inference_request_failure{M} 3"],
            {FINISHED, Signal.REQUESTS_FAILED_TOTAL},
            set(),
        ),
    ],
    ids=["latencies-off", "a-histogram-counts", "idle", "only-failures"],
)  # fmt: skip
def test_a_counter_that_stands_still_while_requests_are_served_is_absent(
    lines: list[str], there: set[Signal], absent: set[Signal]
):
    page = "\n".join(lines).replace("{M}", '{model="m",version="1"}')
    (scrape,) = scrapes(page + "\n")
    found = {signal for sample in scrape.samples for signal in sample.totals}
    assert there <= found
    assert absent.isdisjoint(found)


def test_a_page_that_has_only_declared_its_metrics_is_its_engines():
    page = parse("# TYPE nv_inference_request_success counter\n# TYPE nv_gpu_utilization gauge\nnv_gpu_utilization 0\n")
    assert detect(page).engine == "triton"
    assert describe(page, About())["signals"] == {}


def test_triton_with_tensorrt_llm_shows_what_the_batcher_holds():
    page = (
        'nv_inference_pending_request_count{model="t",version="1"} 1\n'
        'nv_trt_llm_request_metrics{model="t",request_type="active",version="1"} 5\n'
        'nv_trt_llm_request_metrics{model="t",request_type="max",version="1"} 512\n'
        'nv_trt_llm_request_metrics{model="t",request_type="waiting",version="1"} 3\n'
        'nv_trt_llm_kv_cache_block_metrics{kv_cache_block_type="fraction",model="t",version="1"} 0.25\n'
        'nv_trt_llm_kv_cache_block_metrics{kv_cache_block_type="used",model="t",version="1"} 1557\n'
    )
    (scrape,) = scrapes(page)
    expected = {Signal.WAITING: 4, Signal.RUNNING: 5, Signal.KV_CACHE_USAGE_RATIO: 0.25}
    assert scrape.samples[0].gauges == expected


def test_a_page_without_a_reason_error_says_that_failures_are_unknown():
    without = 'vllm:request_success_total{finished_reason="stop",model_name="m"} 3\n'
    found = describe(parse(without), About())
    assert "requests_failed_total" not in found["signals"]
    assert any("counts no failed requests" in note for note in found["notes"])
    with_it = without + without.replace("stop", "error").replace(" 3", " 0")
    found = describe(parse(with_it), About())
    assert found["signals"]["requests_failed_total"] == 0
    assert not any("counts no failed requests" in note for note in found["notes"])


ROUTER = """\
# TYPE llamacpp_router:model_up gauge
llamacpp_router:model_up{model="small"} 1
llamacpp:requests_processing{model="small"} 1
llamacpp:requests_processing{model="large",mode="completion"} 3
llamacpp:requests_deferred{model="small"} 0
llamacpp:requests_deferred{model="large",mode="completion"} 2
"""


def test_a_router_of_llamacpp_servers_shows_each_model():
    found = describe(parse(ROUTER), About(model="alias"))
    assert found["by_model"] == {"small": {"running": 1, "waiting": 0}, "large": {"running": 3, "waiting": 2}}
    assert found["unmapped"] == []
    assert any("awake" in note for note in found["notes"])
    assert not any("does not name its model" in note for note in found["notes"])
    plain = describe(parse("llamacpp:requests_processing 1\n"), About(model="alias"))
    assert plain["models"] == ["alias"]
    assert any("does not name its model" in note for note in plain["notes"])


def test_a_router_that_has_no_model_yet_is_a_llamacpp_server():
    assert detect(parse("llamacpp_router:models 0\n")).engine == "llamacpp"


def test_steps_that_each_of_several_api_servers_counts_are_unknown():
    """Of 935 steps two servers counted 1,718: each counts those in which one of its requests got a token."""
    text = gzip.decompress((FIXTURES / "vllm" / "metrics_two_servers_two_ranks.txt.gz").read_bytes()).decode()
    samples = Sampler(find_table("vllm")).sample(parse(text)).samples
    assert [one.key.dp_rank for one in samples] == ["0", "1"]
    for one in samples:
        assert Signal.ENGINE_STEPS_TOTAL not in one.totals
        assert one.totals[Signal.BATCH_TOKENS_TOTAL] > 0, "a sum over requests is right"
    assert any("API servers" in note for note in describe(parse(text), About())["notes"])
    alone = Sampler(find_table("vllm")).sample(parse(f"{text}process_start_time_seconds 1795000000\n")).samples
    assert [one.totals[Signal.ENGINE_STEPS_TOTAL] for one in alone] == [886, 832]


def test_every_status_of_a_server_error_is_a_failure():
    codes = {"200": 90, "400": 5, "500": 1, "503": 7, "504": 2}
    body = "".join(
        f'bentoml_service_request_total{{service_name="Toy",http_response_code="{code}"}} {n}\n'
        for code, n in codes.items()
    )
    signals = describe(parse(body), About())["signals"]
    assert (signals["requests_finished_total"], signals["requests_failed_total"]) == (105, 10)
