"""`servescope up` without a target finds real servers: one that listens already, and one that starts later."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import urllib.error
import urllib.request
from typing import TYPE_CHECKING

import pytest
import yaml

from tests.kits.line import ROOT, free_block, start_line, wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@contextlib.contextmanager
def llamacpp(port: int, folder: Path) -> Iterator[str]:
    """A real llama.cpp server with a tiny model made on the spot."""
    command = [sys.executable, "-m", "demo.llamacpp_server", "--port", str(port), "--folder", str(folder)]
    with (folder.parent / f"{folder.name}.log").open("wb") as log:
        process = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log)
        try:
            wait_for(lambda: healthy(port), 90, "llama.cpp")
            yield f"llamacpp-{port}"
        finally:
            process.terminate()
            process.wait(30)


def healthy(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=2) as answer:
            return answer.status == 200
    except urllib.error.HTTPError as refused:
        refused.close()  # it holds the connection
        return False


def chat(url: str) -> None:
    body = json.dumps({"messages": [{"role": "user", "content": "hello"}], "max_tokens": 4}).encode()
    request = urllib.request.Request(
        f"{url}/v1/chat/completions", body, {"Content-Type": "application/json", "X-Tenant-Id": "acme"}
    )
    with urllib.request.urlopen(request, timeout=60) as answer:
        assert answer.status == 200
        answer.read()


@pytest.mark.heavy
def test_servers_are_found_at_the_start_and_later(tmp_path: Path):
    base, ports = free_block(), free_block(skip=1)
    with llamacpp(ports, tmp_path / "first") as first:
        line = start_line(tmp_path / "data", base)
        try:
            assert first in line.facts["urls"]["taps"]
            with llamacpp(ports + 1, tmp_path / "second") as second:
                wait_for(lambda: second in json.loads((line.data / "run.json").read_text())["urls"]["taps"], 40, second)
                taps = json.loads((line.data / "run.json").read_text())["urls"]["taps"]
                said = f"{second} was found at http://127.0.0.1:{ports + 1}"
                wait_for(lambda: said in line.log.read_text(), 30, said)  # printed after the tap is started
                for instance in (first, second):
                    wait_for(lambda url=taps[instance]: chat(url) is None, 30, f"the tap of {instance}")
                sql = """
                  SELECT instance FROM requests WHERE outcome = 'ok' AND tenant = 'acme' AND engine = 'llamacpp'
                  INTERSECT SELECT instance FROM engine_samples
                """
                found = {first, second}
                wait_for(lambda: {row["instance"] for row in line.rows(sql)} >= found, 40, "rows and samples of both")
        finally:
            assert line.stop() == 0
    told = yaml.safe_load((line.data / "run.yaml").read_text())["agent"]["targets"]
    assert {target["instance"] for target in told} >= {first, second}
