"""Which Servescope a command means when it names no data folder, and the store that runs alone."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from base.errors import ServescopeError
from servescope import data_folder
from servescope.launch import running
from tests.kits.line import free_block, wait_for

ROOT = Path(__file__).parents[1]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home of its own: nothing else that runs on this machine is found in it."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "share"))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "run"))
    return tmp_path


class Holder:
    """A process that holds a data folder as a Servescope does."""

    def __init__(self, data: Path) -> None:
        data.mkdir(parents=True)
        holds = (
            "import fcntl, sys; f = open(sys.argv[1], 'w'); fcntl.flock(f, fcntl.LOCK_EX); print(flush=True); input()"
        )
        command = [sys.executable, "-c", holds, str(data / "lock")]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert self.process.stdout is not None
        self.process.stdout.readline()
        facts = {"pid": self.process.pid, "urls": {"dashboard": f"http://{data.name}"}}
        (data / "run.json").write_text(json.dumps(facts))

    def __enter__(self) -> None:
        pass

    def __exit__(self, *_: object) -> None:
        self.process.communicate()


def test_the_only_one_that_runs_is_meant(home: Path):
    assert running.meant(None) == data_folder.default(), "none runs"
    demo = data_folder.default("servescope-demo")
    with Holder(demo):
        assert running.meant(None) == demo
        assert running.meant(home / "named") == home / "named"
        assert running.meant(None, "http://clickhouse:8123") == data_folder.default()
    assert running.meant(None) == data_folder.default(), "its files are there, and nobody holds them"


def test_one_over_a_folder_of_its_own_is_found_while_it_runs(home: Path):
    data = home / "elsewhere"
    with Holder(data):
        with running.noted(data):
            assert running.meant(None) == data
        assert running.meant(None) == data_folder.default(), "its note is gone"


def test_several_are_named(home: Path):
    elsewhere, demo = home / "elsewhere", data_folder.default("servescope-demo")
    with Holder(demo), Holder(elsewhere), running.noted(elsewhere):
        with pytest.raises(ServescopeError) as told:
            running.meant(None)
        assert str(demo) in str(told.value)
        assert str(elsewhere) in str(told.value)
        assert "--data" in str(told.value)
        assert running.meant(demo) == demo


def test_a_note_of_a_stranger_counts_nothing(home: Path, monkeypatch: pytest.MonkeyPatch):
    data = home / "elsewhere"
    with Holder(data), running.noted(data):
        uid = os.getuid()
        monkeypatch.setattr("os.getuid", lambda: uid + 1)
        assert running.meant(None) == data_folder.default()


def test_the_store_runs_alone_and_commands_find_it(home: Path):
    data, port = home / "data", free_block()
    environment = {name: value for name, value in os.environ.items() if not name.startswith("SERVESCOPE_")}
    base = [sys.executable, "-m", "servescope"]
    alone = subprocess.Popen(
        [*base, "store", "--data", str(data), "--port", str(port)], cwd=ROOT, env=environment, stderr=subprocess.PIPE
    )
    try:
        wait_for((data / "run.json").exists, 60, "the store")
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/ping", timeout=10) as answer:
            assert answer.read() == b"Ok.\n"
        done = subprocess.run(
            [*base, "sql", "SELECT 40 + 2 AS n", "--json"], cwd=ROOT, env=environment, capture_output=True, text=True,
            timeout=60, check=False,
        )  # fmt: skip
        assert done.stdout == '{"n":42}\n', done.stderr
        second = subprocess.run(
            [*base, "store", "--data", str(data)], cwd=ROOT, env=environment, capture_output=True, text=True,
            timeout=60, check=False,
        )  # fmt: skip
        assert second.returncode == 1
        assert f"already runs over {data}" in second.stderr
    finally:
        alone.send_signal(signal.SIGTERM)
        _, told = alone.communicate(timeout=60)
    assert alone.returncode == 0
    assert f"The store listens on http://127.0.0.1:{port}" in told.decode()
    assert not (data / "run.json").exists()
