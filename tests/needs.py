"""Programs of the system that a test needs: without one it is skipped, or failed where nothing may be skipped."""

from __future__ import annotations

import os
import shutil

import pytest


def need(program: str) -> str:
    """Path of a program."""
    found = shutil.which(program)
    if found is None:
        told = f"needs {program} (Debian: apt-get install {program})"
        (pytest.fail if os.environ.get("SERVESCOPE_TEST_NO_SKIPS") == "1" else pytest.skip)(told)
        raise AssertionError(told)
    return found
