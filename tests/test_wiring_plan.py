"""What `servescope up` starts: credentials stay out of arguments, files and what is told to people."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import wiring

if TYPE_CHECKING:
    from pathlib import Path

TARGET = {"instance": "a", "deployment": "a", "engine": "vllm", "url": "http://127.0.0.1:1", "metrics_url": ""}


def test_credentials_of_a_server_reach_the_parts_through_their_environment_alone(tmp_path: Path):
    url = "https://writer:s3cret@clickhouse.example:8443"
    plan = wiring.plan(tmp_path, {}, [TARGET], clickhouse=url, say=lambda _: None)
    seen = json.dumps([[*part.command] for part in plan.parts]) + json.dumps(plan.urls)
    assert "s3cret" not in seen + (tmp_path / "run.yaml").read_text()
    told = {part.name: part.environment.get("SERVESCOPE_CLICKHOUSE") for part in plan.parts}
    assert told == {"collector": url, "agent": None, "tap-a": None, "alerts": url, "dashboard": url}


def test_the_embedded_store_is_a_part_of_its_own_and_comes_first(tmp_path: Path):
    plan = wiring.plan(tmp_path, {}, [TARGET], say=lambda _: None)
    assert [part.name for part in plan.parts] == ["store", "collector", "agent", "tap-a", "alerts", "dashboard"]
    assert plan.urls["store"].startswith("http://127.0.0.1:")
