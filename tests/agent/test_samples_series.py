"""Series that come, go, begin anew, are there twice or under another name: increases are of series, not of sums."""

from __future__ import annotations

from itertools import count

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.engine_table import About
from agent.pages.page import parse
from agent.pages.probe import describe
from agent.pages.samples import Key
from base.vocabulary import Distribution, Signal
from tests.kits.scrapes import FINISHED, gained, scrapes


def versions(**finished: float) -> str:
    return "".join(
        f'nv_inference_request_success{{model="reader",version="{name[1:]}"}} {value}\n'
        for name, value in finished.items()
    )


def models(**finished: float) -> str:
    return "".join(
        f'nv_inference_request_success{{model="{name}",version="1"}} {value}\n' for name, value in finished.items()
    )


@pytest.mark.parametrize(
    ("pages", "increases"),
    [
        ([versions(v1=5000, v2=400), versions(v2=403), versions(v2=405, v3=1)], [3, 3]),
        ([versions(v1=5000), versions(v2=4), versions(v2=9)], [4, 5]),
        ([versions(v1=5000), versions(v1=5002, v2=7), versions(v2=7)], [9, 0]),
        ([models(a=100, b=7), models(b=9), models(a=3, b=9)], [2, 3]),
        ([models(a=100, b=7), models(b=9), models(a=130, b=9)], [2, 130]),
        ([models(a=100, b=7), models(a=2, b=8), models(a=2, b=8)], [3, 0]),
        ([models(a=0, b=7), models(b=7, c=2), models(a=1, c=2)], [2, 1]),
    ],
    ids=["version-goes", "version-for-version", "overlap", "unloaded-and-loaded", "busy-when-seen-again",
         "loaded-anew-between-two-pages", "models-come-and-go"],
)  # fmt: skip
def test_a_model_that_comes_or_goes_neither_adds_nor_takes(pages: list[str], increases: list[float]):
    first, *others = scrapes(*pages)
    assert gained(first) is None
    assert [gained(one) for one in others] == increases
    assert not any(one.restarted for one in others)


def test_a_server_whose_models_all_begin_anew_was_restarted():
    _, second, third = scrapes(models(a=100, b=7), models(a=2, b=0), models(a=2, b=1))
    assert (second.restarted, gained(second)) == (True, 2)
    assert (third.restarted, gained(third)) == (False, 1)


def test_a_series_that_is_missing_after_a_restart_began_at_zero_too():
    def page(start: int, **reasons: int) -> str:
        lines = [
            f'vllm:request_success_total{{engine="0",finished_reason="{reason}",model_name="m"}} {value}\n'
            for reason, value in reasons.items()
        ]
        return f"process_start_time_seconds {start}\n{''.join(lines)}"

    runs = scrapes(page(1, stop=50, length=3), page(2, stop=60), page(2, stop=60, length=9), engine="vllm")
    assert [gained(one) for one in runs] == [None, 60, 9]
    assert [one.restarted for one in runs] == [False, True, False]


def ranks(*tokens: float | None, start: int | None = 100) -> str:
    return (f"process_start_time_seconds {start}\n" if start else "") + "".join(
        f'vllm:generation_tokens_total{{engine="{rank}",model_name="m"}} {value}\n'
        for rank, value in enumerate(tokens)
        if value is not None
    )


@pytest.mark.parametrize("start", [100, None])
@pytest.mark.parametrize(
    ("pages", "increases"),
    [
        ([(10, 20), (12, 3)], [5]),
        ([(10, 20), (12, None), (13, 22)], [2, 3]),
        ([(10, None), (12, 5)], [7]),
        ([(10, 20), (12, None), (13, 4)], [2, 5]),
    ],
    ids=["one-begins-anew", "one-is-missing-once", "one-comes", "one-goes-and-begins-anew"],
)
def test_a_rank_that_begins_anew_comes_or_goes(
    pages: list[tuple[float | None, ...]], increases: list[float], start: int | None
):
    first, *others = scrapes(*(ranks(*page, start=start) for page in pages), engine="vllm")
    assert gained(first, Signal.GENERATION_TOKENS_TOTAL) is None
    assert [gained(one, Signal.GENERATION_TOKENS_TOTAL) for one in others] == increases
    assert not any(one.restarted for one in others)


def test_a_rank_that_begins_anew_beside_an_idle_one_is_no_restart_of_a_process_that_goes_on():
    _, second = scrapes(ranks(10, 0), ranks(2, 0), engine="vllm")
    assert not second.restarted
    assert gained(second, Signal.GENERATION_TOKENS_TOTAL) == 2


def test_a_series_that_a_malformed_line_hides_for_once_is_not_gone():
    torn = models(a=101).replace("101", "1x1")
    *_, last = scrapes(models(a=100, b=7), torn + models(b=7), models(a=102, b=7))
    assert gained(last) == 2


