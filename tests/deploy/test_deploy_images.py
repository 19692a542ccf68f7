"""The Containerfile, the pins that it installs, the compose files and the keys' script."""

from __future__ import annotations

import re
import stat
import subprocess
import tomllib
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from click.testing import CliRunner

from agent import config as agent_config
from base.keys import ensure_keys
from collector import config as collector_config
from collector.auth import open_door
from servescope.cli import main
from tests.kits.deployed import CHART, DEPLOY, ROOT, is_ours, parse, tool

if TYPE_CHECKING:
    from pathlib import Path

CONTAINERFILE = (DEPLOY / "Containerfile").read_text()
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
BOTH = [("compose.yaml",), ("compose.yaml", "compose.clickhouse.yaml")]
every_compose = pytest.mark.parametrize("files", BOTH, ids=" and ".join)


def pins(name: str) -> dict[str, str]:
    text = (ROOT / "requirements" / f"{name}.txt").read_text()
    return dict(re.findall(r"^([\w.-]+)==([^ ;\\]+)", text, re.MULTILINE))


def stages() -> dict[str, str]:
    found = re.split(r"^FROM (?=\S+ AS )", CONTAINERFILE, flags=re.MULTILINE)[1:]
    return {text.split(None, 3)[2]: text for text in found}


def test_hadolint_finds_no_fault():
    told = subprocess.run(
        [tool("hadolint"), "--failure-threshold", "style", str(DEPLOY / "Containerfile")],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert told.returncode == 0, told.stdout


def test_what_is_copied_is_the_project():
    copied = set(re.findall(r"^COPY (\w+) \1$", CONTAINERFILE, re.MULTILINE))
    assert copied == {*PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["only-include"], "probe"}
    kept = set(re.findall(r"^!(\S+)$", (DEPLOY / "Containerfile.dockerignore").read_text(), re.MULTILINE))
    assert kept == copied | {"LICENSE", "README.md", "pyproject.toml", "requirements"}
    assert {PROJECT["project"]["readme"], *PROJECT["project"]["license-files"]} <= kept


def test_everything_that_is_installed_is_pinned_by_hash_or_built_here():
    for line in re.findall(r"/build/bin/pip (.*?(?:install|wheel) [^\n\\]*)", CONTAINERFILE):
        assert "--no-deps" in line or "--require-hashes" in line, line
    assert "PIP_ONLY_BINARY=:all:" in CONTAINERFILE
    for name in ("agent", "middle"):
        assert pins(name).items() <= pins("all").items(), f"make pins: requirements/{name}.txt is of another day"
    for file in re.findall(r"requirements/(\w+)\.txt", CONTAINERFILE):
        text = (ROOT / "requirements" / f"{file}.txt").read_text()
        assert text.count("==") <= text.count("--hash=sha256:")


def test_the_agents_image_is_light_and_the_middles_whole():
    asked = {name: {re.split(r"[^\w.-]", each)[0] for each in extra if "[" not in each}
             for name, extra in PROJECT["project"]["optional-dependencies"].items()}  # fmt: skip
    assert asked["agent"] <= pins("agent").keys()
    heavy = {"pandas", "streamlit", "clickhouse-connect", "chdb-core", "plotly"}
    assert heavy <= pins("middle").keys()
    assert not heavy & pins("agent").keys()
    wanted = set.union(
        *(asked[name] for name in ("agent", "collector", "embedded", "analytics", "alerts", "dashboard"))
    )
    assert wanted <= pins("middle").keys()


def test_images_run_as_nobody_in_particular_and_build_nothing():
    found = stages()
    for name in ("agent", "middle"):
        assert found[name].startswith("run AS")
        assert "RUN" not in found[name]
        assert re.findall(r"^USER (.*)$", found[name], re.MULTILINE) == ["10001:10001"]
    assert yaml.safe_load((CHART / "values.yaml").read_text())["user"] == 10001
    assert not re.search(r"apt-get|gcc|build-essential", CONTAINERFILE)
    assert 'ENTRYPOINT ["/opt/servescope/bin/servescope"]' in found["run"]


def test_keys_are_made_once_and_are_keys(tmp_path: Path):
    folder = tmp_path / "keys"
    run = ["sh", str(DEPLOY / "keys.sh"), str(folder)]
    told = subprocess.run(run, capture_output=True, text=True, check=True).stdout
    first = {path.name: path.read_text() for path in folder.iterdir()}
    assert first.keys() == {"agent_hmac", "tenant_salt"}
    assert not any(text in told for text in first.values())
    assert all(re.fullmatch("[0-9a-f]{64}", text) for text in first.values())
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    subprocess.run(run, capture_output=True, check=True)
    assert {path.name: path.read_text() for path in folder.iterdir()} == first
    keys = ensure_keys(folder)
    assert (keys.agent_hmac.hex(), keys.tenant_salt.hex()) == (first["agent_hmac"], first["tenant_salt"])


def composed(files: tuple[str, ...], folder: Path) -> dict[str, Any]:
    """What docker-compose makes of the files; what they name beside them is made first."""
    for name in ("compose.yaml", "compose.clickhouse.yaml"):
        (folder / name).write_text((DEPLOY / name).read_text())
    (folder / "keys").mkdir()
    for part in ("alerts", "dashboard"):
        (folder / "keys" / f"{part}.env").write_text("SERVESCOPE_CLICKHOUSE=http://servescope:x@store:8123\n")
    given = [word for name in files for word in ("-f", str(folder / name))]
    told = subprocess.run(
        [tool("docker-compose"), *given, "--profile", "model", "config", "--format", "json"],
        capture_output=True, text=True, check=False, env={"MODEL_URL": "http://elsewhere:8000", "HOME": str(folder)},
    )  # fmt: skip
    assert told.returncode == 0, told.stderr
    found: dict[str, Any] = yaml.safe_load(told.stdout)
    return found


@every_compose
def test_compose_takes_them_and_every_command_is_read(
    files: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    services = composed(files, tmp_path)["services"]
    seen = {}
    for name, service in services.items():
        if not is_ours(service["image"]):
            continue
        assert service["read_only"], name
        assert (service["user"], service["cap_drop"]) == ("10001:10001", ["ALL"]), name
        assert service["security_opt"] == ["no-new-privileges:true"]
        assert "privileged" not in service
        if not service.get("entrypoint"):
            seen[name] = parse(monkeypatch, service["command"])
            assert service["healthcheck"]["test"][0] == "CMD"
            assert service["mem_limit"]
    assert seen.keys() == {"collector", "alerts", "dashboard", "agent", "tap"} | (
        {"store"} if len(files) == 1 else set()
    )
    assert seen["tap"]["upstream"] == "http://elsewhere:8000"
    assert agent_config.load(None, services["agent"]["environment"]).targets[0].url == "http://elsewhere:8000"
    for name in ("collector", "alerts", "dashboard"):
        assert services[name]["network_mode"] == "service:store"
    for name in ("alerts", "dashboard"):
        assert ("@store" in services[name]["environment"]["SERVESCOPE_CLICKHOUSE"]) == (len(files) == 2)


@every_compose
def test_ports_are_published_where_they_are_listened_on(files: tuple[str, ...], tmp_path: Path):
    services = composed(files, tmp_path)["services"]
    published = {name: {(each.get("host_ip", ""), each["target"]) for each in one.get("ports", [])}
                 for name, one in services.items()}  # fmt: skip
    # The dashboard has no login, and spans come from this machine.
    assert published["store"] == {("127.0.0.1", 8501)}
    assert published["agent"] == {("127.0.0.1", 14318)}
    assert published["tap"] == {("", 9080)}
    asked = {name: set(re.findall(r"127\.0\.0\.1(?::|', )(\d+)", str(one["healthcheck"]["test"])))
             for name, one in services.items() if "healthcheck" in one}  # fmt: skip
    assert asked == {"store": {"8123"}, "collector": {"4318"}, "alerts": {"9465"}, "dashboard": {"8501"},
                     "agent": {"9464"}, "tap": {"9080"}}  # fmt: skip


@pytest.mark.parametrize("file", sorted((DEPLOY / "compose").glob("*.yaml")), ids=lambda path: path.name)
def test_composes_configurations_are_right(file: Path, tmp_path: Path):
    if file.name == "slo.yaml":
        told = CliRunner().invoke(main, ["rules", "check", str(file)])
        assert told.exit_code == 0, told.output
        return
    text = file.read_text()
    for secret in re.findall(r"/run/secrets/(\w+)", text):
        assert f"  {secret}: {{file:" in "".join((DEPLOY / name).read_text() for name in BOTH[1])
        (tmp_path / secret).write_text("ab" * 32)
    (tmp_path / "slo.yaml").write_text((DEPLOY / "compose" / "slo.yaml").read_text())
    here = tmp_path / file.name
    here.write_text(text.replace("/run/secrets", str(tmp_path)).replace("/etc/servescope", str(tmp_path)))
    told = CliRunner().invoke(main, ["config", "check", str(here)])
    assert told.exit_code == 0, told.output
    if "collector:\n" in text and "sender_keys" in text:
        collector = collector_config.load(here)
        door = open_door(b"x" * 32, collector.sender_keys, require_signature=collector.require_signature)
        assert len(door.keys) == 2
        assert door.require_signature
