"""What stands beside a model server: its preparation is run, its configuration read, its end timed."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from agent import config as agent_config
from agent.tap.config import read_config
from base.keys import ensure_keys
from tests.kits.deployed import CHART, DEPLOY, ROOT, expanded, manifests, parse, pods, rendered, tool

NAMES = {"POD_NAME": "chat-5d9f-x2", "POD_NAMESPACE": "models", "NODE_NAME": "gpu-7"}


def pod(edge: str = "tap", more: str = "") -> dict[str, Any]:
    values = f"example: {{enabled: true, edge: {edge}}}\n{more}"
    spec: dict[str, Any] = dict(pods(manifests(values)))["obs-chat"]["spec"]
    return spec


def named(spec: dict[str, Any], name: str) -> dict[str, Any]:
    (found,) = [each for each in [*spec["initContainers"], *spec["containers"]] if each["name"] == name]
    return dict(found)


@pytest.fixture(scope="module")
def probe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The probe as the Containerfile installs it."""
    folder = tmp_path_factory.mktemp("opt")
    source = folder / "source"
    shutil.copytree(ROOT / "probe", source, ignore=shutil.ignore_patterns("__pycache__", "build", "*.egg-info"))
    command = [tool("python"), "-m", "pip", "install", "-q", "--no-index", "--no-deps", "--no-build-isolation",
               "--no-compile", "--target", str(folder / "probe"), str(source)]  # fmt: skip
    subprocess.run(command, check=True, capture_output=True)
    return folder / "probe"


def prepared(spec: dict[str, Any], tmp_path: Path, probe: Path) -> Path:
    """Run the init container's own script, twice as a restarted one does, with its folders under ``tmp_path``."""
    one = named(spec, "servescope-prepare")
    keys, data, shared = tmp_path / "secret", tmp_path / "data", tmp_path / "probe"
    subprocess.run(["sh", str(DEPLOY / "keys.sh"), str(keys)], check=True, capture_output=True)
    for folder in (data, shared):
        folder.mkdir()
    (script,) = one["args"]
    moved = {
        "/etc/servescope/keys": keys,
        "/var/lib/servescope": data,
        "/opt/servescope-probe": probe,
        " /probe/": f" {shared}/",
    }
    for old, new in moved.items():
        assert old in script
        script = script.replace(old, str(new))
    (text,) = [each["value"] for each in one["env"] if each["name"] == "CONFIGURATION"]
    text = expanded(text, **NAMES).replace("/etc/servescope/keys", str(keys))
    for _ in range(2):
        subprocess.run([*one["command"], script], env={"PATH": os.environ["PATH"], "CONFIGURATION": text}, check=True)
    return tmp_path


def test_the_preparation_makes_what_agent_and_tap_read(tmp_path: Path, probe: Path):
    more = "sidecar: {drainSeconds: 90, config: {region: eu, tap: {connect_seconds: 2}, tenant: {header: x-team}}}"
    at = prepared(pod(more=more), tmp_path, probe)
    file = at / "data" / "servescope.yaml"
    agent = agent_config.load(file, {})
    (target,) = agent.targets
    assert (target.instance, target.deployment, target.engine) == ("chat-5d9f-x2", "chat", "vllm")
    assert target.url == "http://127.0.0.1:8000"
    assert agent.collector == "http://obs-collector.watch.svc:4318"
    place = agent.place()
    assert (place.region, place.pod, place.namespace, place.node) == ("eu", "chat-5d9f-x2", "models", "gpu-7")
    assert agent.key_file is not None
    assert len(bytes.fromhex(agent.key_file.read_text())) == 32
    tap = read_config(file, "chat-5d9f-x2")
    assert (tap.limits.drain_seconds, tap.limits.connect_seconds, tap.tenant.header) == (90, 2, "x-team")
    assert tap.place == {
        "cloud.region": "eu",
        "k8s.pod.name": "chat-5d9f-x2",
        "k8s.namespace.name": "models",
        "k8s.node.name": "gpu-7",
        "host.name": "gpu-7",
    }
    salt = (at / "secret" / "tenant_salt").read_text()
    assert ensure_keys(at / "data" / "keys").tenant_salt.hex() == salt
    assert stat.S_IMODE((at / "data" / "keys" / "tenant_salt").stat().st_mode) & 0o077 == 0


