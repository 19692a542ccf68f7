"""A lock is held by an open file, ends with its process, and tells who holds it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from base import locks


def open_files() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def test_one_holds_and_the_other_is_told_who(tmp_path: Path):
    path = tmp_path / "lock"
    with locks.take(path, signed=True) as held:
        assert path.stat().st_mode & 0o777 == 0o600
        assert not locks.is_free(path)
        with pytest.raises(locks.HeldError) as caught:
            locks.take(path)
        assert caught.value.holder == str(os.getpid())
        began = time.monotonic()
        with pytest.raises(locks.HeldError):
            locks.take(path, seconds=0.3)
        assert time.monotonic() - began >= 0.3
    held.close()
    assert locks.is_free(path)
    with locks.take(path):
        assert path.read_text() == f"{os.getpid()}\n"  # one that does not sign leaves what is there


def test_who_does_not_sign_is_unknown(tmp_path: Path):
    with locks.wait_for(tmp_path / "lock"), pytest.raises(locks.HeldError) as caught:
        locks.take(tmp_path / "lock")
    assert caught.value.holder == "unknown"


def test_asking_takes_nothing_and_absence_is_said(tmp_path: Path):
    path = tmp_path / "lock"
    with pytest.raises(FileNotFoundError):
        locks.is_free(path)
    path.touch()
    assert locks.is_free(path)
    assert locks.is_free(path)
    descriptors = open_files()
    for _ in range(3):
        locks.is_free(path)
    with locks.take(path), pytest.raises(locks.HeldError):
        locks.take(path)
    assert open_files() == descriptors


def test_a_lock_ends_with_a_kill_and_goes_on_with_whoever_was_handed_the_file(tmp_path: Path):
    path = tmp_path / "lock"
    lock = locks.take(path, signed=True)
    heir = subprocess.Popen(
        [sys.executable, "-c", "print(flush=True); input()"],
        pass_fds=[lock.descriptor], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip
    assert heir.stdout is not None
    assert heir.stdin is not None
    try:
        heir.stdout.readline()
        lock.close()
        assert not locks.is_free(path)
        heir.send_signal(signal.SIGKILL)
        heir.wait(30)
        locks.wait_for(path).close()
        assert locks.is_free(path)
    finally:
        heir.kill()
        heir.stdin.close()
        heir.stdout.close()
        heir.wait(30)


def test_a_folder_that_takes_nothing_is_no_lock(tmp_path: Path):
    with pytest.raises(FileNotFoundError):
        locks.take(tmp_path / "nosuch" / "lock")
