"""Settings of a tap: command line, environment (``SERVESCOPE_TAP_*``), and its part of the common config file."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from agent.errors import ConfigError
from agent.tap.core import Limits
from agent.vocabulary import Resource

if TYPE_CHECKING:
    from pathlib import Path


class TenantConfig(BaseModel):
    """Who asked.

    Attributes:
        header: Field that names the tenant as it is; empty for none.
        key_header: Field with the client's key, recorded as a salted hash; empty for none.
        names: Display names by hash (``v1:…``) or header value.
        limit: Distinct tenants (and models) kept by name; the rest are ``other``.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    header: str = "x-tenant-id"
    key_header: str = "authorization"
    names: dict[str, str] = {}
    limit: int = 1_000


class TapLimits(BaseModel):
    """Bounds of one connection, see ``core.Limits``."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    connect_seconds: float = 5.0
    first_byte_seconds: float = 600.0
    stall_seconds: float = 300.0
    head_seconds: float = 30.0
    client_stall_seconds: float = 300.0
    keep_alive_seconds: float = 75.0
    drain_seconds: float = 30.0
    max_connections: int = 4_096
    upstream_idle_seconds: float = 4.0
    hold_seconds: float = 0.25
    inline_records: bool = True

    def limits(self) -> Limits:
        """The part that connections need."""
        return Limits(**{f.name: getattr(self, f.name) for f in fields(Limits)})


@dataclass(frozen=True, slots=True)
class FileConfig:
    """What a tap takes from the common config file.

    Attributes:
        tenant: ``agent.tenant``.
        limits: ``agent.tap``.
        place: Resource attributes: region, cluster, pod, node, and the target's version and role.
    """

    tenant: TenantConfig = field(default_factory=TenantConfig)
    limits: TapLimits = field(default_factory=TapLimits)
    place: dict[str, str] = field(default_factory=dict)


_PLACE = {
    "region": Resource.REGION,
    "cluster": Resource.CLUSTER,
    "pod": Resource.POD,
    "node": Resource.NODE,
    "version": Resource.VERSION,
    "role": Resource.ROLE,
}


def read_config(path: Path | None, instance: str) -> FileConfig:
    """Read the parts of the config file that concern this tap.

    Args:
        path: The file; ``None`` for defaults.
        instance: Name of the target, to find its entry under ``agent.targets``.

    Raises:
        ConfigError: The file can't be read or a value is wrong.
    """
    if path is None:
        return FileConfig()
    try:
        loaded = yaml.safe_load(path.read_text())
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"the config file {path} can't be read: {error}", "Check --config.") from error
    agent = _mapping(_mapping(loaded or {}, "the file").get("agent") or {}, "agent")
    targets = agent.get("targets") or []
    target = next((t for t in targets if isinstance(t, dict) and t.get("instance") == instance), {})
    try:
        tenant = TenantConfig.model_validate(agent.get("tenant") or {})
        limits = TapLimits.model_validate(agent.get("tap") or {})
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise ConfigError(f"{path}: agent.{error.title} {where}: {first['msg']}", "Mend the config file.") from error
    place = {key: str(value) for name, key in _PLACE.items() if (value := target.get(name) or agent.get(name))}
    return FileConfig(tenant, limits, place)


def read_upstream(url: str) -> tuple[str, str, int | None]:
    """Scheme, host and port of the model server's URL.

    Raises:
        ConfigError: It is not ``http[s]://host[:port]``.
    """
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise ConfigError(f"--upstream {url}: {error}", "Give http://HOST:PORT.") from error
    if parts.scheme not in {"http", "https"} or not parts.hostname or parts.path.strip("/") or parts.query:
        raise ConfigError(f"--upstream {url} is not a server's address", "Give http://HOST:PORT, without a path.")
    return parts.scheme, parts.hostname, port


def _mapping(value: Any, name: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ConfigError(f"{name} in the config file is not a mapping", "Mend the config file.")
    return value
