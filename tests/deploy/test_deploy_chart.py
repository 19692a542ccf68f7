"""The chart as helm renders it: what the API server would take, what our commands read, and what fits together."""

from __future__ import annotations

import copy
import json
import re
import subprocess
import tomllib
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from agent import config as agent_config
from agent.discovery.kubernetes import Settings
from alerts.config import read_config
from base import yamlfile
from collector import config as collector_config
from collector.auth import open_door
from dashboard.config import DashboardConfig
from servescope.cli import main
from tests.kits import pod_security
from tests.kits.deployed import (
    CHART,
    OLDEST,
    ROOT,
    containers,
    helm,
    is_ours,
    manifests,
    parse,
    pods,
    tool,
)

if TYPE_CHECKING:
    from pathlib import Path

SLOS = (ROOT / "deploy" / "compose" / "slo.yaml").read_text()
ALERTED = {
    "secret": "pagers",
    "slos": SLOS,
    "config": {"pagerduty": {"routing_key_file": "/etc/servescope/alerts/pagerduty"}, "evaluate_every_seconds": "10s"},
}
SERVER = {"url": "https://clickhouse.databases:8443/path?database=watch", "secret": "clickhouse"}
CASES = {
    "as it is": {},
    "all on": {
        "example": {"enabled": True},
        "alerts": ALERTED,
        "discovery": {"namespaces": ["models", "more"], "config": {"selector": "app=vllm", "own_node": False}},
        "pullSecrets": [{"name": "registry"}],
        "collector": {
            "config": {"log_max_bytes": 4294967296, "retention_days": {"requests": 90}},
            "disk": {"size": "1Ti", "storageClass": "fast"},
        },
        "node": {
            "runtimeClass": "nvidia",
            "podResources": "/data/kubelet/pod-resources",
            "nodeSelector": {"gpu": "yes"},
            "config": {"region": "eu-west-1"},
        },
        "networkPolicy": {
            "dashboardFrom": [{"podSelector": {"matchLabels": {"app": "proxy"}}}],
            "metricsFrom": [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}],
        },
    },
    "a server": {
        "clickhouse": SERVER,
        "alerts": ALERTED,
        "dashboard": {"replicas": 3},
        "networkPolicy": {"metricsFrom": [{"podSelector": {}}]},
    },
    "told by the probe": {
        "example": {"enabled": True, "edge": "probe"},
        "sidecar": {
            "collector": "https://collector.example",
            "config": {"region": "eu", "tap": {"connect_seconds": 2}},
        },
        "node": {"enabled": False},
        "discovery": {"namespaces": ["models"]},
        "alerts": {"enabled": False},
        "dashboard": {"enabled": False},
        "networkPolicy": {"enabled": False},
    },
}
KUBELETS = ["volume pod-resources", "agent: runAsNonRoot", "agent: runAsUser"]
"""What `restricted` refuses of an agent that may ask the kubelet, and nothing more."""
VALUES = {name: yaml.safe_dump(values) for name, values in CASES.items()}
every_case = pytest.mark.parametrize("values", VALUES.values(), ids=VALUES.keys())


@pytest.mark.parametrize("version", [OLDEST.rpartition(".")[0], "1.37"])
def test_the_api_servers_schemas_take_it(version: str, tmp_path: Path):
    each_once = {json.dumps(one): None for values in VALUES.values() for one in manifests(values)}
    file = tmp_path / "all.yaml"
    file.write_text("\n---\n".join(each_once))
    command = [tool("kubernetes-validate"), "--strict", "-k", version, str(file)]
    told = subprocess.run(command, capture_output=True, text=True, check=False)
    said = told.stdout + told.stderr
    assert told.returncode == 0, said
    assert said.count(" passed for ") == len(each_once), said


