from __future__ import annotations

import gzip
import math
from pathlib import Path

import pytest

from agent import engines
from agent.engine_table import Table, config_of, detect, find_table, tables
from agent.pages.page import Page, parse
from agent.pages.samples import Sampler
from base import found
from base.errors import UnknownEngineError
from base.vocabulary import Distribution, Signal

FIXTURES = Path(__file__).parents[1] / "fixtures"
PAGES = [
    path
    for engine in tables()
    for path in sorted((*FIXTURES.glob(f"{engine}/metrics_*.txt"), *FIXTURES.glob(f"{engine}/metrics_*.txt.gz")))
]
LATE = {"bentoml", "kserve", "litellm", "mlserver", "torchserve", "vllm_production_stack_router", "vllm_router"}
"""Engines whose series begin with their first requests: an idle page lacks them."""


def page_of(path: Path) -> Page:
    return parse(gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes())


def signals_of(page: Page, model: str | None = None) -> dict[Signal, float]:
    samples = Sampler(detect(page)).sample(page).samples
    (found,) = [one for one in samples if model is None or one.key.model == model]
    return found.signals()


@pytest.mark.parametrize("path", PAGES, ids=lambda path: f"{path.parent.name}-{path.name}")
def test_every_metric_of_a_recorded_page_is_mapped_or_ignored_by_name(path: Path):
    page = page_of(path)
    table = detect(page)
    assert table.engine == path.parent.name
    assert [family for family in page.layout.families() if not table.knows(family)] == []


@pytest.mark.parametrize("path", PAGES, ids=lambda path: f"{path.parent.name}-{path.name}")
def test_no_expected_signal_is_missing_from_a_recorded_page(path: Path):
    page = page_of(path)
    table = detect(page)
    seen = {signal for sample in Sampler(table).sample(page).samples for signal in sample.signals()}
    if not (table.engine in LATE and "idle" in path.name):
        assert set(table.expected()) - table.off(page) <= seen


def test_pages_of_all_engines_were_recorded():
    assert [sum(path.parent.name == engine for path in PAGES) for engine in ("vllm", "triton", "llamacpp")] == [8, 6, 3]


def test_a_metric_nobody_names_is_not_known():
    table = find_table("vllm")
    assert not table.knows("vllm:brand_new_total")
    assert not table.knows("vllm:brand_new_created")
    assert table.knows("vllm:prompt_tokens_created")


def test_an_engines_file_is_called_by_its_id():
    assert set(tables()) == set(found.names(engines))


@pytest.mark.parametrize("table", tables().values(), ids=lambda table: table.engine)
def test_no_name_is_both_read_and_ignored(table: Table):
    read = {name for rule in table.rules for name in rule.names()}
    read |= {name for histogram in table.histograms for name in histogram.names()}
    assert read.isdisjoint(table.ignored)
    assert all(table.ignored.values())


def test_an_unknown_page_is_named_by_what_it_has():
    with pytest.raises(UnknownEngineError, match=r"node_load1.*Known engines: .*vllm"):
        detect(parse("node_load1 0.5\n"))


def test_an_unknown_engine_id_names_the_known_ones():
    with pytest.raises(UnknownEngineError, match=r"'sglangg'.*triton.*vllm"):
        find_table("sglangg")


def test_vllm_busy_page():
    page = page_of(FIXTURES / "vllm/metrics_busy_04.txt.gz")
    found = signals_of(page, "tiny")
    assert found[Signal.RUNNING] == 10
    assert found[Signal.WAITING] == 0
    assert found[Signal.KV_CACHE_USAGE_RATIO] == pytest.approx(0.002441704309608106)
    assert found[Signal.PROMPT_TOKENS_TOTAL] == 73425
    assert found[Signal.GENERATION_TOKENS_TOTAL] == 13378
    assert found[Signal.PREFIX_CACHE_HITS_TOTAL] == 55552
    assert found[Signal.REQUESTS_FINISHED_TOTAL] == 227
    assert found[Signal.REQUESTS_FAILED_TOTAL] == 0
    assert found[Signal.ENGINE_STEPS_TOTAL] == 592
    assert found[Signal.BATCH_TOKENS_TOTAL] == 31251
    assert found[Signal.QUEUE_SECONDS_TOTAL] == pytest.approx(0.00266304799788486)


