"""Where all goes that the sources hand over: into the spool, and out of it, signed, to the collector."""

from __future__ import annotations

import asyncio
import ssl
from typing import TYPE_CHECKING, Final

from agent.self_spans import start_self_spans
from agent.ship import Shipper
from agent.spool.reader import SpoolReader
from agent.spool.writer import SpoolWriter, producer_folder
from base.errors import ConfigError
from base.keys import ensure_keys

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from agent.config import AgentConfig
    from agent.otlp.emit import SignalKind
    from agent.ship import OpenSpan

PRODUCER: Final = "agent"


class Outlet:
    """The agent's own producer in the spool, and what ships all producers' records.

    Args:
        config: Settings.
        data: Data folder; ``spool/`` and ``keys/`` are made in it.

    Raises:
        DataFolderInUseError: Another agent ships from this data folder.
        ConfigError: A key or certificate can't be read.
    """

    def __init__(self, config: AgentConfig, data: Path) -> None:
        key, self._tls = _key(config, data), _tls(config)
        self._config = config
        self.spool = data / "spool"
        self.reader = SpoolReader(self.spool, max_bytes=config.spool_max_bytes * 9 // 10)
        self.writer = SpoolWriter(producer_folder(self.spool, PRODUCER), config.spool_max_bytes)
        self._end_spans: Callable[[], None] = lambda: None
        span: OpenSpan | None = None
        if config.self_spans:
            span, self._end_spans = start_self_spans(config)
        self.shipper = Shipper(
            self.reader, config.collector, key=key, flush_seconds=config.flush_seconds, tls=self._tls, span=span
        )

    def renew(self) -> None:
        """Read the TLS files again: connections to come have what is in them now, and trust former authorities too.

        Raises:
            ConfigError: A file can't be used; all stays as it was.
        """
        if self._tls is not None and _tls(self._config) is not None:
            # The sessions hold the context itself, which takes nothing that was not tried on another one first.
            _fill(self._tls, self._config)

    def emit(self, signal: SignalKind, body: bytes) -> bool:
        """Put a body into the spool; whether it is there."""
        return self.writer.append(signal, body)

    def seal(self) -> None:
        """Nothing more comes: what is in the spool may be sent to its end."""
        self.writer.close()

    async def close(self) -> None:
        """Let go of the spool, and send what there is of the agent's own spans."""
        await asyncio.to_thread(self._end_spans)
        self.writer.close()
        self.reader.close()


def _key(config: AgentConfig, data: Path) -> bytes | None:
    if not config.sign:
        return None
    path = config.key_file or data / "keys" / "agent_hmac"
    if config.key_file is None and not path.exists():
        return ensure_keys(data / "keys").agent_hmac
    try:  # read, not made anew: an agent must come up again on a full disk
        return bytes.fromhex(path.read_text().strip())
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"the key {path} can't be read as hex: {error}", "Check agent.key_file, or the file"
        ) from None


def _tls(config: AgentConfig) -> ssl.SSLContext | None:
    if config.collector_ca_file is None and config.client_certificate_file is None:
        return None
    try:
        context = ssl.create_default_context(cafile=config.collector_ca_file)
        _fill(context, config)
    except (OSError, ValueError) as error:
        files = (config.collector_ca_file, config.client_certificate_file, config.client_key_file)
        raise ConfigError(
            f"a TLS file of agent.collector can't be used: {error}",
            f"Check {', '.join(str(one) for one in files if one is not None)}: PEM, and keys without a password",
        ) from None
    return context


def _fill(context: ssl.SSLContext, config: AgentConfig) -> None:
    if config.collector_ca_file is not None:
        context.load_verify_locations(config.collector_ca_file)
    if config.client_certificate_file is not None:
        context.load_cert_chain(config.client_certificate_file, config.client_key_file, password=_no_password)


def _no_password() -> str:
    raise ValueError("the key has a password, and nobody is there to type it")
