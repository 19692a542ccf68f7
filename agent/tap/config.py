"""Settings of a tap: command line, environment (``SERVESCOPE_TAP_*``), and its part of the common config file."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import quote, urlsplit

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from agent.access import AUTHORIZATION, Access
from agent.tap.limits import Limits
from base import yamlfile
from base.errors import ConfigError
from base.redact import shown
from base.vocabulary import Resource

if TYPE_CHECKING:
    from collections.abc import Mapping

    from base.yamlfile import YamlFile

_Model = TypeVar("_Model", bound=BaseModel)


class TenantConfig(BaseModel):
    """How the tap tells who asks."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    header: str = Field(
        default="x-tenant-id", description="Header whose value names the tenant as it is; empty for none."
    )
    key_header: str = Field(
        default="authorization", description="Header whose salted hash names the tenant otherwise; empty for none."
    )
    header_wins: bool = Field(
        default=False, description="Whether the header beats a key that the server took; for a gateway with one key."
    )
    claim: str = Field(default="sub", min_length=1, description="Claim of a JWT that names who asks.")
    names: dict[str, str] = Field(
        default_factory=dict, description="Display names by hash (`v1:…`) or by the header's value."
    )
    limit: int = Field(
        default=1_000, ge=1, description="Distinct tenants (and models) kept by name at a time; then `other`."
    )


class TapLimits(BaseModel):
    """Bounds of one connection, see ``core.Limits``."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    connect_seconds: float = 5.0
    first_byte_seconds: float = 0.0
    stall_seconds: float = 0.0
    head_seconds: float = 30.0
    client_stall_seconds: float = 300.0
    keep_alive_seconds: float = 75.0
    drain_seconds: float = 30.0
    max_connections: int = Field(default=4_096, ge=1)
    max_tunnels: int = Field(default=1_024, ge=0)
    tunnel_idle_seconds: float = 3_600.0
    patience_seconds: float = 30.0
    upstream_idle_seconds: float = 4.0
    hold_seconds: float = 0.25
    inline_records: bool = True
    sample_traces: bool = True

    def limits(self) -> Limits:
        """The part that connections need."""
        return Limits(**{f.name: getattr(self, f.name) for f in fields(Limits)})


@dataclass(frozen=True, slots=True)
class FileConfig:
    """What a tap takes from the common config file.

    Attributes:
        tenant: ``agent.tenant``.
        limits: ``agent.tap``.
        place: Resource attributes: region, cluster, pod, its namespace and node, and the target's version and role.
        access: Where the key of the target's pages is.
    """

    tenant: TenantConfig = field(default_factory=TenantConfig)
    limits: TapLimits = field(default_factory=TapLimits)
    place: dict[str, str] = field(default_factory=dict)
    access: Access = field(default_factory=Access)


_PLACE = {
    "region": Resource.REGION,
    "cluster": Resource.CLUSTER,
    "pod": Resource.POD,
    "node": Resource.NODE,
    "namespace": Resource.NAMESPACE,
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
    file = yamlfile.read(path)
    agent = file.section("agent")
    targets = agent.get("targets")
    named = [target for target in targets if isinstance(target, dict)] if isinstance(targets, list) else []
    target = next((each for each in named if each.get("instance") == instance), {})
    tenant = _read(file, TenantConfig, "tenant", agent.get("tenant"))
    limits = _read(file, TapLimits, "tap", agent.get("tap"))
    place = {key: str(value) for name, key in _PLACE.items() if (value := target.get(name) or agent.get(name))}
    if Resource.POD in place and Resource.NODE in place:
        place[Resource.POD_NODE] = place[Resource.NODE]
    return FileConfig(tenant, limits, place, _access(target))


def _access(target: Mapping[str, Any]) -> Access:
    file = target.get("key_file")
    return Access(
        Path(str(file)) if file else None,
        str(target.get("key_env") or ""),
        str(target.get("key_header") or AUTHORIZATION),
    )


_IN_PATHS = "/%:@!$&'()*+,;=~"
"""Stands in a path as it is (RFC 3986 §3.3); what is encoded stays so."""


def _read(file: YamlFile, model: type[_Model], name: str, settings: object) -> _Model:
    try:
        return model.model_validate(settings or {})
    except ValidationError as error:
        raise yamlfile.FileError(file.faults(error, "agent", name)) from error


def read_upstream(url: str) -> tuple[str, str, int | None, str]:
    """Scheme, host and port of the model server's URL, and the path that all its own stand below ("" for none).

    Raises:
        ConfigError: It is not ``http[s]://host[:port][/path]``.
    """
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        told = f"--upstream {shown(url)} is not a URL" + ("" if "@" in url else f": {error}")
        raise ConfigError(told, "Give http://HOST:PORT.") from None
    if parts.scheme not in {"http", "https"} or not parts.hostname or parts.query or parts.fragment:
        told = f"--upstream {shown(url)} is not a server's address"
        raise ConfigError(told, "Give http://HOST:PORT, or http://HOST:PORT/PATH.")
    return parts.scheme, parts.hostname, port, quote(parts.path.rstrip("/"), safe=_IN_PATHS)
