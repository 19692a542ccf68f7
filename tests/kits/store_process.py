"""An embedded store as a process, for tests that start, stop and kill one."""

from __future__ import annotations

import base64
import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from base.keys import ensure_keys

ROOT = Path(__file__).resolve().parents[2]


@dataclass
class StoreServer:
    """An embedded store process; ``data`` is the store's folder, keys lie beside it in ``keys/``."""

    url: str
    owner_password: str = field(repr=False)
    data: Path
    process: subprocess.Popen[bytes]
    log: Path

    @property
    def port(self) -> int:
        return int(self.url.rsplit(":", 1)[1])

    def ask(self, sql: str, data: bytes = b"", *, query: str = "", owner: bool = True) -> str:
        """POST a statement (and data behind it) and return the answer; raises HTTPError as urllib does."""
        request = urllib.request.Request(f"{self.url}/{query}", data=sql.encode() + data)
        if owner:
            secret = base64.b64encode(f"owner:{self.owner_password}".encode()).decode()
            request.add_header("Authorization", f"Basic {secret}")
        with urllib.request.urlopen(request, timeout=90) as answer:
            text: bytes = answer.read()
        return text.decode()

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Send a signal and wait for the exit status."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.process.wait(60)


def start_store(folder: Path, *, port: int = 0, prefix: tuple[str, ...] = ()) -> StoreServer:
    """Start the store on ``folder`` (``store/``, ``keys/``) and wait until it answers."""
    keys = ensure_keys(folder / "keys")
    data = folder / "store"
    log = folder / f"store-{time.monotonic_ns()}.log"
    command = [sys.executable, "-m", "collector.embedded", "--data", str(data), "--port", str(port)]
    command += ["--owner-hash-file", str(keys.store_owner_hash_file)]
    with log.open("wb") as stderr:
        process = subprocess.Popen(
            [*prefix, *command], cwd=ROOT, stdout=subprocess.DEVNULL, stderr=stderr, env=os.environ | {"NO_COLOR": "1"}
        )
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None:
        text = log.read_text()
        ready = [line for line in text.splitlines() if '"store_ready"' in line and line.endswith("}")]
        if ready:
            url = str(json.loads(ready[0])["url"])
            try:
                with urllib.request.urlopen(f"{url}/ping", timeout=10) as answer:
                    assert answer.read() == b"Ok.\n"
            except urllib.error.URLError:
                time.sleep(0.05)
                continue
            return StoreServer(url, keys.store_owner, data, process, log)
        time.sleep(0.05)
    process.kill()
    process.wait(30)
    pytest.fail(f"the store did not start:\n{log.read_text()}")
