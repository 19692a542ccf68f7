"""SIGTERM and SIGINT as an event that can be waited for."""

from __future__ import annotations

import signal
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import FrameType


def stop_event() -> threading.Event:
    """An event that SIGTERM or SIGINT sets; call it in the main thread."""
    stop = threading.Event()

    def set_it(_number: int, _frame: FrameType | None) -> None:
        stop.set()

    signal.signal(signal.SIGTERM, set_it)
    signal.signal(signal.SIGINT, set_it)
    return stop


def wait_for_stop() -> None:
    """Return at SIGTERM or SIGINT."""
    stop = stop_event()
    while not stop.wait(3600):
        continue