def test_each_table_says_what_its_counters_mean():
    """Of recorded pages: vLLM's error is a reason of finishing, Triton's failures stand apart."""
    reasons = {
        one.labels["finished_reason"]
        for one in page_of(FIXTURES / "vllm/metrics_busy_04.txt.gz").layout.series
        if one.name == "vllm:request_success_total"
    }
    assert ("error" in reasons, find_table("vllm").finished_includes_failed) == (True, True)
    page = parse(
        'nv_inference_request_success{model="m",version="1"} 3\nnv_inference_request_failure{model="m",version="1"} 2\n'
    )
    assert signals_of(page, "m") == {Signal.REQUESTS_FINISHED_TOTAL: 3, Signal.REQUESTS_FAILED_TOTAL: 2}
    assert not find_table("triton").finished_includes_failed
    assert (find_table("vllm").prompt_includes_cached, find_table("llamacpp").prompt_includes_cached) == (True, False)


def test_vllm_configuration_leaves_model_and_rank_out():
    page = page_of(FIXTURES / "vllm/metrics_idle.txt.gz")
    config = config_of(find_table("vllm"), page.layout)
    assert config["num_gpu_blocks"] == "8192"
    assert config["enable_prefix_caching"] == "True"
    assert "engine" not in config
    assert "max_lora" not in config


def test_of_vllm_adapters_only_the_limit_is_configuration():
    config = config_of(find_table("vllm"), page_of(FIXTURES / "vllm/metrics_lora.txt.gz").layout)
    assert config["max_lora"] == "1"
    assert not any("adapters" in key for key in config)
    assert config["num_gpu_blocks"]


OLD_VLLM = """\
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{model_name="m"} 3
# TYPE vllm:num_requests_swapped gauge
vllm:num_requests_swapped{model_name="m"} 1
# TYPE vllm:num_requests_waiting gauge
vllm:num_requests_waiting{model_name="m"} 2
# TYPE vllm:gpu_cache_usage_perc gauge
vllm:gpu_cache_usage_perc{model_name="m"} 0.75
# TYPE vllm:cpu_cache_usage_perc gauge
vllm:cpu_cache_usage_perc{model_name="m"} 0
# TYPE vllm:time_per_output_token_seconds histogram
vllm:time_per_output_token_seconds_bucket{le="0.01",model_name="m"} 4
vllm:time_per_output_token_seconds_bucket{le="+Inf",model_name="m"} %d
vllm:time_per_output_token_seconds_sum{model_name="m"} 1.5
vllm:time_per_output_token_seconds_count{model_name="m"} %d
"""


def test_old_vllm_names():
    page = parse(OLD_VLLM % (5, 5))
    table = detect(page)
    assert [family for family in page.layout.families() if not table.knows(family)] == []
    found = signals_of(page, "m")
    assert found == {Signal.RUNNING: 3, Signal.WAITING: 2, Signal.KV_CACHE_USAGE_RATIO: 0.75}
    assert any("gpu_cache_usage_perc" in note for note in table.notes(page))
    sampler = Sampler(table)
    sampler.sample(page)
    (sample,) = sampler.sample(parse(OLD_VLLM % (8, 8))).samples
    assert [(one.distribution, one.counts) for one in sample.histograms] == [(Distribution.ITL_SECONDS, (0, 3))]


def test_the_newer_name_wins_where_a_page_has_both():
    page = parse('vllm:kv_cache_usage_perc{model_name="m"} 0.5\nvllm:gpu_cache_usage_perc{model_name="m"} 0.4\n')
    assert signals_of(page, "m") == {Signal.KV_CACHE_USAGE_RATIO: 0.5}


