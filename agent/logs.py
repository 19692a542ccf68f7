"""How every part logs: to stderr, for people on a terminal, as JSON lines anywhere else."""

from __future__ import annotations

import logging
import sys
from typing import TYPE_CHECKING

import structlog

if TYPE_CHECKING:
    from structlog.typing import Processor


def log_to_stderr(level: str = "info") -> None:
    """Configure structlog for this process; repeating it changes nothing.

    Tracebacks are plain: the values of local variables, which structlog shows by default, may be keys or prompts.

    Args:
        level: ``debug``, ``info``, ``warning`` or ``error``; what is below is not logged.
    """
    ending: list[Processor]
    if sys.stderr.isatty():
        ending = [structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)]
    else:
        ending = [structlog.processors.format_exc_info, structlog.processors.JSONRenderer(default=str)]
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            *ending,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(getattr(logging, level.upper())),
        logger_factory=structlog.PrintLoggerFactory(file=sys.stderr),
    )
