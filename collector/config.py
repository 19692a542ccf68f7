"""Settings of the collector."""

from __future__ import annotations

from pathlib import Path  # noqa: TC003 - pydantic reads it at run time
from typing import Annotated, Final, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from base import yamlfile
from base.errors import ConfigError
from base.settings import MustExist, Port
from base.urls import Host  # noqa: TC001 - pydantic reads it at run time
from base.yamlfile import FieldError
from collector import retention
from collector.store.address import StoreAddress

MEBIBYTE: Final = 1 << 20
FRAME_BYTES: Final = 1024
"""More than the log adds to a request."""


class SenderKey(BaseModel):
    """One more key by which a sender may sign, beside the data folder's own."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    file: Annotated[Path, MustExist()] = Field(
        description="File with the key in hex; its id is the first 8 hex digits of its SHA-256."
    )
    tenant: str = Field(default="", description="Written into the column `tenant` of everything this key sends.")
    bearer: bool = Field(
        default=False,
        description="Also take the key as it is, in `Authorization: Bearer`, from senders that can't sign: Prometheus, "
        "vmagent. Only behind TLS.",
    )


class CollectorConfig(BaseModel):
    """The section ``collector:`` of the configuration file."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    host: Host = Field(default="127.0.0.1", description="Address to listen on.")
    port: Annotated[int, Port("otlp")] = Field(
        default=4318, ge=0, le=65535, description="Port of OTLP/HTTP, /healthz and /metrics; 0 picks a free one."
    )
    certificate_file: Annotated[Path | None, MustExist()] = Field(
        default=None, description="Certificate (PEM, with its chain) by which the port speaks TLS; none: plain HTTP."
    )
    certificate_key_file: Annotated[Path | None, MustExist()] = Field(
        default=None, description="Private key of that certificate, without a password."
    )
    client_ca_file: Annotated[Path | None, MustExist()] = Field(
        default=None,
        description="Authorities of which every client must show a certificate, readers of /healthz and /metrics too.",
    )
    clickhouse: str = Field(
        default="http://127.0.0.1:8123",
        repr=False,
        description="URL of the store, embedded or a server; `?database=NAME` names another database.",
    )
    user: str = Field(default="", description="User at the store; empty: owner of the embedded store.")
    password_file: Annotated[Path | None, MustExist()] = Field(
        default=None, description="File with that user's password."
    )
    store_prompts: bool = Field(
        default=False, description="Keep attributes that hold prompt text. Off: they never touch a disk."
    )
    require_signature: bool = Field(default=False, description="Refuse unsigned requests from loopback too.")
    sender_keys: tuple[SenderKey, ...] = Field(default=(), description="Further keys that senders may sign with.")
    drop_repeats: bool = Field(
        default=True, description="Drop requests taken before: same batch id, or same bytes without one."
    )
    derive_samples: bool = Field(
        default=True,
        description="Make engine samples of model servers' pages that somebody else scrapes and sends here.",
    )
    max_body_bytes: int = Field(
        default=16 * MEBIBYTE, ge=1024, le=64 * MEBIBYTE, description="Largest request, decompressed."
    )
    max_inflight_bytes: int = Field(
        default=128 * MEBIBYTE, ge=1024, description="Requests held in memory together; more are told to come again."
    )
    log_max_bytes: int = Field(
        default=2048 * MEBIBYTE,
        ge=1024,
        description="Disk the write-ahead log may take; beyond, senders are told to come again.",
    )
    seal_bytes: int = Field(default=8 * MEBIBYTE, ge=1024, le=16 * MEBIBYTE, description="Largest insert.")
    seal_seconds: float = Field(
        default=2.0,
        ge=0.05,
        le=60,
        description="Longest wait before what arrived is inserted: with the insert itself rows are there in 3 s.",
    )
    quiet_seal_seconds: float = Field(
        default=5.0,
        ge=0.05,
        le=60,
        description="The same for metrics and logs while no spans come: an idle fleet's samples need no haste, and "
        "every insert costs the store the same however small.",
    )
    unasked_seal_seconds: float = Field(
        default=45.0,
        ge=0,
        le=600,
        description="The same for everything while nobody reads of the embedded store: whoever does has what waits "
        "brought in first. Less than 224 KiB of metrics wait four times as long. No less than `seal_seconds`, and "
        "without effect on a ClickHouse server, which does not tell.",
    )
    settle_seconds: float = Field(
        default=2.0, ge=0.1, le=60, description="Wait before spans of one trace are put together."
    )
    retention_days: dict[str, Annotated[int, Field(ge=0, le=36_500)]] = Field(
        default_factory=dict,
        description="Days that rows are kept, by name (see below); 0 keeps them for ever.",
    )
    quarantine_max_bytes: int = Field(
        default=256 * MEBIBYTE,
        ge=0,
        description="Disk for requests that the store can't read; beyond, they are only counted.",
    )

    @property
    def largest_body(self) -> int:
        """Bytes of the largest request, compressed or not, that the other bounds leave room for too.

        One that these would never let in must not be told to come again.
        """
        return max(0, min(self.max_body_bytes, self.max_inflight_bytes // 2, self.log_max_bytes - FRAME_BYTES))

    @model_validator(mode="after")
    def _check_tls(self) -> Self:
        if (self.certificate_file is None) != (self.certificate_key_file is None):
            given = "certificate_file" if self.certificate_key_file is None else "certificate_key_file"
            raise FieldError((given,), "certificate_file and certificate_key_file go together")
        if self.client_ca_file is not None and self.certificate_file is None:
            raise FieldError(("client_ca_file",), "needs certificate_file: only over TLS do clients show certificates")
        return self

    def certificates(self) -> dict[str, Path]:
        """Files of certificates, by the setting that names them."""
        named = {"certificate_file": self.certificate_file, "client_ca_file": self.client_ca_file}
        return {f"collector.{setting}": file for setting, file in named.items() if file is not None}

    @field_validator("retention_days")
    @classmethod
    def _check_retention(cls, value: dict[str, int]) -> dict[str, int]:
        if value and (unknown := sorted(value.keys() - (known := retention.defaults()).keys())):
            raise ValueError(f"nothing is kept under the name {unknown[0]}: name one of {', '.join(sorted(known))}")
        return value

    @field_validator("clickhouse")
    @classmethod
    def _check_clickhouse(cls, value: str) -> str:
        try:
            if value:
                StoreAddress.parse(value)
        except ConfigError as error:
            raise ValueError(f"{error.what}: {error.fix}") from None
        return value


def load(path: Path | None) -> CollectorConfig:
    """Read the section ``collector`` of a YAML file; defaults without a file.

    Raises:
        ConfigError: The file can't be read, or a field is wrong; names each.
    """
    return yamlfile.settings(path, "collector", CollectorConfig)
