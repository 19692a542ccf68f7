"""llama.cpp's OpenMP library on a machine without one."""

from __future__ import annotations

import ctypes
import os
import sys
from typing import TYPE_CHECKING, Any

import pytest

from base.errors import ServescopeError
from demo import openmp

if TYPE_CHECKING:
    from pathlib import Path


class StartedAgainError(Exception):
    """In place of another program in this process."""


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """A machine that has none; what would be started again."""
    seen: list[tuple[Any, ...]] = []

    def none(name: str) -> None:
        raise OSError(f"{name}: cannot open shared object file")

    def again(*told: Any) -> None:
        seen.append(told)
        raise StartedAgainError

    monkeypatch.setattr(openmp.ctypes, "CDLL", none)
    monkeypatch.setattr(openmp.os, "execve", again)
    return seen


def test_the_carried_library_is_put_where_the_linker_looks(tmp_path: Path, started: list[tuple[Any, ...]]):
    folder = tmp_path / "lib"
    for _ in range(2):  # a link that an earlier start made is made anew
        with pytest.raises(StartedAgainError):
            openmp.ensure_openmp(folder)
    program, arguments, environment = started[0]
    assert program == sys.executable
    assert arguments[1:] == sys.orig_argv[1:]
    assert environment["LD_LIBRARY_PATH"].split(":")[0] == str(folder)
    library = ctypes.cdll.LoadLibrary(str(folder / openmp.NAME))
    assert library.omp_get_max_threads() >= 1


def test_nothing_happens_where_there_is_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(openmp.ctypes, "CDLL", lambda _name: None)
    openmp.ensure_openmp(tmp_path / "lib")
    assert not (tmp_path / "lib").exists()


@pytest.mark.usefixtures("started")
def test_a_library_that_does_not_load_either_is_no_endless_loop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("LD_LIBRARY_PATH", f"{tmp_path}:{os.environ.get('LD_LIBRARY_PATH', '')}")
    with pytest.raises(ServescopeError, match=r"libgomp\.so\.1") as caught:
        openmp.ensure_openmp(tmp_path)
    assert "apt-get install libgomp1" in caught.value.fix


@pytest.mark.usefixtures("started")
def test_no_wheel_that_carries_one_names_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(openmp, "_CARRIER", "no-such-distribution")
    with pytest.raises(ServescopeError, match="lacks"):
        openmp.ensure_openmp(tmp_path)
