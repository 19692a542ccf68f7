"""What a page must have is told when it is not there, once; and once more when it is back."""

from __future__ import annotations

import gzip
from typing import TYPE_CHECKING

import pytest

from agent.engine_table import detect, find_table
from agent.pages.contract import PATIENCE, Breach, version_of
from agent.pages.page import PageReader, parse
from agent.pages.samples import Sampler
from base.vocabulary import Signal
from tests.kits.docs import ROOT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

FIXTURES = ROOT / "tests" / "fixtures"
WHOLE = gzip.decompress((FIXTURES / "vllm/metrics_busy_04.txt.gz").read_bytes()).decode()


def without(*names: str) -> str:
    return "".join(line for line in WHOLE.splitlines(keepends=True) if not any(name in line for name in names))


def told(pages: Iterable[str], version: str = "") -> list[Breach]:
    reader = PageReader()
    found: list[Breach] = []
    sampler: Sampler | None = None
    for text in pages:
        page = reader.read(text.encode())
        sampler = sampler or Sampler(detect(page), version=version)
        found += sampler.sample(page).breaches
    return found


@pytest.mark.parametrize(
    "name",
    [
        "metrics_idle",
        "metrics_busy_02",
        "metrics_busy_04",
        "metrics_lora",
        "metrics_spec_decode",
        "metrics_two_servers_two_ranks",
        "v1_0.11.0_cpu_after",
    ],
)
def test_a_page_as_its_version_has_it_breaks_nothing(name: str):
    text = gzip.decompress((FIXTURES / f"vllm/{name}.txt.gz").read_bytes()).decode()
    version = "0.11.0" if "0.11.0" in name else "0.32.0"
    assert told([text] * (2 * PATIENCE), version) == []


def test_what_the_version_promises_and_the_page_lacks_is_absent():
    cut = without("num_preemptions", "kv_cache_usage_perc")
    found = told([cut] * (3 * PATIENCE), "0.32.0")
    assert sorted((one.kind, one.what) for one in found) == [
        ("absent", "kv_cache_usage_ratio"),
        ("absent", "preemptions_total"),
    ]
    assert told([cut] * (3 * PATIENCE)) == [], "nobody knows what an unknown version has"


def test_an_older_version_promises_less():
    v0 = (FIXTURES / "vllm/v0_0.6.3_idle_slice.txt").read_text()
    assert told([v0] * (2 * PATIENCE), "0.6.3") == []
    assert "engine_steps_total" in [one.what for one in told([v0] * (2 * PATIENCE), "0.12.0")]


def test_a_signal_that_goes_is_told_with_the_names_that_came():
    renamed = WHOLE.replace("vllm:generation_tokens_total", "vllm:output_tokens_total")
    found = told([WHOLE, *[renamed] * (2 * PATIENCE), WHOLE, WHOLE])
    assert [(one.kind, one.what, one.mended) for one in found] == [
        ("unknown", "vllm:output_tokens_total", False),
        ("gone", "generation_tokens_total", False),
        ("gone", "generation_tokens_total", True),
    ]
    assert "vllm:output_tokens_total" in found[1].message


def test_a_page_that_is_cut_for_a_moment_is_no_new_contract():
    pages = [WHOLE, *[without("generation_tokens_total")] * (PATIENCE - 1)] * 3
    assert told(pages) == []


def test_old_and_new_names_of_the_same_are_told_once_and_count_once():
    page = 'vllm:kv_cache_usage_perc{model_name="m"} 0.5\nvllm:gpu_cache_usage_perc{model_name="m"} 0.4\n'
    found = told([page] * 4)
    assert [(one.kind, one.what) for one in found] == [("doubled", "vllm:gpu_cache_usage_perc")]


BOTH_NAMES = [
    ("kv_cache_usage_perc", "gpu_cache_usage_perc", "0.10.2", "0.12.0"),
    ("prefix_cache_queries_total", "gpu_prefix_cache_queries_total", "0.9.2", "0.12.0"),
    ("prefix_cache_hits_total", "gpu_prefix_cache_hits_total", "0.11.2", "0.12.0"),
    ("inter_token_latency_seconds_bucket", "time_per_output_token_seconds_bucket", "0.11.2", "0.15.0"),
]


@pytest.mark.parametrize(("new", "old", "has_both", "has_one"), BOTH_NAMES, ids=[one for _, one, _, _ in BOTH_NAMES])
def test_old_names_that_a_version_shows_beside_the_new_ones_by_itself_are_no_breach(
    new: str, old: str, has_both: str, has_one: str
):
    labels = 'model_name="m",le="+Inf"' if new.endswith("_bucket") else 'model_name="m"'
    page = 'vllm:num_requests_running{model_name="m"} 0\n'
    page += f"vllm:{new}{{{labels}}} 0\nvllm:{old}{{{labels}}} 0\n"
    family = f"vllm:{old}".removesuffix("_bucket")
    assert told([page] * 4, has_both) == []
    assert [(one.kind, one.what) for one in told([page] * 4, has_one)] == [("doubled", family)]
    assert [(one.kind, one.what) for one in told([page] * 4)] == [("doubled", family)], "whose version is not known"