def test_helm_finds_no_fault(tmp_path: Path):
    (tmp_path / "values.yaml").write_text(VALUES["all on"])
    told = helm("lint", "--strict", str(CHART), "-f", str(tmp_path / "values.yaml"))
    assert told.returncode == 0, told.stdout


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"clickhouse": {"url": "http://me:secret@clickhouse:8123", "secret": "x"}}, "url"),
        ({"clickhouse": {"url": "http://clickhouse:8123"}}, "clickhouse.secret"),
        ({"dashboard": {"replicas": 2}}, "dashboard.replicas"),
        ({"collecter": {}}, "collecter"),
        ({"store": {"memory": "2Gi"}}, "memory"),
        ({"example": {"edge": "proxy"}}, "edge"),
        ({"user": 0}, "user"),
        ({"discovery": {"namespaces": ["*"]}}, "namespaces"),
        ({"node": {"podResources": "kubelet"}}, "podResources"),
        ({"node": {"podResources": True}}, "podResources"),
    ],
    ids=lambda given: given if isinstance(given, str) else "",
)
def test_a_wrong_value_is_refused_by_its_name(values: dict[str, Any], named: str, tmp_path: Path):
    file = tmp_path / "values.yaml"
    file.write_text(yaml.safe_dump(values))
    told = helm("template", "obs", str(CHART), "-f", str(file))
    assert told.returncode != 0
    assert named in told.stderr


@every_case
def test_every_command_is_one_that_its_program_reads(values: str, monkeypatch: pytest.MonkeyPatch):
    seen = set()
    for _, pod in pods(manifests(values)):
        for container in containers(pod):
            if is_ours(container["image"]) and "command" not in container:
                seen.add(container["args"][0])
                assert parse(monkeypatch, container["args"])
    assert seen


def _here(text: str, tmp_path: Path, found: list[dict[str, Any]]) -> Path:
    """A configuration with what it names made under ``tmp_path``: Secrets' files hold a key."""
    folder = tmp_path / "etc"
    for each in found:
        if each["kind"] == "ConfigMap" and "slo.yaml" in each["data"]:
            (folder / "config").mkdir(parents=True, exist_ok=True)
            (folder / "config" / "slo.yaml").write_text(each["data"]["slo.yaml"])
    for path in re.findall(r"/etc/servescope/((?:keys|alerts|clickhouse)/[\w.]+)", text):
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text("ab" * 16)
    file = tmp_path / "servescope.yaml"
    file.write_text(text.replace("/etc/servescope", str(folder)))
    return file


@every_case
def test_configurations_are_what_the_parts_read(values: str, tmp_path: Path, run_cli: Any):
    found = manifests(values)
    texts = {each["metadata"]["name"]: each["data"]["servescope.yaml"] for each in found if each["kind"] == "ConfigMap"}
    middle = _here(texts["obs-config"], tmp_path, found)
    told = run_cli(main, ["config", "check", str(middle)])
    assert told.exit_code == 0, told.output
    given = yaml.safe_load(values)
    collector = collector_config.load(middle)
    assert (collector.host, collector.port, collector.require_signature) == ("0.0.0.0", 4318, True)
    assert collector.clickhouse == (given.get("clickhouse", {}).get("url") or "http://127.0.0.1:8123")
    assert len(open_door(b"x" * 32, collector.sender_keys, require_signature=True).keys) == 2
    for name, value in given.get("collector", {}).get("config", {}).items():
        assert getattr(collector, name) == value
    alerts = read_config(middle)
    assert (alerts.health_host, alerts.health_port) == ("0.0.0.0", 9465)
    assert (alerts.slos is not None) == bool(given.get("alerts", {}).get("slos"))
    shown = yamlfile.settings(middle, "dashboard", DashboardConfig)
    assert (shown.host, shown.port) == ("0.0.0.0", 8501)
    if "obs-node" in texts:
        node = agent_config.load(_here(texts["obs-node"], tmp_path, found), {"SERVESCOPE_AGENT_NODE": "gpu-7"})
        assert node.otlp_http_port is node.otlp_grpc_port is None
        assert (node.place().node, node.targets, node.health_port) == ("gpu-7", (), 9464)
        assert node.region == given.get("node", {}).get("config", {}).get("region", "")
        names = given.get("discovery", {}).get("namespaces", [])
        entry = {"kind": "kubernetes", "namespaces": names, "own_node": True, "selector": "app=vllm"}
        assert list(node.discovery) == ([Settings.model_validate(entry)] if names else [])


@pytest.fixture
def run_cli() -> Any:
    from click.testing import CliRunner  # noqa: PLC0415 - of this fixture alone

    return CliRunner().invoke


