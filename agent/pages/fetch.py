"""How a metrics page is found and had, and what a server tells beside it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final
from urllib.parse import SplitResult, urlsplit, urlunsplit

import aiohttp

from agent.access import refused
from agent.engine_table import METRICS_PATH, About, tables
from base.errors import PageError
from base.redact import redacted, shown

if TYPE_CHECKING:
    from collections.abc import Mapping

    from agent.engine_table import Table

HEADERS: Final = {
    "Accept": "text/plain;version=0.0.4",
    # Compressing would cost the model server more than a local socket costs us.
    "Accept-Encoding": "identity",
    "User-Agent": "servescope",
}
_OK: Final = 200
_REDIRECTS: Final = range(300, 400)
_KEY_STATUSES: Final = frozenset({401, 403})
_NAMES_KEPT: Final = 256
_ABOUT_BYTES: Final = 256 * 1024


def split_url(url: str) -> SplitResult:
    """A URL in parts; one without a scheme is http."""
    return urlsplit(url if "://" in url else f"http://{url}")


def page_urls(url: str, engine: str | None = None) -> list[str]:
    """Where the metrics page may be, likeliest first, given the base URL of a server or the page itself.

    Where the engine is known, paths that only other engines have are not tried.

    An engine that serves metrics on another port (Triton: 8000 → 8002) or path (TensorRT-LLM) is tried there too.
    """
    parts = split_url(url)
    path = parts.path.rstrip("/")
    if path.endswith("metrics"):
        return [urlunsplit(parts)]
    offsets = sorted({table.metrics_port_offset for table in tables().values()} - {0})
    one = tables().get(engine or "")
    known = [one] if one is not None else list(tables().values())
    paths = sorted({table.page_path for table in known} - {METRICS_PATH})
    elsewhere = [other for offset in offsets if (other := _with_port(parts, offset)) is not None]
    return [
        *([urlunsplit(parts)] if path else []),
        urlunsplit(parts._replace(path=f"{path}/metrics", query="")),
        *(urlunsplit(other._replace(path="/metrics", query="")) for other in elsewhere),
        *(urlunsplit(parts._replace(path=f"{path}{other}", query="")) for other in paths),
    ]


def about_url(table: Table, url: str, page_url: str) -> str:
    """Where an engine tells its version; "" where it does not."""
    return serving_url(table, table.about_path, url, page_url) if table.about_path else ""


def serving_url(table: Table, path: str, url: str, page_url: str) -> str:
    """A path of the serving API: on ``url`` if given, else on the serving port that belongs to the page."""
    parts = split_url(url or page_url)
    if not url or split_url(page_url).netloc == parts.netloc:
        parts = (_with_port(parts, -table.metrics_port_offset) or parts) if table.metrics_port_offset else parts
    base = parts.path.rstrip("/").removesuffix("/metrics").rstrip("/")
    return urlunsplit(parts._replace(path=f"{base}{path}", query="", fragment=""))


def _with_port(parts: SplitResult, offset: int) -> SplitResult | None:
    if parts.port is None or parts.hostname is None:
        return None
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return parts._replace(netloc=f"{host}:{parts.port + offset}")


def same_server(url: str, other: str) -> bool:
    """Whether two URLs name the same host, whatever the port: a key that goes to the one may go to the other."""
    return split_url(url).hostname == split_url(other).hostname


async def fetch(session: aiohttp.ClientSession, url: str, limit: int, key: Mapping[str, str] | None = None) -> bytes:
    """GET a body of at most ``limit`` bytes.

    Args:
        session: Asks.
        url: What to get.
        limit: Bytes of the longest body.
        key: Header with the server's key; a redirect is not followed with one, since it may lead to somebody else.

    Raises:
        KeyWantedError: Status 401 or 403.
        PageError: Another status than 200, or a longer body.
        aiohttp.ClientError, TimeoutError, OSError: The server cannot be reached or is too slow.
    """
    plain = shown(url)
    headers = {**HEADERS, **key} if key else HEADERS
    async with session.get(url, headers=headers, allow_redirects=not key) as response:
        if response.status in _KEY_STATUSES:
            raise refused(plain, response.status, keyed=bool(key), named="@" in url)
        if response.status in _REDIRECTS:
            to = shown(response.headers.get("Location", "nowhere"))[:_NAMES_KEPT]
            raise PageError(f"{plain} leads to {to}, where its key is not sent", "Give the URL that it leads to")
        if response.status != _OK:
            raise PageError(f"{plain} answers {response.status}", "Give the URL of its metrics page")
        length = response.content_length
        if length is not None and length <= limit:
            return await response.read()
        parts, size = [], 0
        async for part in response.content.iter_any():
            size += len(part)
            if size > limit:
                raise PageError(
                    f"{plain} sends more than the {limit} bytes allowed", "Give the URL of its metrics page"
                )
            parts.append(part)
        return b"".join(parts)


async def learn_about(
    session: aiohttp.ClientSession, table: Table, url: str, key: Mapping[str, str] | None = None
) -> About:
    """What the engine tells beside its page (version, model, settings); empty where it cannot be asked.

    Args:
        session: Asks.
        table: The engine's.
        url: From `about_url`.
        key: As `fetch` takes it.
    """
    places = [url] if url else []
    if url and table.about_older:
        places.append(url.removesuffix(table.about_path) + table.about_older)
    for place in places:
        try:
            reply = json.loads(await fetch(session, place, _ABOUT_BYTES, key))
        except (aiohttp.ClientError, TimeoutError, OSError, PageError, ValueError):
            continue  # a server need not tell: the page is the truth, this is a courtesy
        if isinstance(reply, dict):
            return table.about(reply).within(_NAMES_KEPT)
    return About()


def reason_of(error: Exception) -> str:
    """Why a page did not come, in one line without secrets."""
    return redacted(str(error)) or "no answer in time"
