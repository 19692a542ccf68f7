"""Where a store is and as whom to speak to it: from a URL, or from the data folder of what runs."""

from __future__ import annotations

import contextlib
import hmac
import json
import os
import re
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import parse_qs, unquote, urlsplit

from base.errors import ConfigError
from base.redact import shown

if TYPE_CHECKING:
    from collector.store.asker import Role

DATABASE: Final = "servescope"
READER_HEADER: Final = "X-Servescope-Reader"
"""Header by which this installation's own readers are told from guests."""
UNHURRIED_HEADER: Final = "X-Servescope-Unhurried"
"""Header of who takes the rows that the store has, and waits for none that a collector still holds."""
_IDENTIFIER: Final = re.compile(r"^[A-Za-z_][A-Za-z0-9_]{0,62}$")
_LOOPBACK: Final = frozenset({"127.0.0.1", "localhost", "::1"})


@dataclass(frozen=True)
class StoreAddress:
    """Where a store is and as whom to speak to it.

    Attributes:
        url: ``http://host:port`` or ``https://host:port[/path]``, without credentials.
        database: Database of the tables.
        user: User name; empty speaks without credentials, which is the reader of an embedded store.
        password: Kept out of ``repr``.
        token: Tells an embedded store that a reader belongs to its installation; kept out of ``repr``.
        role: What the one who speaks to it may do, as far as this side knows.
        unhurried: Takes the rows that are there; all others have the collector bring in what it holds back.
    """

    url: str
    database: str = DATABASE
    user: str = ""
    password: str = field(default="", repr=False)
    token: str = field(default="", repr=False)
    role: Role = "reader"
    unhurried: bool = False

    @classmethod
    def parse(cls, url: str, database: str = DATABASE) -> StoreAddress:
        """Read a URL that may carry ``user:password@`` and ``?database=NAME``.

        Raises:
            ConfigError: It is no http(s) URL with a host, its port is no number, or it has another parameter.
        """
        try:
            parts = urlsplit(url)
            port, host = parts.port, parts.hostname
        except ValueError:  # its text may quote the password
            parts, port, host = urlsplit(""), None, None
        if parts.scheme not in {"http", "https"} or not host:
            raise ConfigError(
                f"{shown(url)!r} is no address of a ClickHouse store",
                "Give one like http://127.0.0.1:8123 (HTTP interface).",
            )
        given = parse_qs(parts.query, keep_blank_values=True)
        if given.keys() - {"database"}:
            # By its name only as far as that is no secret: behind a raw ? in a password it is the password's end.
            raise ConfigError(
                f"the address of the ClickHouse store has another parameter than database: {shown(url)}",
                "Only ?database=NAME is known; settings belong into the user's profile on the server.",
            )
        if not all(_IDENTIFIER.match(name) for name in given.get("database", [])):
            raise ConfigError(
                "the database in the address of the ClickHouse store is no plain name",
                "Use letters, digits and _, for instance ?database=servescope.",
            )
        database = given.get("database", [database])[-1]
        netloc = f"[{host}]" if ":" in host else host
        plain = f"{parts.scheme}://{netloc}{f':{port}' if port else ''}{parts.path.rstrip('/')}"
        return cls(plain, database, unquote(parts.username or ""), unquote(parts.password or ""))


def locate(data: Path | None = None, url: str | None = None, *, role: Role = "reader") -> StoreAddress:
    """Find the store: by URL, else by the ``run.json`` of a data folder.

    Args:
        data: Data folder of a running Servescope; ``$XDG_DATA_HOME/servescope`` where neither is given.
        url: Address of the HTTP interface, may carry ``user:password@`` and ``?database=NAME``.
        role: ``owner`` adds the embedded store's password from the folder's ``keys/``, ``reader`` the token of its own
            readers where the folder has one; both for a loopback address alone: they are sent to no other machine.

    Raises:
        ConfigError: Nothing runs there, or the URL is wrong.
    """
    folder = data if data is not None else _default_folder()
    address = replace(StoreAddress.parse(url if url is not None else _running(folder)), role=role)
    if address.user or urlsplit(address.url).hostname not in _LOOPBACK:
        return address
    if role == "reader":
        with contextlib.suppress(OSError, UnicodeDecodeError):
            text = (folder / "keys" / "store_owner.sha256").read_text(encoding="utf-8").strip()
            return replace(address, token=reader_token(text))
    else:
        try:
            password = (folder / "keys" / "store_owner").read_text(encoding="utf-8").strip()
        except FileNotFoundError:
            return address
        except OSError as error:
            raise ConfigError(
                f"the key {folder / 'keys' / 'store_owner'} can't be read ({error.strerror})",
                "Run as the user who owns the data folder.",
            ) from error
        return replace(address, user="owner", password=password)
    return address


def reader_token(owner_hash: str) -> str:
    """The token of an installation's own readers: it opens their places at the store and nothing else.

    Args:
        owner_hash: Hex SHA-256 of the owner's password, which the store and the folder's ``keys/`` both hold.
    """
    return hmac.new(owner_hash.encode(), b"servescope reader", "sha256").hexdigest()


def _default_folder() -> Path:
    base = os.environ.get("XDG_DATA_HOME") or str(Path.home() / ".local" / "share")
    return Path(base) / "servescope"


def _running(folder: Path) -> str:
    path = folder / "run.json"
    try:
        url = json.loads(path.read_text(encoding="utf-8"))["urls"]["store"]
    except FileNotFoundError:
        raise ConfigError(
            f"no Servescope runs in {folder}", "Start one with `servescope up`, or give --data or --clickhouse."
        ) from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"{path} names no store ({error})", "Restart Servescope; it writes the file anew.") from error
    return str(url)
