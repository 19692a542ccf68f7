"""What routers tell of themselves, each for itself, beside servers that tell of the same requests."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from analytics.ask import ask, sentence_of
from analytics.questions import routers
from analytics.selection import Filter, Selection
from analytics.window import Window

if TYPE_CHECKING:
    from tests.analytics.lab import Lab

BACK = timedelta(days=9)
SECONDS = 100


def insert(lab: Lab, name: str, rows: list[dict[str, Any]]) -> None:
    """Rows of several shapes: what one leaves out takes its default."""
    for shape in {tuple(sorted(row)) for row in rows}:
        lab.owner.insert(name, [row for row in rows if tuple(sorted(row)) == shape])


@pytest.fixture(scope="module")
def window(lab: Lab) -> Window:
    """A gateway of two models, a router that tells hardly anything, a target that is said to be one, and a server."""
    start = (datetime.now(UTC) - BACK).replace(microsecond=0)
    rows: list[dict[str, Any]] = []
    for second in range(SECONDS):
        shared = {"time": start + timedelta(seconds=second), "up": 1, "interval_seconds": 1.0}
        gate = {
            **shared, "instance": "gate", "engine": "epp", "role": "router", "deployment": "front", "version": "0.6",
        }  # fmt: skip
        late = second >= SECONDS // 2
        rows += [
            {**gate, "model": "a", "running": 6.0, "waiting": 4.0 * (second == 7), "requests_finished_delta": 3.0,
             "requests_failed_delta": 1.0,
             "other_signals": {"requests_received_delta": 5.0, "requests_in_prefill": 2.0, "requests_in_decode": 4.0,
                               "endpoints_healthy": 3.0 if late else 2.0}},
            {**gate, "model": "b", "running": 1.0, "requests_finished_delta": 1.0, "requests_failed_delta": 0.0},
            {**shared, "instance": "quiet", "engine": "envoy_ai_gateway", "model": "a"},
            {**shared, "instance": "named", "engine": "own", "role": "router", "running": 1.0},
            {**shared, "instance": "server", "engine": "vllm", "model": "a", "running": 9.0},
        ]  # fmt: skip
    rows.append({"time": start + timedelta(seconds=SECONDS), "instance": "gate", "engine": "epp", "role": "router",
                 "up": 0, "interval_seconds": 50.0})  # fmt: skip
    insert(lab, "engine_samples", rows)
    held = {
        "time": start + timedelta(seconds=9), "engine": "epp", "model": "a", "bounds": [0.5], "instance": "gate"
    }  # fmt: skip
    insert(lab, "engine_histograms", [
        {**held, "signal": "queue_seconds", "count": 4, "sum": 1.0, "counts": [4, 0]},
        {**held, "signal": "queue_seconds", "model": "b", "count": 1, "sum": 4.0, "counts": [0, 1]},
        {**held, "signal": "e2e_seconds", "count": 8, "sum": 16.0, "counts": [0, 8]},
        {**held, "signal": "ttft_seconds", "count": 8, "sum": 99.0, "counts": [0, 8]},
        {**held, "signal": "queue_seconds", "instance": "server", "count": 1, "sum": 99.0, "counts": [0, 1]},
    ])  # fmt: skip
    return Window(start, start + timedelta(seconds=SECONDS + 1))


def test_each_router_tells_what_it_hands_on_and_holds_back(lab: Lab, window: Window) -> None:
    answer = routers.ask(lab.store, Selection(window))
    assert [row.instance for row in answer.result.routers] == ["gate", "named", "quiet"], "busiest first, no server"
    gate = answer.result.routers[0]
    assert (gate.deployment, gate.engine, gate.version) == ("front", "epp", "0.6")
    assert gate.received_per_second == pytest.approx(5.0)
    assert gate.ended_per_second == pytest.approx(3 + 1 + 1), "failed ones are not among an epp's finished"
    assert gate.failed_ratio == pytest.approx(1 / 5)
    assert (gate.running, gate.waiting_peak, gate.in_prefill, gate.in_decode) == (7, 4, 2, 4)
    assert gate.waiting == pytest.approx(4 / SECONDS)
    assert gate.queue_mean_seconds == pytest.approx((1.0 + 4.0) / (4 + 1)), "of all models, each request once"
    assert gate.e2e_mean_seconds == pytest.approx(2.0)
    assert gate.endpoints_healthy == 3, "as told last: nothing was told while it was down"
    assert (answer.state, answer.rows) == ("value", 3 * SECONDS + 1)


def test_what_a_router_does_not_tell_is_none(lab: Lab, window: Window) -> None:
    quiet = next(row for row in routers.ask(lab.store, Selection(window)).result.routers if row.instance == "quiet")
    for name in (
        "received_per_second", "ended_per_second", "failed_ratio", "running", "waiting", "waiting_peak", "in_prefill",
        "in_decode", "queue_mean_seconds", "e2e_mean_seconds", "endpoints_healthy",
    ):  # fmt: skip
        assert getattr(quiet, name) is None, name


@pytest.mark.parametrize(
    ("given", "shown", "running"),
    [
        (Filter(instance=("gate",)), ["gate"], 7),
        (Filter(instance=("gate",), model=("b",)), ["gate"], 1),
        (Filter(deployment=("front",)), ["gate"], 7),
        (Filter(instance=("server",)), [], None),
        (Filter(recording="only"), [], None),
    ],
)
def test_a_selection_narrows_routers(
    lab: Lab, window: Window, given: Filter, shown: list[str], running: float | None
) -> None:
    found = routers.ask(lab.store, Selection(window, given)).result.routers
    assert [row.instance for row in found] == shown
    assert [row.running for row in found] == ([running] if shown else [])


def test_the_command_says_that_there_is_none(lab: Lab, window: Window) -> None:
    told = ask("routers", lab.store, Selection(window, Filter(instance=("server",))))
    assert told["rows"] == 0
    assert sentence_of("routers", told) == "No router's or gateway's page was read: it is a target like a server."
    assert sentence_of("routers", ask("routers", lab.store, Selection(window))) == ""
