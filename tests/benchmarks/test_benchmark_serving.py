"""What a run of vLLM with the probe and without must have shown, and what is said of several."""

from __future__ import annotations

import math
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from servescope_probe import Edge, wire
from servescope_probe.sender import Sender

from benchmarks.line import KEYS
from benchmarks.serving import OUTPUT_TOKENS, WARMUPS, Pair, Run, UnprovenError, aside, figures, interval, prove
from benchmarks.witness import INSTANCE, Received, Witness

if TYPE_CHECKING:
    from pathlib import Path

ASKED = 100 + WARMUPS
TOLD = Received(steps=7, tokens=ASKED * OUTPUT_TOKENS, requests=ASKED)
FOUND = {
    "request_throughput": 10.0, "output_throughput": 960.0, "mean_ttft_ms": 50.0, "mean_tpot_ms": 8.0,
    "completed": 100.0, "failed": 0.0,
}  # fmt: skip


def pair(factor: float) -> Pair:
    probed = FOUND | {name: FOUND[name] * factor for name in ("request_throughput", "output_throughput")}
    return Pair(Run(FOUND, Received()), Run(probed, TOLD))


def test_an_interval_is_students_over_the_pairs():
    low, high = interval([-0.02, -0.01, 0.0, 0.01, 0.02]) or (0.0, 0.0)
    half = 2.7764 * math.sqrt(0.00025) / math.sqrt(5)  # of the table: 97.5 % at four degrees of freedom
    assert (low, high) == (pytest.approx(math.exp(-half), abs=1e-6), pytest.approx(math.exp(half), abs=1e-6))
    assert interval([0.1]) is None, "one pair has no spread"


def judged(*factors: float) -> dict[str, dict[str, Any]]:
    made = figures([pair(factor) for factor in factors])
    assert all(tuple(figure) == KEYS for figure in made)
    return {figure["name"]: figure for figure in made}


def test_figures_are_judged_by_the_mean_and_by_what_the_interval_still_allows():
    calm = judged(0.99, 1.01, 1.0, 0.995, 1.005)
    names = ("serving_request_throughput", "serving_request_throughput_low", "serving_request_throughput_high")
    assert [calm[name]["met"] for name in names] == [True, True, True]
    noisy = judged(0.8, 1.25, 1.0)
    assert [noisy[name]["met"] for name in names] == [True, False, True], "noise proves nothing"
    worse = judged(0.9, 0.9, 0.901)
    assert [worse[name]["met"] for name in names] == [False, False, False]
    assert worse["serving_output_throughput_pair_1"]["ratio"] == 0.9
    assert worse["serving_mean_ttft_ms"]["met"] is None, "times are told, not judged"
    one = judged(0.99)
    assert "serving_request_throughput_low" not in one
    assert one["serving_request_throughput"]["met"]
    assert (one["serving_edge_rows"]["value"], one["serving_edge_rows"]["goal"]) == (ASKED, ASKED)


@pytest.mark.parametrize(
    ("told", "probed", "what"),
    [
        (Received(), True, "0 steps"),
        (replace(TOLD, tokens=TOLD.tokens - 1), True, "step logger"),
        (replace(TOLD, requests=ASKED - 1), True, f"{ASKED - 1} of {ASKED} requests"),
        (replace(TOLD, lost=1), True, "lost"),
        (Received(steps=1), False, "plain"),
    ],
)
def test_a_run_in_which_not_all_was_told_is_none(told: Received, probed: bool, what: str):
    with pytest.raises(UnprovenError, match=what):
        prove(Run(FOUND, told), probed=probed, requests=100)


def test_a_run_in_which_all_was_told_counts():
    prove(Run(FOUND, TOLD), probed=True, requests=100)
    prove(Run(FOUND, Received()), probed=False, requests=100)
    with pytest.raises(UnprovenError, match="1 failed"):
        prove(Run(FOUND | {"completed": 99.0, "failed": 1.0}, TOLD), probed=True, requests=100)


def step(tokens: int) -> bytes:
    """Of which no more is known."""
    known = {"counter": 1, "completed_ns": time.time_ns(), "generation_tokens": tokens}
    unknown = {"Q": 0, "d": math.nan}
    return wire.STEP_BODY.pack(*(known.get(name, unknown.get(code, -1)) for name, code in wire.STEP_FIELDS))


async def test_a_witness_counts_what_came(tmp_path: Path):
    witness = Witness(tmp_path, 9, aside())
    try:
        sender = Sender(str(witness.socket), INSTANCE)
        for tokens in (5, 6):
            sender.put(wire.STEP, 0, step(tokens), now=True)

        async def application(scope: dict[str, Any], receive: Any, send: Any) -> None:
            await receive()
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"{}"})

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": b'{"model": "tiny", "prompt": "x"}'}

        async def send(_message: Any) -> None:
            return

        edge = Edge(application, sender)
        for path in ("/v1/completions", "/tokenize", "/health"):
            await edge({"type": "http", "method": "POST", "path": path, "headers": []}, receive, send)
        sender.close()
        told = Received(steps=2, tokens=11, requests=1)
        found, deadline = Received(), time.monotonic() + 30
        while found != told and time.monotonic() < deadline:
            found.add(witness.ask())
        assert found == told
        assert witness.ask() == Received(), "each is told once"
    finally:
        witness.close()
