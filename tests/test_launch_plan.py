"""What `servescope up` starts: credentials stay out of arguments, files and what is told to people."""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest
import yaml
from click.testing import CliRunner

from agent import config as agent_config
from base.errors import ServescopeError
from servescope.cli import main
from servescope.launch import borrowed
from servescope.launch.plan import make_plan
from servescope.launch.running import running
from servescope.settings import targets_of
from tests.kits.line import free_block

if TYPE_CHECKING:
    from pathlib import Path

TARGET = {"instance": "a", "deployment": "a", "engine": "vllm", "url": "http://127.0.0.1:1", "metrics_url": ""}


def test_credentials_of_a_server_reach_the_parts_through_their_environment_alone(tmp_path: Path):
    url = "https://writer:s3cret@clickhouse.example:8443"
    plan = make_plan(tmp_path, {}, [TARGET], clickhouse=url, say=lambda _: None)
    seen = json.dumps([[*part.command] for part in plan.parts]) + json.dumps(plan.urls)
    assert "s3cret" not in seen + (tmp_path / "run.yaml").read_text()
    told = {part.name: part.environment.get("SERVESCOPE_CLICKHOUSE") for part in plan.parts}
    assert told == {"collector": url, "agent": None, "tap-a": None, "alerts": url, "dashboard": url}


def test_the_embedded_store_is_a_part_of_its_own_and_comes_first(tmp_path: Path):
    plan = make_plan(tmp_path, {}, [TARGET], say=lambda _: None)
    assert [part.name for part in plan.parts] == ["store", "collector", "agent", "tap-a", "alerts", "dashboard"]
    assert plan.urls["store"].startswith("http://127.0.0.1:")


@pytest.mark.parametrize(
    ("section", "settings", "named"),
    [
        (
            "collector", {"certificate_file": "c.pem", "certificate_key_file": "k.pem"},
            r"collector\.certificate_file .*a collector .*servescope collector",
        ),
        (
            "agent", {"collector": "https://h", "collector_ca_file": "ca.pem"},
            r"agent\.collector_ca_file .*an agent .*servescope agent",
        ),
    ],
)  # fmt: skip
def test_who_is_to_speak_tls_runs_by_itself(tmp_path: Path, section: str, settings: dict[str, str], named: str):
    with pytest.raises(ServescopeError, match=named):
        make_plan(tmp_path, {section: settings}, [TARGET], say=lambda _: None)


def test_ports_and_links_of_the_configuration_are_kept(tmp_path: Path):
    base = free_block()
    settings = {
        "agent": {"otlp_http_port": base, "otlp_grpc_port": None, "health_port": base + 1},
        "alerts": {"dashboard_url": "https://ops.example", "health_port": base + 2, "receiver_port": base + 3},
    }
    plan = make_plan(tmp_path, settings, [TARGET], say=lambda _: None)
    run = yaml.safe_load((tmp_path / "run.yaml").read_text())
    told = {name: run["agent"][name] for name in settings["agent"]}
    assert told == settings["agent"]
    assert {name: run["alerts"][name] for name in settings["alerts"]} == settings["alerts"]
    assert plan.urls["agent_otlp"] == f"http://127.0.0.1:{base}"
    assert "agent_otlp_grpc" not in plan.urls


def test_parts_are_reached_where_the_configuration_has_them_listen(tmp_path: Path):
    settings = {"collector": {"host": "127.0.0.2"}, "dashboard": {"host": "0.0.0.0"}, "agent": {"health_host": "::1"}}
    plan = make_plan(tmp_path, settings, [TARGET], say=lambda _: None)
    hosts = {
        name: urlsplit(plan.urls[name]).hostname for name in ("otlp", "dashboard", "agent_health", "alerts_health")
    }
    assert hosts == {"otlp": "127.0.0.2", "dashboard": "127.0.0.1", "agent_health": "::1", "alerts_health": "127.0.0.1"}
    ready = {part.name: part.ready_url for part in plan.parts}
    assert ready["collector"] == f"{plan.urls['otlp']}/healthz"
    assert yaml.safe_load((tmp_path / "run.yaml").read_text())["agent"]["collector"] == plan.urls["otlp"]


