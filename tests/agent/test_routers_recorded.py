"""What recorded pages of routers say is what their clients saw: requests and what became of them, each once."""

from __future__ import annotations

import gzip

import pytest

from agent.engine_table import About, detect
from agent.pages.page import Page, parse
from agent.pages.probe import describe
from agent.pages.samples import Sampler
from base.vocabulary import Signal
from tests.kits.docs import ROOT

FIXTURES = ROOT / "tests" / "fixtures"


def page_of(path: str) -> Page:
    body = (FIXTURES / path).read_bytes()
    return parse(gzip.decompress(body) if path.endswith(".gz") else body)


@pytest.mark.parametrize(
    ("path", "read"),
    [
        (
            # 36 answers had begun, of 9 in flight the 3 streams; 4 were refused with 400, 3 had five times 503
            "vllm_router/metrics_busy.txt",
            {"running": 9, "requests_finished_total": 24 + 3 + 6 + 3 + 4 + 3, "requests_failed_total": 4 + 3},
        ),
        (
            "vllm_router/metrics_after.txt",
            {"running": 0, "requests_finished_total": 42 + 7, "requests_failed_total": 7},
        ),
        (
            # with 5 tries each: that no server was left is counted 30 times
            "vllm_router/metrics_no_server_left.txt",
            {
                "running": 0, "requests_finished_total": 42 + 15, "requests_failed_total": 7 + 4 + 4,
                "endpoints_healthy": 0,
            },
        ),
        (
            # of 9 in flight the 3 streams have begun; two had 400 and two 503 of the decoder, three of the prefiller
            "vllm_router/metrics_prefill_and_decode_apart.txt",
            {"requests_finished_total": 12 + 7 + 3, "requests_failed_total": 2 + 2 + 3},
        ),
        (
            "sglang_router/sglang_router_0.3.2_busy.txt",
            {
                "running": 5, "requests_received_total": 24 + 2 + 6 + 3 + 9, "requests_failed_total": 2 + 3,
                "requests_finished_total": 24 + 6 + 4 + 2,
            },
        ),
        (
            "sglang_router/smg_1.13_busy.txt.gz",
            {
                "running": 9, "requests_received_total": 24 + 2 + 6 + 3 + 9, "requests_failed_total": 2 + 3,
                "requests_finished_total": 24 + 6 + 3,
            },
        ),
        (
            # latencies are of the whole, streams' too; tokens are of whole answers alone
            "vllm_production_stack_router/metrics_busy.txt",
            {
                "running": 9, "requests_in_prefill": 6, "requests_in_decode": 3, "requests_received_total": 12 + 6 + 9,
                "requests_finished_total": 12 + 6, "requests_failed_total": 2,
                "request_seconds_total": 7.309197902679443,
            },
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)  # fmt: skip
def test_requests_are_those_of_the_clients(path: str, read: dict[str, float]) -> None:
    told = describe(page_of(path), About())
    assert (told["role"], told["unmapped"]) == ("router", [])
    assert told["signals"] == pytest.approx({"endpoints_healthy": 2, **read})


def test_durations_that_end_with_the_head_of_an_answer_are_not_told_as_its_whole() -> None:
    for path in ("vllm_router/metrics_after.txt", "sglang_router/smg_1.13_busy.txt.gz"):
        sampler = Sampler(detect(page_of(path)))
        idle = page_of(path.replace("after", "idle").replace("busy", "idle"))
        sampler.sample(idle)
        samples = sampler.sample(page_of(path)).samples
        assert [one.histograms for one in samples if one.histograms] == []
    whole = 'smg_router_request_duration_seconds%s{connection_mode="grpc",endpoint="chat",model="m"%s} %s\n'
    page = "".join(whole % ("_bucket", f',le="{le}"', "%d") for le in ("1", "+Inf"))
    page += whole % ("_sum", "", "%d") + whole % ("_count", "", "%d")
    sampler = Sampler(detect(parse(page % ((0,) * 4))))
    sampler.sample(parse(page % ((0,) * 4)))
    (sample,) = sampler.sample(parse(page % (1, 3, 7, 3))).samples
    assert [(one.distribution, one.count, one.total) for one in sample.histograms] == [("e2e_seconds", 3, 7.0)]
    assert sample.deltas == {"requests_finished_total": 3, "request_seconds_total": 7}


def test_a_first_failure_of_either_kind_is_an_increase() -> None:
    """Two rules of one signal are two metrics, either of which may begin later: that is no other name for the first."""
    error = 'vllm_router_request_errors_total{route="/v1/completions",error_type="%s"} %d\n'
    out_of_tries = 'vllm_router_retries_exhausted_total{route="/v1/completions"} 3\n'
    always = "vllm_router_worker_health 1\n"
    pages = [always, always + error % ("non_retryable_error", 2)]
    pages.append(pages[1] + error % ("no_available_workers", 15) + out_of_tries)
    sampler = Sampler(detect(parse(always)))
    (sample,) = [sampler.sample(parse(page)).samples for page in pages][-1]
    assert sample.totals[Signal.REQUESTS_FAILED_TOTAL] == sample.totals[Signal.REQUESTS_FINISHED_TOTAL] == 2 + 3
    assert sample.deltas[Signal.REQUESTS_FAILED_TOTAL] == 3


def test_series_of_vllm_that_a_gateway_shows_again_are_the_gateways() -> None:
    told = describe(page_of("sglang_router/smg_1.13_engine_metrics_vllm.txt"), About())
    assert (told["engine"], told["role"]) == ("sglang_router", "router")
    assert told["signals"] == {"running": 0, "waiting": 0}