def test_any_python_finds_the_probe_by_its_path_alone(tmp_path: Path, probe: Path):
    at = prepared(pod(), tmp_path, probe)
    server = named(pod(), "server")
    assert {"name": "PYTHONPATH", "value": "/opt/servescope-probe"} in server["env"]
    assert {"name": "servescope-probe", "mountPath": "/opt/servescope-probe", "readOnly": True} in server[
        "volumeMounts"
    ]
    asked = (
        "from importlib.metadata import entry_points, version\n"
        "(one,) = entry_points(group='vllm.stat_logger_plugins')\n"
        "print(version('servescope-probe'), one.load().__module__, __import__('servescope_probe').Edge.__name__)"
    )
    base = getattr(sys, "_base_executable", sys.executable)  # nothing of ours but the folder
    told = subprocess.run(
        [base, "-c", asked], env={"PYTHONPATH": str(at / "probe"), "PYTHONDONTWRITEBYTECODE": "1"}, cwd=at,
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert told.stdout.split() == ["0.1.0", "servescope_probe.plugin", "Edge"]


def test_agent_and_probe_meet_at_one_socket_as_one_user():
    spec = pod("probe")
    server, agent = named(spec, "server"), named(spec, "servescope-agent")
    found = [{each["name"]: each.get("value") for each in one["env"]} for one in (server, agent)]
    assert found[0]["SERVESCOPE_PROBE_SOCKET"] == found[1]["SERVESCOPE_PROBE_SOCKET"]
    socket = Path(str(found[0]["SERVESCOPE_PROBE_SOCKET"]))
    for one in (server, agent):
        (mount,) = [each for each in one["volumeMounts"] if each["name"] == "servescope-run"]
        assert Path(mount["mountPath"]) == socket.parent.parent, "everybody may write to the volume's own root"
    assert agent["securityContext"]["runAsUser"] == spec["securityContext"]["runAsUser"]
    assert found[0]["SERVESCOPE_PROBE_INSTANCE"] == "$(POD_NAME)"
    assert server["args"][-2:] == ["--middleware", "servescope_probe.Edge"]
    assert "servescope_probe.Edge" not in named(pod("tap"), "server")["args"]


def test_the_server_outlives_what_clients_wait_for(monkeypatch: pytest.MonkeyPatch):
    spec = pod("tap", "sidecar: {drainSeconds: 300}")
    tap, server, agent = (named(spec, name) for name in ("servescope-tap", "server", "servescope-agent"))
    stays = server["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert stays >= tap["lifecycle"]["preStop"]["sleep"]["seconds"] + 300
    assert spec["terminationGracePeriodSeconds"] > stays
    assert agent["restartPolicy"] == "Always"  # ends after all others
    options = parse(monkeypatch, [expanded(word, **NAMES) for word in tap["args"]])
    assert (options["instance"], options["upstream"]) == ("chat-5d9f-x2", "http://127.0.0.1:8000")
    assert (options["host"], options["port"]) == ("0.0.0.0", 9080)


def test_a_chart_of_ones_own_includes_it(tmp_path: Path):
    chart = tmp_path / "chat"
    shutil.copytree(CHART, chart / "charts" / "servescope")
    (chart / "templates").mkdir()
    (chart / "Chart.yaml").write_text(
        "{apiVersion: v2, name: chat, version: 1.0.0, dependencies: [{name: servescope, version: 0.1.0}]}"
    )
    (chart / "values.yaml").write_text("servescope: {node: {enabled: false}, sidecar: {user: 2000}}")
    parts = "\n".join(
        f'  {field}: {{{{ include "servescope.sidecar.{part}" $s | nindent 4 }}}}'
        for field, part in (("initContainers", "initContainers"), ("containers", "containers"), ("volumes", "volumes"))
    )
    (chart / "templates" / "pod.yaml").write_text(
        '{{- $s := dict "values" .Values.servescope "release" .Release "deployment" "mine" "port" 9000 "engine" "auto"'
        ' "edge" "tap" }}\napiVersion: v1\nkind: Pod\nmetadata: {name: mine}\nspec:\n' + parts
    )
    mine = next(each for each in yaml.safe_load_all(rendered("", chart)) if each and each["kind"] == "Pod")
    tap = named(mine["spec"], "servescope-tap")
    assert "http://127.0.0.1:9000" in tap["args"]
    assert tap["securityContext"]["runAsUser"] == 2000
