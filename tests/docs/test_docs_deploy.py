"""The units of `deploy/systemd` name commands and options that there are, and their configuration is right."""

from __future__ import annotations

import configparser
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from servescope.cli import main

FOLDER = Path(__file__).parents[2] / "deploy" / "systemd"
PROGRAM = "/opt/servescope/bin/servescope"
UNITS = sorted(FOLDER.glob("*.service"))


def unit(path: Path) -> configparser.RawConfigParser:
    parser = configparser.RawConfigParser(strict=False, delimiters=("=",), comment_prefixes=("#",))
    parser.optionxform = str  # type: ignore[assignment, method-assign]
    parser.read_string(path.read_text())
    return parser


def test_every_part_that_runs_has_a_unit():
    parts = {path.stem.removeprefix("servescope-").removesuffix("@") for path in UNITS}
    assert parts == {"agent", "tap", "store", "collector", "alerts", "dashboard"}


@pytest.mark.parametrize("path", UNITS, ids=lambda path: path.name)
def test_what_a_unit_starts_is_a_command_with_these_options(path: Path):
    program, command, *given = unit(path)["Service"]["ExecStart"].split()
    assert program == PROGRAM
    run = [sys.executable, "-m", "servescope", command, "--help"]
    help_ = subprocess.run(run, capture_output=True, text=True, check=True).stdout
    options = [word for word in given if word.startswith("--")]
    assert options
    for option in options:
        assert re.search(rf"{option}\b", help_), f"{path.name}: {command} has no {option}"


@pytest.mark.parametrize("path", UNITS, ids=lambda path: path.name)
def test_a_unit_gives_away_no_more_than_it_must(path: Path):
    service = unit(path)["Service"]
    assert service["User"] == "servescope"
    assert service["NoNewPrivileges"] == "yes"
    assert service["ProtectSystem"] == "strict"
    assert service["CapabilityBoundingSet"] == ""
    assert service["StateDirectory"] == "servescope"
    assert service["Restart"] == "always"
    assert not re.search(r"://[^/\s]+:[^/\s]+@", service["ExecStart"]), "no password in a command line"


def test_the_configuration_is_right_and_its_tap_is_that_of_a_target():
    told = CliRunner().invoke(main, ["config", "check", str(FOLDER / "servescope.yaml")])
    assert told.exit_code == 0, told.output
    named = {path.stem.removeprefix("tap-") for path in FOLDER.glob("tap-*.env")}
    text = (FOLDER / "servescope.yaml").read_text()
    assert named
    assert all(f"instance: {name}" in text for name in named)
    wanted = set(re.findall(r"\$\{(\w+)\}", unit(FOLDER / "servescope-tap@.service")["Service"]["ExecStart"]))
    for path in FOLDER.glob("tap-*.env"):
        assert wanted == set(re.findall(r"^(\w+)=", path.read_text(), re.MULTILINE))


def test_systemd_finds_no_fault_where_it_is_here(tmp_path: Path):
    paths = [*UNITS, *FOLDER.glob("*.socket")]
    assert paths
    if shutil.which("systemd-analyze") is None:
        return  # the tests above hold all the same
    for path in paths:
        (tmp_path / path.name).write_text(path.read_text().replace(PROGRAM, sys.executable))
    names = [str(tmp_path / path.name.replace("@.", "@vllm-a.")) for path in paths]
    for path in paths:
        if "@." in path.name:
            shutil.copy(tmp_path / path.name, tmp_path / path.name.replace("@.", "@vllm-a."))
    told = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", *names], capture_output=True, text=True, check=False
    )
    faults = [line for line in told.stderr.splitlines() if str(tmp_path) in line or "servescope" in line]
    assert faults == []


def test_what_reads_its_files_again_is_reloaded_by_systemd_and_nothing_else_gets_that_signal():
    parts = {path.stem.removeprefix("servescope-").removesuffix("@"): unit(path)["Service"] for path in UNITS}
    told = {name for name, service in parts.items() if "HUP" in service.get("ExecReload", "")}
    code = FOLDER.parents[1]
    assert told == {name for name in ("agent", "collector") if "SIGHUP" in (code / name / "__main__.py").read_text()}
    assert told == {"agent", "collector"}
