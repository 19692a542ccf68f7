"""Who asked: a header as it is, or a key as a salted hash; never the key, and never without bound."""

from __future__ import annotations

import hashlib
import hmac
import re
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from agent.tap.head import Head

OTHER: Final = "other"
"""Name of all names past the bound."""
_HASH_HEX: Final = 16
_NAME: Final = re.compile(rb"[\x20-\x7e\x80-\xff]{1,128}")
_SCHEME: Final = re.compile(rb"(?:bearer|basic|token)[ \t]+", re.IGNORECASE)


class BoundedNames:
    """The first ``limit`` distinct names keep their name, the rest become ``other``.

    Args:
        limit: Distinct names kept.
        overflow: Called for each request whose name becomes ``other``.
    """

    def __init__(self, limit: int, overflow: Callable[[], object] = lambda: None) -> None:
        self._limit = limit
        self._overflow = overflow
        self._known: set[str] = set()

    def __call__(self, name: str) -> str:
        """The name to record."""
        if not name or name in self._known:
            return name
        if len(self._known) < self._limit:
            self._known.add(name)
            return name
        self._overflow()
        return OTHER

    @property
    def distinct(self) -> int:
        """Distinct names seen, up to the bound."""
        return len(self._known)


class Tenants:
    """Finds the tenant of a request.

    Args:
        salt: ``Keys.tenant_salt``.
        header: Field that names the tenant; empty to take none.
        key_header: Field that holds the client's key; ``x-api-key`` is looked at after it; empty to hash none.
        names: Display names by hash (``v1:…``) or by header value.
        bound: Bounds the distinct names.
    """

    def __init__(
        self, salt: bytes, *, header: str, key_header: str, names: Mapping[str, str], bound: Callable[[str], str]
    ) -> None:
        self._salt = salt
        self._header = header.lower().encode()
        self._key_headers = tuple(dict.fromkeys((key_header.lower().encode(), b"x-api-key"))) if key_header else ()
        self._names = dict(names)
        self._bound = bound

    def resolve(self, head: Head) -> str:
        """Tenant of a request, empty when nothing names one."""
        if self._header and (value := head.get(self._header)) and _NAME.fullmatch(value):
            name = value.decode("utf-8", "replace")
            return self._bound(self._names.get(name, name))
        for field in self._key_headers:
            if value := head.get(field):
                name = hash_key(self._salt, value)
                return self._bound(self._names.get(name, name))
        return ""


def hash_key(salt: bytes, credential: bytes) -> str:
    """``v1:`` and 16 hex digits of HMAC-SHA-256(salt, key); a scheme such as ``Bearer`` before the key is left out.

    The version lets the method change without one tenant silently becoming two.
    """
    key = _SCHEME.sub(b"", credential.strip(), count=1)
    return "v1:" + hmac.new(salt, key, hashlib.sha256).hexdigest()[:_HASH_HEX]
