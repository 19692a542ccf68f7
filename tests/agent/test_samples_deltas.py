from __future__ import annotations

import gzip
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.engine_table import find_table
from agent.pages.page import Page, PageReader, parse
from agent.pages.samples import Key, Sampler, Scrape
from base.vocabulary import Distribution, Signal

FIXTURES = Path(__file__).parents[1] / "fixtures"


def vllm_page(name: str) -> bytes:
    return gzip.decompress((FIXTURES / f"vllm/metrics_{name}.txt.gz").read_bytes())


def scrapes(*pages: str, engine: str = "vllm") -> list[Scrape]:
    reader, sampler = PageReader(), Sampler(find_table(engine))
    return [sampler.sample(reader.read(page.encode())) for page in pages]


def tokens(value: float, *, rank: str = "0", start: int = 100) -> str:
    return (
        f'process_start_time_seconds {start}\nvllm:generation_tokens_total{{engine="{rank}",model_name="m"}} {value}\n'
    )


def gained(scrape: Scrape) -> float | None:
    return scrape.samples[0].deltas.get(Signal.GENERATION_TOKENS_TOTAL)


def test_first_sight_has_totals_and_no_increase():
    (first,) = scrapes(tokens(7))
    assert first.samples[0].totals == {Signal.GENERATION_TOKENS_TOTAL: 7}
    assert first.samples[0].deltas == {}
    assert not first.restarted


def test_increase_since_the_last_page():
    _, second, third = scrapes(tokens(7), tokens(10), tokens(10))
    assert (gained(second), gained(third)) == (3, 0)


def test_a_counter_that_fell_began_again_at_zero():
    _, second, third = scrapes(tokens(100), tokens(4), tokens(9))
    assert (gained(second), second.restarted) == (4, True)
    assert (gained(third), third.restarted) == (5, False)


def test_a_new_start_time_is_a_restart_even_where_the_counter_overtook_its_old_value():
    _, second = scrapes(tokens(5), tokens(50, start=200))
    assert (gained(second), second.restarted) == (50, True)


def test_one_model_loaded_anew_is_no_restart_of_the_server():
    before = 'nv_inference_count{model="a",version="1"} 9\nnv_inference_count{model="b",version="1"} 5\n'
    after = 'nv_inference_count{model="a",version="1"} 1\nnv_inference_count{model="b",version="1"} 6\n'
    _, second = scrapes(before, after, engine="triton")
    assert not second.restarted
    assert [one.deltas[Signal.INFERENCES_TOTAL] for one in second.samples] == [1, 1]


def test_each_model_and_rank_is_a_sample_of_its_own():
    (scrape,) = scrapes(tokens(7) + tokens(8, rank="1"))
    assert [one.key for one in scrape.samples] == [Key("m", "0"), Key("m", "1")]


def test_increases_go_on_when_series_come():
    _, second = scrapes(tokens(7), tokens(9) + 'vllm:num_requests_running{engine="0",model_name="m"} 2\n')
    assert second.layout_changed
    assert gained(second) == 2


@pytest.mark.parametrize("missing", [float("nan"), float("inf"), -1.0])
def test_a_gap_in_a_counter_is_bridged(missing: float):
    """Servers write -1 for what they do not know, of counters too."""
    _, middle, last = scrapes(tokens(7), tokens(missing), tokens(12))
    assert gained(middle) is None
    assert not middle.restarted
    assert middle.samples[0].totals == {}
    assert gained(last) == 5


def test_reasons_are_added_up():
    def finished(stop: int, error: int) -> str:
        return "".join(
            f'vllm:request_success_total{{engine="0",finished_reason="{reason}",model_name="m"}} {value}\n'
            for reason, value in (("stop", stop), ("error", error))
        )

    _, second = scrapes(finished(1, 0), finished(4, 2))
    assert second.samples[0].deltas == {
        Signal.REQUESTS_FINISHED_TOTAL: 5, Signal.REQUESTS_FAILED_TOTAL: 2,
        Signal.FINISHED_STOP_TOTAL: 3, Signal.FINISHED_ERROR_TOTAL: 2,
    }  # fmt: skip


