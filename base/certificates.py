"""When certificates expire, read from the files that hold them.

Python's ``ssl`` tells that of no file but a bundle of authorities; of a certificate's structure (X.509 in DER) no more
is read here than what lies before its two dates.

Source: RFC 5280, 4.1 (structure) and 4.1.2.5 (dates).
"""

from __future__ import annotations

import asyncio
import re
import ssl
import time
from contextlib import suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

import structlog
from prometheus_client.core import GaugeMetricFamily

from base.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from prometheus_client.metrics_core import Metric

LOG: Final = structlog.get_logger()
SOON_SECONDS: Final = 14 * 86_400.0
"""So long before it expires a certificate is told."""
DAY_SECONDS: Final = 86_400.0
_PEM: Final = re.compile(r"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)
_LONG: Final = 0x80
_VERSION: Final = 0xA0
_UTC_TIME: Final = 0x17
_BEFORE_DATES: Final = 3
"""Serial number, algorithm and issuer."""


def expires(file: Path) -> float:
    """When the first certificate of a PEM file expires that does, Unix seconds.

    Raises:
        ConfigError: It can't be read, or holds no certificate.
    """
    try:
        found = [_not_after(ssl.PEM_cert_to_DER_cert(text)) for text in _PEM.findall(file.read_text())]
        return min(found)
    except (OSError, ValueError, IndexError) as error:
        raise ConfigError(
            f"{file} can't be read as certificates: {error}", "Give a PEM file with at least one certificate"
        ) from None


def told(files: Mapping[str, Path], now: float) -> list[str]:
    """A sentence about each certificate that has expired or will within fourteen days.

    Args:
        files: By the setting that names them.
        now: Unix seconds.
    """
    return [
        f"the certificate of {setting} ({files[setting]}) {sentence(until, now)}: put a new one in its place"
        for setting, until in known(files).items()
        if until - now <= SOON_SECONDS
    ]


def sentence(until: float, now: float) -> str:
    """``expires on DATE``, or that it has; both in Unix seconds."""
    when = datetime.fromtimestamp(until, UTC).strftime("%Y-%m-%d %H:%M UTC")
    return f"{'has expired' if until <= now else 'expires'} on {when}"


def known(files: Mapping[str, Path]) -> dict[str, float]:
    """Settings with when the first of their certificates expires, Unix seconds; what can't be read is left out."""
    found = {}
    for setting, file in files.items():
        with suppress(ConfigError):  # who uses it says so, and keeps what was read before
            found[setting] = expires(file)
    return found


async def remind(files: Mapping[str, Path], every: float = DAY_SECONDS) -> None:
    """Log once a day which certificates expire, until cancelled.

    Args:
        files: As of `told`.
        every: Seconds from one time to the next.
    """
    while True:
        for problem in told(files, time.time()):
            LOG.warning("certificate_expires", problem=problem)
        await asyncio.sleep(every)


class Expirations:
    """When certificates expire, as a gauge (the custom-collector protocol of prometheus_client).

    Args:
        prefix: What the gauge's name begins with.
        files: As of `told`.
    """

    def __init__(self, prefix: str, files: Mapping[str, Path]) -> None:
        self._prefix, self._files = prefix, files

    def collect(self) -> Iterator[Metric]:
        """The gauge, with the setting that names each file."""
        gauge = GaugeMetricFamily(
            f"{self._prefix}_certificate_expiration_timestamp_seconds",
            "When the first certificate of a file expires, Unix time.",
            labels=["setting"],
        )
        for setting, until in known(self._files).items():
            gauge.add_metric([setting], until)
        yield gauge


def _not_after(der: bytes) -> float:
    certificate = _inside(der, 0)
    signed = _inside(der, certificate)
    place = signed
    if der[place] == _VERSION:
        place = _behind(der, place)
    for _ in range(_BEFORE_DATES):
        place = _behind(der, place)
    until = _behind(der, _inside(der, place))
    text = der[_inside(der, until) : _behind(der, until)].decode("ascii")
    if der[until] == _UTC_TIME:  # years 50 to 99 are of the last century
        text = ("19" if text[:2] >= "50" else "20") + text
    return datetime.strptime(text, "%Y%m%d%H%M%SZ").replace(tzinfo=UTC).timestamp()


def _inside(der: bytes, place: int) -> int:
    """Where the contents of an element begin."""
    size = der[place + 1]
    return place + 2 + (size - _LONG if size > _LONG else 0)


def _behind(der: bytes, place: int) -> int:
    """Where the element after this one begins."""
    begin, size = _inside(der, place), der[place + 1]
    return begin + (int.from_bytes(der[place + 2 : begin]) if size > _LONG else size)