def test_of_several_caches_the_fullest_counts():
    page = parse("".join(f'vllm:kv_cache_usage_perc{{model_name="m",pool="{one}"}} 0.{one}\n' for one in (3, 8, 5)))
    assert signals_of(page, "m") == {Signal.KV_CACHE_USAGE_RATIO: 0.8}


def test_triton_busy_page():
    page = page_of(FIXTURES / "triton/metrics_busy_02.txt.gz")
    flaky = signals_of(page, "flaky")
    assert flaky[Signal.REQUESTS_FINISHED_TOTAL] == 87
    assert flaky[Signal.REQUESTS_FAILED_TOTAL] == 1  # one reason of four
    assert (flaky[Signal.INFERENCES_TOTAL], flaky[Signal.EXECUTIONS_TOTAL]) == (87, 88)
    assert flaky[Signal.REQUEST_SECONDS_TOTAL] == pytest.approx(0.162095)
    assert flaky[Signal.QUEUE_SECONDS_TOTAL] == pytest.approx(0.055534)
    assert flaky[Signal.COMPUTE_INFER_SECONDS_TOTAL] == pytest.approx(0.072419)
    assert Signal.RESPONSE_CACHE_HITS_TOTAL not in flaky
    assert Signal.RUNNING not in flaky
    assert signals_of(page, "vision_classifier")[Signal.WAITING] == 48
    ranker = signals_of(page, "ranker")
    assert (ranker[Signal.RESPONSE_CACHE_HITS_TOTAL], ranker[Signal.RESPONSE_CACHE_MISSES_TOTAL]) == (137, 22)


def test_triton_adds_up_the_versions_of_a_model_and_says_so():
    page = parse(
        'nv_inference_request_success{model="m",version="1"} 2\nnv_inference_request_success{model="m",version="2"} 3\n'
    )
    assert signals_of(page, "m") == {Signal.REQUESTS_FINISHED_TOTAL: 5}
    assert any("versions 1, 2" in note for note in find_table("triton").notes(page))


def test_llamacpp_busy_page():
    found = signals_of(page_of(FIXTURES / "llamacpp/metrics_busy.txt"))
    assert found[Signal.RUNNING] == 2
    assert found[Signal.PROMPT_TOKENS_TOTAL] == 2378
    assert found[Signal.GENERATION_TOKENS_TOTAL] == 68280
    assert found[Signal.PREFIX_CACHE_HITS_TOTAL] == 6136
    assert found[Signal.PREFIX_CACHE_QUERIES_TOTAL] == 2378 + 6136
    assert found[Signal.ENGINE_STEPS_TOTAL] == 20271
    assert Signal.KV_CACHE_USAGE_RATIO not in found
    assert Signal.REQUESTS_FINISHED_TOTAL not in found


def test_a_value_that_is_no_number_is_absent():
    page = parse('vllm:num_requests_running{model_name="m"} Nan\nvllm:num_requests_waiting{model_name="m"} 1\n')
    assert signals_of(page, "m") == {Signal.WAITING: 1}
    assert not any(math.isnan(value) for value in signals_of(page, "m").values())


def test_any_summary_tells_that_triton_serves_what_its_counters_do_not_count():
    counters = "".join(f'nv_inference_{name}{{model="m",version="1"}} 0\n' for name in ("request_success", "count"))
    summary = 'nv_inference_queue_summary_us_%s{model="m",version="1"} %d\n'
    table = find_table("triton")
    for count, shown in ((0, True), (37, False)):
        page = parse(counters + summary % ("count", count) + summary % ("sum", 10 * count))
        sample = Sampler(table).sample(page).samples[0]
        assert (Signal.REQUESTS_FINISHED_TOTAL in sample.totals) is shown
        assert (Signal.INFERENCES_TOTAL in sample.totals) is shown


