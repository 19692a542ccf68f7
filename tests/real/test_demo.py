"""`servescope demo` as its user meets it: real servers, traffic, a recording, a page, a clean end, a second start."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.kits.line import ROOT, Line, Triton, free_block, wait_for

pytestmark = [pytest.mark.heavy, pytest.mark.triton, pytest.mark.timeout(900)]


def start_demo(data: Path, base: int) -> Line:
    log = data.parent / "demo.log"
    command = [sys.executable, "-m", "servescope", "demo", "--data", str(data), "--port-base", str(base)]
    with log.open("ab") as out:
        process = subprocess.Popen(command, cwd=ROOT, stdout=out, stderr=out)
    line = Line(data, base, "", process, log)

    def ready() -> bool:
        assert process.poll() is None, log.read_text()[-3000:]
        return (data / "run.json").exists()

    wait_for(ready, 180, "servescope demo")
    line.facts = json.loads((data / "run.json").read_text())
    return line


def test_the_demo_shows_what_it_promises_and_finds_its_data_again(tmp_path: Path) -> None:
    Triton.required()
    data, base = tmp_path / "data", free_block()
    line = start_demo(data, base)
    try:
        said = line.log.read_text()
        assert line.facts["urls"]["dashboard"] in said
        assert "What to look at" in said
        live = "SELECT instance, outcome, uniqExact(tenant) AS tenants, count() AS n FROM requests WHERE recording = ''"
        wait_for(
            lambda: {row["instance"] for row in line.rows(f"{live} AND outcome = 'ok' GROUP BY ALL")}
            == {"triton-a", "llama-a"},
            120, "answered requests of both servers",
        )  # fmt: skip
        samples = "SELECT DISTINCT instance FROM engine_samples WHERE up = 1 AND recording = '{}'"
        found = {row["instance"] for row in line.rows(samples.format(""))}
        assert found == {"triton-a", "llama-a"}
        wait_for(lambda: line.rows(samples.format("kv_exhaustion")), 60, "samples of the recording, labelled")
        wait_for(
            lambda: line.rows(
                "SELECT count() AS n FROM requests WHERE recording = '' AND has_edge = 1 AND has_engine = 1"
            )[0]["n"],
            60, "requests with both halves",
        )  # fmt: skip
        wait_for(lambda: line.rows(f"{live} GROUP BY ALL HAVING tenants >= 3"), 60, "several tenants")
        wait_for(line.pages, 240, "the flood's page")
        page = line.pages()[0]
        assert page["action"] == "trigger"
        assert "vision" in json.dumps(page["event"]["payload"]["custom_details"])
        told = "SELECT attributes['json'] AS found FROM incident_events WHERE kind = 'causes'"
        wait_for(lambda: line.rows(told), 300, "the causes of the flood's incident")
        assert "requests" in json.loads(line.rows(told)[0]["found"])
        assert "task_failed" not in (data / "logs" / "alerts.log").read_text()
        stored = line.rows("SELECT count() AS n FROM requests WHERE recording = ''")[0]["n"]
        running = json.loads((data / "run.json").read_text())["pids"]
    finally:
        assert line.stop() == 0, line.log.read_text()[-3000:]
    assert {part: pid for part, pid in running.items() if _alive(pid)} == {}
    assert not (data / "run.json").exists()

    again = start_demo(data, base)
    try:
        assert again.rows("SELECT count() AS n FROM requests WHERE recording = ''")[0]["n"] >= stored
        assert again.facts["urls"]["taps"] == line.facts["urls"]["taps"]
        os.kill(again.pid("traffic"), signal.SIGKILL)
        wait_for(lambda: "traffic ended" in again.log.read_text(), 30, "the loss of a part to be said")
    finally:
        assert again.stop() == 0, again.log.read_text()[-3000:]


def _alive(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()
