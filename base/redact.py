"""What people may see of a URL: nothing that could be a password or a token.

Every URL that reaches a person, a log or a table goes through here: errors (:class:`base.errors.ServescopeError`),
log lines (:mod:`base.logs`) and events (:func:`agent.otlp.encode.encode_event`) do so by themselves.
"""

from __future__ import annotations

import re
from typing import Final

HIDDEN: Final = "…"
_URL: Final = re.compile(r"(?<![A-Za-z0-9+.-])([A-Za-z][A-Za-z0-9+.-]{0,30}://)([^\s\x00]+)")
_SCHEME: Final = re.compile(r"(?:[A-Za-z0-9._-]{1,100}=)?[A-Za-z][A-Za-z0-9+.-]{0,30}")
"""What stands before ``://``, a name that a person gave to the server included."""
_AUTHORITY_ENDS: Final = re.compile(r"[/?#\\]")
_CLOSING: Final = "'\")]>.,;:"
"""What a sentence puts after a URL."""
_PAIR: Final = re.compile(r"[&;]")
_NAME: Final = re.compile(r"[A-Za-z0-9_.~\[\]-]{1,64}")


def shown(url: str) -> str:
    """A URL without what stands before an ``@``, and without the values of its query; with or without its scheme."""
    scheme, mark, rest = url.partition("://")
    return f"{scheme}{mark}{_plain(rest)}" if mark and _SCHEME.fullmatch(scheme) else _plain(url)


def redacted(text: str) -> str:
    """A text in which every URL is as :func:`shown` gives it."""
    return _URL.sub(_in_text, text) if "://" in text else text


def _in_text(hit: re.Match[str]) -> str:
    url = hit[2].rstrip(_CLOSING)
    return hit[1] + _plain(url) + hit[2][len(url) :]


def _plain(rest: str) -> str:
    """What follows ``://``, without secrets."""
    end = _AUTHORITY_ENDS.search(rest)
    if "@" in (rest[end.start() :] if end else ""):
        # A password may hold a raw / or ?, and then no parser agrees where the host begins.
        rest = f"{HIDDEN}@{rest.rpartition('@')[2]}"
    else:
        rest = rest.rpartition("@")[2]
    rest, mark, fragment = rest.partition("#")
    rest, asked, query = rest.partition("?")
    told = "&".join(map(_nameless, _PAIR.split(query))) if query else ""
    # Behind a query it may be the end of a value with a raw # in it.
    tail = HIDDEN if fragment and (query or "=" in fragment) else fragment
    return f"{rest}{asked}{told}{mark}{tail}"


def _nameless(pair: str) -> str:
    name, mark, _ = pair.partition("=")
    return f"{name}={HIDDEN}" if mark and _NAME.fullmatch(name) else HIDDEN
