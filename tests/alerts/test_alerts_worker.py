"""Tasks that trip, and what ``/healthz`` says of them."""

from __future__ import annotations

import json
import threading
import urllib.error
import urllib.request
from typing import TYPE_CHECKING, Any

import pytest

from alerts import process, worker
from alerts.config import AlertsConfig
from alerts.worker import Worker

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from alerts.process import Pager


def test_a_step_that_trips_is_taken_again_and_told():
    steps: list[int] = []
    tripped, mended = threading.Event(), threading.Event()
    told: list[worker.Wellness] = []

    def step() -> float | None:
        steps.append(len(steps))
        if len(steps) <= 3:
            raise ZeroDivisionError("of course")
        told.append(one.wellness())
        tripped.set()
        assert mended.wait(60)
        return None

    one = Worker("divide", step, first_wait_seconds=0.001)
    assert not one.wellness().running
    one.ensure()
    assert tripped.wait(60)
    assert (told[0].failing, told[0].failures, told[0].well) == (3, 3, False)
    assert told[0].last_error == "ZeroDivisionError: of course"
    mended.set()
    one.stop()
    one.join(60)
    after = one.wellness()
    assert (after.failing, after.failures, after.running) == (0, 3, False)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_thread_that_ended_is_started_again():
    runs: list[int] = []
    again = threading.Event()

    def step() -> float | None:
        runs.append(1)
        if len(runs) == 1:
            raise SystemExit  # no Exception: ends the thread
        again.set()
        return None

    one = Worker("ends", step)
    one.ensure()
    one.join(60)
    assert not one.wellness().well
    one.ensure()
    assert again.wait(60)
    assert one.wellness().failures == 1
    one.stop()
    one.join(60)
    one.ensure()
    assert not one.wellness().running  # told to stop, it stays so


def test_a_step_that_hangs_is_not_well(monkeypatch: pytest.MonkeyPatch):
    began, let_go = threading.Event(), threading.Event()

    def step() -> float | None:
        began.set()
        assert let_go.wait(60)
        return None

    one = Worker("hangs", step)
    one.ensure()
    assert began.wait(60)
    assert one.wellness().well
    monkeypatch.setattr(worker, "PATIENCE_SECONDS", 0.0)
    assert not one.wellness().well
    let_go.set()
    one.stop()
    one.join(60)


class Empty:
    """A store with nothing in it."""

    @property
    def unhurried(self) -> Empty:
        return self

    def rows(self, *_: object, **__: object) -> list[dict[str, Any]]:
        return []

    def alive(self) -> None:
        """It is."""

    def insert(self, *_: object) -> None:
        """Takes everything."""

    def close(self) -> None:
        """Nothing is open."""


@pytest.fixture
def pager(tmp_path: Path) -> Iterator[Pager]:
    made = process.build(AlertsConfig(health_port=0, evaluate_every_seconds=0.05), tmp_path, Empty())  # type: ignore[arg-type]
    yield made
    made.close()


def healthz(pager: Pager) -> tuple[int, dict[str, Any]]:
    try:
        with urllib.request.urlopen(f"{pager.health.url}/healthz", timeout=30) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.load(error)


def until(pager: Pager, status: int) -> dict[str, Any]:
    pause = threading.Event()
    for _ in range(3000):
        code, told = healthz(pager)
        if code == status:
            return told
        pause.wait(0.02)
    pytest.fail(f"/healthz never answered {status}")


@pytest.mark.parametrize("task", ["send-pagerduty", "evaluate", "illustrate", "explain", "history", "taps"])
def test_whichever_task_trips_healthz_says_so_and_it_goes_on(pager: Pager, task: str):
    (one,) = [each for each in pager.workers if each.name == task]
    true_step, trouble = one._step, threading.Event()
    trouble.set()

    def step() -> float | None:
        if trouble.is_set():
            raise RuntimeError("unexpected")
        return true_step()

    one._step, one._first = step, 0.01
    pager.start()
    told = until(pager, 503)
    assert told["status"] == "unwell"
    assert not told["tasks"][task]["well"]
    assert told["tasks"][task]["last_error"] == "RuntimeError: unexpected"
    with urllib.request.urlopen(f"{pager.health.url}/metrics", timeout=30) as answer:
        assert f'servescope_alerts_task_well{{task="{task}"}} 0.0' in answer.read().decode()
    trouble.clear()
    told = until(pager, 200)
    assert told["tasks"][task]["failures"] > 0
    assert told["tasks"][task]["well"]


def test_what_is_asked_all_day_brings_no_rows_in(tmp_path: Path):
    class Asked(Empty):
        def __init__(self, calm: Asked | None = None) -> None:
            self.calm, self.statements = calm, ""

        @property
        def unhurried(self) -> Empty:
            assert self.calm is not None
            return self.calm

        def rows(self, sql: str, *_: object, **__: object) -> list[dict[str, Any]]:
            self.statements += sql
            return []

    store = Asked(Asked())
    pager = process.build(AlertsConfig(health_port=0), tmp_path, store)  # type: ignore[arg-type]
    pager.once()
    pager.causes.once()
    pager.look_at_taps()
    pager.close()
    assert store.calm is not None
    for table in ("cause_seconds", "otel_metrics_sum"):
        assert (table in store.calm.statements, table in store.statements) == (True, False)
