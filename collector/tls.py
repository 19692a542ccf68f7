"""TLS at the collector's door: what it shows, and whose certificates it asks of senders."""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING

from base.errors import ConfigError

if TYPE_CHECKING:
    from collector.config import CollectorConfig


class Tls:
    """The certificate of the configuration, read anew whenever that is asked for.

    Args:
        config: Names the files.

    Attributes:
        context: For the server; connections that begin after a reload have what was read then.

    Raises:
        ConfigError: A file can't be used; names each.
    """

    def __init__(self, config: CollectorConfig) -> None:
        self._config = config
        self._newest = self._read()
        self.context = self._read()
        # A context forgets no authority that it was given, so that a new one takes each handshake over instead.
        self.context.sni_callback = self._choose

    def reload(self) -> None:
        """Read the files again; what was read before stays where they can't be used.

        Raises:
            ConfigError: As above.
        """
        self._newest = self._read()

    def _choose(self, connection: ssl.SSLObject, _name: str | None, _context: ssl.SSLContext) -> None:
        connection.context = self._newest

    def _read(self) -> ssl.SSLContext:
        config = self._config
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        # Who resumes a session is not asked for a certificate again, whoever is trusted by now; before 1.3 there are
        # sessions without tickets too.
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.num_tickets = 0
        try:
            if config.certificate_file is not None:
                named = f"certificate_file ({config.certificate_file}) with its key ({config.certificate_key_file})"
                context.load_cert_chain(config.certificate_file, config.certificate_key_file, password=_no_password)
            if config.client_ca_file is not None:
                named = f"client_ca_file ({config.client_ca_file})"
                context.load_verify_locations(config.client_ca_file)
                context.verify_mode = ssl.CERT_REQUIRED
        except (OSError, ValueError) as error:
            raise ConfigError(
                f"collector.{named} can't be used: {error}",
                "Give PEM files: a certificate with its chain, and its key without a password",
            ) from None
        return context


def of(config: CollectorConfig) -> Tls | None:
    """TLS where the configuration names a certificate.

    Raises:
        ConfigError: A file can't be used.
    """
    return None if config.certificate_file is None else Tls(config)


def _no_password() -> str:
    raise ValueError("the key has a password, and nobody is there to type it")
