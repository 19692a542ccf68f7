"""Causes by metrics pages alone: simulated servers (not recorded) whose requests nobody saw one by one."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from analytics.causes.account import account_of
from analytics.causes.cohorts import cohorts
from analytics.causes.evidence import causes_of
from analytics.causes.table import PHASE, Evidence, measured, requests_of
from analytics.questions import causes
from analytics.selection import Filter, Selection
from analytics.window import Window
from tests.analytics.test_causes_simulated import PLANTED, SINCE, UNTIL, check
from tests.analytics.test_causes_triton import batched, served
from tests.kits.causes_pages import by_pages, pages
from tests.kits.causes_sim import ORIGIN_MS, Server, evidence, steady

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from analytics.causes.account import Account
    from analytics.causes.evidence import Cause
    from tests.kits.causes_sim import Ask

FROM_MS, TO_MS = ORIGIN_MS + int(SINCE * 1000), ORIGIN_MS + int(UNTIL * 1000)


def rows_of(
    seed: int,
    extra: Callable[[random.Random], list[Ask]] = lambda _: [],
    names: tuple[str, ...] = ("sim-0",),
    special: dict[str, dict[str, Any]] | None = None,
    **server: Any,
) -> Evidence:
    chance = random.Random(seed)
    servers, asks = [], []
    for place, name in enumerate(names):
        one = Server(name, **(server | (special or {}).get(name, {})))
        mine = steady(chance, UNTIL, 8.0, name) + (extra(chance) if not place else [])
        one.serve(mine, UNTIL, chance)
        servers.append(one)
        asks += mine
    return evidence(servers, asks, SINCE)


def told(found: Evidence, **options: Any) -> tuple[Account, list[Cause]]:
    account = account_of(by_pages(found, ORIGIN_MS, FROM_MS, TO_MS, **options))
    return account, causes_of(account, account.asked)


@pytest.mark.parametrize("name", [name for name in PLANTED if name not in {"new version", "slow readers"}])
def test_a_planted_fault_comes_first_with_where_it_was(name: str):
    options, cause, who = PLANTED[name]
    account, found = told(rows_of(11, **options))
    assert found[0].cause == cause, [(one.cause, one.share) for one in found]
    assert found[0].share > 0.45
    assert {key: value for key, value in who.items() if key != "tenant"}.items() <= found[0].who.items()
    assert "tenant" not in found[0].who
    check(account, found)


def test_what_no_page_shows_is_not_claimed():
    _, found = told(rows_of(11, **PLANTED["slow readers"][0]))
    assert found == []


@pytest.mark.parametrize("seconds", [True, False])
def test_quiet_windows_claim_nothing(seconds: bool):
    for seed in range(6):
        account, found = told(rows_of(100 + seed, noise=0.05 + 0.1 * (seed % 4)), seconds=seconds)
        assert found == []
        expected = account.reference.expected[account.asked].sum()
        assert abs(account.ledger.excess[account.asked].sum()) < 0.3 * expected


@pytest.mark.parametrize("name", ["kv", "batch", "flood", "slow replica"])
def test_where_a_page_tells_no_phases_the_first_token_parts_them(name: str):
    options, cause, _ = PLANTED[name]
    _, found = told(rows_of(11, **options), split=False)
    assert found[0].cause == cause
    assert found[0].phase in {"queue", "prefill", "decode"}


@pytest.mark.parametrize("name", ["kv", "places", "frozen", "slow replica"])
def test_without_seconds_on_the_page_littles_law_gives_them(name: str):
    options, cause, _ = PLANTED[name]
    _, found = told(rows_of(11, **options), seconds=False)
    assert found[0].cause == cause


def triton(rows: list[dict[str, Any]]) -> list[Cause]:
    columns = {name: [row[name] for row in rows] for name in rows[0]} | {"key": list(range(len(rows)))}
    return told(Evidence(requests_of(columns, ORIGIN_MS, FROM_MS)))[1]


def test_a_model_that_sleeps_and_one_that_is_asked_too_much_are_told_apart():
    assert triton(served(lambda _: 8.0, lambda t: 0.1 if t > 70 else 0.01))[0].cause == "model_slow"
    flooded = served(lambda t: 70.0 if 70 < t < 95 else 5.0, lambda _: 0.02)
    saturated = triton(batched(flooded))[0]
    assert saturated.cause == "queue_saturated"
    assert "instance_group" in saturated.advice
    assert "max-num-seqs" not in saturated.advice  # another engine's word
    assert triton(served(lambda _: 8.0, lambda _: 0.02)) == []


def test_requests_sum_to_what_the_pages_say():
    requests = rows_of(3).requests
    row = pages(requests, ORIGIN_MS)
    made = cohorts(row, ORIGIN_MS - 60_000, FROM_MS, TO_MS + 600_000, 400_000)
    assert len(made) == sum(row["n"])
    assert made.e2e.sum() == pytest.approx(sum(row["e2e_s"]))
    for name in ("queue", "prefill", "decode"):
        assert made.phases[:, PHASE[name]].sum() == pytest.approx(sum(row[f"{name}_s"]))
    assert np.allclose(made.phases.sum(axis=1), made.e2e)
    assert made.output.sum() == pytest.approx(requests.output.sum())
    assert (np.diff(made.start) >= 0).all()
    few = cohorts(row, ORIGIN_MS - 60_000, FROM_MS, TO_MS + 600_000, 100)
    assert 50 <= len(few) <= 110
    assert few.scale * len(few) == pytest.approx(len(made), rel=0.05)
    assert few.scale * few.e2e.sum() == pytest.approx(made.e2e.sum(), rel=0.2)


figures = st.one_of(st.just(float("nan")), st.floats(0, 1e6), st.just(-1.0), st.just(1e-309))


@st.composite
def any_pages(draw: Any) -> dict[str, list[Any]]:
    size = draw(st.integers(0, 12))
    names = [name for name in pages(rows_of_one(), ORIGIN_MS) if name not in {"instance", "model", "version", "at_ms"}]
    row: dict[str, list[Any]] = {name: [draw(figures) for _ in range(size)] for name in names}
    row["at_ms"] = [ORIGIN_MS + draw(st.integers(0, 100)) * 1000 for _ in range(size)]
    row["interval"] = [draw(st.floats(0, 60)) for _ in range(size)]
    row["n"] = [draw(st.one_of(figures, st.integers(0, 50))) for _ in range(size)]
    for name in ("instance", "model", "version", "deployment", "engine"):
        row[name] = [draw(st.sampled_from(["a", "b", ""])) for _ in range(size)]
    return row


_ONE: list[Any] = []


def rows_of_one() -> Any:
    if not _ONE:
        _ONE.append(rows_of(1).requests)
    return _ONE[0]


@settings(max_examples=60, deadline=None)
@given(any_pages())
def test_whatever_pages_say_makes_whole_requests(row: dict[str, list[Any]]):
    made = cohorts(row, ORIGIN_MS, FROM_MS, TO_MS, 200)
    assert len(made) <= 250
    assert np.isfinite(made.e2e).all()
    assert np.isfinite(made.phases).all()
    assert (made.phases >= 0).all()
    assert np.allclose(made.phases.sum(axis=1), made.e2e, atol=1e-6, rtol=1e-6)
    assert (made.start >= 0).all()
    assert np.isfinite(made.prompt + made.cached + made.output).all()
    account = account_of(Evidence(made))
    causes_of(account, account.asked)


def test_seconds_below_what_a_clock_tells_are_none():
    assert list(measured(np.array([5e-324, 1e-309, 9e-10, 1e-9, 0.0, 2.0]))) == [0, 0, 0, 1e-9, 0, 2]


def written(now: float, seconds: int, full_from: int) -> Iterator[tuple[list[dict[str, Any]], list[dict[str, Any]]]]:
    """Samples and histograms of a vLLM whose KV cache is full from a second on."""
    where = {"instance": "vllm-9", "deployment": "pages", "engine": "vllm", "model": "m", "dp_rank": "0"}
    for second in range(seconds):
        at, full = datetime.fromtimestamp(now - seconds + second, UTC), second >= full_from
        queue = (4.0 + second % 5 / 10) * 2 if full else 0.02
        decode = (0.4 + second % 7 / 50) * 2
        sample = where | {
            "time": at, "up": 1, "interval_seconds": 1.0, "running": 9.0 if full else 1.0,
            "waiting": 30.0 if full else 0.0, "kv_cache_usage_ratio": 0.99 if full else 0.2,
            "preemptions_delta": 2.0 if full else 0.0, "generation_tokens_delta": 40.0, "prompt_tokens_delta": 200.0,
            "requests_finished_delta": 2.0, "request_seconds_delta": queue + decode + 0.1,
            "queue_seconds_delta": queue, "prefill_seconds_delta": 0.1, "decode_seconds_delta": decode,
        }  # fmt: skip
        histograms = [
            where | {"time": at, "signal": signal, "count": 2, "sum": total, "bounds": [1.0], "counts": [0, 2]}
            for signal, total in (("e2e_seconds", 1.0), ("prompt_tokens", 200.0), ("completion_tokens", 40.0))
        ]
        yield [sample], histograms


def test_a_store_with_pages_alone_is_asked_by_the_contract(lab: Any):
    samples: list[dict[str, Any]] = []
    histograms: list[dict[str, Any]] = []
    for some, others in written((lab.start - timedelta(days=13)).timestamp(), 1500, 1300):
        samples += some
        histograms += others
    lab.owner.insert("engine_samples", samples)
    lab.owner.insert("engine_histograms", histograms)
    end = samples[-1]["time"]
    window = Window(end - timedelta(seconds=200), end)
    here = Filter(instance=("vllm-9",))
    answer = causes.ask(lab.store, Selection(window, here))
    assert answer.level == "metrics"
    told = answer.result
    assert told.requests == pytest.approx(400, abs=20)
    first = told.causes[0]
    assert (first.cause, first.who) == ("kv_cache_full", {"instance": "vllm-9"})
    assert sum(one.seconds for one in told.causes) + told.unexplained_seconds == pytest.approx(told.excess_seconds)
    assert told.reference[0].output_tokens == pytest.approx(20)
    quiet = Window(end - timedelta(seconds=600), end - timedelta(seconds=300))
    assert causes.ask(lab.store, Selection(quiet, here)).result.causes == []
    nobody = causes.ask(lab.store, Selection(window, Filter(instance=("vllm-9",), tenant=("acme",))))
    assert nobody.result.requests == 0
    assert causes.ask(lab.store, Selection(lab.window)).level == "rows"
