"""Which signals ask a process to end in good order."""

from __future__ import annotations

import signal


def signals() -> tuple[signal.Signals, ...]:
    """SIGTERM, SIGINT, and SIGHUP of a terminal that is closed, unless the process is to outlive that (nohup)."""
    hangup = () if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN else (signal.SIGHUP,)
    return (signal.SIGTERM, signal.SIGINT, *hangup)
