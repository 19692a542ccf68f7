"""What a page need not have yet: series begin with requests, and a server that was started again has served nobody."""

from __future__ import annotations

import gzip
from typing import TYPE_CHECKING

import pytest

from agent.engine_table import detect, find_table
from agent.pages.contract import PATIENCE
from agent.pages.page import parse
from agent.pages.samples import Sampler
from tests.kits.docs import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterable

FIXTURES = ROOT / "tests" / "fixtures"
LONG = 2 * PATIENCE


def body(path: str) -> str:
    read = (FIXTURES / path).read_bytes()
    return (gzip.decompress(read) if path.endswith(".gz") else read).decode()


def started_again(text: str) -> str:
    """The same page of a process that began later."""
    return "".join(
        f"process_start_time_seconds {9e9}\n" if line.startswith("process_start_time_seconds") else line
        for line in text.splitlines(keepends=True)
    )


def told(sampler: Sampler, pages: Iterable[str]) -> list[tuple[str, str, bool]]:
    return [
        (one.kind, one.what, one.mended)
        for text in pages
        for one in sampler.sample(parse(text)).breaches
        if one.kind in {"absent", "gone"}
    ]


SERVED = [
    ("bentoml/metrics_after.txt", "bentoml/metrics_idle.txt"),
    ("kserve/metrics_after.txt", "kserve/metrics_idle.txt"),
    ("litellm/metrics_after.txt.gz", "litellm/metrics_idle.txt"),
    ("mlserver/metrics_after.txt", "mlserver/metrics_idle.txt"),
    ("torchserve/metrics_after.txt", "torchserve/metrics_idle.txt"),
]


@pytest.mark.parametrize(("after", "idle"), SERVED, ids=[one.split("/")[0] for one, _ in SERVED])
def test_a_server_that_was_started_again_and_serves_nobody_lacks_nothing(after: str, idle: str):
    sampler = Sampler(detect(parse(body(after))))
    assert told(sampler, [body(after)] * 2) == []
    sampler.contract.away()  # it did not answer meanwhile: not every page tells when its process began
    again = [started_again(body(idle))] * LONG
    assert told(sampler, [*again, body(after), *[body(after)] * LONG]) == []


SGLANG = """\
sglang:num_running_reqs{{model_name="m"}} {running}
sglang:num_queue_reqs{{model_name="m"}} 0
sglang:token_usage{{model_name="m"}} 0.1
"""
COUNTED = """\
sglang:num_requests_total{{model_name="m"}} {count}
sglang:prompt_tokens_total{{model_name="m"}} {count}
sglang:{tokens}_total{{model_name="m"}} {count}
sglang:e2e_request_latency_seconds_sum{{model_name="m"}} {count}
sglang:e2e_request_latency_seconds_count{{model_name="m"}} {count}
sglang:e2e_request_latency_seconds_bucket{{model_name="m",le="+Inf"}} {count}
"""


def sglang(running: int = 0, count: int = 0, tokens: str = "generation_tokens") -> str:
    return SGLANG.format(running=running) + (COUNTED.format(count=count, tokens=tokens) if count else "")


def test_an_update_that_renames_is_told_once_the_new_one_has_answered():
    sampler = Sampler(find_table("sglang"))
    assert told(sampler, [sglang(1, 30), sglang(1, 31)]) == []
    sampler.contract.away()
    assert told(sampler, [*[sglang()] * LONG, *[sglang(running=1)] * LONG]) == [], "a first request may take its time"
    assert told(sampler, [sglang(1, count, "output_tokens") for count in range(1, LONG)]) == [
        ("gone", "generation_tokens_total", False)
    ]
    assert told(sampler, [sglang(1, 99)]) == [("gone", "generation_tokens_total", True)]


def test_of_one_that_works_for_minutes_and_tells_of_no_answer_all_is_told():
    sampler = Sampler(find_table("sglang"))
    told(sampler, [sglang(1, 30)])
    sampler.contract.away()
    found = told(sampler, [sglang(running=2)] * 350)
    assert ("gone", "requests_finished_total", False) in found
    assert ("gone", "e2e_seconds", False) in found


def test_in_the_same_process_a_series_that_goes_is_gone_whoever_is_served():
    sampler = Sampler(find_table("sglang"))
    whole = sglang(0, 30)
    cut = "".join(line for line in whole.splitlines(keepends=True) if "generation_tokens" not in line)
    assert told(sampler, [whole, *[cut] * LONG]) == [("gone", "generation_tokens_total", False)]


