"""Errors that reach a person: each names the thing that is wrong and what mends it."""

from __future__ import annotations

from base.redact import redacted


class ServescopeError(Exception):
    """Base of every error shown to a user as one line, without a traceback; URLs in it lose their secrets.

    Args:
        what: What is wrong, with the name of the thing (a path, a field, a URL).
        fix: The command or change that mends it; may be empty where nothing can.
    """

    def __init__(self, what: str, fix: str = "") -> None:
        self.what = redacted(what)
        self.fix = redacted(fix)
        super().__init__(f"{self.what}. {self.fix}" if fix else self.what)


class ConfigError(ServescopeError):
    """A setting is missing or wrong; names the field."""


class PortInUseError(ServescopeError):
    """A port that was asked for is taken."""


class DataFolderInUseError(ServescopeError):
    """Another Servescope owns this data folder."""


class PageError(ServescopeError):
    """A metrics page is malformed or over a bound."""


class UnknownEngineError(ServescopeError):
    """A page answers, but no engine table recognises it."""


class SpoolFullError(ServescopeError):
    """The spool reached its bound or the disk is full: the newest record was dropped and counted."""
