"""URLs and addresses that people write into files."""

from __future__ import annotations

import ipaddress
import re
from typing import Annotated, Final
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field

from base.redact import shown

_NAME: Final = re.compile(r"(?!-)[A-Za-z0-9_-]{1,63}(?<!-)(\.(?!-)[A-Za-z0-9_-]{1,63}(?<!-))*\.?")
_NUMBERS: Final = re.compile(r"[0-9.]+")


def http_url(value: str) -> str:
    """A URL of http or https as it is used: without the slash of an empty path.

    Args:
        value: The URL; "" stands for none and passes.

    Raises:
        ValueError: It is something else. What stands before an ``@`` or in a query is not repeated: it may be a secret.
    """
    if not value:
        return value
    told = f"what is given (…@{shown(value.rpartition('@')[2])})" if "@" in value else repr(shown(value))
    try:
        parts = urlsplit(value)
        _ = parts.port
        (parts.hostname or "").encode("idna")
    except ValueError as error:
        # The parser's own word may quote a part of the password.
        why = "" if "@" in value else f": {str(error)[0].lower()}{str(error)[1:]}"
        raise ValueError(f"{told} is not a URL{why}") from None
    if parts.scheme not in {"http", "https"} or not parts.hostname or " " in value or not value.isprintable():
        raise ValueError(f"{told} is not a URL such as http://127.0.0.1:8000")
    return value.rstrip("/") if parts.path == "/" and not parts.query else value


def encrypted(url: str) -> bool:
    """Whether what is sent to such a URL goes over TLS: its scheme is https, in letters of either case."""
    return urlsplit(url).scheme == "https"


HttpUrl = Annotated[str, AfterValidator(http_url), Field(repr=False)]
"""A setting that holds a URL, or "" for none; it may hold a password, so that ``repr`` leaves it out."""


def host(value: str) -> str:
    """A host name (RFC 1123, underscores too) or an IP address, as a setting names where to listen.

    Raises:
        ValueError: It is neither.
    """
    try:
        ipaddress.ip_address(value)
    except ValueError:
        if _NUMBERS.fullmatch(value) or not _NAME.fullmatch(value):
            raise ValueError(f"{value!r} is no host name or IP address such as 127.0.0.1 or 0.0.0.0") from None
    return value


Host = Annotated[str, AfterValidator(host)]
"""A setting that names the address to listen on."""
