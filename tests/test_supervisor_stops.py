"""A terminal that is closed stops what runs in it as Ctrl-C does; what is to outlive it goes on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

UP = """
import asyncio, sys
from pathlib import Path
from servescope.launch.supervisor import Part, Supervisor
part = Part("one", [sys.executable, "-c", "import time; time.sleep(600)"])
made = Supervisor(Path(sys.argv[1]), [part], {}, lambda text: print(text, flush=True))
asyncio.run(made.run(lambda: print("up", flush=True)))
"""


@pytest.mark.parametrize("ignored", [False, True])
def test_a_closed_terminal_stops_it_unless_it_is_to_outlive_that(tmp_path: Path, ignored: bool):
    def before() -> None:  # what nohup does
        signal.signal(signal.SIGHUP, signal.SIG_IGN)

    process = subprocess.Popen(
        [sys.executable, "-c", UP, str(tmp_path)],
        stdout=subprocess.PIPE,
        text=True,
        preexec_fn=before if ignored else None,  # noqa: PLW1509 - one system call
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "up\n"
    os.kill(process.pid, signal.SIGHUP)
    if ignored:
        assert (tmp_path / "run.json").exists()
        os.kill(process.pid, signal.SIGTERM)
    assert "Stopping" in process.stdout.read()
    assert process.wait(60) == 0
    process.stdout.close()
    assert not (tmp_path / "run.json").exists()
