"""How every part logs: to stderr, for people on a terminal, as JSON lines anywhere else."""

from __future__ import annotations

import io
import logging
import os
import sys
import threading
import traceback
from typing import TYPE_CHECKING, Any, cast

import structlog

from base.redact import redacted

if TYPE_CHECKING:
    from collections.abc import MutableMapping
    from types import TracebackType
    from typing import TextIO

    from structlog.typing import ExcInfo, Processor

_DEEPEST = 4


def log_to_stderr(level: str = "info") -> None:
    """Configure structlog for this process; repeating it changes nothing.

    Tracebacks are plain: the values of local variables, which structlog shows by default, may be keys or prompts. URLs
    lose their secrets, in what libraries log too.

    Args:
        level: ``debug``, ``info``, ``warning`` or ``error``; what is below is not logged.
    """
    ending: list[Processor]
    if sys.stderr.isatty():
        ending = [_without_secrets, structlog.dev.ConsoleRenderer(exception_formatter=_traceback)]
    else:
        ending = [
            structlog.processors.format_exc_info,
            _without_secrets,
            structlog.processors.JSONRenderer(default=_text),
        ]
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            *ending,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(getattr(logging, level.upper())),
        logger_factory=structlog.WriteLoggerFactory(file=cast("TextIO", _Lines(sys.stderr))),
    )
    if logging.lastResort is not None:
        logging.lastResort.setFormatter(_Plain())
    if sys.excepthook is sys.__excepthook__:
        sys.excepthook = _last_words
    if threading.excepthook is threading.__excepthook__:
        threading.excepthook = lambda args: _last_words(args.exc_type, args.exc_value, args.exc_traceback)


class _Lines:
    """Where lines go. What the system refuses, a full disk's say, raises nothing in whoever had something to tell.

    What can't be written is lost and counted, and the count is told in front of the next line that can. Standard error
    is written to without a buffer: one that is full of refused lines would refuse those after them too.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._guard = threading.Lock()
        self._lost = 0
        self._torn = False

    def write(self, text: str) -> int:
        """Write a line whole, or count it."""
        with self._guard:
            told = f'{{"event": "log_lines_lost", "level": "warning", "lines": {self._lost}}}\n' if self._lost else ""
            try:
                self._put(f"{chr(10) if self._torn else ''}{told}{text}")
            except OSError:
                self._lost += 1
            else:
                self._lost = 0
        return len(text)

    def flush(self) -> None:
        """Every line has been written or counted."""

    def _put(self, text: str) -> None:
        if self._stream is not sys.__stderr__:
            self._stream.write(text)
            self._stream.flush()
            return
        left = memoryview(text.encode(self._stream.encoding, "backslashreplace"))
        while left:
            self._torn, left = True, left[os.write(self._stream.fileno(), left) :]
        self._torn = False


def _last_words(kind: type[BaseException], error: BaseException | None, trace: TracebackType | None) -> None:
    """What nobody caught, as Python would print it."""
    if error is not None and sys.stderr is not None:
        sys.stderr.write(redacted("".join(traceback.format_exception(kind, error, trace))))


class _Plain(logging.Formatter):
    """What libraries log where nobody configured them."""

    def format(self, record: logging.LogRecord) -> str:
        return redacted(super().format(record))


def _without_secrets(_logger: object, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    for key, value in event.items():
        if key != "exc_info":
            event[key] = _hidden(value)
    return event


def _hidden(value: Any, depth: int = 0) -> Any:
    if isinstance(value, str):
        return redacted(value)
    if depth < _DEEPEST and isinstance(value, dict):
        return {_hidden(key, depth + 1): _hidden(inner, depth + 1) for key, inner in value.items()}
    if depth < _DEEPEST and isinstance(value, list | tuple | set | frozenset):
        return [_hidden(inner, depth + 1) for inner in value]
    return value if isinstance(value, int | float | None) or "://" not in (told := str(value)) else redacted(told)


def _text(value: object) -> str:
    return redacted(str(value))


def _traceback(sio: TextIO, exc_info: ExcInfo) -> None:
    plain = io.StringIO()
    structlog.dev.plain_traceback(plain, exc_info)
    sio.write(redacted(plain.getvalue()))
