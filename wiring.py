"""From settings to processes: which parts run, on which ports, with which arguments."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit, urlunsplit

import yaml

from agent import yamlfile
from agent.errors import ConfigError
from agent.keys import ensure_keys
from agent.yamlfile import FileError, YamlFile
from ports import Ports
from supervisor import Part

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from pydantic import BaseModel

_SECTIONS: Final = ("agent", "collector", "alerts", "dashboard")
DEFAULT_PORTS: Final = {
    "store": 8123,
    "otlp": 4318,
    "agent_otlp_http": 14318,
    "agent_otlp_grpc": 14317,
    "dashboard": 8501,
    "agent_health": 9464,
    "alerts_health": 9465,
    "receiver": 9466,
}
_CONFIGURED: Final = {
    "otlp": ("collector", "port"),
    "agent_otlp_http": ("agent", "otlp_http_port"),
    "agent_otlp_grpc": ("agent", "otlp_grpc_port"),
    "dashboard": ("dashboard", "port"),
    "agent_health": ("agent", "health_port"),
    "alerts_health": ("alerts", "health_port"),
    "receiver": ("alerts", "receiver_port"),
}
"""Where the configuration names a port; null there means that nothing listens."""
_HOSTS: Final = {
    "otlp": ("collector", "host"),
    "agent_otlp_http": ("agent", "otlp_host"),
    "agent_otlp_grpc": ("agent", "otlp_host"),
    "agent_health": ("agent", "health_host"),
    "alerts_health": ("alerts", "health_host"),
    "dashboard": ("dashboard", "host"),
}
"""Where the configuration names the address that a port is opened on."""
_FILES: Final[tuple[tuple[str | int, ...], ...]] = (
    ("agent", "key_file"),
    ("agent", "collector_ca_file"),
    ("agent", "client_certificate_file"),
    ("agent", "client_key_file"),
    ("collector", "password_file"),
    ("alerts", "pagerduty", "routing_key_file"),
    ("alerts", "pagerduty", "ca_file"),
    ("alerts", "webhook", "secret_file"),
)
"""Settings that name a file which must be there, beside ``collector.sender_keys[].file`` and ``alerts.slos``."""
_RECEIVERS: Final = ("agent_otlp_http", "agent_otlp_grpc")
FIRST_TAP_PORT: Final = 9080
_TAP_OFFSET: Final = 20


def default_data(name: str = "servescope") -> Path:
    """``$XDG_DATA_HOME/<name>``, by default under ``~/.local/share``."""
    base = os.environ.get("XDG_DATA_HOME")
    return (Path(base) if base else Path.home() / ".local" / "share") / name


def read_settings(path: Path | None, *, check: bool = True, files: bool = False) -> dict[str, Any]:
    """The sections of ``servescope.yaml`` as plain mappings; an absent path is an empty file.

    Args:
        path: The file.
        check: Whether each section is checked against its package's own settings.
        files: Whether the keys, passwords and certificates that it names must be there.

    Raises:
        ConfigError: The file can't be read, has a section that is unknown, or fields that are wrong; names them all.
    """
    if path is None:
        return {}
    file = yamlfile.read(path)
    sections = {name: file.section(name) for name in _SECTIONS}
    unknown = [name for name in file.data if name not in {*_SECTIONS, "data"}]
    faults = [
        f"{file.fault((name,))}: is not a section: there are {', '.join(sorted(_SECTIONS))} and data"
        for name in unknown
    ]
    if not isinstance(file.data.get("data", ""), str):
        faults.append(f"{file.fault(('data',))}: must be the path of a folder")
    if faults:
        raise FileError(faults)
    if check:
        _check(file)
    if files and (unreadable := list(_unreadable(file))):
        raise FileError(unreadable)
    return {name: found for name, found in sections.items() if found} | {
        k: v for k, v in file.data.items() if k == "data"
    }


def _check(file: YamlFile) -> None:
    from agent.config import AgentConfig  # noqa: PLC0415 - each package is an extra of its own
    from alerts.config import AlertsConfig  # noqa: PLC0415 - as above
    from collector.config import CollectorConfig  # noqa: PLC0415 - as above
    from dashboard.config import DashboardConfig  # noqa: PLC0415 - as above

    models: dict[str, type[BaseModel]] = {
        "agent": AgentConfig, "collector": CollectorConfig, "alerts": AlertsConfig, "dashboard": DashboardConfig,
    }  # fmt: skip
    faults: list[str] = []
    for section, model in models.items():
        try:
            yamlfile.checked(file, section, model)
        except FileError as error:
            faults += [fault for fault in error.faults if fault not in faults]
    if faults:
        raise FileError(faults)


def _unreadable(file: YamlFile) -> Iterator[str]:
    """Faults of the keys, passwords and certificates that the configuration names."""
    named = [location for location in _FILES if location[0] in file.data]
    senders = file.section("collector").get("sender_keys") or ()
    named += [("collector", "sender_keys", index, "file") for index in range(len(senders))]
    for location in named:
        value: Any = file.data
        for key in location:
            value = value[key] if isinstance(key, int) else (value or {}).get(key)
        if not value:
            continue
        path = Path(str(value)).expanduser() if location[0] == "alerts" else Path(str(value))
        try:
            path.open("rb").close()
        except OSError as error:
            yield f"{file.fault(location)}: {value} can't be read: {error.strerror}"


def slo_file(settings: Mapping[str, Any], config: Path | None) -> Path | None:
    """``alerts.slos`` of the configuration; a relative path is looked for beside the configuration, then here.

    Every part is told the same absolute path: each has a folder of its own in which it would look.

    Raises:
        ConfigError: It names no file.
    """
    named = (settings.get("alerts") or {}).get("slos")
    if not named:
        return None
    given = Path(str(named)).expanduser()
    for path in (*([config.absolute().parent / given] if config is not None else []), given.absolute()):
        if path.is_file():
            return path
    raise ConfigError(f"alerts.slos names {named}, which is no file", "Name an SLO file, relative to the configuration")


@dataclass
class Plan:
    """What one Servescope runs.

    Attributes:
        data: Data folder.
        settings: Sections of the configuration, completed with ports and URLs; written to ``DIR/run.yaml``.
        parts: Processes in the order of their start.
        urls: For ``run.json`` and for people.
        ports: Hands out the ports.
        first_tap: Where the taps' ports begin.
    """

    data: Path
    settings: dict[str, Any]
    ports: Ports
    first_tap: int
    parts: list[Part] = field(default_factory=list)
    urls: dict[str, Any] = field(default_factory=dict)

    @property
    def run_file(self) -> Path:
        """The settings as the parts read them."""
        return self.data / "run.yaml"

    def join(self, targets: Sequence[Mapping[str, Any]]) -> list[Part]:
        """Take servers that started later into the settings; returns the taps to start in front of them."""
        joined = _taps(targets, self.ports, self.first_tap, _former_taps(self.run_file))
        self.settings["agent"]["targets"] += joined
        self.urls["taps"] |= _tap_urls(joined)
        self.write()
        return [_tap(target, self.data, self.run_file) for target in joined if target.get("tap_port")]

    def write(self) -> None:
        """Write the settings where the parts read them."""
        temporary = self.run_file.with_suffix(".tmp")
        temporary.write_text(yaml.safe_dump(self.settings, sort_keys=False))
        temporary.replace(self.run_file)


def plan(
    data: Path,
    settings: Mapping[str, Any],
    targets: Sequence[Mapping[str, Any]],
    *,
    clickhouse: str = "",
    slos: Path | None = None,
    port_base: int | None = None,
    ports: Ports | None = None,
    say: Callable[[str], None],
) -> Plan:
    """Lay out the parts of ``servescope up``.

    Args:
        data: Data folder, made if missing.
        settings: Sections of the configuration.
        targets: Model servers, each with instance, deployment, engine, url, metrics_url and optionally tap_port.
        clickhouse: URL of a ClickHouse server, may carry ``user:password@``; "" starts the embedded store. Credentials
            reach the parts through their environment, never arguments, files or the terminal.
        slos: SLO file; without one only the pager's own rules run.
        port_base: First port; every port is fixed then.
        ports: Has handed out others already.
        say: Prints a line about a port that gave way.

    Raises:
        PortInUseError: A port that was asked for is taken.
    """
    keys = ensure_keys(data / "keys")
    ports = ports or Ports(say)
    asked = dict(zip(DEFAULT_PORTS, range(port_base, port_base + len(DEFAULT_PORTS)), strict=True)) if port_base else {}
    sections = {name: dict(settings.get(name) or {}) for name in _SECTIONS}
    asked |= {what: sections[part][key] for what, (part, key) in _CONFIGURED.items() if key in sections[part]}
    url = clickhouse or sections["collector"].get("clickhouse") or ""
    port = {
        what: ports.take(what.replace("_", " "), default, asked.get(what))
        for what, default in DEFAULT_PORTS.items()
        if not (what == "store" and url) and asked.get(what, default) is not None
    }
    at = {what: _url(sections[part].get(host), port[what]) for what, (part, host) in _HOSTS.items() if what in port}
    first_tap = FIRST_TAP_PORT if port_base is None else port_base + _TAP_OFFSET
    made = Plan(data=data, settings=sections, ports=ports, first_tap=first_tap)
    run = made.run_file
    if not url:
        url = f"http://127.0.0.1:{port['store']}"
        made.parts.append(Part(
            "store",
            python("collector.embedded", "--data", data / "store", "--port", port["store"],
                    "--owner-hash-file", keys.store_owner_hash_file),
            ready_url=f"{url}/ping",
        ))  # fmt: skip
    secret = {"SERVESCOPE_CLICKHOUSE": url} if "@" in url else {}
    url = without_credentials(url)
    where: list[object] = [] if secret else ["--clickhouse", url]
    fixed = port_base is not None
    tapped = _taps(targets, ports, first_tap, {} if fixed else _former_taps(run), fixed=fixed)
    sections["collector"] |= {"port": port["otlp"], "clickhouse": url}
    sections["agent"] |= {
        "collector": at["otlp"],
        "targets": tapped,
        "otlp_http_port": port.get("agent_otlp_http"),
        "otlp_grpc_port": port.get("agent_otlp_grpc"),
        "health_port": port["agent_health"],
    }
    sections["dashboard"] |= {"port": port["dashboard"]}
    sections["alerts"] |= {
        "health_port": port["alerts_health"],
        "receiver_port": port["receiver"],
        "dashboard_url": sections["alerts"].get("dashboard_url") or at["dashboard"],
        **({"slos": str(slos.absolute())} if slos is not None else {}),
    }
    made.parts += [
        Part(
            "collector",
            python("collector", "--data", data, "--port", port["otlp"], *where, "--config", run),
            environment=secret,
            ready_url=f"{at['otlp']}/healthz",
        ),
        Part(
            "agent",
            python("agent", "--data", data, "--config", run),
            ready_url=f"{at['agent_health']}/healthz",
        ),
        *(_tap(target, data, run) for target in tapped if target.get("tap_port")),
    ]
    alerts = ["--data", data, *where, "--config", run]
    if slos is not None:
        alerts += ["--slos", slos]
    made.parts += [
        Part(
            "alerts", python("alerts", *alerts), environment=secret,
            ready_url=f"{at['alerts_health']}/healthz",
        ),
        Part(
            "dashboard",
            python("dashboard", "--data", data, *where, "--config", run,
                   *(["--slos", slos] if slos is not None else [])),
            environment=secret,
            ready_url=f"{at['dashboard']}/_stcore/health",
            required=False,
        ),
    ]  # fmt: skip
    made.urls = {
        "store": url,
        "otlp": at["otlp"],
        "collector_health": f"{at['otlp']}/healthz",
        **{what.removesuffix("_http"): at[what] for what in _RECEIVERS if what in at},
        "agent_health": at["agent_health"],
        "alerts_health": at["alerts_health"],
        "dashboard": at["dashboard"],
        "taps": _tap_urls(tapped),
    }
    made.write()
    return made


def without_credentials(url: str) -> str:
    """The URL without ``user:password@``, fit for files, arguments and people."""
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))


def _url(host: str | None, port: int) -> str:
    """Where to reach, from this machine, what listens on an address of the configuration."""
    if host in {None, "", "0.0.0.0", "::"}:  # noqa: S104 - nothing is opened here
        return f"http://127.0.0.1:{port}"
    return f"http://[{host}]:{port}" if ":" in str(host) else f"http://{host}:{port}"


def _taps(
    targets: Sequence[Mapping[str, Any]], ports: Ports, start: int, former: Mapping[str, int], *, fixed: bool = False
) -> list[dict[str, Any]]:
    made = []
    for number, target in enumerate(targets):
        tapped = dict(target)
        if tapped.pop("tap", True) and tapped.get("url"):
            asked = tapped.get("tap_port") or (start + number if fixed else None)
            default = former.get(tapped["instance"], start + number)
            tapped["tap_port"] = ports.take(f"the tap of {tapped['instance']}", default, asked)
        made.append(tapped)
    return made


def _former_taps(run: Path) -> dict[str, int]:
    """Ports of the last run's taps: clients point at them, whatever order servers are found in this time."""
    try:
        targets = yaml.safe_load(run.read_text())["agent"]["targets"]
        return {target["instance"]: int(target["tap_port"]) for target in targets if target.get("tap_port")}
    except (OSError, yaml.YAMLError, KeyError, TypeError, ValueError, AttributeError):
        return {}


def _tap_urls(targets: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    return {t["instance"]: f"http://127.0.0.1:{t['tap_port']}" for t in targets if t.get("tap_port")}


def _tap(target: Mapping[str, Any], data: Path, run: Path) -> Part:
    deployment = target.get("deployment") or target["instance"]
    return Part(
        f"tap-{target['instance']}",
        python(
            "agent.tap", "--instance", target["instance"], "--deployment", deployment,
            "--engine", target.get("engine") or "auto", "--upstream", target["url"], "--port", target["tap_port"],
            "--spool", data / "spool", "--keys", data / "keys", "--config", run,
        ),
    )  # fmt: skip


def python(module: str, *arguments: object) -> list[str]:
    """Command that runs a module of ours with this interpreter."""
    return [sys.executable, "-m", module, *(str(argument) for argument in arguments)]
