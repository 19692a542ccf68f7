"""Who may send: a right signature, a key that may come as it is, or loopback where that is trusted."""

from __future__ import annotations

import hashlib
import ipaddress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from base import signing
from base.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from collector.config import SenderKey


@dataclass(frozen=True, slots=True)
class Sender:
    """Who sent a request, as far as the door could tell; it goes with every row that comes of it.

    Attributes:
        key_id: Id of the key that signed it, empty for an unsigned request.
        tenant: For whom that key speaks, empty for nobody in particular. It beats what a sender says of itself.
        peer: The peer's address without its port, empty where there is none.
    """

    key_id: str = ""
    tenant: str = ""
    peer: str = ""


NOBODY: Final = Sender()
"""An unsigned request of an unknown peer."""


class AuthError(Exception):
    """A request that must be answered 401; the text is safe to show to its sender."""


@dataclass(frozen=True)
class Door:
    """Checks one request.

    Attributes:
        keys: Secrets by key id.
        tenants: Tenant by key id, for keys that speak for one.
        bearers: Key id by the SHA-256 of a key's hex text, for keys that may come as they are: senders of other makes
            can't sign.
        require_signature: Refuse unsigned requests from loopback too.
    """

    keys: Mapping[str, bytes] = field(repr=False)
    tenants: Mapping[str, str] = field(default_factory=dict)
    bearers: Mapping[bytes, str] = field(default_factory=dict, repr=False)
    require_signature: bool = False

    def admit(self, path: str, headers: Mapping[str, str], body: bytes, remote: str | None, now_ms: int) -> Sender:
        """Return who sends, and for whom.

        Args:
            path: Path as requested, without query.
            headers: Headers, case-insensitive.
            body: The body as received, before decompression.
            remote: The peer's address.
            now_ms: Unix milliseconds.

        Raises:
            AuthError: A signature is wrong or expired, or missing where one is needed.
        """
        if signing.is_signed(headers):
            refusal = signing.verify(self.keys, "POST", path, headers, body, now_ms=now_ms)
            if refusal is not None:
                raise AuthError(refusal.value)
            key_id = headers[signing.HEADER_KEY_ID]
            return Sender(key_id, self.tenants.get(key_id, ""), _plain_address(remote))
        scheme, _, token = headers.get("Authorization", "").partition(" ")
        if scheme.lower() == "bearer" and self.bearers:
            # the digest is looked up, so that the time of a lookup tells nothing of a key
            bearer = self.bearers.get(_digest(token))
            if bearer is None:
                raise AuthError("the bearer token is no sender's key")
            return Sender(bearer, self.tenants.get(bearer, ""), _plain_address(remote))
        if self.require_signature:
            raise AuthError("this collector takes signed requests only")
        if not _is_loopback(remote):
            raise AuthError("unsigned requests are taken from loopback only")
        return Sender(peer=_plain_address(remote))


def open_door(agent_hmac: bytes, sender_keys: Sequence[SenderKey], *, require_signature: bool) -> Door:
    """The door of a data folder's own key and those of the configuration.

    Raises:
        ConfigError: A key file can't be read or does not hold hex.
    """
    keys = {signing.key_id(agent_hmac): agent_hmac}
    tenants: dict[str, str] = {}
    bearers: dict[bytes, str] = {}
    for sender in sender_keys:
        try:
            key = bytes.fromhex(sender.file.read_text().strip())
        except (OSError, ValueError):
            raise ConfigError(f"collector.sender_keys: {sender.file} holds no key in hex", "Write one there.") from None
        keys[signing.key_id(key)] = key
        if sender.tenant:
            tenants[signing.key_id(key)] = sender.tenant
        if sender.bearer:
            bearers[_digest(key.hex())] = signing.key_id(key)
    return Door(keys, tenants, bearers, require_signature)


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.strip().lower().encode()).digest()


def _address(remote: str | None) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        address = ipaddress.ip_address((remote or "").partition("%")[0])
    except ValueError:
        return None
    # a socket that listens for both calls IPv4 peers ::ffff:192.0.2.1
    return getattr(address, "ipv4_mapped", None) or address


def _is_loopback(remote: str | None) -> bool:
    address = _address(remote)
    return address is not None and address.is_loopback


def _plain_address(remote: str | None) -> str:
    address = _address(remote)
    return "" if address is None else str(address)
