"""From settings to processes: which parts run, on which ports, with which arguments."""

from __future__ import annotations

import socket
import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit, urlunsplit

import yaml

from agent.config import TLS_FILES
from agent.tap.config import TapLimits
from base.errors import ConfigError
from base.keys import ensure_keys
from servescope.config_file import SECTIONS, named_ports
from servescope.launch.ports import Ports
from servescope.launch.supervisor import Part

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from base.keys import Keys

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
_HOSTS: Final = {
    "otlp": ("collector", "host"),
    "agent_otlp_http": ("agent", "otlp_host"),
    "agent_otlp_grpc": ("agent", "otlp_host"),
    "agent_health": ("agent", "health_host"),
    "alerts_health": ("alerts", "health_host"),
    "dashboard": ("dashboard", "host"),
}
"""Where the configuration names the address that a port is opened on."""
_RECEIVERS: Final = ("agent_otlp_http", "agent_otlp_grpc")
FIRST_TAP_PORT: Final = 9080
_END_SECONDS: Final = 10.0
"""For a tap to write its last records after its drain."""
_TAP_OFFSET: Final = 20


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
    settings: dict[str, Any] = field(repr=False)  # URLs in it may hold passwords
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
        drain = _drain_seconds(self.settings)
        return [_tap(target, self.data, self.run_file, drain) for target in joined if target.get("tap_port")]

    def write(self) -> None:
        """Write the settings where the parts read them."""
        temporary = self.run_file.with_suffix(".tmp")
        temporary.unlink(missing_ok=True)
        # For its owner alone: a URL in it may hold a password.
        temporary.touch(0o600, exist_ok=False)
        temporary.write_text(yaml.safe_dump(self.settings, sort_keys=False))
        temporary.replace(self.run_file)


def make_plan(
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
        ConfigError: This machine can't listen on an address of the configuration, or parts are to speak TLS.
    """
    keys = ensure_keys(data / "keys")
    _check_plain(settings)
    ports = ports or Ports(say)
    asked = dict(zip(DEFAULT_PORTS, range(port_base, port_base + len(DEFAULT_PORTS)), strict=True)) if port_base else {}
    sections = {name: dict(settings.get(name) or {}) for name in SECTIONS}
    asked |= {what: sections[part][key] for what, (part, key) in named_ports().items() if key in sections[part]}
    url = clickhouse or sections["collector"].get("clickhouse") or ""
    port = {
        what: ports.take(what.replace("_", " "), default, asked.get(what))
        for what, default in DEFAULT_PORTS.items()
        if not (what == "store" and url) and asked.get(what, default) is not None
    }
    for part, setting in set(_HOSTS.values()):
        _check_bindable(f"{part}.{setting}", sections[part].get(setting))
    at = {what: _url(sections[part].get(host), port[what]) for what, (part, host) in _HOSTS.items() if what in port}
    first_tap = FIRST_TAP_PORT if port_base is None else port_base + _TAP_OFFSET
    made = Plan(data=data, settings=sections, ports=ports, first_tap=first_tap)
    run = made.run_file
    if not url:
        store, url = store_part(data, keys, port["store"])
        made.parts.append(store)
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
        *(_tap(target, data, run, _drain_seconds(sections)) for target in tapped if target.get("tap_port")),
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


def _check_plain(settings: Mapping[str, Any]) -> None:
    """That no TLS is wanted between the parts.

    Raises:
        ConfigError: It is; names the setting.
    """
    for section, names in (("collector", ("certificate_file",)), ("agent", TLS_FILES)):
        for name in names:
            if (settings.get(section) or {}).get(name):
                alone = "a collector that runs" if section == "collector" else "an agent that runs"
                raise ConfigError(
                    f"{section}.{name} is for {alone} by itself: the parts of one machine speak plainly",
                    "Take it out, or start the parts one by one (servescope collector, servescope agent)",
                )


def _check_bindable(setting: str, host: str | None) -> None:
    """Whether this machine can listen on an address of the configuration.

    Raises:
        ConfigError: It has no such address.
    """
    if not host:
        return
    try:
        found = socket.getaddrinfo(host, 0, type=socket.SOCK_STREAM)
        with socket.socket(found[0][0], socket.SOCK_STREAM) as probe:
            probe.bind(found[0][4])
    except OSError as error:
        raise ConfigError(
            f"{setting} is {host}, on which this machine can't listen: {error.strerror or error}",
            "Name an address of this machine, such as 127.0.0.1 or 0.0.0.0",
        ) from error


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


def _server(url: str) -> str:
    """The URL as an argument: what is secret in it is of no use to a tap, which sends what its clients send."""
    return urlunsplit(urlsplit(without_credentials(url))._replace(query="", fragment=""))


def _drain_seconds(sections: Mapping[str, Any]) -> float:
    return TapLimits.model_validate(sections["agent"].get("tap") or {}).drain_seconds


def _tap(target: Mapping[str, Any], data: Path, run: Path, drain_seconds: float) -> Part:
    deployment = target.get("deployment") or target["instance"]
    return Part(
        f"tap-{target['instance']}",
        python(
            "agent.tap", "--instance", target["instance"], "--deployment", deployment,
            "--engine", target.get("engine") or "auto", "--upstream", _server(target["url"]),
            "--port", target["tap_port"],
            "--spool", data / "spool", "--keys", data / "keys", "--config", run,
        ),
        listen=("127.0.0.1", target["tap_port"]),
        stop_seconds=drain_seconds + _END_SECONDS,
    )  # fmt: skip


def store_part(data: Path, keys: Keys, port: int, host: str = "127.0.0.1") -> tuple[Part, str]:
    """The embedded store over a data folder, and its URL on this machine."""
    url = _url(host, port)
    command = python(
        "collector.embedded", "--data", data / "store", "--host", host, "--port", port,
        "--owner-hash-file", keys.store_owner_hash_file,
    )  # fmt: skip
    return Part("store", command, ready_url=f"{url}/ping"), url


def python(module: str, *arguments: object) -> list[str]:
    """Command that runs a module of ours with this interpreter."""
    return [sys.executable, "-m", module, *(str(argument) for argument in arguments)]
