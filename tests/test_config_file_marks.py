"""Ports and files of a configuration are found where they are declared, wherever that is."""

from __future__ import annotations

from pathlib import Path  # noqa: TC003 - pydantic reads it at run time
from typing import Annotated

import pytest
from pydantic import BaseModel

from agent.config import AgentConfig
from base.errors import ConfigError
from base.settings import EACH, MustExist, Port, marked
from dashboard import config as dashboard_config
from servescope import config_file
from servescope.launch import plan


class _Inner(BaseModel):
    file: Annotated[Path | None, MustExist(home=True)] = None
    plain: Path | None = None


class _Outer(BaseModel):
    port: Annotated[int | None, Port("one")] = None
    inner: _Inner = _Inner()
    perhaps: _Inner | None = None
    several: tuple[_Inner, ...] = ()
    listed: list[_Inner] = []


def test_marks_are_found_in_settings_of_settings():
    assert list(marked(_Outer, Port)) == [(("port",), Port("one"))]
    ways = [("inner",), ("perhaps",), ("several", EACH), ("listed", EACH)]
    assert [place for place, _ in marked(_Outer, MustExist)] == [(*way, "file") for way in ways]


def test_every_port_that_the_launcher_gives_out_but_the_stores_is_a_setting():
    assert set(config_file.named_ports()) == set(plan.DEFAULT_PORTS) - {"store"}


def test_each_path_of_the_agent_must_be_there_unless_it_makes_it_or_only_some_machines_have_it():
    made, of_kubernetes = {"probe_socket"}, {"pod_resources"}
    paths = {name for name, field in AgentConfig.model_fields.items() if "Path" in str(field.annotation)}
    assert {place[-1] for place, _ in marked(AgentConfig, MustExist)} == paths - made - of_kubernetes


def test_a_new_port_and_a_new_file_are_checked_without_more_ado(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    class Wider(dashboard_config.DashboardConfig):
        second_port: Annotated[int, Port()] = 0
        theme: Annotated[Path | None, MustExist()] = None

    monkeypatch.setattr(dashboard_config, "DashboardConfig", Wider)
    file = tmp_path / "servescope.yaml"
    file.write_text("collector:\n  port: 9000\ndashboard:\n  second_port: 9000\n  theme: nosuch\n")
    with pytest.raises(ConfigError) as told:
        config_file.read_settings(file, files=True)
    assert "dashboard.second_port: port 9000 is collector.port's already" in str(told.value)
    assert "dashboard.theme: nosuch can't be read: No such file" in str(told.value)