def test_a_tap_keeps_its_port_in_whatever_order_servers_are_found(tmp_path: Path):
    other = TARGET | {"instance": "b", "url": "http://127.0.0.1:2"}
    first = make_plan(tmp_path, {}, [TARGET], say=lambda _: None)
    (tap,) = first.join([other])
    assert tap.name == "tap-b"
    assert first.urls["taps"].keys() == {"a", "b"}
    told = yaml.safe_load((tmp_path / "run.yaml").read_text())["agent"]["targets"]
    assert [(target["instance"], target["tap_port"]) for target in told] == [
        (instance, int(url.rsplit(":", 1)[1])) for instance, url in first.urls["taps"].items()
    ]
    first.ports.close()
    second = make_plan(tmp_path, {}, [other, TARGET], say=lambda _: None)
    assert second.urls["taps"] == first.urls["taps"]


def test_a_page_links_to_the_dashboard_here_where_no_other_is_named(tmp_path: Path):
    plan = make_plan(tmp_path, {}, [TARGET], say=lambda _: None)
    assert plan.settings["alerts"]["dashboard_url"] == plan.urls["dashboard"]


def test_a_server_with_a_metrics_page_alone_gets_no_tap(tmp_path: Path):
    page = {"instance": "b", "metrics_url": "http://127.0.0.1:2/metrics"}
    plan = make_plan(tmp_path, {}, [TARGET, page], say=lambda _: None)
    assert list(plan.urls["taps"]) == ["a"]
    assert [part.name for part in plan.parts if part.name.startswith("tap")] == ["tap-a"]


@pytest.mark.parametrize(("tap", "expected"), [(True, [True, False]), (False, [False, False])])
def test_no_tap_holds_for_configured_targets_too(tap: bool, expected: list[bool]):
    targets = [{"instance": "a", "url": "http://x:1"}, {"instance": "b", "url": "http://x:2", "tap": False}]
    found = asyncio.run(targets_of([], {"agent": {"targets": targets}}, tap=tap))
    assert [target["tap"] for target in found] == expected


LOOKS = {
    "dns": ["{kind: dns, name: vllm.chat, port: 8000}"],
    "dns and local": ["{kind: dns, name: vllm.chat, port: 8000}", "{kind: local}"],
}


@pytest.mark.parametrize(("entries", "looks"), [*zip(LOOKS.values(), [False, True], strict=True)], ids=LOOKS)
def test_up_leaves_servers_elsewhere_to_the_agent_and_finds_those_of_this_machine(
    entries: list[str], looks: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    ran: list[Any] = []

    class Ran:
        def __init__(self, _folder: Path, parts: list[Any], _urls: object, _say: object) -> None:
            self.parts = [part.name for part in parts]

        async def run(self, _ready: object, watch: object) -> None:
            ran.append((self.parts, watch is not None))

    async def nobody(**_: object) -> list[Any]:
        raise AssertionError("this machine is not looked at before the agent runs")

    monkeypatch.setattr("servescope.commands.up.Supervisor", Ran)
    monkeypatch.setattr("servescope.settings.find_local", nobody)
    file = tmp_path / "servescope.yaml"
    file.write_text(f"agent:\n  discovery: [{', '.join(entries)}]\n")
    told = CliRunner().invoke(main, ["up", "--config", str(file), "--data", str(tmp_path / "data")])
    assert told.exit_code == 0, told.output
    assert ran == [(["store", "collector", "agent", "alerts", "dashboard"], looks)]
    run = agent_config.load(tmp_path / "data" / "run.yaml", {})
    assert [one.kind for one in run.looks()] == ["dns"], (
        "the agent looks for no server of this machine: it would get no tap"
    )
    assert run.targets == ()


def told(data: Path, pid: int) -> dict[str, Any] | None:
    (data / "run.json").write_text(json.dumps({"pid": pid, "urls": {}}))
    return running(data)


def test_what_was_killed_does_not_run_though_its_number_lives_on(tmp_path: Path):
    holds = "import fcntl, sys; f = open(sys.argv[1], 'w'); fcntl.flock(f, fcntl.LOCK_EX); print(flush=True); input()"
    command = [sys.executable, "-c", holds, str(tmp_path / "lock")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        assert told(tmp_path, holder.pid) is not None
        holder.kill()
    assert told(tmp_path, os.getpid()) is None, "the lock is free"
    with (tmp_path / "lock").open() as held:
        fcntl.flock(held, fcntl.LOCK_EX)  # another handle of this process counts as another holder
        assert told(tmp_path, os.getpid()) is not None


def test_a_question_without_data_makes_no_empty_store(tmp_path: Path):
    with pytest.raises(ServescopeError, match="no data"), borrowed.store(tmp_path / "new", "", lambda _: None):
        pass
    assert not (tmp_path / "new").exists()
