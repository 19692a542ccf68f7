"""Files of the kernel that stay open: they end with their process, and with whoever reads it."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from agent.host.process import Process


def open_of(pid: int) -> list[str]:
    found = []
    for one in Path("/proc/self/fd").iterdir():
        try:
            found.append(str(one.readlink()))
        except FileNotFoundError:
            continue  # the listing's own
    return [path for path in found if path.startswith(f"/proc/{pid}/")]


def test_what_stays_open_is_bounded_and_let_go_with_the_process():
    program = "import threading, time\nfor _ in range(99): threading.Thread(target=time.sleep, args=(99,)).start()\n"
    with subprocess.Popen([sys.executable, "-c", program]) as child:
        while len(list(Path(f"/proc/{child.pid}/task").iterdir())) < 100:
            time.sleep(0.01)
        process = Process(child.pid, b"")
        for _ in range(25):  # all threads are read three times
            assert process.sample()["threads"] == 100
        assert 0 < len(open_of(child.pid)) <= 16 + 3
        child.kill()
        child.wait()
        with pytest.raises(ProcessLookupError):
            process.sample()
    del process
    assert open_of(child.pid) == []