def test_one_of_several_processes_that_began_anew_is_no_restart():
    def page(first: int, second: int) -> str:
        starts = f'process_start_time_seconds{{pid="1"}} {first}\nprocess_start_time_seconds{{pid="2"}} {second}\n'
        return starts + ranks(5, 5, start=None)

    _, one, both = scrapes(page(1, 2), page(1, 3), page(4, 5), engine="vllm")
    assert (one.restarted, both.restarted) == (False, True)


def test_a_missing_value_of_one_series_leaves_the_total_absent_and_loses_nothing():
    _, middle, last = scrapes(models(a=1) + versions(v1=1), models(a=float("nan")) + versions(v1=3), models(a=5))
    assert [sorted(one.totals) for one in middle.samples] == [[], [FINISHED]]
    assert gained(middle) == 2
    _, middle, last = scrapes(*(versions(v1=one, v2=two) for one, two in [(1, 1), (float("nan"), 2), (4, 2)]))
    assert middle.samples[0].totals == {}
    assert (gained(middle), gained(last)) == (1, 3)


@settings(max_examples=200, deadline=None)
@given(
    st.lists(
        st.dictionaries(st.sampled_from("abcd"), st.integers(0, 9), min_size=0, max_size=4), min_size=2, max_size=8
    )
)
def test_increases_add_up_to_what_every_model_counted_while_it_was_loaded(turns: list[dict[str, int]]):
    """Each turn says which models are loaded and how many requests each finished since the last turn."""
    counters: dict[str, int] = {}
    pages = ["nv_cpu_utilization 1\n" + models(witness=1)]
    expected = 0
    for turn in turns:
        counters = {name: counters.get(name, 0) + more for name, more in turn.items()}
        expected += sum(turn.values())
        pages.append("nv_cpu_utilization 1\n" + models(witness=1, **counters))
    runs = scrapes(*pages)
    assert sum(gained(one) or 0 for one in runs) == expected
    assert not any(one.restarted for one in runs)


def workers(prefix: str, low: int, high: int, names: tuple[str, ...] = ("w1", "w2"), le: str = "0.5") -> str:
    lines = []
    for number, name in zip(count(), names):
        labels = f'Component="core_worker",Version="2.32.0",model_name="big",WorkerId="{name}"'
        buckets = f"{prefix}time_to_first_token_seconds"
        lines += [
            f"{prefix}num_requests_running{{{labels}}} {2 + number}",
            f"{prefix}gpu_cache_usage_perc{{{labels}}} 0.{2 + number}",
            f"{prefix}prompt_tokens_total{{{labels}}} {58 if number == 0 else 42}",
            f'{buckets}_bucket{{{labels},le="{le if number else "0.5"}"}} {low}',
            f'{buckets}_bucket{{{labels},le="2.0"}} {high}',
            f'{buckets}_bucket{{{labels},le="+Inf"}} {high}',
            f"{buckets}_count{{{labels}}} {high}",
            f"{buckets}_sum{{{labels}}} {high / 2}",
        ]
    return "\n".join(lines) + "\n"


@pytest.mark.parametrize("prefix", ["ray_vllm:", "ray_vllm_", "vllm:"])
def test_vllm_under_ray_is_vllm_whose_workers_are_added_up(prefix: str):
    page = parse(workers(prefix, 3, 4) + "ray_node_cpu_utilization 0.5\n")
    found = describe(page, About())
    assert (found["engine"], found["models"]) == ("vllm", ["big"])
    assert {name: found["signals"][name] for name in ("running", "kv_cache_usage_ratio", "prompt_tokens_total")} == {
        "running": 5,
        "kv_cache_usage_ratio": 0.3,
        "prompt_tokens_total": 100,
    }
    assert found["unmapped"] == []
    assert any("2 workers" in note for note in found["notes"])


@pytest.mark.parametrize("prefix", ["ray_vllm:", "ray_vllm_", "vllm:"])
def test_histograms_of_several_workers_are_added_up_bucket_by_bucket(prefix: str):
    pages = [workers(prefix, 3, 4), workers(prefix, 4, 7), workers(prefix, 1, 2, ("w2", "w3"))]
    _, second, third = scrapes(*pages, engine="vllm")
    (sample,) = second.samples
    (increase,) = sample.histograms
    assert (increase.distribution, increase.bounds) == (Distribution.TTFT_SECONDS, (0.5, 2.0))
    assert (increase.counts, increase.count, increase.total) == ((2, 4, 0), 6, 3.0)
    # w1 is gone, w2 began anew, w3 is new: each has what it shows.
    assert third.samples[0].histograms[0].counts == (2, 2, 0)


