from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

WRITE = """
import structlog
from base.logs import log_to_stderr
log_to_stderr()
def fail(password):
    raise ValueError("no")
try:
    fail("s3cret-of-" + "a-caller")
except ValueError:
    structlog.get_logger().exception("failed", path=__import__("pathlib").Path("/x"))
structlog.get_logger().debug("not shown")
"""


def test_logs_are_lines_of_json_on_stderr_without_the_values_of_variables():
    done = subprocess.run([sys.executable, "-c", WRITE], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    found = json.loads(line)
    assert (found["event"], found["level"], found["path"]) == ("failed", "error", "/x")
    assert "ValueError: no" in found["exception"]
    assert "s3cret" not in line


FULL = """
import os, resource, structlog, sys
from base.logs import log_to_stderr
log_to_stderr()
log = structlog.get_logger()
log.info("before")
resource.setrlimit(resource.RLIMIT_FSIZE, (os.fstat(2).st_size + 9, resource.RLIM_INFINITY))
for number in range(200):
    try:
        1 / 0
    except ZeroDivisionError:
        log.exception("refused", number=number)
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
log.info("after")
"""


def test_a_line_that_the_disk_refuses_stops_nobody_and_is_counted(tmp_path: Path):
    path = tmp_path / "log"
    with path.open("ab") as stderr:
        subprocess.run([sys.executable, "-c", FULL], check=True, stderr=stderr, timeout=60)
    first, torn, *rest = path.read_text().splitlines()
    assert (json.loads(first)["event"], len(torn)) == ("before", 9)
    assert [json.loads(line)["event"] for line in rest] == ["log_lines_lost", "after"]
    assert json.loads(rest[0])["lines"] == 200
