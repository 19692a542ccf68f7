"""A task that outlives whatever it trips over: a thread that repeats a step, backs off after a fault and says so."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import structlog

from alerts.text import plain

if TYPE_CHECKING:
    from collections.abc import Callable

log = structlog.get_logger()

FIRST_WAIT_SECONDS: Final = 0.5
LONGEST_WAIT_SECONDS: Final = 30.0
PATIENCE_SECONDS: Final = 120.0
"""A step that takes longer hangs: none waits for anything without a limit below this."""


@dataclass(frozen=True, slots=True)
class Wellness:
    """How a task is.

    Attributes:
        name: The task.
        running: Its thread lives.
        failures: Faults since the start.
        failing: Faults since the last step that went well.
        last_error: The newest fault, empty without any.
        busy_seconds: How long the present step has taken; 0 between steps.
    """

    name: str
    running: bool
    failures: int
    failing: int
    last_error: str
    busy_seconds: float

    @property
    def well(self) -> bool:
        """It runs, its last step went well and the present one does not hang."""
        return self.running and not self.failing and self.busy_seconds < PATIENCE_SECONDS


class Worker:
    """Repeats a step in a thread.

    Args:
        name: Of the thread, in logs and in ``/healthz``.
        step: One step; returns the seconds until the next, None to wait until :meth:`wake`.
        first_wait_seconds: Wait after a first fault; doubles up to half a minute.
    """

    def __init__(
        self, name: str, step: Callable[[], float | None], *, first_wait_seconds: float = FIRST_WAIT_SECONDS
    ) -> None:
        self.name = name
        self._step, self._first = step, first_wait_seconds
        self._stop, self._wake = threading.Event(), threading.Event()
        self._thread: threading.Thread | None = None
        self._failures, self._failing, self._last_error = 0, 0, ""
        self._began: float | None = None

    def ensure(self) -> None:
        """Start the thread unless it runs; a thread that ended without being told to is started again."""
        if self._stop.is_set() or (self._thread is not None and self._thread.is_alive()):
            return
        if self._thread is not None:
            self._failures += 1
            log.error("task_ended", task=self.name, error=self._last_error)
        self._thread = threading.Thread(target=self._run, name=self.name, daemon=True)
        self._thread.start()

    def wake(self) -> None:
        """Do not wait for the next step; a wait after a fault is kept."""
        self._wake.set()

    def stop(self) -> None:
        """No step begins any more."""
        self._stop.set()
        self._wake.set()

    def join(self, seconds: float) -> None:
        """Wait for the step in hand."""
        if self._thread is not None:
            self._thread.join(seconds)

    def wellness(self) -> Wellness:
        """How it is."""
        began = self._began
        return Wellness(
            self.name,
            self._thread is not None and self._thread.is_alive(),
            self._failures,
            self._failing,
            self._last_error,
            0.0 if began is None else time.monotonic() - began,
        )

    def _run(self) -> None:
        while not self._stop.is_set():
            self._wake.clear()
            self._began = time.monotonic()
            try:
                wait = self._step()
                self._failing = 0
            except Exception as error:
                self._failures += 1
                self._failing += 1
                self._last_error = plain(f"{type(error).__name__}: {error}", 500)
                pause = min(self._first * 2.0 ** min(self._failing - 1, 16), LONGEST_WAIT_SECONDS)
                log.exception("task_failed", task=self.name, in_a_row=self._failing, again_in_seconds=pause)
                self._began = None
                self._stop.wait(pause)
                continue
            self._began = None
            self._wake.wait(wait)