VERSIONS = [
    ("sglang", "0.5.9", sglang(1, 5).replace("sglang:e2e_", "sglang:whole_"), ["e2e_seconds", "request_seconds_total"]),
    ("sglang", "0.3.5", sglang(1, 5).replace("sglang:e2e_", "sglang:whole_"), []),
    ("sglang", "0.5.9", sglang(), []),  # nobody was answered yet
    ("tgi", "3.3.4", "tgi_request_success 5\ntgi_request_duration_sum 5\ntgi_queue_size 0\n",
     ["e2e_seconds", "generation_tokens_total", "prompt_tokens_total"]),
    ("trtllm", "1.2.0", 'trtllm_request_success_total{model_name="m",finished_reason="stop"} 5\n',
     ["e2e_seconds", "queue_seconds", "queue_seconds_total", "request_seconds_total", "ttft_seconds"]),
    ("triton", "2.51.0", 'nv_inference_request_success{model="m",version="1"} 0\n',
     ["compute_infer_seconds_total", "compute_input_seconds_total", "compute_output_seconds_total",
      "executions_total", "inferences_total", "queue_seconds_total", "request_seconds_total",
      "requests_failed_total", "waiting"]),
]  # fmt: skip


@pytest.mark.parametrize(("engine", "version", "text", "lacks"), VERSIONS)
def test_what_a_version_promises(engine: str, version: str, text: str, lacks: list[str]):
    sampler = Sampler(find_table(engine), version=version)
    found = told(sampler, [text] * LONG)
    assert sorted(what for kind, what, mended in found if kind == "absent" and not mended) == lacks
    sampler.contract.away()
    assert told(sampler, [text] * LONG) == [], "told once, and not mended by a restart"


PROMISED = [
    ("vllm", "0.32.0", ["vllm/metrics_idle.txt.gz", "vllm/metrics_busy_04.txt.gz"]),
    ("triton", "2.51.0", ["triton/metrics_idle.txt.gz", "triton/metrics_busy_02.txt.gz"]),
    ("triton", "2.38.0", ["triton/2.38_many_models_one_gpu.txt.gz"]),
    ("sglang", "0.4.3", ["sglang/0.4.3_busy_queue.txt"]),
]


@pytest.mark.parametrize(("engine", "version", "paths"), PROMISED)
def test_pages_of_a_version_keep_what_it_promises(engine: str, version: str, paths: list[str]):
    sampler = Sampler(find_table(engine), version=version)
    assert told(sampler, [body(path) for path in paths for _ in range(LONG)]) == []


WHOLE = body("vllm/metrics_busy_04.txt.gz")


def test_a_distribution_that_goes_or_was_never_there_is_told():
    renamed = WHOLE.replace("vllm:time_to_first_token_seconds", "vllm:first_token_latency_seconds")
    sampler = Sampler(find_table("vllm"))
    assert told(sampler, [WHOLE, *[renamed] * LONG, WHOLE]) == [
        ("gone", "ttft_seconds", False),
        ("gone", "ttft_seconds", True),
    ]
    fresh = Sampler(find_table("vllm"), version="0.32.0")
    assert told(fresh, [renamed] * LONG) == [("absent", "ttft_seconds", False)]


def test_a_distribution_under_an_old_and_a_new_name_is_told_once():
    old = "".join(
        line.replace("vllm:inter_token_latency_seconds", "vllm:time_per_output_token_seconds")
        for line in WHOLE.splitlines(keepends=True)
        if "vllm:inter_token_latency_seconds" in line
    )
    sampler = Sampler(find_table("vllm"))
    found = [one for _ in range(4) for one in sampler.sample(parse(WHOLE + old)).breaches]
    assert [(one.kind, one.what) for one in found] == [("doubled", "vllm:time_per_output_token_seconds")]


def test_more_time_in_a_part_of_requests_than_in_all_of_them_is_another_unit():
    lines = WHOLE.splitlines(keepends=True)
    milliseconds = "".join(
        f"{line.rpartition(' ')[0]} {float(line.rpartition(' ')[2]) * 1000}\n"
        if line.startswith("vllm:request_decode_time_seconds_sum")
        else line
        for line in lines
    )
    sampler = Sampler(find_table("vllm"))
    found = [
        (one.kind, one.what, one.mended)
        for text in (WHOLE, milliseconds, milliseconds, WHOLE)
        for one in sampler.sample(parse(text)).breaches
    ]
    assert found == [("unit", "decode_seconds_total", False), ("unit", "decode_seconds_total", True)]
