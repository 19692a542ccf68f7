from __future__ import annotations

import json
import subprocess
import sys

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
