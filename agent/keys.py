"""The secrets of one data folder, made at first start and readable by their owner alone."""

from __future__ import annotations

import hashlib
import os
import secrets
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


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

    Raises:
        OSError: The folder can't be read or written.
    """
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    owner = _secret(folder / "store_owner")
    hash_file = folder / "store_owner.sha256"
    _write(hash_file, hashlib.sha256(owner.encode()).hexdigest())
    agent_hmac = bytes.fromhex(_secret(folder / "agent_hmac"))
    return Keys(
        folder=folder,
        store_owner=owner,
        store_owner_hash_file=hash_file,
        agent_hmac=agent_hmac,
        agent_key_id=hashlib.sha256(agent_hmac).hexdigest()[:8],
        tenant_salt=bytes.fromhex(_secret(folder / "tenant_salt")),
    )


def _secret(path: Path) -> str:
    try:
        return path.read_text().strip()
    except FileNotFoundError:
        return _write(path, secrets.token_hex(32))


def _write(path: Path, text: str) -> str:
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
    temporary.replace(path)
    return text