def ranks(metric: str, value: float, *, priorities: bool = False, **more: str) -> str:
    """A series as two pipeline stages of eleven tensor parallel ranks show it, the later ones a moment older."""
    labels = ",".join(f'{name}="{text}"' for name, text in {"model_name": "m", **more}.items())
    told = [("", value), ("0", value / 4), ("5", value * 3 / 4)] if priorities else [("", value)]
    return "".join(
        f'{metric}{{{labels},priority="{priority}",pp_rank="{stage}",tp_rank="{rank}"}} {shown - (stage + rank > 0)}\n'
        for stage in (1, 0)
        for rank in (10, 9, 2, 1, 0)
        for priority, shown in told
    )


def test_counts_that_every_rank_tells_are_one():
    text = "".join(
        ranks("sglang:num_retracted_requests_total", 10 + int(rank), dp_rank=rank)
        + ranks("sglang:cuda_graph_passes_total", 300, dp_rank=rank, mode="decode_cuda_graph")
        + ranks("sglang:cuda_graph_passes_total", 20, dp_rank=rank, mode="decode_none")
        + ranks("sglang:estimated_flops_per_gpu_total", 5e12, dp_rank=rank)
        + ranks("sglang:hicache_backup_bytes_total", 700, dp_rank=rank)
        + ranks("sglang:load_back_bytes_total", 50, dp_rank=rank)
        + ranks("sglang:queue_time_seconds_sum", 8, dp_rank=rank, priorities=True)
        for rank in ("0", "1")
    )
    samples = Sampler(find_table("sglang")).sample(parse(text)).samples
    assert {one.key.dp_rank: one.totals for one in samples} == {
        rank: {
            "preemptions_total": 10 + int(rank), "engine_steps_total": 320, "estimated_flops_total": 5e12,
            "kv_offload_bytes_total": 750, "queue_seconds_total": 8,
        }
        for rank in ("0", "1")
    }  # fmt: skip
    alone = ranks("sglang:num_retracted_requests_total", 7).replace(
        'pp_rank="0",tp_rank="0"', 'pp_rank="0",tp_rank="3"'
    )
    assert signals_of(parse(alone)) == {"preemptions_total": 6}


def test_a_histogram_that_every_rank_tells_counts_once():
    def page(count: int) -> Page:
        buckets = ranks("sglang:queue_time_seconds_bucket", count, le="+Inf")
        return parse(buckets + ranks("sglang:queue_time_seconds_sum", count))

    sampler = Sampler(find_table("sglang"))
    sampler.sample(page(5))
    (sample,) = sampler.sample(page(8)).samples
    assert [(one.count, one.total) for one in sample.histograms] == [(3, 3)]


def test_priorities_and_ranks_of_a_routers_workers_are_added_once():
    text = "".join(
        ranks(f"sglang_num_{what}_reqs", value, worker_addr=f"grpc://10.0.0.{worker}:1", priorities=True)
        for worker, value in ((1, 8), (2, 12))
        for what, value in (("running", value), ("queue", value * 2))
    )
    assert signals_of(parse(text)) == {"running": 20, "waiting": 40}
    parts = "".join(
        f'sglang_num_running_reqs{{model_name="m",worker_addr="grpc://10.0.0.1:1",priority="{priority}"}} {value}\n'
        for priority, value in (("0", 3), ("5", 4))
    )
    assert signals_of(parse(parts)) == {"running": 7}, "parts without their total"


def test_errors_of_a_component_are_failures():
    where = 'dynamo_namespace="n",dynamo_component="backend",dynamo_endpoint="generate"'
    text = f"dynamo_component_requests_total{{{where}}} 30\n" + "".join(
        f'dynamo_component_errors_total{{{where},error_type="{kind}"}} {value}\n'
        for kind, value in (("generate", 4), ("response_stream", 1))
    )
    assert signals_of(parse(text)) == {"requests_finished_total": 30, "requests_failed_total": 5}
    front = 'dynamo_frontend_requests_total{model="m",status="%s"} %d\n'
    assert signals_of(parse(front % ("success", 9) + front % ("error", 2))) == {
        "requests_finished_total": 11,
        "requests_failed_total": 2,
    }
