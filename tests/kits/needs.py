"""Programs of the system that a test needs: without one it is skipped, or failed where nothing may be skipped."""

from __future__ import annotations

import os
import shutil
from typing import NoReturn

import pytest


def lack(told: str) -> NoReturn:
    """Skip this test for what the machine lacks, or fail it where nothing may be skipped."""
    if os.environ.get("SERVESCOPE_TEST_NO_SKIPS") == "1":
        pytest.fail(told)
    pytest.skip(told)


def need(program: str, package: str = "") -> str:
    """Path of a program, of a Debian package of the same name where none is given."""
    return shutil.which(program) or lack(f"needs {program} (Debian: apt-get install {package or program})")
