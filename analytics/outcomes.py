"""Which outcomes are the service's fault.

A service level counts what happened at the edge. A client that hangs up (``client_abort``) and one that asks for the
impossible (``client_error``) count as requests, and never against the service: else any client could spend the
budget. A refusal for a full queue (``rejected``) is the service's fault: it had promised to answer.
"""

from __future__ import annotations

from typing import Final

from base.vocabulary import Outcome

BAD: Final[tuple[str, ...]] = (
    Outcome.REJECTED.value,
    Outcome.SERVER_ERROR.value,
    Outcome.UPSTREAM_RESET.value,
    Outcome.UNREACHABLE.value,
    Outcome.TIMEOUT.value,
)
"""Outcomes that spend the error budget unless an objective names its own."""

FORGIVEN: Final[tuple[str, ...]] = (Outcome.CLIENT_ABORT.value, Outcome.CLIENT_ERROR.value)
"""Outcomes that are the client's doing."""
