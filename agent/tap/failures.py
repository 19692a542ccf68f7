"""How answers say that they failed, whoever wrote them: reasons, names of events, fields, codes."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any, Final

_ERROR_STATUS: Final = 400
_GIVEN_UP: Final = re.compile(
    r"(?!.*(?:context|length|token).*exceeded)"  # a limit that the client or the model has
    r"(?:.*[_-])?(?:abort(?:ed)?|error|cancel(?:l?ed)?|fail(?:ed|ure)?|time(?:d_)?out|shutdown|preempted|evicted"
    r"|overloaded|incomplete|insufficient_system_resources?|exception|killed|terminated|interrupted|rejected|expired"
    r"|(?:deadline_)?exceeded|crashed|dead|died|oom|out_of_memory|exhausted|unavailable|unload(?:ed)?|disconnect(?:ed)?"
    r"|lost|dropped|abandoned|deadline|(?:not_?|un)finished)"
    r"|error_[a-z_]+|abort(?:ed)?_[a-z_]+|finishreason\.(?:abort|error)",
    re.IGNORECASE,
)
"""Finish reasons that say that the engine gave the request up."""
_FAULT_FIELDS: Final = ("errors", "detail", "error_msg", "error_message", "errorMessage", "fault", "__type")
"""Fields in which a message without any piece of an answer tells of a failure, if they hold something."""
_FAULT_CODES: Final = ("status_code", "statusCode", "code", "status")
_FAULT_STATES: Final = frozenset({"error", "failed", "failure"})
FAULT_NAME: Final = re.compile(
    r"(?:(?:stream|server|engine|internal|generation|inference|model|request)[_-]?)?"
    r"(?:error|exception|failure|failed|fatal|abort(?:ed)?)(?:[_-]?event)?",
    re.IGNORECASE,
)
"""What an event is called that tells of a failure."""
_FAULT_WORD: Final = re.compile(
    r"err|fail|invalid|exception|throttl|exceed|denied|unavailable|time_?d?_?out|overload|not_?found", re.IGNORECASE
)
_ANSWER_FIELDS: Final = ("choices", "candidates", "content", "text", "response", "outputs", "data", "token")


@lru_cache(maxsize=256)
def gives_up(reason: str) -> bool:
    """Whether a finish reason says that the engine gave the request up."""
    return _GIVEN_UP.fullmatch(reason) is not None


def is_fault(message: dict[str, Any]) -> bool:
    """Whether a message of no known shape tells of a failure: a web framework's or a gateway's own words."""
    if any(message.get(key) for key in _ANSWER_FIELDS):
        return False
    if any(message.get(key) for key in _FAULT_FIELDS) or message.get("success") is False or message.get("error_code"):
        return True
    if message.get("status") in _FAULT_STATES and "object" not in message:
        return True
    if any(key.endswith("Exception") and isinstance(value, dict) for key, value in message.items()):  # Bedrock
        return True
    return _is_named_fault(message) or _has_fault_code(message)


def _is_named_fault(message: dict[str, Any]) -> bool:
    names = (message.get("type"), message.get("event"))
    return any(isinstance(name, str) and FAULT_NAME.fullmatch(name) is not None for name in names)


def _has_fault_code(message: dict[str, Any]) -> bool:
    if not isinstance(message.get("message"), str):
        return False
    codes = [message[key] for key in _FAULT_CODES if key in message]
    return any(
        code >= _ERROR_STATUS
        if isinstance(code, int)
        else isinstance(code, str) and _FAULT_WORD.search(code) is not None
        for code in codes
    )
