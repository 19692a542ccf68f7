"""Imported first by a program: Ctrl-C among the imports that follow ends it without a traceback.

Each part sets its own handlers before it starts anything; until then there is nothing to end in order. A program that
has none of its own calls `over` after its imports.
"""

from __future__ import annotations

import signal

_OURS = signal.getsignal(signal.SIGINT) is signal.default_int_handler  # it may be ignored, as under nohup
if _OURS:
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def over() -> None:
    """Ctrl-C raises KeyboardInterrupt again."""
    if _OURS:
        signal.signal(signal.SIGINT, signal.default_int_handler)
