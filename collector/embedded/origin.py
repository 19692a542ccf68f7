"""Who may not ask at all: web pages of other origins, and names that a page has bound to our address."""

from __future__ import annotations

import contextlib
import ipaddress
import socket
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from collector.embedded.errors import ACCESS_DENIED, QueryError, refused

if TYPE_CHECKING:
    from collections.abc import Mapping

# A page's own fetches and what a person typed; anything else a browser did on behalf of another site.
_OWN_SITES = frozenset({"same-origin", "none"})


class Origins:
    """Judges ``Host``, ``Origin`` and ``Sec-Fetch-Site`` of a request.

    Args:
        host: Address the store listens on.
    """

    def __init__(self, host: str) -> None:
        self._loopback = _is_loopback(host)
        self._names = {"localhost", host.lower(), *(() if self._loopback else _own_names())}

    def check(self, headers: Mapping[str, str]) -> None:
        """Let programs pass, and a browser only for a page of this very address.

        Raises:
            QueryError: A foreign page or a foreign name (497).
        """
        host = headers.get("Host", "")
        site, origin = headers.get("Sec-Fetch-Site"), headers.get("Origin")
        if site is not None and site.strip().lower() not in _OWN_SITES:
            raise _denied(f"A page of another site ({site!r}) may not ask this store")
        if origin is not None and (not host or _netloc(origin) != host.lower()):
            raise _denied(f"A page from {origin!r} may not ask this store")
        # A page that rebinds its name to our address has the same origin as we: its name gives it away. Behind a
        # name of a cluster's own, programs may ask; browsers may not.
        browser = site is not None or origin is not None
        if (self._loopback or browser) and not self._known(host):
            raise _denied(f"Host {host!r} is not this store", "Use http://127.0.0.1")

    def _known(self, host: str) -> bool:
        name = host if host.endswith("]") else host.rsplit(":", 1)[0]
        return not name or name.lower() in self._names or _is_address(name.strip("[]"))


def _netloc(origin: str) -> str:
    # What is no URL names nobody.
    with contextlib.suppress(ValueError):
        return urlsplit(origin).netloc.lower()
    return ""


def _denied(what: str, fix: str = "Ask from a program, or through a server of your own") -> QueryError:
    return refused(ACCESS_DENIED, "ACCESS_DENIED", what, fix)


def _own_names() -> set[str]:
    return {socket.gethostname().lower(), socket.getfqdn().lower()}


def _is_loopback(host: str) -> bool:
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return host == "localhost"


def _is_address(text: str) -> bool:
    with contextlib.suppress(ValueError):
        ipaddress.ip_address(text)
        return True
    return False