def test_counters_beside_summaries_are_how_triton_tells():
    page = 'nv_inference_request_success{model="m",version="1"} 3\n'
    page += 'nv_inference_request_summary_us_count{model="m",version="1"} 3\n'
    assert told([page] * 3) == []


def test_a_unit_that_changed():
    percent = 'vllm:kv_cache_usage_perc{model_name="m"} 41.5\n'
    assert [(one.kind, one.what) for one in told([percent] * 3)] == [("unit", "kv_cache_usage_ratio")]
    blocks = 'vllm:prefix_cache_queries_total{model_name="m"} 10\nvllm:prefix_cache_hits_total{model_name="m"} 90\n'
    assert [(one.kind, one.what) for one in told([blocks] * 3)] == [("unit", "prefix_cache_hits_total")]
    mended = blocks.replace('total{model_name="m"} 10\n', 'total{model_name="m"} 100\n')
    assert [(one.kind, one.mended) for one in told([blocks, mended, mended])] == [("unit", False), ("unit", True)]
    full = 'vllm:kv_cache_usage_perc{model_name="m"} 1.0\n'
    assert told([full] * 3) == []


def test_a_ratio_that_was_above_1_is_judged_anew_when_the_server_was_started_again():
    page = 'process_start_time_seconds %d\nvllm:kv_cache_usage_perc{model_name="m"} %s\n'
    found = told([page % (100, 41.5), page % (100, 0.5), page % (200, 0.5), page % (200, 0.9), page % (300, 55)])
    assert [(one.what, one.mended) for one in found] == [
        ("kv_cache_usage_ratio", False),
        ("kv_cache_usage_ratio", True),
        ("kv_cache_usage_ratio", False),
    ]


def test_a_ratio_whose_unit_is_in_doubt_is_no_sample():
    sampler = Sampler(find_table("vllm"))
    page = 'process_start_time_seconds %d\nvllm:kv_cache_usage_perc{model_name="m"} %s\n'
    shown = []
    for began, value in ((100, 0.4), (100, 41.5), (100, 0.9), (200, 0.9)):
        (sample,) = sampler.sample(parse((page % (began, value)).encode())).samples
        shown.append(sample.gauges.get(Signal.KV_CACHE_USAGE_RATIO))
    assert shown == [0.4, None, None, 0.9], "0.9 beside 41.5 is per cent, or may be"


def test_families_that_went_are_over_once_they_stay_away():
    new = 'vllm:kv_cache_usage_perc{model_name="m"} 0.5\n'
    both = new + 'vllm:gpu_cache_usage_perc{model_name="m"} 0.4\nvllm:shiny{model_name="m"} 1\n'
    flickers = [both, *[new, both] * PATIENCE]
    assert sorted((one.kind, one.mended) for one in told(flickers)) == [("doubled", False), ("unknown", False)]
    found = told([both, *[new] * (2 * PATIENCE), both])
    assert sorted((one.kind, one.what) for one in found if one.mended) == [
        ("doubled", "vllm:gpu_cache_usage_perc"),
        ("unknown", "vllm:shiny"),
    ]
    assert len([one for one in found if not one.mended]) == 4, "told again when they are there again"


def test_a_signal_that_another_version_need_not_have_is_over():
    sampler, page = Sampler(detect(parse(WHOLE)), version="0.32.0"), parse(without("iteration_tokens_total"))
    found = [one for _ in range(PATIENCE) for one in sampler.sample(page).breaches]
    assert ("absent", "engine_steps_total") in [(one.kind, one.what) for one in found]
    sampler.contract.version = "0.6.3"
    assert ("absent", "engine_steps_total", True) in [
        (one.kind, one.what, one.mended) for one in sampler.sample(page).breaches
    ]


def moving(tokens: Callable[[int], int], seconds: Iterable[int]) -> list[str]:
    return [
        f'vllm:request_success_total{{model_name="m",finished_reason="stop"}} {second}\n'
        f'vllm:prompt_tokens_total{{model_name="m"}} {9 * second}\n'
        f'vllm:generation_tokens_total{{model_name="m"}} {tokens(second)}\n'
        for second in seconds
    ]


def test_a_counter_that_stands_still_while_requests_finish():
    found = told(moving(lambda second: min(second, 5) * 7 + max(0, second - 60) * 7, range(1, 70)))
    assert [(one.kind, one.what, one.mended) for one in found] == [
        ("frozen", "generation_tokens_total", False),
        ("frozen", "generation_tokens_total", True),
    ]
    assert told(moving(lambda _second: 0, range(1, 70))) == [], "an embedding server generates nothing"
    assert told(moving(lambda second: 7 * second, [1, 2, 3, *[3] * 60])) == [], "an idle server's counters all stand"


def waves(finished: Iterable[int], *, size: int, model: str = "m") -> list[str]:
    """Pages of a vLLM on which ``size`` requests began at once, and so had their prompts counted; some finished."""
    return [
        f'vllm:num_requests_running{{model_name="{model}"}} {max(0, size - done)}\n'
        f'vllm:num_requests_waiting{{model_name="{model}"}} 0\n'
        f'vllm:request_success_total{{model_name="{model}",finished_reason="stop"}} {1 + done}\n'
        f'vllm:prompt_tokens_total{{model_name="{model}"}} {90 + 9 * size}\n'
        for done in finished
    ]


