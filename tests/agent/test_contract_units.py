"""Seconds that a page tells in another unit, all of them at once, are longer than requests can have taken."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from agent.engine_table import find_table
from agent.pages.page import parse
from agent.pages.samples import Sampler

if TYPE_CHECKING:
    from collections.abc import Iterable

    from agent.pages.contract import Breach

UNIT = ("unit", "request_seconds_total")


def vllm(running: int, finished: int, seconds: float, began: float = 100.0) -> str:
    labels = 'engine="0",model_name="m"'
    return "".join(
        f"{line}\n"
        for line in (
            f"process_start_time_seconds {began}",
            f"vllm:num_requests_running{{{labels}}} {running}",
            f"vllm:num_requests_waiting{{{labels}}} 0",
            f'vllm:request_success_total{{{labels},finished_reason="stop"}} {finished}',
            f"vllm:e2e_request_latency_seconds_sum{{{labels}}} {seconds}",
        )
    )


def judged(pages: Iterable[tuple[float, str]]) -> list[Breach]:
    sampler = Sampler(find_table("vllm"))
    found = [one for at, text in pages for one in sampler.sample(parse(text.encode()), at).breaches]
    return [one for one in found if (one.kind, one.what) == UNIT]


@pytest.mark.parametrize(("unit", "breaches"), [(1.0, 0), (1_000.0, 1), (1e6, 1)])
def test_requests_that_took_longer_than_there_was_time_have_another_unit(unit: float, breaches: int):
    # Ten requests of half a second each, ten seconds after the last one had ended.
    pages = [
        (0.0, vllm(1, 100, 50.0 * unit)),
        (1.0, vllm(0, 101, 50.5 * unit)),
        (10.0, vllm(3, 101, 50.5 * unit)),
        (11.0, vllm(0, 111, 55.5 * unit)),
        (12.0, vllm(0, 121, 60.5 * unit)),
    ]
    found = judged(pages)
    assert len(found) == breaches
    if found:
        assert "since the server was idle: the page may tell another unit" in found[0].message


def test_a_core_that_stood_still_looked_idle_and_is_not_blamed():
    pages = [(0.0, vllm(1, 100, 50.0)), (1.0, vllm(0, 101, 50.5))]
    pages += [(float(second), vllm(0, 101, 50.5)) for second in range(2, 90)]  # requests wait in front of it
    pages += [(90.0, vllm(0, 141, 50.5 + 40 * 88))]
    assert judged(pages) == []


def test_a_page_that_is_first_seen_is_measured_by_what_comes_after():
    assert judged([(0.0, vllm(0, 1_000, 1e9)), (1.0, vllm(0, 1_000, 1e9)), (2.0, vllm(0, 1_010, 1e9 + 5))]) == []


def test_few_requests_prove_nothing_and_a_restart_is_judged_anew():
    pages = [(0.0, vllm(1, 100, 50.0)), (1.0, vllm(0, 101, 50.5))]
    assert judged([*pages, (2.0, vllm(0, 104, 5_000.0))]) == []
    told = judged([*pages, (2.0, vllm(0, 111, 9_000.0)), (60.0, vllm(0, 0, 0.0, began=159.0)),
                   (61.0, vllm(0, 1, 0.5, began=159.0))])  # fmt: skip
    assert [one.mended for one in told] == [False, True]
