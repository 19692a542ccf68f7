"""The process as people run it: killed, restarted, with a pager that fails; every page once."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from alerts.deliver.receiver import Pages, Receiver
from collector.store.address import StoreAddress
from collector.store.client import Store
from collector.store.migrate import apply
from tests.kits.store_process import start_store

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from alerts.deliver.certificate import Certificate

RULES = {
    "rules": [
        {
            "name": "engine-waiting",
            "when": {"kind": "signal", "signal": "waiting", "above": 20},
            "for": "2s",
            "keep_firing_for": "2s",
        }
    ]
}


class Alerts:
    """``python -m alerts`` on a folder."""

    def __init__(self, folder: Path, url: str, extra: dict[str, Any]) -> None:
        self.folder, self.url = folder, url
        (folder / "rules.yaml").write_text(yaml.safe_dump(RULES))
        self.config = folder / "config.yaml"
        section = {"slos": "rules.yaml", "evaluate_every_seconds": 0.5, "health_port": 0, **extra}
        self.config.write_text(yaml.safe_dump({"alerts": section}))
        self.log = folder / "alerts.log"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        command = [sys.executable, "-m", "alerts", "--config", str(self.config), "--data", str(self.folder)]
        with self.log.open("ab") as stderr:
            self.process = subprocess.Popen(
                [*command, "--clickhouse", self.url], stderr=stderr, env=os.environ | {"NO_COLOR": "1"}
            )

    def end(self, number: int) -> int:
        assert self.process is not None
        self.process.send_signal(number)
        return self.process.wait(60)


def eventually(holds: Callable[[], bool], what: str, seconds: float = 90) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, what
        time.sleep(0.05)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[tuple[Store, str]]:
    server = start_store(tmp_path)
    login = ("owner", server.owner_password)
    with Store(StoreAddress(server.url, "default", *login)) as made:
        made.command("CREATE DATABASE IF NOT EXISTS servescope")
    with Store(StoreAddress(server.url, "servescope", *login)) as made:
        apply(made)
        yield made, server.url
    server.stop()


class Load:
    """Writes a sample each half second until stopped."""

    def __init__(self, store: Store) -> None:
        self.store, self.waiting = store, 2.0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._stop.wait(0.5):
            row = {"time": datetime.now(UTC), "instance": "a", "deployment": "d", "model": "m", "engine": "triton"}
            self.store.insert("engine_samples", [row | {"up": 1, "waiting": self.waiting}])

    def stop(self) -> None:
        self._stop.set()
        self._thread.join()


@pytest.mark.heavy
def test_killed_at_every_step_with_a_failing_pager_each_page_arrives_once(
    tmp_path: Path, store: tuple[Store, str], certificate: Certificate
):
    real, url = store
    (tmp_path / "key").write_text("k" * 32)
    receiver = Receiver(certificate, Pages()).start()
    trouble, asked = [503], []

    def fail() -> tuple[int, dict[str, str]] | None:
        asked.append(trouble[0])
        return (trouble[0], {"Retry-After": "1"}) if trouble[0] else None

    def sent() -> int:
        (row,) = real.rows("SELECT count() AS n FROM notifications FINAL WHERE status = 'sent'")
        return int(row["n"])

    receiver.fail_with = fail
    pagerduty = {"base_url": receiver.url, "ca_file": str(certificate.authority), "routing_key_file": f"{tmp_path}/key"}
    alerts = Alerts(tmp_path, url, {"pagerduty": pagerduty})
    load = Load(real)
    try:
        alerts.start()
        load.waiting = 57.0
        eventually(lambda: bool(asked), "no page was tried")  # 503: it is queued
        alerts.end(signal.SIGKILL)
        trouble[0] = 429
        asked.clear()
        alerts.start()
        eventually(lambda: bool(asked), "the page was forgotten over a kill")
        trouble[0] = 0
        eventually(lambda: bool(receiver.pages.all()), "the page never arrived")
        # a kill between arrival and note repeats the message under the same key, which the outbox's tests show
        eventually(lambda: sent() == 1, "the page was not noted as sent")
        alerts.end(signal.SIGKILL)
        alerts.start()
        began = len(asked)
        load.waiting = 2.0
        trouble[0] = 500
        eventually(lambda: len(asked) > began, "no resolve was tried")
        assert alerts.end(signal.SIGTERM) == 0
        trouble[0] = 0
        alerts.start()
        eventually(lambda: receiver.pages.all()[-1]["action"] == "resolve", "the resolve never arrived")
        eventually(lambda: sent() == 2, "history did not follow")
        assert alerts.end(signal.SIGTERM) == 0
    finally:
        load.stop()
        if alerts.process is not None and alerts.process.poll() is None:
            alerts.end(signal.SIGKILL)
        receiver.stop()
    # an answer that came too late for the client repeats a message, which PagerDuty folds by its key
    told = list(dict.fromkeys((page["action"], page["dedup_key"]) for page in receiver.pages.all()))
    assert [action for action, _ in told] == ["trigger", "resolve"]
    assert len({key for _, key in told}) == 1
    assert "k" * 32 not in alerts.log.read_text()
    states = real.rows("SELECT state, severity FROM incidents FINAL")
    assert states == [{"state": "resolved", "severity": "critical"}]


def test_without_a_key_it_says_so_and_tells_how_it_is(tmp_path: Path, store: tuple[Store, str]):
    _, url = store
    alerts = Alerts(tmp_path, url, {})
    alerts.start()
    try:
        eventually(lambda: "alerts_ready" in alerts.log.read_text(), alerts.log.read_text())
        logged = [json.loads(line) for line in alerts.log.read_text().splitlines() if line.startswith("{")]
        assert "no_pagerduty_key" in {line["event"] for line in logged}
        health = next(line["health"] for line in logged if line["event"] == "alerts_ready")

        def told() -> dict[str, Any]:
            with urllib.request.urlopen(f"{health}/healthz", timeout=10) as answer:
                return json.load(answer)

        eventually(lambda: told()["rounds"] > 1, "no rounds")
        assert told()["store_reachable"] is True
        with urllib.request.urlopen(f"{health}/metrics", timeout=10) as answer:
            assert b"servescope_alerts_store_reachable 1.0" in answer.read()
        rival = subprocess.run(
            [sys.executable, "-m", "alerts", "--data", str(tmp_path), "--clickhouse", url, "--port", "0"],
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        assert rival.returncode == 1
        assert "Another alerts process uses" in rival.stderr
    finally:
        assert alerts.end(signal.SIGTERM) == 0
