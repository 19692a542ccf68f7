"""A certificate that expires is told before it does."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
import structlog
from click.testing import CliRunner
from cryptography import x509
from prometheus_client import CollectorRegistry

from agent.config import AgentConfig
from base import certificates
from base.errors import ConfigError
from collector.config import CollectorConfig
from servescope import checkup
from servescope.cli import main
from tests.kits.authority import Authority

if TYPE_CHECKING:
    from collections.abc import Mapping, MutableMapping
    from pathlib import Path

DAY = 86_400.0


@pytest.mark.parametrize("year", [2015, 2031, 2049, 2050, 2180])
def test_the_date_is_the_certificates_own(tmp_path: Path, year: int):
    """Years from 2050 on are written otherwise than those before."""
    until = datetime(year, 3, 4, 5, 6, 7, tzinfo=UTC)
    leaf = Authority(tmp_path, "ours").issue("localhost", file="leaf", until=until)
    first, *_ = x509.load_pem_x509_certificates(leaf.certificate.read_bytes())
    assert first.not_valid_after_utc == until
    assert certificates.expires(leaf.certificate) == until.timestamp()


def test_of_a_file_of_several_the_first_to_expire_counts(tmp_path: Path):
    authority = Authority(tmp_path, "ours")
    sooner, later = (datetime(year, 1, 1, tzinfo=UTC) for year in (2030, 2040))
    files = [authority.issue("a.test", file=f"{until.year}", until=until).certificate for until in (later, sooner)]
    bundle = tmp_path / "bundle.pem"
    bundle.write_text("a comment\n" + "".join(file.read_text() for file in files))
    assert certificates.expires(bundle) == sooner.timestamp()


@pytest.mark.parametrize(
    "text", ["", "no certificate", "-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n"]
)
def test_what_holds_no_certificate_is_named(tmp_path: Path, text: str):
    file = tmp_path / "odd.pem"
    file.write_text(text)
    with pytest.raises(ConfigError, match=r"odd\.pem can't be read"):
        certificates.expires(file)
    assert certificates.known({"collector.client_ca_file": file}) == {}


def test_it_is_told_for_fourteen_days_before_and_ever_after(tmp_path: Path):
    until = datetime(2031, 1, 1, tzinfo=UTC)
    file = Authority(tmp_path, "ours").issue("a.test", file="leaf", until=until).certificate
    named, at = {"collector.certificate_file": file}, until.timestamp()
    assert certificates.told(named, at - 15 * DAY) == []
    (soon,) = certificates.told(named, at - 13 * DAY)
    assert soon.startswith(f"the certificate of collector.certificate_file ({file}) expires on 2031-01-01 00:00 UTC")
    (over,) = certificates.told(named, at + DAY)
    assert "has expired on 2031-01-01" in over
    assert [[finding.state for finding in checkup.certificates(named, at + days * DAY)] for days in (-15, -13, 1)] == [
        ["ok"],
        ["note"],
        ["broken"],
    ]
    registry = CollectorRegistry()
    registry.register(certificates.Expirations("servescope_collector", named))
    (sample,) = next(iter(registry.collect())).samples
    assert sample.name == "servescope_collector_certificate_expiration_timestamp_seconds"
    assert (sample.labels, sample.value) == ({"setting": "collector.certificate_file"}, at)


async def test_it_is_logged_again_and_again(tmp_path: Path):
    until = datetime.now(UTC) + timedelta(days=3)
    file = Authority(tmp_path, "ours").issue("a.test", file="leaf", until=until).certificate
    twice = asyncio.Event()
    seen: list[tuple[str, str]] = []

    def keep(_logger: object, level: str, told: MutableMapping[str, Any]) -> Mapping[str, Any]:
        seen.append((level, str(told["event"])))
        if len(seen) > 1:
            twice.set()
        raise structlog.DropEvent

    structlog.configure(processors=[keep], cache_logger_on_first_use=False)
    try:
        task = asyncio.create_task(certificates.remind({"agent.client_certificate_file": file}, every=0.001))
        await asyncio.wait_for(twice.wait(), 60)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    finally:
        structlog.reset_defaults()
    assert set(seen) == {("warning", "certificate_expires")}


def test_the_settings_that_name_certificates_are_examined(tmp_path: Path):
    leaf = Authority(tmp_path, "ours").issue("a.test", file="leaf", until=datetime(2020, 1, 1, tzinfo=UTC))
    collector = {"certificate_file": str(leaf.certificate), "certificate_key_file": str(leaf.key),
                 "client_ca_file": str(tmp_path / "ours.pem")}  # fmt: skip
    agent = {"collector": "https://c.test", "client_certificate_file": str(leaf.certificate),
             "client_key_file": str(leaf.key)}  # fmt: skip
    named = {**CollectorConfig(**collector).certificates(), **AgentConfig(**agent).certificates()}
    config = tmp_path / "servescope.yaml"
    config.write_text(json.dumps({"collector": collector, "agent": agent}))
    done = CliRunner().invoke(main, ["doctor", "--json", "--data", str(tmp_path), "--config", str(config)])
    found = {one["name"]: one["state"] for one in json.loads(done.stdout) if one["name"].startswith("certificate ")}
    assert found == {
        "certificate collector.certificate_file": "broken", "certificate collector.client_ca_file": "ok",
        "certificate agent.client_certificate_file": "broken",
    }  # fmt: skip
    assert {f"certificate {setting}" for setting in named} == found.keys()
    assert done.exit_code == 1
