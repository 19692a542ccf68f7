"""Imported first by a program that stays small: loads structlog without rich.

Where rich is installed, structlog loads it to draw tracebacks, which are plain here (`base.logs`) and need none of it.
Nothing of ours installs it, but vLLM does, beside which an agent may live, and so do tools of development. structlog
has no setting for it; None among the modules is Python's own word for one that can't be imported
(https://docs.python.org/3/reference/import.html#the-module-cache). Whoever imports rich afterwards has it.
"""

from __future__ import annotations

import sys

if not {"structlog", "rich"} & sys.modules.keys():
    sys.modules["rich"] = None  # type: ignore[assignment]
    try:
        import structlog  # noqa: F401 - for all who import it later
    finally:
        del sys.modules["rich"]
