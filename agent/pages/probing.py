"""What Servescope understands of a server (``servescope probe URL|FILE``), and how a metrics page is found and had."""

from __future__ import annotations

import asyncio
import gzip
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import SplitResult, urlsplit, urlunsplit

import aiohttp

from agent.access import Access, KeyWantedError, refused
from agent.engine_table import About, detect, tables
from agent.pages.page import Limits, Page, PageReader
from agent.pages.samples import EngineSample, Sampler
from base.errors import PageError, UnknownEngineError
from base.redact import redacted, shown
from base.vocabulary import Signal

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

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
_PROBE_TIMEOUT_SECONDS: Final = 10.0


def split_url(url: str) -> SplitResult:
    """A URL in parts; one without a scheme is http."""
    return urlsplit(url if "://" in url else f"http://{url}")


def page_urls(url: str) -> list[str]:
    """Where the metrics page may be, likeliest first, given the base URL of a server or the page itself.

    An engine that serves metrics on another port (Triton: 8000 → 8002) is tried there too.
    """
    parts = split_url(url)
    path = parts.path.rstrip("/")
    if path.endswith("metrics"):
        return [urlunsplit(parts)]
    offsets = sorted({table.metrics_port_offset for table in tables().values()} - {0})
    elsewhere = [other for offset in offsets if (other := _with_port(parts, offset)) is not None]
    return [
        *([urlunsplit(parts)] if path else []),
        urlunsplit(parts._replace(path=f"{path}/metrics", query="")),
        *(urlunsplit(other._replace(path="/metrics", query="")) for other in elsewhere),
    ]


def about_url(table: Table, url: str, page_url: str) -> str:
    """Where an engine tells its version: on ``url`` if given, else on the serving port that belongs to the page."""
    if not table.about_path:
        return ""
    parts = split_url(url or page_url)
    if not url or split_url(page_url).netloc == parts.netloc:
        parts = (_with_port(parts, -table.metrics_port_offset) or parts) if table.metrics_port_offset else parts
    base = parts.path.rstrip("/").removesuffix("/metrics").rstrip("/")
    return urlunsplit(parts._replace(path=f"{base}{table.about_path}", query="", fragment=""))


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
    if not url:
        return About()
    try:
        reply = json.loads(await fetch(session, url, _ABOUT_BYTES, key))
    except (aiohttp.ClientError, TimeoutError, OSError, PageError, ValueError):
        return About()  # a server need not tell: the page is the truth, this is a courtesy
    return table.about(reply).within(_NAMES_KEPT) if isinstance(reply, dict) else About()


def reason_of(error: Exception) -> str:
    """Why a page did not come, in one line without secrets."""
    return redacted(str(error)) or "no answer in time"


def probe(
    place: str, *, access: Access | None = None, timeout_seconds: float = _PROBE_TIMEOUT_SECONDS
) -> dict[str, Any]:
    """What we understand of a server or of a saved page.

    Args:
        place: URL of a server or of its metrics page, or path of a saved page (``.gz`` is unpacked).
        access: Where the server's key is.
        timeout_seconds: How long to wait for one answer.

    Returns:
        ``{"engine", "version", "models", "signals", "by_model", "unmapped", "missing", "notes"}``: ``version`` is None
        where the server does not say; ``signals`` are summed over models and ranks (KV use: the fullest) and
        ``by_model`` has the same per model, neither with a key for what the page does not show; ``unmapped`` are
        families no table names; ``missing`` are signals that this engine's pages have and this one has not.

    Raises:
        PageError: The page cannot be had or read.
        UnknownEngineError: No engine table recognises it; names what was seen.
    """
    path = Path(place)
    if "://" not in place and path.exists():
        return describe(_read(_saved(path), place), About())
    if "://" not in place and ("/" in place or ":" not in place):
        raise PageError(
            f"no file {shown(place)}", "Give the path of a saved metrics page, or a URL that begins with http://"
        )
    return asyncio.run(_probe_url(place, access or Access(), timeout_seconds))


def _saved(path: Path) -> bytes:
    try:
        return gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (OSError, EOFError) as error:
        raise PageError(f"cannot read {path}: {error}", "Give the path of a saved metrics page") from error


def _read(body: bytes, place: str) -> Page:
    page = PageReader().read(body)
    if not page.layout.series:
        raise PageError(f"the metrics page of {place} is empty", "Wait until the server has started, or give its page")
    return page


async def _probe_url(url: str, access: Access, timeout_seconds: float) -> dict[str, Any]:
    timeout = aiohttp.ClientTimeout(total=timeout_seconds)
    problem: PageError | UnknownEngineError | None = None
    key = access.headers()
    if any(map(str.isspace, url)):
        raise PageError(f"{shown(url)} is not a URL", "Give a URL such as http://127.0.0.1:8000")
    try:
        async with aiohttp.ClientSession(timeout=timeout, cookie_jar=aiohttp.DummyCookieJar()) as session:
            for page_url in page_urls(url):
                try:
                    page = _read(await fetch(session, page_url, Limits().bytes, key), shown(page_url))
                    table = detect(page)
                except (aiohttp.ClientError, TimeoutError, OSError) as error:
                    problem = problem or PageError(
                        f"cannot get {shown(page_url)}: {reason_of(error)}", "Is the server up, the URL right?"
                    )
                except (PageError, UnknownEngineError) as error:
                    # A page that answers tells more than a port that does not, and one that wants a key most.
                    problem = problem if isinstance(problem, KeyWantedError) else error
                else:
                    base = "" if split_url(url).path.rstrip("/").endswith("metrics") else url
                    about = await learn_about(session, table, about_url(table, base, page_url), key)
                    return describe(page, about)
    except ValueError:  # aiohttp's InvalidURL is one, and so is a port that is no number; both quote the URL
        raise PageError(f"{shown(url)} is not a URL", "Give a URL such as http://127.0.0.1:8000") from None
    raise problem or PageError(f"nothing to ask at {shown(url)}", "Give a URL such as http://127.0.0.1:8000")


def describe(page: Page, about: About) -> dict[str, Any]:
    """The answer of :func:`probe` for one page."""
    table = detect(page)
    samples = Sampler(table, model=about.model).sample(page).samples
    models = list(dict.fromkeys(sample.key.model for sample in samples))
    signals = _together(samples)
    notes = table.notes(page)
    if page.faults_total:
        notes.append(f"passed over: {page.told()}")
    return {
        "engine": table.engine,
        "version": about.version or None,
        "models": [model for model in models if model],
        "signals": signals,
        "by_model": {
            model: _together(sample for sample in samples if sample.key.model == model) for model in models if model
        },
        "unmapped": [family for family in page.layout.families() if not table.knows(family)],
        "missing": [str(signal) for signal in table.expected() if signal not in signals],
        "notes": notes,
    }


def _together(samples: Iterable[EngineSample]) -> dict[str, float]:
    """Signals of several samples as one: sums, but the fullest KV cache."""
    found: dict[str, float] = {}
    for sample in samples:
        for signal, value in sample.signals().items():
            if signal == Signal.KV_CACHE_USAGE_RATIO:
                found[signal] = max(found.get(signal, value), value)
            else:
                found[signal] = found.get(signal, 0.0) + value
    return {str(signal): found[signal] for signal in Signal if signal in found}
