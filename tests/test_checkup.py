"""`servescope doctor` against parts that answer, complain and are away."""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner

from agent.spool.writer import producer_folder
from agent.tap.open_requests import OpenRequest, OpenRequests, find_left
from agent.tap.report import encode
from servescope import checkup
from servescope.cli import main
from tests.kits.health import health_server
from tests.kits.schema_tools import framed, fresh_store, token

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from servescope.checkup import Finding
    from tests.conftest import StoreServer


@pytest.fixture
def health() -> Iterator[tuple[str, dict[str, Any]]]:
    """A part's health endpoint and what it answers, to be changed."""
    told: dict[str, Any] = {"status": "ok", "problems": [], "targets": {}}

    with health_server(told) as url:
        yield url, told


def run_file(data: Path, urls: dict[str, str], **more: Any) -> None:
    facts = {"pid": os.getpid(), "started": "2026-01-01T00:00:00+00:00", "urls": {"store": "", **urls}, **more}
    (data / "run.json").write_text(json.dumps(facts))


def of(name: str, found: list[Finding]) -> list[tuple[str, str]]:
    return [(finding.state, finding.text) for finding in found if finding.name == name]


def test_a_server_that_never_answered_is_named(tmp_path: Path, health: tuple[str, dict[str, Any]]):
    url, told = health
    told |= {"status": "degraded", "problems": ["vllm-a has shown no metrics page since the start"]}
    run_file(tmp_path, {"agent_health": url})
    found = checkup.examine(tmp_path)
    assert of("agent", found) == [
        ("ok", "status degraded"),
        ("broken", "vllm-a has shown no metrics page since the start"),
    ]
    done = CliRunner().invoke(main, ["doctor", "--data", str(tmp_path)])
    assert done.exit_code == 1
    assert "broken   agent: vllm-a has shown no metrics page since the start" in done.output
    assert "agent.log" in done.output


def test_a_part_that_is_well_says_so_with_its_restarts(tmp_path: Path, health: tuple[str, dict[str, Any]]):
    run_file(tmp_path, {"agent_health": health[0]}, restarts={"agent": 2})
    assert of("agent", checkup.examine(tmp_path)) == [("ok", "status ok; restarted 2 times")]


def test_a_tap_that_does_not_listen_is_broken(tmp_path: Path, health: tuple[str, dict[str, Any]]):
    run_file(tmp_path, {"taps": {"a": health[0], "b": "http://127.0.0.1:9"}}, restarts={"tap-a": 1})  # type: ignore[dict-item]
    found = checkup.examine(tmp_path)
    assert of("tap a", found) == [("ok", f"listens at {health[0]}; restarted once")]
    ((state, text),) = of("tap b", found)
    assert (state, text[:38]) == ("broken", "does not listen at http://127.0.0.1:9:")


def test_one_that_is_starting_is_not_said_to_be_away(tmp_path: Path):
    with (tmp_path / "lock").open("w") as lock:
        lock.write("4711")
        lock.flush()
        fcntl.flock(lock, fcntl.LOCK_EX)
        ((state, text),) = of("servescope", checkup.examine(tmp_path))
    assert (state, text) == ("note", f"process 4711 is starting or stopping over {tmp_path}")


def test_parts_that_are_away_or_refuse_are_broken(tmp_path: Path, health: tuple[str, dict[str, Any]]):
    run_file(tmp_path, {"collector_health": f"{health[0]}/nothing", "dashboard": "http://127.0.0.1:9"})
    found = checkup.examine(tmp_path)
    ((collector, _),) = of("collector", found)
    ((dashboard, text),) = of("dashboard", found)
    assert (collector, dashboard) == ("broken", "broken")
    assert "does not answer at http://127.0.0.1:9" in text


def test_nothing_that_runs_is_a_note_and_no_fault(tmp_path: Path):
    done = CliRunner().invoke(main, ["doctor", "--json", "--data", str(tmp_path)])
    assert done.exit_code == 0, done.output
    found = {finding["name"]: finding for finding in json.loads(done.output)}
    assert found["servescope"]["state"] == "note"
    assert found["servescope"]["fix"] == "Start one: servescope up"
    assert found["package streamlit"]["text"] == "installed, for the dashboard"


def test_a_store_that_does_not_answer_is_broken(tmp_path: Path):
    (finding,) = [found for found in checkup.examine(tmp_path, "http://127.0.0.1:9") if found.name == "clickhouse"]
    assert finding.state == "broken"
    assert "127.0.0.1:9" in finding.text
    assert finding.fix


def test_a_store_that_a_command_or_a_hand_started_is_named(tmp_path: Path):
    (tmp_path / "store").mkdir()
    assert of("store", checkup.examine(tmp_path)) == []
    with (tmp_path / "store" / "lock").open("w") as lock:
        lock.write("4711\n")
        lock.flush()
        fcntl.flock(lock, fcntl.LOCK_EX)
        ((state, text),) = of("store", checkup.examine(tmp_path))
    assert (state, "process 4711 has" in text) == ("note", True)
    assert of("store", checkup.examine(tmp_path)) == []