def test_an_older_page_without_the_reason_error_has_no_failures_rather_than_none():
    (scrape,) = scrapes('vllm:request_success_total{finished_reason="stop",model_name="m"} 3\n')
    assert scrape.samples[0].totals == {Signal.REQUESTS_FINISHED_TOTAL: 3, Signal.FINISHED_STOP_TOTAL: 3}


@settings(max_examples=100, deadline=None)
@given(st.lists(st.lists(st.integers(0, 50), min_size=1, max_size=6), min_size=1, max_size=4))
def test_increases_add_up_to_all_that_was_counted_over_restarts(lives: list[list[int]]):
    pages, expected = [], 0
    for life, steps in enumerate(lives):
        value = 0
        for step in steps:
            value += step
            pages.append(tokens(value, start=life))
        expected += value
    expected -= lives[0][0]  # what had been counted before the first look
    assert sum(gained(scrape) or 0 for scrape in scrapes(*pages)) == expected


def test_recorded_histograms_gain_what_their_counts_gained():
    reader, sampler = PageReader(), Sampler(find_table("vllm"))
    pages = [reader.read(vllm_page(name)) for name in ("busy_02", "busy_04", "after")]
    runs = [sampler.sample(page) for page in pages]
    assert runs[0].samples[0].histograms == ()

    def value(page: Page, name: str) -> float:
        (found,) = [one.value for one in page.samples() if one.name == name]
        return found

    for before, after, run in zip(pages, pages[1:], runs[1:], strict=False):
        increases = {one.distribution: one for one in run.samples[0].histograms}
        for distribution, name in {
            Distribution.TTFT_SECONDS: "vllm:time_to_first_token_seconds",
            Distribution.ITL_SECONDS: "vllm:inter_token_latency_seconds",
            Distribution.E2E_SECONDS: "vllm:e2e_request_latency_seconds",
            Distribution.BATCH_TOKENS: "vllm:iteration_tokens_total",
        }.items():
            count = value(after, f"{name}_count") - value(before, f"{name}_count")
            if count == 0:
                assert distribution not in increases
                continue
            one = increases[distribution]
            assert one.count == sum(one.counts) == count
            assert one.total == value(after, f"{name}_sum") - value(before, f"{name}_sum")
            assert len(one.counts) == len(one.bounds) + 1
            assert list(one.bounds) == sorted(one.bounds)


def buckets(low: float, high: float, total: float = 1.0) -> str:
    name, labels = "vllm:time_to_first_token_seconds", 'engine="0",model_name="m"'
    return (
        f'{name}_bucket{{le="0.1",{labels}}} {low}\n{name}_bucket{{le="+Inf",{labels}}} {high}\n'
        f"{name}_sum{{{labels}}} {total}\n{name}_count{{{labels}}} {high}\n"
    )


def test_buckets_are_per_bucket_and_survive_a_restart():
    _, second, third = scrapes(buckets(2, 5), buckets(3, 8, 2.5), buckets(1, 1, 0.5))
    (one,) = second.samples[0].histograms
    assert (one.counts, one.count, one.total) == ((1, 2), 3, 1.5)
    (one,) = third.samples[0].histograms
    assert (one.counts, one.count, one.total) == ((1, 0), 1, 0.5)


def test_a_page_written_while_requests_finish_gives_no_negative_bucket():
    _, second = scrapes(buckets(2, 5), buckets(4, 6))
    (one,) = second.samples[0].histograms
    assert one.counts == (2, 0)
    assert one.count == sum(one.counts)


def test_a_new_process_has_all_its_buckets_gained_since():
    _, second = scrapes(
        "process_start_time_seconds 1\n" + buckets(2, 5), "process_start_time_seconds 2\n" + buckets(3, 9)
    )
    (one,) = second.samples[0].histograms
    assert one.counts == (3, 6)


def test_a_page_without_a_models_name_takes_the_given_one():
    sampler = Sampler(find_table("llamacpp"), model="tiny")
    (sample,) = sampler.sample(parse("llamacpp:requests_processing 1\n")).samples
    assert sample.key == Key("tiny", "")
