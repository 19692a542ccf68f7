"""Whose a credential is: one subject stays one, however often its token is made anew; never the secret itself."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
import os
import re
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import unquote_to_bytes

if TYPE_CHECKING:
    from agent.tap.head import RequestHead

_HASH_HEX: Final = 16
_REMEMBERED: Final = 2_048
_DIGEST_BYTES: Final = 16
_SCHEME: Final = re.compile(
    rb"(bearer|basic|token|key|api-?key|jwt|dpop|digest|aws4-[a-z0-9-]{1,24}|negotiate|ntlm|hawk)"
    rb"(?::[ \t]*|[ \t]+)(?=\S)",
    re.IGNORECASE,
)
_TOKENS: Final = frozenset({b"bearer", b"token", b"key", b"api-key", b"apikey", b"jwt", b"dpop"})
"""Schemes after which the key stands as it is."""
_QUOTES: Final = re.compile(rb"^(?:token=)?\"([^\"]+)\",?$|,$")
_PER_REQUEST: Final = frozenset({b"negotiate", b"ntlm", b"hawk"})
"""Schemes whose text is new with each request and tells no subject without a key that a tap has not."""
_PLACEHOLDERS: Final = frozenset(
    {b"empty", b"none", b"null", b"undefined", b"no-key", b"sk-no-key-required", b"not-needed", b"unused"}
)
"""What people write where a client insists on a key and the server wants none: nobody's."""
_JWT: Final = re.compile(rb"[A-Za-z0-9_-]{2,}={0,2}\.[A-Za-z0-9_-]{2,}={0,2}\.[A-Za-z0-9+/_-]*={0,2}")
"""Padding is not the standard's, and some put it there."""
_MAX_JWT: Final = 16_384
_SUBJECTS: Final = ("sub", "client_id", "azp", "appid", "oid", "uid", "user_id", "username", "email")
_USERNAME: Final = re.compile(rb'\busername="((?:[^"\\]|\\.)*)"')
_ACCESS_KEY: Final = re.compile(rb"\bCredential=([A-Za-z0-9]+)/")
_QUERY_KEYS: Final = re.compile(rb"(?:^|&)(?:key|api[_-]?key)=([^&]+)", re.IGNORECASE)
KEY_FIELDS: Final = (b"x-api-key", b"api-key", b"x-goog-api-key")
"""Fields that hold a client's key with one server or another."""


def hash_key(salt: bytes, credential: bytes, claim: str = "sub") -> str:
    """``v1:`` and 16 hex digits of HMAC-SHA-256(salt, subject), see ``subject``; empty when it tells none.

    The version lets the method change without one tenant silently becoming two.
    """
    whose = subject(credential, claim)
    return "v1:" + hmac.digest(salt, whose, "sha256").hex()[:_HASH_HEX] if whose else ""


class KeyNames:
    """Names of credentials, see ``hash_key``, remembered: most requests bear one that came a moment ago.

    What is remembered is no credential: each is known by a digest under a key that this process has made up.

    Args:
        salt: See ``hash_key``.
        claim: See ``subject``.
    """

    def __init__(self, salt: bytes, claim: str) -> None:
        self._salt = salt
        self._claim = claim
        self._keyed = hashlib.blake2b(digest_size=_DIGEST_BYTES, key=os.urandom(32))
        self._known: dict[bytes, str] = {}

    def of(self, credential: bytes) -> str:
        """Name of a credential; empty when it tells none."""
        hashed = self._keyed.copy()
        hashed.update(credential)
        known = hashed.digest()
        name = self._known.get(known)
        if name is None:
            name = hash_key(self._salt, credential, self._claim)
            if len(self._known) >= _REMEMBERED:
                self._known.clear()
            self._known[known] = name
        return name


def subject(credential: bytes, claim: str = "sub") -> bytes:
    """What of a credential stays the same for one subject.

    A key is itself, whatever scheme stands before it. A JWT (RFC 7519) is its issuer and its subject: its signature is
    the server's to check, whose refusal a tap sees; here it is only read. Of Basic (RFC 7617), Digest and AWS
    signatures it is the user or the access key. Empty for a placeholder and for a scheme that is new each time.

    Args:
        credential: Value of a field, or a key alone.
        claim: The claim that names the subject of a JWT; one without it falls back to the usual ones.
    """
    text = credential.strip()
    match = _SCHEME.match(text)
    scheme = match[1].lower() if match is not None else b""
    key = text[match.end() :].strip() if match is not None else text
    if scheme in _TOKENS:
        while (again := _SCHEME.match(key)) is not None and again[1].lower() in _TOKENS:
            key = key[again.end() :]  # a client that puts the scheme before what already has one
        key = _QUOTES.sub(rb"\1", key)
    if scheme in _PER_REQUEST or key.lower() in _PLACEHOLDERS:
        return b""
    if scheme == b"basic" and (user := _basic_user(key)):
        return b"basic\0" + user
    if scheme == b"digest" and (named := _USERNAME.search(key)) is not None:
        return b"digest\0" + named[1]
    if scheme.startswith(b"aws4-") and (named := _ACCESS_KEY.search(key)) is not None:
        return b"aws\0" + named[1]
    if len(key) <= _MAX_JWT and _JWT.fullmatch(key) is not None and (whose := _jwt_subject(key, claim)):
        return whose
    return key


def query_key(head: RequestHead) -> bytes:
    """The key that a request's query holds, empty if none."""
    query = head.target.partition(b"?")[2]
    match = _QUERY_KEYS.search(query) if query else None
    return unquote_to_bytes(match[1]) if match is not None else b""


def _basic_user(key: bytes) -> bytes:
    try:
        return base64.b64decode(key, validate=True).partition(b":")[0]
    except binascii.Error:
        return b""


def _jwt_subject(token: bytes, claim: str) -> bytes:
    first, second, _ = token.split(b".")
    head, claims = _part(first), _part(second)
    if not isinstance(head, dict) or "alg" not in head or not isinstance(claims, dict):
        return b""
    issuer = claims.get("iss")
    for name in (claim, *_SUBJECTS):
        value = _claim(claims, name)
        if isinstance(value, str | int) and not isinstance(value, bool) and value != "":
            where = issuer if isinstance(issuer, str) else ""
            return f"jwt\0{where}\0{name}\0{value}".encode("utf-8", "replace")
    return b""


def _claim(claims: dict[str, Any], name: str) -> Any:
    """A claim by its name, or by the way to it: ``act.sub``, ``realm.client``."""
    if name in claims:
        return claims[name]
    value: Any = claims
    for step in name.split("."):
        value = value.get(step) if isinstance(value, dict) else None
    return value


def _part(text: bytes) -> Any:
    try:
        return json.loads(base64.urlsafe_b64decode(text.rstrip(b"=") + b"=="))
    except (ValueError, RecursionError):  # binascii.Error is a ValueError
        return None
