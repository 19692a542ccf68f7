"""Imported first by a program: Ctrl-C among the imports that follow ends it without a traceback.

Each part sets its own handlers before it starts anything; until then there is nothing to end in order.
"""

from __future__ import annotations

import signal

if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # not where it is ignored, as under nohup
    signal.signal(signal.SIGINT, signal.SIG_DFL)