def test_requests_that_began_together_move_no_prompt_tokens_as_they_end():
    before = 'vllm:request_success_total{model_name="m",finished_reason="stop"} 1\n'
    before += 'vllm:prompt_tokens_total{model_name="m"} 90\n'
    assert told([before, *waves(range(61), size=60)]) == []
    assert told([before, *waves([0, 64], size=64)]) == []
    (breach,) = told([before, *waves(range(0, 200, 5), size=60)])
    assert (breach.kind, breach.what) == ("frozen", "prompt_tokens_total"), "more than had begun"


def test_prompts_of_another_model_say_nothing_of_those_that_have_begun():
    busy, quiet = waves([0] * 5 + list(range(59)), size=58, model="busy"), waves([0] * 64, size=1, model="quiet")
    busy[0] = busy[0].replace(f" {90 + 9 * 58}\n", " 90\n")
    quiet[:4] = [page.replace(" 99\n", " 90\n") for page in quiet[:4]]
    assert told(map("".join, zip(busy, quiet, strict=True))) == []


ROUTER = """\
smg_router_request_duration_seconds_count{{model="m"}} {answered}
smg_router_request_errors_total{{model="m"}} {without}
smg_router_tokens_total{{model="m",token_type="input"}} {served}
smg_router_tokens_total{{model="m",token_type="output"}} {served}
"""
SGLANG = """\
sglang:num_requests_total{{model_name="m"}} {all}
sglang:num_aborted_requests_total{{model_name="m"}} {without}
sglang:prompt_tokens_total{{model_name="m"}} {served}
sglang:generation_tokens_total{{model_name="m"}} {served}
"""


@pytest.mark.parametrize(("text", "engine"), [(ROUTER, "sglang_router"), (SGLANG, "sglang")])
def test_requests_without_an_answer_need_not_move_tokens(text: str, engine: str):
    def page(served: int, *, without: int = 0, still: int = 0) -> str:
        return text.format(all=served + without + still, answered=served + still, without=without, served=served)

    moved = [page(second) for second in range(1, 6)]
    assert detect(parse(moved[0])).engine == engine
    assert told([*moved, *(page(5, without=3 * count) for count in range(40))]) == []
    found = told([*moved, *(page(5, still=count) for count in range(60))])
    assert [(one.kind, one.what) for one in found] == [
        ("frozen", "prompt_tokens_total"),
        ("frozen", "generation_tokens_total"),
    ]


def test_a_counter_that_came_again_has_to_move_again():
    pages = moving(lambda second: min(second, 5) * 7, range(1, 80))
    generation = 'vllm:generation_tokens_total{model_name="m"} 35\n'
    pages[20:23] = [page.replace(generation, "") for page in pages[20:23]]
    assert told(pages) == []


def test_families_that_come_and_go_for_ever_are_not_kept_for_ever():
    pages = [f'{WHOLE}vllm:brand_new_{number}_total{{model_name="m"}} 1\n' for number in range(300)]
    reader = PageReader()
    sampler = Sampler(detect(reader.read(pages[0].encode())))
    found = [one for page in pages for one in sampler.sample(reader.read(page.encode())).breaches]
    assert [sum(one.mended is over for one in found) for over in (False, True)] == [300, 300 - PATIENCE]
    assert len(sampler.contract._told) == len(sampler.contract._away) == PATIENCE


def test_of_a_page_that_grows_for_ever_not_all_is_kept():
    lines = [f'vllm:brand_new_{number}_total{{model_name="m"}} 1\n' for number in range(300)]
    reader = PageReader()
    sampler = Sampler(detect(reader.read(WHOLE.encode())))
    found = []
    for number in range(300):
        text = "".join(reversed(lines[: number + 1])) + WHOLE
        found += sampler.sample(reader.read(text.encode())).breaches
    assert len(found) == 300
    assert len(sampler.contract._told) == 256
    assert sampler.sample(reader.read(text.encode())).breaches == ()


def test_models_of_a_server_that_unloads_them_are_over_and_not_gone():
    loaded = 'nv_inference_request_success{model="m",version="1"} 3\nnv_pinned_memory_pool_used_bytes 1\n'
    assert told([loaded, *["nv_pinned_memory_pool_used_bytes 1\n"] * (2 * PATIENCE)]) == []


@pytest.mark.parametrize(
    ("text", "version"), [("0.11.2rc1", (0, 11)), ("v1.2", (1, 2)), ("b11549", (11549,)), ("", ()), ("dev", ())]
)
def test_versions(text: str, version: tuple[int, ...]):
    assert version_of(text) == version


def test_a_page_without_a_word_of_ours_has_no_contract():
    assert told([WHOLE, *["# nothing\n"] * 30]) == []
    assert Sampler(detect(parse(WHOLE))).sample(parse(WHOLE)).breaches == ()
