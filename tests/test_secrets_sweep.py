"""No password, token or key comes out of a part that was given one and meets peers that fail."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import yaml
from click.testing import CliRunner

from alerts.deliver.notify.pagerduty import PagerDuty
from alerts.deliver.notify.webhook import Webhook
from base.prompt_server import PromptServer
from servescope.cli import main
from servescope.launch.plan import make_plan
from tests.kits.collector_process import free_port

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROOT = Path(__file__).resolve().parent.parent
SECRET = "s3cretw0rd"
ROUTING_KEY = f"{SECRET:0<32}"
PATIENCE = 120.0


class _Refusing(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(401)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.send_response(500)
        self.end_headers()
        self.wfile.write(f"no such place http://u:{SECRET}@peer/?token={SECRET}".encode())

    def log_message(self, *_arguments: object) -> None:
        pass


@pytest.fixture
def refusing() -> Iterator[str]:
    """A server that wants a key for every page and fails every post; ``host:port``."""
    server = PromptServer(("127.0.0.1", 0), _Refusing)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


def secret_url(place: str, path: str = "") -> str:
    return f"http://user:{SECRET}@{place}{path}"


def ended(command: list[str]) -> str:
    answer = CliRunner().invoke(main, command)
    assert answer.exit_code == 1, (command, answer.output)
    assert not answer.exception or isinstance(answer.exception, SystemExit), answer.exception
    return answer.output


def test_commands_do_not_show_them(refusing: str, tmp_path: Path):
    closed = f"127.0.0.1:{free_port()}"
    config = tmp_path / "servescope.yaml"
    config.write_text(
        f"agent: {{targets: [{{instance: a, url: 'htp://u:{SECRET}@h/?token={SECRET}'}}],"
        f" collector: 'h?token={SECRET}', key_file: /nowhere/x}}\n"
        f"collector: {{clickhouse: 'ftp://u:{SECRET}@h/?k={SECRET}'}}\n"
        f"alerts: {{webhook: {{url: 'hooks/?t={SECRET}'}}, pagerduty: {{base_url: 'u:{SECRET}@h'}}}}\n"
    )
    told = [
        ended(["probe", secret_url(refusing)]),
        ended(["probe", secret_url(closed, f"/?token={SECRET}")]),
        ended(["probe", f"user:{SECRET}@{closed}"]),
        ended(["probe", f"user:{SECRET}@{closed}/metrics"]),
        ended(["probe", f"http://user:a {SECRET}@h"]),
        ended(["probe", f"http://u:{SECRET}@h:port"]),
        ended(["config", "check", str(config)]),
        ended(["doctor", "--data", str(tmp_path), "--clickhouse", secret_url(closed, f"/?password={SECRET}")]),
        ended(["doctor", "--data", str(tmp_path), "--clickhouse", secret_url(refusing)]),
        ended(["sql", "SELECT 1", "--clickhouse", secret_url(closed)]),
        ended(["sql", "SELECT 1", "--clickhouse", f"https//u:{SECRET}@h"]),
        ended(["migrate", "--clickhouse", secret_url(refusing)]),
        ended(["up", "--target", f"http://u:{SECRET}@h:port", "--data", str(tmp_path)]),
    ]
    for text in told:
        assert SECRET not in text
        assert len(text.splitlines()) < 30, text


@pytest.mark.heavy  # four processes
def test_parts_do_not_show_them(refusing: str, tmp_path: Path):
    closed = f"127.0.0.1:{free_port()}"
    (tmp_path / "key").write_text(SECRET)
    (tmp_path / "routing").write_text(ROUTING_KEY)
    config = tmp_path / "servescope.yaml"
    targets = [
        {"instance": "wants-a-key", "url": secret_url(refusing)},
        {"instance": "other-key", "url": f"http://{refusing}", "key_file": str(tmp_path / "key")},
        {"instance": "away", "url": secret_url(closed), "metrics_url": secret_url(closed, f"/m?token={SECRET}")},
    ]
    pager = {"base_url": f"https://user:{SECRET}@{closed}", "routing_key_file": str(tmp_path / "routing")}
    free = {"health_port": free_port(), "otlp_http_port": None, "otlp_grpc_port": None, "drain_seconds": 0}
    settings = {
        "agent": {
            "targets": targets, "collector": secret_url(refusing), "interval_seconds": 0.2, "host": False,
            "gpu": False, "flush_seconds": 0.05, **free,
        },
        "alerts": {
            "evaluate_every_seconds": 0.2, "store_unreachable_after_seconds": 0.2, "health_port": 0,
            "webhook": {"url": secret_url(refusing, f"/hook?token={SECRET}")},
            "pagerduty": pager,
        },
    }  # fmt: skip
    config.write_text(yaml.safe_dump(settings))
    data = {name: tmp_path / f"data-{name}" for name in ("agent", "tap", "collector", "alerts")}
    common = ["--config", str(config)]
    spool = str(data["tap"] / "spool")
    commands = {
        "agent": ["agent", "--data", str(data["agent"]), *common, "--target", f"late={secret_url(refusing, '/x')}"],
        "tap": [
            "agent.tap", "--instance", "away", "--upstream", secret_url(closed), "--port", str(free_port()),
            "--spool", spool, "--keys", str(data["tap"] / "keys"), *common,
        ],
        "collector": ["collector", "--data", str(data["collector"]), "--port", "0"],
        "alerts": ["alerts", "--data", str(data["alerts"]), *common],
    }  # fmt: skip
    environment = os.environ | {"SERVESCOPE_CLICKHOUSE": secret_url(closed), "NO_COLOR": "1"}
    wanted = {
        "agent": ["instance_down", "wants-a-key", "other-key", "away", "ship_failed", "late"],
        "tap": ["tap_started"],
        "collector": ["collector_ready", "store"],
        "alerts": ["alerts_ready", "does not answer"],
    }
    with contextlib.ExitStack() as running:
        logs = {name: tmp_path / f"{name}.log" for name in commands}
        for name, command in commands.items():
            data[name].mkdir()
            stderr = running.enter_context(logs[name].open("wb"))
            process = subprocess.Popen(
                [sys.executable, "-m", *command], cwd=ROOT, env=environment, stderr=stderr, stdout=stderr
            )
            running.callback(process.wait, timeout=60)
            running.callback(process.terminate)
        _until(lambda: all(word in logs[name].read_text() for name in wanted for word in wanted[name]), logs)
    for path in (path for path in tmp_path.rglob("*") if path.is_file()):
        if path not in {config, tmp_path / "key", tmp_path / "routing"}:
            assert SECRET.encode() not in path.read_bytes(), path
    spooled = b"".join(path.read_bytes() for path in data["agent"].rglob("*") if path.is_file())
    assert b"does not answer with its metrics page" in spooled  # events were among what was searched


def _until(done: Callable[[], bool], logs: dict[str, Path]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not done():
        assert time.monotonic() < deadline, {name: path.read_text()[-2_000:] for name, path in logs.items()}
        time.sleep(0.1)


def test_what_a_notifier_says_of_a_failure_does_not_show_them(refusing: str):
    closed = f"127.0.0.1:{free_port()}"
    event = {"event_action": "resolve", "dedup_key": "d"}
    notifiers = [
        (PagerDuty(ROUTING_KEY, base_url=f"https://user:{SECRET}@{closed}/?t={SECRET}"), event),
        *((Webhook(secret_url(place, f"/hook?t={SECRET}")), {"title": "t"}) for place in (closed, refusing)),
    ]
    for notifier, payload in notifiers:
        delivery = notifier.send(payload)
        assert delivery.verdict == "retry"
        assert "127.0.0.1" in delivery.error
        assert SECRET not in f"{delivery} {notifier.destination}"
        notifier.close()


def test_the_run_file_is_its_owners_alone_and_has_no_key(tmp_path: Path):
    (tmp_path / "key").write_text(SECRET)
    targets = [
        {
            "instance": "a",
            "url": secret_url("h:1", f"/?token={SECRET}"),
            "key_file": str(tmp_path / "key"),
            "engine": "vllm",
        }
    ]
    plan = make_plan(tmp_path, {}, targets, say=lambda _line: None)
    assert plan.run_file.stat().st_mode & 0o077 == 0
    for part in plan.parts:
        assert SECRET not in " ".join(part.command)
    assert SECRET not in json.dumps(plan.urls)
    written = yaml.safe_load(plan.run_file.read_text())["agent"]["targets"][0]
    assert written["key_file"] == str(tmp_path / "key")
    plan.ports.close()
