"""Parts of the account by themselves: who is told apart, how long a sample holds, which process is followed."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest

from analytics.causes.account import account_of
from analytics.causes.evidence import causes_of, failures_of
from analytics.causes.grid import Bins
from analytics.causes.load import _hosts_of, _step_ms
from analytics.causes.phases import TENANTS
from analytics.causes.place import places_of
from analytics.causes.table import Evidence, requests_of
from tests.analytics.test_causes_triton import served, told
from tests.kits.causes_sim import ORIGIN_MS, PHASES


def rows_of(tenant: str, count: int, prompt: int) -> list[dict[str, Any]]:
    seconds = dict.fromkeys((f"{name}_s" for name in PHASES), 0.0) | {"decode_s": 1.0}
    return [
        {
            **seconds, "at_ms": ORIGIN_MS + 1000 * number, "e2e_s": 1.0, "prompt": prompt, "output": 2,
            **dict.fromkeys(("ttft_s", "gap_max_s", "cached", "preempted"), 0), "has_engine": 1, "selected": 1,
            "instance": "a", "deployment": "d", "tenant": tenant, "model": "m", "route": "r", "version": "",
            "engine": "vllm", "outcome": "ok", "error": "",
        }
        for number in range(count)
    ]  # fmt: skip


def test_who_does_most_work_is_told_apart_whoever_asks_most_often():
    rows = [row for number in range(TENANTS + 10) for row in rows_of(f"t{number}", 50, 10)]
    rows += rows_of("hog", 4, 100_000)
    columns = {name: [row[name] for row in rows] for name in rows[0]} | {"key": list(range(len(rows)))}
    requests = requests_of(columns, ORIGIN_MS, ORIGIN_MS)
    (place,) = places_of(Evidence(requests), np.zeros(len(rows)))
    held = place.by_tenant("held")
    assert "hog" in held
    assert len(held) == TENANTS + 1
    tokens = place.of(requests.prompt + 0.5 * requests.output)
    _, begin, _, last = place.span
    assert sum(series.sum() for series in held.values()) == pytest.approx(place.bins.level(begin, last, tokens).sum())


def test_what_was_said_long_ago_is_not_known():
    held = Bins(0.0, 1.0, 30).held(np.array([2.0, 3.0]), np.array([0.5, np.nan]), 10.0)
    assert np.isnan(held[:2]).all()
    assert (held[2:12] == 0.5).all()
    assert np.isnan(held[14:]).all()


@pytest.mark.parametrize(("hours", "series"), [(0.1, 3), (4, 14), (4, 200), (72, 64)])
def test_steps_are_as_wide_as_so_many_series_need(hours: float, series: int):
    span_ms = int(hours * 3_600_000)
    step = _step_ms(span_ms, series)
    assert step % 1000 == 0
    assert span_ms / step * series <= 200_000


def test_of_processes_of_one_name_the_busiest_is_followed_in_any_order():
    rows = [
        (second, process, pid, cpu, delay)
        for second in range(1, 21)
        for process, pid, cpu, delay in (("host", "", 0.0, 0.0), ("api", "1", 0.1, 0.0), ("api", "2", 0.6, 0.4))
    ]
    for seed in range(3):
        random.Random(seed).shuffle(rows)
        row = {
            "at_ms": [ORIGIN_MS + 1000 * one[0] for one in rows], "name": ["a"] * len(rows),
            "process": [one[1] for one in rows], "pid": [one[2] for one in rows], "cpu": [one[3] for one in rows],
            "delay": [one[4] for one in rows], "pressure": [0.0] * len(rows),
            "busy": [0.5] * len(rows), "cores": [2.0] * len(rows),
        }  # fmt: skip
        host = _hosts_of(row, ORIGIN_MS, 1000)["a"]
        assert host.delay_time.tolist() == [float(second) for second in range(1, 21)]
        assert (host.delay == 0.4).all()


def test_many_threads_that_wait_are_no_more_than_the_time_that_they_wanted():
    row = {"at_ms": [ORIGIN_MS], "name": ["a"], "process": ["tritonserver"], "pid": ["1"], "cpu": [3.0], "delay": [6.0],
           "pressure": [0.0], "busy": [0.5], "cores": [2.0]}  # fmt: skip
    assert _hosts_of(row, ORIGIN_MS, 1000)["a"].delay.tolist() == [pytest.approx(2 / 3)]


def test_a_slow_way_that_all_share_is_not_a_client_who_reads_slowly():
    found = told(served(lambda _: 8.0, lambda _: 0.02, late=lambda t: 1.0 if t > 70 else 0.0))
    assert "slow_client" not in {one.cause for one in found}


def test_an_account_does_not_go_by_the_order_in_which_a_store_hands_out_rows():
    rows = served(lambda t: 40.0 if t > 70 else 8.0, lambda _: 0.02)
    chance = random.Random(2)
    for number, row in enumerate(rows):
        row |= {"at_ms": row["at_ms"] // 5000 * 5000, "key": number}  # many of one instant
        row["prefill_s"], row["prompt"] = chance.random(), chance.randint(10, 1000)
        row["model"], row["route"] = chance.choice("abc"), chance.choice(("/v1/completions", "/v1/chat/completions"))
        if row["at_ms"] > ORIGIN_MS + 60_000 and chance.random() < 0.1:
            row["model"] = "new"  # it goes by the model that is most alike
    found = []
    for _ in range(6):
        chance.shuffle(rows)
        columns = {name: [row[name] for row in rows] for name in rows[0]}
        account = account_of(Evidence(requests_of(columns, ORIGIN_MS, ORIGIN_MS + 60_000)))
        found.append([account.reference.expected.sum(), account.ledger.excess.sum(), account.requests.e2e.tolist()])
    assert all(one == found[0] for one in found)


def test_counts_and_seconds_stand_for_the_same_requests():
    rows = served(lambda t: 60.0 if 70 < t < 100 else 8.0, lambda _: 0.02)
    for row in rows[::5]:
        if row["at_ms"] > ORIGIN_MS + 70_000:
            row |= {"outcome": "server_error", "error": "x", "has_engine": 0}
    columns = {name: [row[name] for row in rows] for name in rows[0]} | {"key": list(range(len(rows)))}
    plain, thirds = (
        account_of(Evidence(requests_of(columns, ORIGIN_MS, ORIGIN_MS + 60_000, scale))) for scale in (1.0, 3.0)
    )
    for one, three in zip(causes_of(plain, plain.asked), causes_of(thirds, thirds.asked), strict=True):
        assert (three.cause, three.requests) == (one.cause, 3 * one.requests)
        assert three.seconds == pytest.approx(3 * one.seconds)
    (failed,), (more,) = (failures_of(made, made.requests.inside, 60.0) for made in (plain, thirds))
    assert more.requests == 3 * failed.requests
