"""Certificates of authorities of one's own, as files, for tests of TLS."""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING, NamedTuple

import trustme

if TYPE_CHECKING:
    from datetime import datetime
    from pathlib import Path


class Leaf(NamedTuple):
    """Files of a certificate and its key (PEM)."""

    certificate: Path
    key: Path


class Authority:
    """An authority whose certificate lies in ``folder/name.pem``."""

    def __init__(self, folder: Path, name: str) -> None:
        self._folder = folder
        self._made = trustme.CA(organization_name=name)
        self.file = folder / f"{name}.pem"
        self._made.cert_pem.write_to_path(str(self.file))

    def issue(self, name: str, *, file: str, until: datetime | None = None) -> Leaf:
        """A certificate for a host, address or mail address, in ``file.pem`` and ``file.key``; written over others."""
        leaf = Leaf(self._folder / f"{file}.pem", self._folder / f"{file}.key")
        made = self._made.issue_cert(name, not_after=until)
        made.private_key_pem.write_to_path(str(leaf.key))
        leaf.certificate.write_bytes(b"".join(one.bytes() for one in made.cert_chain_pems))
        return leaf

    def client(self, leaf: Leaf | None = None) -> ssl.SSLContext:
        """What trusts this authority alone, and shows a certificate where one is given."""
        context = ssl.create_default_context(cafile=self.file)
        if leaf is not None:
            context.load_cert_chain(leaf.certificate, leaf.key)
        return context