def test_histograms_with_other_bounds_meet_at_those_that_all_have():
    pages = [workers("vllm:", 0, 0, le="1.0"), workers("vllm:", 3, 5, le="1.0")]
    _, second = scrapes(*pages, engine="vllm")
    (increase,) = second.samples[0].histograms
    assert (increase.bounds, increase.counts) == ((2.0,), (10, 0))


def test_a_page_that_has_both_spellings_counts_once():
    (scrape,) = scrapes(workers("ray_vllm:", 1, 2) + workers("vllm:", 1, 2), engine="vllm")
    assert scrape.samples[0].totals[Signal.PROMPT_TOKENS_TOTAL] == 100
    assert scrape.samples[0].gauges[Signal.RUNNING] == 5


TWICE = """\
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0",model_name="x"} 2
vllm:num_requests_running{model_name="x",engine="0"} 2
vllm:prompt_tokens_total{engine="0",model_name="x"} 100
vllm:prompt_tokens_total{engine="0",model_name="x"} 100
# TYPE vllm:time_to_first_token_seconds histogram
vllm:time_to_first_token_seconds_bucket{engine="0",le="1.0",model_name="x"} 3
vllm:time_to_first_token_seconds_bucket{engine="0",le="+Inf",model_name="x"} 4
vllm:time_to_first_token_seconds_bucket{le="+Inf",engine="0",model_name="x"} 4
vllm:time_to_first_token_seconds_count{engine="0",model_name="x"} 4
vllm:time_to_first_token_seconds_count{engine="0",model_name="x"} 4
vllm:time_to_first_token_seconds_sum{engine="0",model_name="x"} 5
vllm:time_to_first_token_seconds_sum{engine="0",model_name="x"} 5
"""


def test_what_a_page_has_twice_is_counted_once_and_told():
    found = describe(parse(TWICE), About())
    assert found["signals"]["running"] == 2
    assert found["signals"]["prompt_tokens_total"] == 100
    assert any("5 repeat a series" in note and "line 3" in note for note in found["notes"])
    later = TWICE.replace("} 4\n", "} 6\n").replace("} 100", "} 130")
    _, second = scrapes(TWICE, later, engine="vllm")
    assert gained(second, Signal.PROMPT_TOKENS_TOTAL) == 30
    assert second.samples[0].histograms[0].count == 2


@settings(max_examples=100, deadline=None)
@given(st.lists(st.permutations(TWICE.splitlines()), min_size=2, max_size=4), st.lists(st.integers(0, 50), min_size=4))
def test_the_order_of_lines_and_their_repeats_change_nothing(orders: list[list[str]], steps: list[int]):
    value, pages = 100, []
    for order, step in zip(orders, steps, strict=False):
        value += step
        pages.append("\n".join(order).replace("} 100", f"}} {value}").replace("} 4", f"}} {value}") + "\n")
    runs = scrapes(*pages, engine="vllm")
    gains = [gained(one, Signal.PROMPT_TOKENS_TOTAL) for one in runs]
    assert gains == [None, *steps[1 : len(runs)]]
    counted = [sum(one.count for one in run.samples[0].histograms) for run in runs]
    assert counted == [0, *steps[1 : len(runs)]]
    assert all(run.samples[0].gauges[Signal.RUNNING] == 2 for run in runs)


def test_a_model_that_a_router_swaps_out_and_in_begins_anew():
    def page(**tokens: int) -> str:
        return "".join(f'llamacpp:tokens_predicted_total{{model="{name}"}} {value}\n' for name, value in tokens.items())

    runs = scrapes(page(a=100, b=5), page(b=6), page(a=130, b=6), engine="llamacpp")
    assert [gained(one, Signal.GENERATION_TOKENS_TOTAL) for one in runs] == [None, 1, 130]


def test_a_metric_that_takes_over_from_an_older_name_brings_no_past():
    old = 'vllm:gpu_prefix_cache_hits_total{model_name="m"} 900\n' + ranks(5)
    new = 'vllm:prefix_cache_hits_total{model_name="m"} 901\n'
    runs = scrapes(old, old + new, old + new.replace("901", "904"), engine="vllm")
    assert [gained(one, Signal.PREFIX_CACHE_HITS_TOTAL) for one in runs] == [None, None, 3]


def test_names_and_their_number_are_bounded():
    page = "".join(f'llamacpp:prompt_tokens_total{{model="{number}{"m" * 5_000}"}} 1\n' for number in range(400))
    (scrape,) = scrapes(page, engine="llamacpp")
    assert len(scrape.samples) == 251
    assert max(len(one.key.model) for one in scrape.samples) == 256
    assert scrape.samples[-1].key == Key("other", "")
    assert scrape.samples[-1].totals == {Signal.PROMPT_TOKENS_TOTAL: 150}