def test_a_store_without_tables_is_told_how_to_get_them_and_its_password_stays_unsaid(
    tmp_path: Path, store_server: StoreServer
):
    url = store_server.url.replace("://", f"://owner:{store_server.owner_password}@")
    (finding,) = [one for one in checkup.examine(tmp_path, f"{url}/?database=nosuch") if one.name == "clickhouse"]
    assert finding.state == "broken"
    assert finding.fix.startswith("Make the tables: servescope migrate")
    assert store_server.owner_password not in finding.text + finding.fix


@pytest.mark.parametrize(
    ("hard", "state", "carries"), [(20_000, "ok", 4096), (8_320, "ok", 4096), (1_024, "note", 448), (100, "note", 1)]
)
def test_the_limit_on_open_files_is_told_as_requests_at_once(hard: int, state: str, carries: int):
    found = checkup.open_files(64, hard)
    assert (found.state, bool(found.fix)) == (state, state != "ok")
    assert f"carries {carries} requests" in found.text


def test_doctor_examines_the_limit_on_open_files(tmp_path: Path):
    assert of("open files", checkup.examine(tmp_path))


def test_a_tap_whose_process_is_gone_is_broken_though_its_socket_takes_connections(
    tmp_path: Path, health: tuple[str, dict[str, Any]]
):
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    run_file(tmp_path, {"taps": {"a": health[0], "b": health[0]}}, pids={"tap-a": ended.pid, "tap-b": os.getpid()})  # type: ignore[dict-item]
    found = checkup.examine(tmp_path)
    assert [state for state, _ in of("tap a", found) + of("tap b", found)] == ["broken", "ok"]
    assert f"process {ended.pid} is gone" in of("tap a", found)[0][1]


def test_what_taps_say_of_themselves_reaches_the_doctor(tmp_path: Path, store_server: StoreServer):
    now_ns = time.time_ns()
    figures = [
        ("servescope.tap.requests.open", 3.0, {}, False),
        ("servescope.tap.requests", 7.0, {"outcome": "ok"}, True),
        ("servescope.tap.requests", 2.0, {"outcome": "timeout"}, True),
        ("servescope.tap.connections_refused", 4.0, {"reason": "connections"}, True),
        ("servescope.tap.records_lost", 0.0, {"reason": "spool"}, True),
    ]
    with fresh_store(store_server) as store:
        for seconds, pid, add in ((60, "1", -1.0), (2, "1", 0.0), (1, "2", 0.0)):
            resource = {"service.name": "servescope-tap", "service.instance.id": "vllm-a", "process.pid": pid}
            grown = [(name, value + add, labels, is_sum) for name, value, labels, is_sum in figures]
            body = encode(grown, resource, now_ns - seconds * 1_000_000_000, now_ns - 90_000_000_000)
            store.insert_segment("land_metrics", framed(body), token())
        owner = f"://owner:{store_server.owner_password}@"
        url = f"{store_server.url.replace('://', owner)}/?database={store.address.database}"
        found = of("reports of tap vllm-a", checkup.examine(tmp_path, url))
    (state, text), (refused, how_many) = found
    assert (state, text.partition(";")[0]) == ("ok", "6 requests open, 18 ended")
    assert (refused, how_many) == ("broken", "8 connections or sessions had no place")


def test_requests_that_a_killed_tap_left_open_are_told_until_it_is_back(tmp_path: Path):
    folder = producer_folder(tmp_path / "spool", "tap-vllm-a")
    opened = OpenRequests(folder, 4)
    for number in range(3):
        name = f"{number}".encode() * 8
        opened.begin(OpenRequest(name, name * 2, b"", 1, time.time_ns(), "POST", "/v1/x", "chat", "", "", ""))
    opened.beat()
    later = time.time() + 90

    def told(at: float = later) -> list[tuple[str, str]]:
        return of("open requests of tap vllm-a", list(checkup.left_open(tmp_path, at)))

    assert told() == [], "its process lives"
    fcntl.flock(opened._lock, fcntl.LOCK_UN)
    assert told(time.time() + 5) == [], "it may be on its way back"
    ((state, text),) = told()
    assert state == "broken"
    assert text.startswith("3 had no end when its process did, 9")
    assert told(), "the lock is not kept: a tap that comes back must get it"
    for left in find_left(folder):
        left.remove()
        left.release()
    assert told() == []


def test_what_a_part_leaves_empty_is_not_said(tmp_path: Path, health: tuple[str, dict[str, Any]]):
    health[1].update({"rounds": 3, "store_error": "", "open_incidents": 0})
    run_file(tmp_path, {"agent_health": health[0]})
    assert of("agent", checkup.examine(tmp_path)) == [("ok", "status ok, rounds 3, open_incidents 0")]
