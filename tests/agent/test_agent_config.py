from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from agent.config import TLS_FILES, load, unknown_variables
from base.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path

WHOLE = """
agent:
  collector: http://127.0.0.1:4318
  region: eu-west-1
  tenant: {header: x-tenant-id, key_header: authorization, names: {abc: Acme}}
  targets:
    - {instance: triton-a, deployment: vision, engine: auto, url: http://127.0.0.1:8000,
       metrics_url: http://127.0.0.1:8002/metrics, tap_port: 9080}
    - {instance: llama-a, url: http://127.0.0.1:8080/}
"""


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "servescope.yaml"
    path.write_text(text)
    return path


def test_the_documented_section(tmp_path: Path):
    config = load(write(tmp_path, WHOLE), {})
    triton, llama = (target.target() for target in config.targets)
    assert (triton.deployment, triton.engine, triton.tap_port) == ("vision", None, 9080)
    assert (llama.deployment, llama.url) == ("llama-a", "http://127.0.0.1:8080")
    assert config.place().region == "eu-west-1"
    assert config.place().node
    assert config.tenant.names == {"abc": "Acme"}


def test_no_file_is_all_defaults(tmp_path: Path):
    assert load(None, {}).collector == "http://127.0.0.1:4318"
    assert load(write(tmp_path, "collector: {port: 1}\n"), {}) == load(None, {})


def test_the_environment_comes_last(tmp_path: Path):
    environment = {
        "SERVESCOPE_AGENT_REGION": "us",
        "SERVESCOPE_AGENT_CLUSTER": "42",
        "SERVESCOPE_AGENT_OTLP_GRPC_PORT": "null",
        "SERVESCOPE_AGENT_GPU": "false",
        "SERVESCOPE_AGENT_TARGETS": "[{instance: a, url: http://h:1}]",
    }
    config = load(write(tmp_path, WHOLE), environment)
    assert (config.region, config.cluster, config.otlp_grpc_port, config.gpu) == ("us", "42", None, False)
    assert [target.instance for target in config.targets] == ["a"]


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("agent: {colector: x}", "agent.colector"),
        ("agent: {collector: 127.0.0.1:4318}", "agent.collector"),
        ("agent: {collector: 'http://h:99999'}", "agent.collector"),
        ("agent: {health_port: 70000}", "agent.health_port"),
        ("agent: {targets: [{instance: a}]}", "agent.targets[0]: give url, metrics_url or both"),
        ("agent: {targets: [{url: 'http://h'}]}", "agent.targets[0].instance: is missing"),
        ("agent: {targets: [{instance: a, url: 'ftp://h'}]}", "agent.targets[0].url"),
        ("agent: {targets: [{instance: a, url: 'http://h'}, {instance: a, url: 'http://h'}]}", "'a' is there twice"),
        ("agent: {client_key_file: /x}", "go together"),
        ("agent: {collector: 'http://h', collector_ca_file: /x}", "agent.collector_ca_file: is for an https collector"),
        ("agent: {client_certificate_file: /x, client_key_file: /y}", "agent.collector is plain http: make that https"),
        ("agent: [1]", "agent: is not a mapping"),
        ("agent: {", "not YAML"),
        ("- a", "no mapping of sections"),
    ],
)
def test_a_wrong_field_is_named(tmp_path: Path, text: str, named: str):
    with pytest.raises(ConfigError, match=re.escape(named)):
        load(write(tmp_path, text), {})


def test_a_file_that_is_not_there_is_named(tmp_path: Path):
    with pytest.raises(ConfigError, match="nowhere"):
        load(tmp_path / "nowhere.yaml", {})


@pytest.mark.parametrize(
    ("variable", "value", "told"),
    [
        ("SERVESCOPE_AGENT_HEALTH_PORT", "many", "the variable SERVESCOPE_AGENT_HEALTH_PORT: must be a whole number"),
        ("SERVESCOPE_AGENT_TARGETS", "[{instance: a}]", "the variable SERVESCOPE_AGENT_TARGETS: 0: give url"),
        ("SERVESCOPE_AGENT_COLLECTOR_CA_FILE", "/x", "the variable SERVESCOPE_AGENT_COLLECTOR_CA_FILE: is for an"),
    ],
)
def test_a_wrong_variable_is_named(variable: str, value: str, told: str):
    with pytest.raises(ConfigError, match=told):
        load(None, {variable: value})


def test_an_https_collector_may_have_tls_files(tmp_path: Path):
    settings = {"collector": "HTTPS://h"} | {name: f"/{name}" for name in TLS_FILES}
    config = load(write(tmp_path, f"agent: {settings}\n"), {})
    assert {name: str(getattr(config, name)) for name in TLS_FILES} == {name: settings[name] for name in TLS_FILES}


def test_a_variable_that_is_no_setting_is_known_and_those_of_kubernetes_are_left_alone():
    environment = {
        "SERVESCOPE_AGENT_GPUS": "false",
        "SERVESCOPE_AGENT_GPU": "false",
        "SERVESCOPE_AGENT_SERVICE_HOST": "10.0.0.1",
        "SERVESCOPE_AGENT_SERVICE_PORT_HTTP": "9464",
        "SERVESCOPE_AGENT_PORT": "tcp://10.0.0.1:9464",
        "SERVESCOPE_AGENT_PORT_9464_TCP_ADDR": "10.0.0.1",
        "SERVESCOPE_DATA": "/data",
    }
    assert unknown_variables(environment) == ["SERVESCOPE_AGENT_GPUS"]
