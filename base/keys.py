"""The secrets of one data folder, made at first start and readable by their owner alone."""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from base import locks
from base.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_LEAST_BYTES: Final = 16


@dataclass(frozen=True)
class Keys:
    """Paths and texts of the folder ``keys/``; secrets are kept out of ``repr``.

    Attributes:
        folder: The folder that holds the files.
        store_owner: Password of the embedded store's user ``owner``.
        store_owner_hash_file: File with the hex SHA-256 of that password, all that the store process reads.
        agent_hmac: Key with which agents sign their batches.
        agent_key_id: Public name of that key: the first 8 hex digits of its SHA-256.
        tenant_salt: Salt of the tenant hashes, one per fleet.
    """

    folder: Path
    store_owner: str = field(repr=False)
    store_owner_hash_file: Path
    agent_hmac: bytes = field(repr=False)
    agent_key_id: str
    tenant_salt: bytes = field(repr=False)


def ensure_keys(folder: Path) -> Keys:
    """Read the keys of a data folder's ``keys/``, making those that are missing.

    What is there is never written again, so that a folder mounted read-only or a full disk does; processes that
    start together end up with the same keys.

    Raises:
        ConfigError: A file holds no key.
        OSError: The folder can't be read, or a key is missing and can't be written.
    """
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    owner = _password(folder / "store_owner")
    agent_hmac = _hex(folder / "agent_hmac")
    return Keys(
        folder=folder,
        store_owner=owner,
        store_owner_hash_file=_hash_of(owner, folder / "store_owner.sha256"),
        agent_hmac=agent_hmac,
        agent_key_id=hashlib.sha256(agent_hmac).hexdigest()[:8],
        tenant_salt=_hex(folder / "tenant_salt"),
    )


def _hash_of(owner: str, path: Path) -> Path:
    digest = hashlib.sha256(owner.encode()).hexdigest()
    if _read(path) != digest:  # the first start, or a password that was changed by hand
        with _alone(path.parent):
            _put(path, digest)
    return path


def _secret(path: Path) -> str:
    text = _read(path)
    if text is None:
        with _alone(path.parent):
            text = _read(path)  # another process may have been first
            if text is None:
                text = _put(path, secrets.token_hex(32))
    return text


def _hex(path: Path) -> bytes:
    try:
        key = bytes.fromhex(_secret(path))
    except ValueError:
        key = b""
    if len(key) < _LEAST_BYTES:
        raise _no_key(path, f"no key of at least {2 * _LEAST_BYTES} hex digits")
    return key


def _password(path: Path) -> str:
    text = _secret(path)
    if not text:
        raise _no_key(path, "nothing")
    return text


def _no_key(path: Path, what: str) -> ConfigError:
    return ConfigError(
        f"{path} holds {what}",
        "Put the file back, or remove it: a new key is made, which its other users must be given",
    )


def _read(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except FileNotFoundError:
        return None


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    with locks.wait_for(folder / ".lock"):
        yield


def _put(path: Path, text: str) -> str:
    """Make or replace a whole file; what was there stays when the disk refuses."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())  # batches are signed and tenants hashed with it from now on
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    return text