@every_case
def test_what_is_mounted_named_and_probed_is_there(values: str):
    for each in manifests(values):
        if "template" not in each.get("spec", {}):
            continue
        name, pod = each["metadata"]["name"], each["spec"]["template"]
        volumes = {volume["name"] for volume in pod["spec"]["volumes"]}
        volumes |= {claim["metadata"]["name"] for claim in each["spec"].get("volumeClaimTemplates", [])}
        used = set()
        for container in containers(pod):
            used |= {mount["name"] for mount in container["volumeMounts"]}
            places = [mount["mountPath"] for mount in container["volumeMounts"]]
            if is_ours(container["image"]):
                for word in container["args"]:
                    if word.startswith(("/etc/", "/var/", "/run/")):
                        assert any(f"{word}/".startswith(f"{place}/") for place in places), word
            ports = {port["name"] for port in container.get("ports", [])}
            for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
                asked = container.get(probe, {"exec": {}})
                assert "exec" in asked or (asked.get("httpGet") or asked["tcpSocket"])["port"] in ports
        assert used == volumes, name


@every_case
def test_services_and_policies_lead_to_doors_that_are_open(values: str):
    found = manifests(values)
    workloads = [(name, pod["metadata"]["labels"], pod) for name, pod in pods(found)]
    for each in found:
        if each["kind"] not in {"Service", "NetworkPolicy", "PodDisruptionBudget"}:
            continue
        spec = each["spec"]
        wanted = spec.get("podSelector", spec.get("selector"))
        wanted = wanted.get("matchLabels", wanted)
        led = [pod for _, labels, pod in workloads if wanted.items() <= labels.items()]
        assert len(led) == 1, f"{each['kind']} {each['metadata']['name']} selects {len(led)} workloads"
        doors = {port["name"] for container in containers(led[0]) for port in container.get("ports", [])}
        asked = [port["targetPort"] for port in spec.get("ports", [])]
        asked += [port["port"] for rule in spec.get("ingress", []) for port in rule["ports"]]
        assert set(asked) <= doors, each["metadata"]["name"]
        assert all(rule.get("from") for rule in spec.get("ingress", [])), "a rule without peers lets everybody in"
    for each in found:
        if "template" in each.get("spec", {}):
            labels = each["spec"]["template"]["metadata"]["labels"]
            assert each["spec"]["selector"]["matchLabels"].items() <= labels.items()


@every_case
def test_ports_are_those_of_the_configuration_and_the_commands(values: str, monkeypatch: pytest.MonkeyPatch):
    listen = {
        "otlp": 4318,
        "alerts-health": 9465,
        "dashboard": 8501,
        "health": 9464,
        "agent-health": 9464,
        "server": 8000,
    }
    for _, pod in pods(manifests(values)):
        for container in containers(pod):
            for port in container.get("ports", []):
                if port["name"] == "tap":
                    assert parse(monkeypatch, container["args"])["port"] == port["containerPort"]
                else:
                    assert listen[port["name"]] == port["containerPort"]


@every_case
def test_every_pod_is_restricted(values: str):
    for name, pod in pods(manifests(values)):
        spec = pod["spec"]
        of_root = name == "obs-node" and "podResources" in values
        assert pod_security.faults(spec) == (KUBELETS if of_root else []), name
        assert spec["enableServiceLinks"] is False, "SERVESCOPE_TAP_PORT would be a service's"
        assert spec["automountServiceAccountToken"] is (name == "obs-node" and "models" in values)
        for container in containers(pod):
            assert container["resources"]["limits"], container["name"]
            if is_ours(container["image"]):
                assert container["securityContext"]["readOnlyRootFilesystem"] is True
                assert container["resources"]["requests"]
                assert container["resources"]["limits"]["memory"]


@pytest.mark.parametrize(
    ("where", "field", "value"),
    [
        ((), "hostPID", True),
        (("securityContext",), "runAsNonRoot", False),
        (("securityContext",), "seccompProfile", {"type": "Unconfined"}),
        (("containers", 0, "securityContext"), "allowPrivilegeEscalation", True),
        (("containers", 0, "securityContext"), "capabilities", {"drop": ["ALL"], "add": ["SYS_PTRACE"]}),
        (("containers", 0, "securityContext"), "privileged", True),
        (("containers", 0, "securityContext"), "runAsUser", 0),
        (("containers", 0), "ports", [{"containerPort": 1, "hostPort": 1}]),
        (("volumes", 0), "hostPath", {"path": "/"}),
    ],
)
def test_what_is_not_restricted_is_found(where: tuple[str | int, ...], field: str, value: Any):
    spec = copy.deepcopy(next(iter(pods(manifests())))[1]["spec"])
    place: Any = spec
    for step in where:
        place = place[step]
    place[field] = value
    assert pod_security.faults(spec)


