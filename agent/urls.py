"""URLs that people write into files."""

from __future__ import annotations

from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator


def http_url(value: str) -> str:
    """A URL of http or https as it is used: without the slash of an empty path.

    Args:
        value: The URL; "" stands for none and passes.

    Raises:
        ValueError: It is something else. What stands before an ``@`` is not repeated: it may be a password.
    """
    if not value:
        return value
    shown = f"what is given (…@{value.rpartition('@')[2]})" if "@" in value else repr(value)
    try:
        parts = urlsplit(value)
        _ = parts.port
    except ValueError as error:
        raise ValueError(f"{shown} is not a URL: {str(error)[0].lower()}{str(error)[1:]}") from None
    if parts.scheme not in {"http", "https"} or not parts.hostname or " " in value:
        raise ValueError(f"{shown} is not a URL such as http://127.0.0.1:8000")
    return value.rstrip("/") if parts.path == "/" and not parts.query else value


HttpUrl = Annotated[str, AfterValidator(http_url)]
"""A setting that holds a URL, or "" for none."""
