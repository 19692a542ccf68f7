"""A certificate of one's own for the loopback receiver, made once per folder and trusted by nobody else."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, NamedTuple

import trustme

if TYPE_CHECKING:
    from pathlib import Path

_DAYS = 365


class Certificate(NamedTuple):
    """Files of a certificate.

    Attributes:
        authority: The one file that a client must trust (PEM).
        chain: Private key and certificates, for the server (PEM, 0600).
    """

    authority: Path
    chain: Path


def ensure_certificate(folder: Path) -> Certificate:
    """The certificate for ``localhost`` and ``127.0.0.1`` in a folder; made anew when missing or nearly a year old.

    Raises:
        OSError: The folder can't be written.
    """
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    found = Certificate(folder / "authority.pem", folder / "server.pem")
    now = datetime.now(UTC)
    if found.authority.exists() and found.chain.exists():
        made = datetime.fromtimestamp(found.chain.stat().st_mtime, UTC)
        if now - made < timedelta(days=_DAYS - 30):
            return found
    authority = trustme.CA()
    issued = authority.issue_cert("localhost", "127.0.0.1", "::1", not_after=now + timedelta(days=_DAYS))
    _write(found.chain, issued.private_key_and_cert_chain_pem.bytes())
    _write(found.authority, authority.cert_pem.bytes())
    return found


def _write(path: Path, content: bytes) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
    temporary.replace(path)