@every_case
def test_no_secret_is_rendered_and_rights_are_few(values: str):
    found = manifests(values)
    assert not [each for each in found if each["kind"] in {"Secret", "ClusterRole", "ClusterRoleBinding"}]
    roles = [each for each in found if each["kind"] == "Role"]
    given = yaml.safe_load(values)
    on = given.get("node", {}).get("enabled", True)
    namespaces = given.get("discovery", {}).get("namespaces", []) if on else []
    assert [each["metadata"]["namespace"] for each in roles] == namespaces
    assert all(each["rules"] == [{"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list", "watch"]}]
               for each in roles)  # fmt: skip
    accounts = {each["metadata"]["name"] for each in found if each["kind"] == "ServiceAccount"}
    for each in found:
        if each["kind"] == "RoleBinding":
            assert {one["name"] for one in each["subjects"]} == {"obs-agent"}
            assert each["roleRef"]["name"] in {role["metadata"]["name"] for role in roles}
    assert {pod["spec"].get("serviceAccountName", "obs-agent") for _, pod in pods(found)} <= accounts


def test_the_kubelet_is_asked_where_its_socket_is_mounted(tmp_path: Path):
    found = manifests(VALUES["all on"])
    (agent,) = dict(pods(found))["obs-node"]["spec"]["containers"]
    volumes = {volume["name"]: volume for volume in dict(pods(found))["obs-node"]["spec"]["volumes"]}
    assert volumes["pod-resources"]["hostPath"] == {"path": "/data/kubelet/pod-resources", "type": "Directory"}
    (mount,) = [mount for mount in agent["volumeMounts"] if mount["name"] == "pod-resources"]
    (text,) = [each["data"]["servescope.yaml"] for each in found
               if (each["kind"], each["metadata"]["name"]) == ("ConfigMap", "obs-node")]  # fmt: skip
    asked = agent_config.load(_here(text, tmp_path, found), {}).pod_resources
    assert asked is not None
    assert (str(asked.parent), mount["readOnly"]) == (mount["mountPath"], True)
    assert agent["securityContext"]["runAsUser"] == 0, "the socket is root's"
    assert agent["securityContext"]["capabilities"] == {"drop": ["ALL"]}


def test_one_pod_writes_to_an_embedded_store_and_owners_passwords_stay_in_it():
    middle = dict(pods(manifests(VALUES["all on"])))["obs-collector"]
    names = [container["name"] for container in containers(middle)]
    assert names == ["store", "collector", "alerts", "dashboard"]
    assert not [port for container in containers(middle) for port in container.get("ports", [])
                if port["containerPort"] == 8123]  # fmt: skip
    found = manifests(VALUES["all on"])
    assert {each["spec"]["replicas"] for each in found if each["kind"] == "StatefulSet"} == {1}
    (service,) = [each for each in found if (each["kind"], each["metadata"]["name"]) == ("Service", "obs-collector")]
    assert service["spec"]["publishNotReadyAddresses"], "the dashboard's readiness is not the collector's"


def test_beside_a_server_credentials_come_from_a_secret():
    workloads = dict(pods(manifests(VALUES["a server"])))
    assert {"obs-collector", "obs-alerts", "obs-dashboard"} <= workloads.keys()
    for part in ("alerts", "dashboard"):
        (only,) = workloads[f"obs-{part}"]["spec"]["containers"]
        assert only["env"] == [
            {
                "name": "SERVESCOPE_CLICKHOUSE",
                "valueFrom": {"secretKeyRef": {"name": "clickhouse", "key": part}},
            }
        ]


def test_versions_are_the_projects():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    assert {chart["version"], chart["appVersion"], values["image"]["tag"], values["agentImage"]["tag"]} == {project}


def test_notes_say_what_to_do(tmp_path: Path):
    file = tmp_path / "values.yaml"
    file.write_text(VALUES["as it is"])
    told = helm("install", "obs", str(CHART), "-n", "watch", "--dry-run=client", "-f", str(file))
    assert told.returncode == 0, told.stderr
    notes = told.stdout.partition("NOTES:")[2]
    assert "create secret generic servescope-keys" in notes
    assert "http://obs-collector.watch.svc:4318" in notes
    assert "privileged" not in notes
    file.write_text(VALUES["all on"])
    told = helm("install", "obs", str(CHART), "-n", "watch", "--dry-run=client", "-f", str(file))
    assert "label namespace watch pod-security.kubernetes.io/enforce=privileged" in told.stdout.partition("NOTES:")[2]
